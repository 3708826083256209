//! Tests on texts: header values, paths, names in certificates.

mod regex;
mod string;

use std::{borrow::Cow, fmt};

pub use regex::{CACHE_MAX, PATTERN_MAX, PROGRAM_MAX, RegexRewrite, SafeRegex};
pub use string::StringMatcher;

/// A test that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidMatcher(Cow<'static, str>);

impl InvalidMatcher {
    fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(reason.into())
    }

    /// Why.
    #[must_use]
    pub fn into_reason(self) -> Cow<'static, str> {
        self.0
    }
}

impl fmt::Display for InvalidMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidMatcher {}
