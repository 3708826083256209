use crate::RouteConfigError;
use mesh_core::matcher::StringMatcher;

/// A test on a query parameter, as it was sent: nothing is decoded. Only the first value of a name counts,
/// and `a` is read as `a=`.
///
/// # Envoy
/// `route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryParameterMatcher {
    name: Box<str>,
    test: QueryMatch,
}

/// How a query parameter is tested.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryMatch {
    /// It is there, or it is not. Envoy: `present_match`, and the default.
    Present(bool),
    /// A test on its value; a missing parameter fails. Envoy: `string_match`.
    Text(StringMatcher),
}

impl QueryParameterMatcher {
    /// A test on the parameter `name`.
    ///
    /// # Errors
    /// When `name` is empty or longer than 1024 bytes.
    pub fn new(name: impl Into<Box<str>>, test: QueryMatch) -> Result<Self, RouteConfigError> {
        let name = name.into();
        if name.is_empty() || name.len() > 1024 {
            return Err(RouteConfigError::new(
                "the name of a query parameter must have 1 to 1024 bytes",
            ));
        }
        Ok(Self { name, test })
    }

    /// Whether `query`, the text behind the question mark, passes.
    #[must_use]
    pub fn matches(&self, query: Option<&str>) -> bool {
        let value = query.and_then(|query| first_value(query, &self.name));
        match (&self.test, value) {
            (QueryMatch::Present(present), value) => *present == value.is_some(),
            (QueryMatch::Text(matcher), Some(value)) => matcher.matches(value.as_bytes()),
            (QueryMatch::Text(_), None) => false,
        }
    }
}

/// The value of the first parameter of that name, as it was sent.
pub(crate) fn first_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::{QueryMatch, QueryParameterMatcher};
    use crate::StringMatcher;

    #[test]
    fn the_first_raw_value_is_tested() {
        let present = |want| QueryParameterMatcher::new("a", QueryMatch::Present(want)).unwrap();
        let exact = |want: &str| {
            QueryParameterMatcher::new("a", QueryMatch::Text(StringMatcher::exact(want))).unwrap()
        };
        for (matcher, query, passes) in [
            (present(true), Some("a"), true),
            (present(true), Some("b=a&A=1"), false),
            (present(true), None, false),
            (present(false), Some("a="), false),
            (present(false), Some(""), true),
            (present(false), None, true),
            (exact("x%20y"), Some("b&a=x%20y"), true),
            (exact("x y"), Some("a=x%20y"), false),
            (exact("1"), Some("a=1&a=2"), true),
            (exact("2"), Some("a=1&a=2"), false),
            (exact(""), Some("a"), true),
            (exact(""), None, false),
            (exact("b=c"), Some("a=b=c"), true),
        ] {
            assert_eq!(matcher.matches(query), passes, "{matcher:?} {query:?}");
        }
        assert!(QueryParameterMatcher::new("", QueryMatch::Present(true)).is_err());
    }
}
