use std::{borrow::Cow, fmt, mem::MaybeUninit};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header, uri::PathAndQuery,
};
use mesh_core::TunnelRequest;
use smallvec::SmallVec;

use super::framing::{self, Ambiguous, BodyLength, has_token};
use crate::authority;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, at least 1 KiB. Envoy: `max_request_headers_kb`, 60 KiB. Beyond it: 431.
    pub bytes: usize,
    /// Header fields, at most [`HeadLimits::COUNT_MAX`]. Envoy: `max_headers_count`, 100. Beyond it: 431.
    pub count: usize,
}

impl HeadLimits {
    /// More header fields than this are never accepted.
    pub const COUNT_MAX: usize = 1024;
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            bytes: 60 * 1024,
            count: 100,
        }
    }
}

/// Why a message was refused before anybody saw it as a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The answer.
    pub status: StatusCode,
    /// `%RESPONSE_CODE_DETAILS%`: a word that names the rule.
    pub details: &'static str,
    /// What was wrong, for people.
    pub reason: Cow<'static, str>,
}

impl Malformed {
    pub(crate) const fn bad(details: &'static str, reason: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            details,
            reason: Cow::Borrowed(reason),
        }
    }

    const fn status(status: StatusCode, details: &'static str, reason: &'static str) -> Self {
        Self {
            status,
            details,
            reason: Cow::Borrowed(reason),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.details)
    }
}

impl std::error::Error for Malformed {}

impl From<Ambiguous> for Malformed {
    fn from(ambiguous: Ambiguous) -> Self {
        match ambiguous {
            Ambiguous::ContentLength => Self::bad(
                "http1.invalid_content_length",
                "content-length is not one number",
            ),
            Ambiguous::Both => Self::bad(
                "http1.content_length_and_chunked_not_allowed",
                "both content-length and transfer-encoding",
            ),
            Ambiguous::TransferEncoding => Self::status(
                StatusCode::NOT_IMPLEMENTED,
                "http1.invalid_transfer_encoding",
                "a transfer coding other than one chunked",
            ),
            Ambiguous::TransferEncodingInHttp10 => Self::bad(
                "http1.transfer_encoding_in_http10",
                "a transfer coding in an HTTP/1.0 message",
            ),
        }
    }
}

/// A request's head, in the house's canonical form: an origin-form target and one valid `host`.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) request: Request<()>,
    pub(crate) length: BodyLength,
    pub(crate) http10: bool,
    pub(crate) keep_alive: bool,
    pub(crate) expect_continue: bool,
    /// It asks for a tunnel: what follows the head is nobody's before the answer grants it.
    pub(crate) tunnel: Option<TunnelRequest>,
}

/// A response's head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) response: Response<()>,
    pub(crate) length: BodyLength,
    pub(crate) keep_alive: bool,
}

/// Whether it is worth parsing: avoids reading a trickled head again with every byte.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    seen: usize,
    tried: usize,
}

