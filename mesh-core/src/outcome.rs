use http::{HeaderMap, HeaderName, Response, header};

use crate::{Error, ErrorKind};

/// How an attempt ended, as far as health and breakers care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer with this HTTP status; for gRPC, the HTTP equivalent of a `grpc-status` in the headers.
    Status(u16),
    /// No answer.
    Failure(ErrorKind),
}

impl Outcome {
    /// Whether the endpoint did its work: an answer below 500.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Status(status) if status < 500)
    }
}

/// Reads an [`Outcome`] off a result.
///
/// `None` means that the result says nothing about the upstream (a local refusal, say) and must not be
/// counted.
pub trait Classify<T> {
    /// The outcome of `result`.
    fn classify(&self, result: Result<&T, &Error>) -> Option<Outcome>;
}

impl<T, F: Fn(Result<&T, &Error>) -> Option<Outcome>> Classify<T> for F {
    fn classify(&self, result: Result<&T, &Error>) -> Option<Outcome> {
        self(result)
    }
}

/// Classifies HTTP responses by status and, for gRPC, by `grpc-status` in the headers.
///
/// Local refusals that never reached an endpoint (overflow, open breaker, rate limit, no route) are not
/// counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpClassify;

impl<B> Classify<Response<B>> for HttpClassify {
    fn classify(&self, result: Result<&Response<B>, &Error>) -> Option<Outcome> {
        match result {
            Ok(response) => Some(Outcome::Status(
                grpc_status(response.headers())
                    .map_or_else(|| response.status().as_u16(), grpc_to_http_status),
            )),
            Err(error) => match error.kind() {
                ErrorKind::Overflow(_)
                | ErrorKind::BreakerOpen
                | ErrorKind::RateLimited
                | ErrorKind::NoRoute
                | ErrorKind::NoCluster
                | ErrorKind::NoHealthyUpstream
                | ErrorKind::DownstreamProtocol
                | ErrorKind::DownstreamGone
                | ErrorKind::DownstreamReset
                | ErrorKind::RequestReceiveTimeout
                | ErrorKind::StreamDuration
                | ErrorKind::TooLarge
                | ErrorKind::Denied
                | ErrorKind::FaultInjected
                | ErrorKind::Unavailable => None,
                kind => Some(Outcome::Failure(kind)),
            },
        }
    }
}

/// Where gRPC says how a call ended.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The `grpc-status` of a trailers-only gRPC answer.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let content_type = headers.get(header::CONTENT_TYPE)?.as_bytes();
    if !content_type.starts_with(b"application/grpc") {
        return None;
    }
    headers.get(&GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Envoy's mapping of gRPC codes to HTTP statuses.
#[must_use]
pub const fn grpc_to_http_status(code: u16) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
