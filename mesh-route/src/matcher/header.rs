use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::HOST};
use mesh_core::{
    format::{RequestField, RequestView},
    matcher::StringMatcher,
};

use crate::{RouteConfigError, inline};

/// A test on a header.
///
/// A header that is not there fails every test, inverted or not, except those for presence, unless
/// `treat_missing_header_as_empty` is set. Of several values of one header, one that passes is enough
/// (inverted: none may pass); only the headers that Envoy joins with commas are tested as one text.
///
/// # Envoy
/// `route.v3.HeaderMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatcher {
    name: HeaderField,
    test: HeaderMatch,
    /// Whether the answer is turned round; off by default.
    pub invert_match: bool,
    /// Whether a missing header is read as an empty one; off by default.
    pub treat_missing_header_as_empty: bool,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderField {
    /// A request header or pseudo header, or a response header.
    Field(RequestField),
    /// `:status`; missing in a request.
    Status,
}

impl HeaderField {
    /// The field of that name, in any case.
    ///
    /// # Errors
    /// When `name` cannot be the name of a header.
    pub fn new(name: &str) -> Result<Self, RouteConfigError> {
        if name.eq_ignore_ascii_case(":status") {
            return Ok(Self::Status);
        }
        RequestField::from_name(name)
            .map(Self::Field)
            .ok_or_else(|| RouteConfigError::new(format!("{name:?} is not a header name")))
    }
}

/// How a header is tested.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderMatch {
    /// It is there, or it is not. Envoy: `present_match`, and the default.
    Present(bool),
    /// It is a whole number from `start` up to, but not, `end`. Envoy: `range_match`.
    Range {
        /// The first number that passes.
        start: i64,
        /// The first number that no longer does.
        end: i64,
    },
    /// A test on its text. Envoy: `string_match`, and the older `exact_match` and so on.
    Text(StringMatcher),
}

impl HeaderMatcher {
    /// A test on the header `name`, which may be a pseudo header.
    ///
    /// # Errors
    /// When `name` cannot be the name of a header.
    pub fn new(name: &str, test: HeaderMatch) -> Result<Self, RouteConfigError> {
        Ok(Self {
            name: HeaderField::new(name)?,
            test,
            invert_match: false,
            treat_missing_header_as_empty: false,
        })
    }

    /// With the answer turned round.
    #[must_use]
    pub const fn inverted(mut self, invert: bool) -> Self {
        self.invert_match = invert;
        self
    }

    /// With a missing header read as an empty one.
    #[must_use]
    pub const fn missing_as_empty(mut self, as_empty: bool) -> Self {
        self.treat_missing_header_as_empty = as_empty;
        self
    }

    /// Whether these headers pass. Pseudo headers are missing here.
    #[must_use]
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        match &self.name {
            HeaderField::Field(RequestField::Header(name)) => {
                self.matches_header(headers, name, inline::is_inline(name))
            }
            HeaderField::Field(RequestField::Authority) => {
                self.matches_header(headers, &HOST, false)
            }
            _ => self.matches_one(None),
        }
    }

    /// Whether the request passes.
    #[must_use]
    pub fn matches_request(&self, request: &RequestView<'_>) -> bool {
        match &self.name {
            HeaderField::Field(RequestField::Header(name)) => {
                self.matches_header(request.headers, name, inline::is_inline(name))
            }
            HeaderField::Field(field) => self.matches_one(field.read(request)),
            HeaderField::Status => self.matches_one(None),
        }
    }

    /// Whether the response passes.
    #[must_use]
    pub fn matches_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match &self.name {
            HeaderField::Status => self.matches_one(Some(status.as_str().as_bytes())),
            HeaderField::Field(RequestField::Header(name)) => {
                self.matches_header(headers, name, inline::is_inline_response(name))
            }
            HeaderField::Field(_) => self.matches_one(None),
        }
    }

    fn matches_header(&self, headers: &HeaderMap, name: &HeaderName, joined: bool) -> bool {
        let values = || headers.get_all(name).iter().map(HeaderValue::as_bytes);
        if values().nth(1).is_none() {
            return self.matches_one(values().next());
        }
        if joined {
            return self.matches_one(Some(&inline::join(values())));
        }
        values().any(|value| self.test.passes(value)) != self.invert_match
    }

    fn matches_one(&self, value: Option<&[u8]>) -> bool {
        match value {
            None if !self.treat_missing_header_as_empty => {
                matches!(self.test, HeaderMatch::Present(present) if present == self.invert_match)
            }
            value => self.test.passes(value.unwrap_or_default()) != self.invert_match,
        }
    }
}

