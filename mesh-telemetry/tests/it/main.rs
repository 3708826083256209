//! Exports against golden texts, and the log writer against real files.

mod access;
mod export;
#[cfg(feature = "metrics")]
mod facade;
mod statsd;
mod temp;
mod writer;
