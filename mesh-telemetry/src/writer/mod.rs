//! Log lines on their way to files, off the data path.

mod buffer;
mod config;
mod metrics;
mod queue;
mod sink;
mod thread;

pub use config::{CHUNK_BYTES, LogWriterConfig, QUEUE_BYTES_MAX, Target};
pub use sink::{LogSink, LogWriter};
