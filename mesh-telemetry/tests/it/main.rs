//! Exports against golden texts, and the log writer against real files.

mod export;
mod temp;
mod writer;
