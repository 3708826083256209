//! What a request or response must look like: strings, headers, query parameters.

mod header;
mod query;

pub use header::{HeaderField, HeaderMatch, HeaderMatcher};
pub(crate) use query::first_value;
pub use query::{QueryMatch, QueryParameterMatcher};
