use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use super::{Format, FormatContext, Piece, RequestView};
use crate::Facts;

/// A request header that a format reads, pseudo headers included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestField {
    /// `:method`.
    Method,
    /// `:path`.
    Path,
    /// `:authority`, also known as `Host`.
    Authority,
    /// `:scheme`.
    Scheme,
    /// Any other; its first value counts.
    Header(HeaderName),
}

impl RequestField {
    /// The field of that name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Some(match name.as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            _ => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
        })
    }

    /// The bytes of the field in `request`.
    #[must_use]
    pub fn read<'a>(&self, request: &RequestView<'a>) -> Option<&'a [u8]> {
        match self {
            Self::Method => Some(request.method.as_str().as_bytes()),
            // CONNECT has none.
            Self::Path => Some(request.path.as_bytes()).filter(|path| !path.is_empty()),
            Self::Authority => request.authority,
            Self::Scheme => Some(request.scheme.as_bytes()),
            Self::Header(name) => request.headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    fn capture(&self, request: &RequestView<'_>) -> Option<HeaderValue> {
        match self {
            // The two that are always static text cost no allocation.
            Self::Method => Some(method(request.method)),
            Self::Scheme if request.scheme == "https" => Some(HeaderValue::from_static("https")),
            Self::Scheme if request.scheme == "http" => Some(HeaderValue::from_static("http")),
            Self::Authority => match request.headers.get(header::HOST) {
                Some(host) => Some(host.clone()),
                None => HeaderValue::from_bytes(request.authority?).ok(),
            },
            Self::Header(name) => request.headers.get(name).cloned(),
            Self::Path | Self::Scheme => HeaderValue::from_bytes(self.read(request)?).ok(),
        }
    }
}

fn method(method: &http::Method) -> HeaderValue {
    match method.as_str() {
        "GET" => HeaderValue::from_static("GET"),
        "POST" => HeaderValue::from_static("POST"),
        "PUT" => HeaderValue::from_static("PUT"),
        "DELETE" => HeaderValue::from_static("DELETE"),
        "HEAD" => HeaderValue::from_static("HEAD"),
        "PATCH" => HeaderValue::from_static("PATCH"),
        "OPTIONS" => HeaderValue::from_static("OPTIONS"),
        other => {
            HeaderValue::from_str(other).unwrap_or_else(|_| HeaderValue::from_static("INVALID"))
        }
    }
}

impl fmt::Display for RequestField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Authority => ":authority",
            Self::Scheme => ":scheme",
            Self::Header(name) => name.as_str(),
        })
    }
}

/// The request headers that several formats need, each once, in a fixed order.
///
/// It is filled while config is loaded, and asked once per request, when the request's headers are final.
/// The formats that were bound find their values in [`Facts::captured`] by position. It grows with the
/// config and never with traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures {
    fields: Vec<RequestField>,
    tests: Vec<RequestTest>,
    pub(super) timings: bool,
}

impl Captures {
    /// Adds what `format` needs and tells `format` where to find it. A format belongs to one list: bound
    /// again, it forgets the list before.
    pub fn bind(&mut self, format: &mut Format) {
        for piece in &mut format.pieces {
            if let Piece::Operator(operator) = piece {
                operator.bind(self);
            }
        }
    }

    /// Adds one field, for a reader that is not a format, and says where its value will be.
    pub fn add(&mut self, field: &RequestField) -> usize {
        let known = self.fields.iter().position(|known| known == field);
        known.unwrap_or_else(|| {
            self.fields.push(field.clone());
            self.fields.len() - 1
        })
    }

    /// Lets `test` be asked while the request is at hand, and find its answer later. As a format, it belongs
    /// to one list.
    pub fn bind_test(&mut self, test: &mut RequestTest) {
        test.captured = Some(self.tests.len());
        self.tests.push(test.clone());
    }

    /// Whether a format asks for the times of an attempt: when it began, got its connection, was sent, and when
    /// the last byte of its answer came.
    #[must_use]
    pub const fn wants_timings(&self) -> bool {
        self.timings
    }

    /// Whether nothing is wanted of a request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.tests.is_empty()
    }

    /// What will be captured, in order.
    #[must_use]
    pub fn fields(&self) -> &[RequestField] {
        &self.fields
    }

    /// The answers for [`Facts::passed`].
    #[must_use]
    pub fn test(&self, request: &RequestView<'_>) -> SmallVec<[bool; 8]> {
        self.tests.iter().map(|test| (test.test)(request)).collect()
    }

    /// The values for [`Facts::captured`].
    #[must_use]
    pub fn capture(&self, request: &RequestView<'_>) -> SmallVec<[Option<HeaderValue>; 8]> {
        self.fields
            .iter()
            .map(|field| field.capture(request))
            .collect()
    }
}

/// A test on the head of a request for a reader that comes when the request has long gone: it is asked when
/// the head is captured.
#[derive(Clone)]
pub struct RequestTest {
    test: Arc<dyn Fn(&RequestView<'_>) -> bool + Send + Sync>,
    captured: Option<usize>,
}

impl RequestTest {
    /// Asks `test`.
    pub fn new(test: impl Fn(&RequestView<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self {
            test: Arc::new(test),
            captured: None,
        }
    }

    /// Whether the request passes: the one at hand, or else as it was captured. `false` if neither is there.
    #[must_use]
    pub fn passes(&self, context: &FormatContext<'_>, facts: &Facts) -> bool {
        match &context.request {
            Some(request) => (self.test)(request),
            None => self
                .captured
                .and_then(|index| facts.passed.get(index).copied())
                .unwrap_or(false),
        }
    }
}

/// The same if they are clones of each other.
impl PartialEq for RequestTest {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.test, &other.test) && self.captured == other.captured
    }
}

impl Eq for RequestTest {}

impl fmt::Debug for RequestTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestTest")
    }
}

/// A field that an operator reads, and its place in the captures once it is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) field: RequestField,
    captured: Option<usize>,
}

impl Slot {
    pub(super) const fn new(field: RequestField) -> Self {
        Self {
            field,
            captured: None,
        }
    }

    pub(super) fn bind(&mut self, captures: &mut Captures) {
        self.captured = Some(captures.add(&self.field));
    }

    pub(super) fn read<'a>(
        &self,
        request: Option<&RequestView<'a>>,
        facts: &'a Facts,
    ) -> Option<&'a [u8]> {
        match request {
            Some(request) => self.field.read(request),
            None => {
                let value = facts.captured.get(self.captured?)?;
                value.as_ref().map(HeaderValue::as_bytes)
            }
        }
    }
}
