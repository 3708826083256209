use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri, Version, header, request};

use crate::RequestInfo;

/// Everything that operators may read, borrowed for one evaluation. What is left out is unset.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FormatContext<'a> {
    /// The request's facts.
    pub info: &'a RequestInfo,
    /// The request, while it is at hand; without it, request headers come from what was captured.
    pub request: Option<RequestView<'a>>,
    /// The response's status and headers.
    pub response: Option<(StatusCode, &'a HeaderMap)>,
    /// The response's trailers.
    pub trailers: Option<&'a HeaderMap>,
    /// The client's protocol; [`crate::Facts::protocol`] is read if this is `None`.
    pub protocol: Option<Version>,
    /// When the last byte went to the client: the end of `%DURATION%`.
    pub end: Option<Instant>,
    /// `%EMIT_TIME%`; the wall clock is read if this is `None`.
    pub emitted: Option<SystemTime>,
    /// `%LOCAL_REPLY_BODY%`.
    pub local_reply_body: Option<&'a [u8]>,
    /// `%ACCESS_LOG_TYPE%`.
    pub log_type: AccessLogType,
}

impl<'a> FormatContext<'a> {
    /// Only the facts.
    #[must_use]
    pub const fn new(info: &'a RequestInfo) -> Self {
        Self {
            info,
            request: None,
            response: None,
            trailers: None,
            protocol: None,
            end: None,
            emitted: None,
            local_reply_body: None,
            log_type: AccessLogType::NotSet,
        }
    }

    /// With the request.
    #[must_use]
    pub const fn with_request(mut self, request: RequestView<'a>) -> Self {
        self.request = Some(request);
        self
    }

    /// With the response's head.
    #[must_use]
    pub const fn with_response(mut self, status: StatusCode, headers: &'a HeaderMap) -> Self {
        self.response = Some((status, headers));
        self
    }

    /// With the response's trailers.
    #[must_use]
    pub const fn with_trailers(mut self, trailers: Option<&'a HeaderMap>) -> Self {
        self.trailers = trailers;
        self
    }

    /// The exchange's gRPC status, from trailers, headers, or what the HTTP status amounts to, whether it is
    /// gRPC or not; -1 for one that cannot be read. `None` without a response.
    #[must_use]
    pub fn grpc_status(&self) -> Option<i64> {
        super::grpc::status_of(self)
    }

    /// With the end of the exchange.
    #[must_use]
    pub const fn with_end(mut self, end: Instant) -> Self {
        self.end = Some(end);
        self
    }
}

/// The head of a request, as operators read it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestView<'a> {
    /// `:method`.
    pub method: &'a Method,
    /// `:path`: path and query.
    pub path: &'a str,
    /// `:authority`: the `Host` header, or the authority of an absolute URI.
    pub authority: Option<&'a [u8]>,
    /// `:scheme`: of the URI, or what `x-forwarded-proto` says, or `http`.
    pub scheme: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestView<'a> {
    /// The head of `request`.
    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self::new(request.method(), request.uri(), request.headers())
    }

    /// The same for a request that was taken apart.
    #[must_use]
    pub fn of_parts(parts: &'a request::Parts) -> Self {
        Self::new(&parts.method, &parts.uri, &parts.headers)
    }

    /// From its parts.
    #[must_use]
    pub fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self {
            method,
            path: uri.path_and_query().map_or("", |path| path.as_str()),
            authority: headers
                .get(header::HOST)
                .map(|host| host.as_bytes())
                .or_else(|| {
                    uri.authority()
                        .map(|authority| authority.as_str().as_bytes())
                }),
            scheme: uri.scheme_str().unwrap_or_else(|| scheme(headers)),
            headers,
        }
    }
}

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

fn scheme(headers: &HeaderMap) -> &'static str {
    match headers.get(&FORWARDED_PROTO) {
        Some(proto) if proto.as_bytes().eq_ignore_ascii_case(b"https") => "https",
        _ => "http",
    }
}

/// Why a log line is written. `%ACCESS_LOG_TYPE%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AccessLogType {
    /// Not a log line.
    #[default]
    NotSet,
    /// A connection began.
    TcpConnectionStart,
    /// A connection ended.
    TcpConnectionEnd,
    /// A request began.
    DownstreamStart,
    /// A request goes on.
    DownstreamPeriodic,
    /// A request ended.
    DownstreamEnd,
    /// A tunnel through the proxy was opened.
    DownstreamTunnelSuccessfullyEstablished,
    /// An upstream request got its connection.
    UpstreamPoolReady,
    /// An upstream request goes on.
    UpstreamPeriodic,
    /// An upstream request ended.
    UpstreamEnd,
}

impl AccessLogType {
    /// Every type that there is here.
    pub const ALL: [Self; 10] = [
        Self::NotSet,
        Self::TcpConnectionStart,
        Self::TcpConnectionEnd,
        Self::DownstreamStart,
        Self::DownstreamPeriodic,
        Self::DownstreamEnd,
        Self::DownstreamTunnelSuccessfullyEstablished,
        Self::UpstreamPoolReady,
        Self::UpstreamPeriodic,
        Self::UpstreamEnd,
    ];

    /// The word that is printed.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::TcpConnectionStart => "TcpConnectionStart",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
            Self::DownstreamTunnelSuccessfullyEstablished => {
                "DownstreamTunnelSuccessfullyEstablished"
            }
            Self::UpstreamPoolReady => "UpstreamPoolReady",
            Self::UpstreamPeriodic => "UpstreamPeriodic",
            Self::UpstreamEnd => "UpstreamEnd",
        }
    }
}