impl HeadScan {
    /// Whether `buf` holds the end of a head, or was never tried, or has doubled since.
    pub(crate) fn ripe(&mut self, buf: &[u8]) -> bool {
        let from = self.seen.saturating_sub(2).min(buf.len());
        self.seen = buf.len();
        let complete = memchr::memchr_iter(b'\n', &buf[from..]).any(|at| {
            let rest = &buf[from + at + 1..];
            rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
        });
        let ripe = complete || buf.len() >= 2 * self.tried;
        if ripe {
            self.tried = buf.len();
        }
        ripe
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

type Ranges = SmallVec<[[(usize, usize); 2]; 32]>;

/// Where names and values lie within the head.
fn note_ranges(buf: &[u8], headers: &[httparse::Header<'_>], ranges: &mut Ranges) {
    let base = buf.as_ptr() as usize;
    let range = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        (start, start + part.len())
    };
    let each = headers.iter();
    ranges.extend(each.map(|h| [range(h.name.as_bytes()), range(h.value)]));
}

fn header_map(head: &Bytes, ranges: &Ranges) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(ranges.len() + 8);
    for [name, value] in ranges {
        let name = HeaderName::from_bytes(&head[name.0..name.1]).ok()?;
        let value = if value.0 == value.1 {
            HeaderValue::from_static("")
        } else {
            HeaderValue::from_maybe_shared(head.slice(value.0..value.1)).ok()?
        };
        map.append(name, value);
    }
    Some(map)
}

/// Runs `parse` with room for `count` headers: on the stack for the usual number.
macro_rules! with_slots {
    ($count:expr, |$slots:ident| $body:expr) => {
        if $count <= 128 {
            let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; 128];
            let $slots = &mut slots[..$count];
            $body
        } else {
            let mut slots = vec![MaybeUninit::<httparse::Header<'_>>::uninit(); $count];
            let $slots = &mut slots[..];
            $body
        }
    };
}

/// Takes a request's head off `buf`; `None` while it is incomplete.
pub(crate) fn parse_request(
    buf: &mut BytesMut,
    limits: HeadLimits,
) -> Result<Option<RequestHead>, Malformed> {
    let too_large = || {
        Malformed::status(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "http1.headers_too_large",
            "the head is larger than allowed",
        )
    };
    let count = limits.count.min(HeadLimits::COUNT_MAX);
    // Filled where it lies: it is large.
    let mut ranges = Ranges::new();
    let (len, method, target, http10) = with_slots!(count, |slots| {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(&buf[..], slots) {
            Ok(httparse::Status::Complete(len)) => {
                let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes());
                let target = parsed.path.unwrap_or_default().as_bytes();
                let start = target.as_ptr() as usize - buf.as_ptr() as usize;
                let target = (start, start + target.len());
                note_ranges(buf, parsed.headers, &mut ranges);
                (len, method, target, parsed.version == Some(0))
            }
            Ok(httparse::Status::Partial) if buf.len() > limits.bytes => return Err(too_large()),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(refused(error)),
        }
    });
    if len > limits.bytes {
        return Err(too_large());
    }
    let head = buf.split_to(len).freeze();
    let method =
        method.map_err(|_| Malformed::bad("http1.codec_error", "the method is malformed"))?;
    let mut headers = header_map(&head, &ranges)
        .ok_or(Malformed::bad("http1.codec_error", "a header is malformed"))?;
    let uri = target_uri(&method, head.slice(target.0..target.1), &mut headers)?;
    finish_request(method, uri, headers, http10).map(Some)
}

fn refused(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::status(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "http1.too_many_headers",
            "more header fields than allowed",
        ),
        httparse::Error::Version => Malformed::status(
            StatusCode::UPGRADE_REQUIRED,
            "low_version",
            "the protocol version is not HTTP/1.x",
        ),
        httparse::Error::HeaderName => {
            Malformed::bad("http1.codec_error", "a header name is malformed")
        }
        httparse::Error::HeaderValue => {
            Malformed::bad("http1.invalid_characters", "a header value is malformed")
        }
        _ => Malformed::bad("http1.codec_error", "the request line is malformed"),
    }
}

/// Brings the target into origin form, and `host` with it.
fn target_uri(method: &Method, target: Bytes, headers: &mut HeaderMap) -> Result<Uri, Malformed> {
    const BAD: Malformed = Malformed::bad("http1.invalid_url", "the request target is malformed");
    if target.iter().any(|b| !(0x21..=0x7e).contains(b)) {
        return Err(Malformed::bad(
            "http1.invalid_url",
            "the request target holds control or non-ASCII characters",
        ));
    }
    if memchr::memchr(b'#', &target).is_some() {
        return Err(Malformed::bad(
            "path_with_fragment_rejected",
            "the request target has a fragment",
        ));
    }
    if *method == Method::CONNECT {
        authority::valid(&target).then_some(()).ok_or(BAD)?;
        return Uri::from_maybe_shared(target).map_err(|_| BAD);
    }
    if target.starts_with(b"/") {
        return PathAndQuery::from_maybe_shared(target)
            .map(Uri::from)
            .map_err(|_| BAD);
    }
    if &target[..] == b"*" {
        return if *method == Method::OPTIONS {
            Ok(Uri::from_static("*"))
        } else {
            Err(BAD)
        };
    }
    absolute(target, headers).ok_or(BAD)
}

