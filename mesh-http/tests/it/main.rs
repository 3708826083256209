//! The codec and the pool over real bytes.

mod pool;
mod server;
