//! What a request or response must look like: strings, headers, query parameters.

mod header;
mod query;

pub use header::{HeaderField, HeaderMatch, HeaderMatcher};
pub use query::{QueryMatch, QueryParameterMatcher};