/// `http://host/path`: the target's authority replaces whatever `host` says (RFC 9112, section 3.2.2).
fn absolute(target: Bytes, headers: &mut HeaderMap) -> Option<Uri> {
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|s| {
        target
            .get(..s.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(s))
    })?;
    let rest = target.slice(scheme.len()..);
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    let host = rest.slice(..end);
    if !authority::valid(&host) || headers.get_all(header::HOST).iter().count() > 1 {
        return None;
    }
    headers.insert(header::HOST, HeaderValue::from_maybe_shared(host).ok()?);
    let path = rest.slice(end..);
    if path.is_empty() {
        return Some(Uri::from_static("/"));
    }
    if path.starts_with(b"?") {
        let path = [b"/", &path[..]].concat();
        return PathAndQuery::from_maybe_shared(Bytes::from(path))
            .map(Uri::from)
            .ok();
    }
    PathAndQuery::from_maybe_shared(path).map(Uri::from).ok()
}

fn finish_request(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    http10: bool,
) -> Result<RequestHead, Malformed> {
    let length = framing::declared(&headers, http10)?.unwrap_or(BodyLength::Empty);
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => {
            return Err(Malformed::bad(
                "http1.multiple_host_headers",
                "several host headers",
            ));
        }
        (Some(host), None) if !authority::valid(host.as_bytes()) => {
            return Err(Malformed::bad(
                "http1.invalid_host",
                "the host header is malformed",
            ));
        }
        (None, _) if !http10 && method != Method::CONNECT => {
            return Err(Malformed::bad("missing_host_header", "no host header"));
        }
        _ => {}
    }
    let keep_alive = if http10 {
        has_token(&headers, &header::CONNECTION, "keep-alive")
    } else {
        !has_token(&headers, &header::CONNECTION, "close")
    };
    let expect_continue = match headers.get(header::EXPECT) {
        None => false,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => !http10,
        Some(_) => {
            return Err(Malformed::status(
                StatusCode::EXPECTATION_FAILED,
                "http1.unknown_expectation",
                "an expectation other than 100-continue",
            ));
        }
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = if http10 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    *request.headers_mut() = headers;
    let tunnel = TunnelRequest::read(&request).filter(|_| !http10);
    if tunnel.is_some() && length != BodyLength::Empty {
        return Err(Malformed::bad(
            "http1.body_disallowed",
            "a request for a tunnel has a body",
        ));
    }
    Ok(RequestHead {
        request,
        length,
        http10,
        keep_alive,
        expect_continue,
        tunnel,
    })
}

/// Takes a response's head off `buf`; `None` while it is incomplete. `method` is that of the request.
pub(crate) fn parse_response(
    buf: &mut BytesMut,
    limits: HeadLimits,
    method: &Method,
) -> Result<Option<ResponseHead>, Malformed> {
    const LARGE: Malformed = Malformed::bad(
        "http1.headers_too_large",
        "the response head is larger than allowed",
    );
    let count = limits.count.min(HeadLimits::COUNT_MAX);
    let mut ranges = Ranges::new();
    let (len, status, http10) = with_slots!(count, |slots| {
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, &buf[..], slots) {
            Ok(httparse::Status::Complete(len)) => {
                note_ranges(buf, parsed.headers, &mut ranges);
                let status = parsed.code.unwrap_or_default();
                (len, status, parsed.version == Some(0))
            }
            Ok(httparse::Status::Partial) if buf.len() > limits.bytes => return Err(LARGE),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(refused(error)),
        }
    });
    if len > limits.bytes {
        return Err(LARGE);
    }
    let head = buf.split_to(len).freeze();
    let headers = header_map(&head, &ranges).ok_or(Malformed::bad(
        "http1.codec_error",
        "a response header is malformed",
    ))?;
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|s| (100..600).contains(&s.as_u16()))
        .ok_or(Malformed::bad(
            "http1.codec_error",
            "the status is not between 100 and 599",
        ))?;
    let declared = framing::declared(&headers, http10)?;
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let length = match declared {
        _ if bodiless => BodyLength::Empty,
        Some(length) => length,
        None => BodyLength::UntilClose,
    };
    let keep_alive = length != BodyLength::UntilClose
        && if http10 {
            has_token(&headers, &header::CONNECTION, "keep-alive")
        } else {
            !has_token(&headers, &header::CONNECTION, "close")
        };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Some(ResponseHead {
        response,
        length,
        keep_alive,
    }))
}

#[cfg(test)]
mod tests;
