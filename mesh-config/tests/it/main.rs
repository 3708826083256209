//! How a bootstrap is read, from the outside.

mod bounds;
mod convert;
mod dynamic;
mod errors;
mod unsupported;
mod values;
mod verdicts;
