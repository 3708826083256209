//! The codecs and the pool over real bytes.

mod http2;
mod pool;
mod server;