impl HeaderMatch {
    fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(present) => *present,
            Self::Range { start, end } => {
                integer(value).is_some_and(|value| (*start..*end).contains(&value))
            }
            Self::Text(matcher) => matcher.matches(value),
        }
    }
}

/// A whole number with an optional sign and white space around it.
pub(crate) fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
    use mesh_core::format::RequestView;

    use super::{HeaderMatch, HeaderMatcher};
    use crate::StringMatcher;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn text(name: &str, exact: &str) -> HeaderMatcher {
        HeaderMatcher::new(name, HeaderMatch::Text(StringMatcher::exact(exact))).unwrap()
    }

    fn present(present: bool) -> HeaderMatcher {
        HeaderMatcher::new("X-A", HeaderMatch::Present(present)).unwrap()
    }

    #[test]
    fn a_missing_header_fails_also_an_inverted_test() {
        let none = HeaderMap::new();
        assert!(!text("x-a", "v").matches(&none));
        assert!(!text("x-a", "v").inverted(true).matches(&none));
        assert!(
            text("x-a", "v")
                .inverted(true)
                .missing_as_empty(true)
                .matches(&none)
        );
        assert!(text("x-a", "").missing_as_empty(true).matches(&none));
        assert!(!text("x-a", "").matches(&none));
    }

    #[test]
    fn presence_is_the_exception_as_in_envoy() {
        let (none, some) = (HeaderMap::new(), headers(&[("x-a", "1")]));
        for (want, invert, as_empty, when_missing, when_there) in [
            (true, false, false, false, true),
            (true, true, false, true, false),
            (false, false, false, true, false),
            (false, true, false, false, true),
            (true, false, true, true, true),
            (false, false, true, false, false),
        ] {
            let matcher = present(want).inverted(invert).missing_as_empty(as_empty);
            assert_eq!(matcher.matches(&none), when_missing, "{matcher:?}");
            assert_eq!(matcher.matches(&some), when_there, "{matcher:?}");
        }
    }

    #[test]
    fn one_value_of_several_is_enough_and_inverted_none_may_pass() {
        let two = headers(&[("x-a", "1"), ("x-a", "2")]);
        assert!(text("x-a", "1").matches(&two));
        assert!(text("x-a", "2").matches(&two));
        assert!(!text("x-a", "1,2").matches(&two));
        assert!(!text("x-a", "2").inverted(true).matches(&two));
        assert!(text("x-a", "3").inverted(true).matches(&two));
    }

    #[test]
    fn headers_that_envoy_joins_are_tested_as_one_text() {
        let two = headers(&[("accept", "1"), ("accept", "2")]);
        assert!(text("accept", "1,2").matches(&two));
        assert!(!text("accept", "1").matches(&two));
    }

    #[test]
    fn a_range_is_half_open_and_takes_whole_numbers_only() {
        let range =
            |start, end| HeaderMatcher::new("x-a", HeaderMatch::Range { start, end }).unwrap();
        for (value, passes) in [
            ("1", true),
            ("4", true),
            ("5", false),
            ("0", false),
            ("+2", true),
            ("2x", false),
            ("", false),
            ("2.0", false),
            ("99999999999999999999", false),
        ] {
            assert_eq!(
                range(1, 5).matches(&headers(&[("x-a", value)])),
                passes,
                "{value}"
            );
        }
        assert!(range(-3, 0).matches(&headers(&[("x-a", "-3")])));
        assert!(!range(5, 1).matches(&headers(&[("x-a", "3")])));
    }

    #[test]
    fn pseudo_headers_belong_to_their_side() {
        let request = Request::put("/p?q").header("host", "h").body(()).unwrap();
        let view = RequestView::of(&request);
        assert!(text(":method", "PUT").matches_request(&view));
        assert!(text(":path", "/p?q").matches_request(&view));
        assert!(text("HOST", "h").matches_request(&view));
        assert!(text(":authority", "h").matches_request(&view));
        assert!(!text(":status", "200").matches_request(&view));
        let none = HeaderMap::new();
        assert!(text(":status", "200").matches_response(StatusCode::OK, &none));
        assert!(!text(":method", "PUT").matches(&none));
        assert!(HeaderMatcher::new("a b", HeaderMatch::Present(true)).is_err());
        assert!(HeaderMatcher::new("", HeaderMatch::Present(true)).is_err());
    }
}
