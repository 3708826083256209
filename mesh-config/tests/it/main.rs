//! How a bootstrap is read, from the outside.

mod bounds;
mod convert;
mod document;
mod dynamic;
mod errors;
mod unsupported;
mod values;
mod verdicts;
