//! Export of stats and access logs.

mod escape;
mod export;
mod writer;

pub use export::{
    FILTER_BYTES_MAX, Format, InvalidQuery, InvalidTag, Kinds, Query, TAG_RULES_MAX, TagSpecifier,
    Tags, render, render_json, render_prometheus, render_text,
};
pub use writer::{CHUNK_BYTES, LogSink, LogWriter, LogWriterConfig, QUEUE_BYTES_MAX, Target};
