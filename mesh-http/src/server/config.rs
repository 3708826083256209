use std::time::Duration;

use http::HeaderValue;

use crate::{h1::HeadLimits, h2::Http2Config};

/// Which protocol a listener speaks. Envoy: `HttpConnectionManager.codec_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodecType {
    /// HTTP/2 when the connection begins with its preface, else HTTP/1.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2, by prior knowledge.
    Http2,
}

/// How a connection behaves.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Which protocol. Envoy: `codec_type`.
    pub codec: CodecType,
    /// What is particular to HTTP/2. Envoy: `http2_protocol_options`.
    pub http2: Http2Config,
    /// How large heads may be.
    pub limits: HeadLimits,
    /// Without a request for so long, the connection closes. Envoy: `idle_timeout`, 1 hour.
    pub idle_timeout: Option<Duration>,
    /// From the first byte of a head to its last. Envoy: `request_headers_timeout`, off there; 15 s here,
    /// so that trickled heads cannot hold connections.
    pub headers_timeout: Option<Duration>,
    /// From the first byte of a request to the last of its body. Envoy: `request_timeout`, off.
    pub request_timeout: Option<Duration>,
    /// Without a byte in either direction. Envoy: `stream_idle_timeout`, 5 minutes. A route may say
    /// otherwise.
    pub stream_idle_timeout: Option<Duration>,
    /// After so many requests, the connection closes. Envoy: `max_requests_per_connection`, off.
    pub max_requests: Option<u64>,
    /// Whether HTTP/1.0 is served. Envoy: `accept_http_10`, off: 426.
    pub accept_http_10: bool,
    /// The `host` of HTTP/1.0 requests without one. Envoy: `default_host_for_http_10`, none: 400.
    pub default_host_for_http_10: Option<HeaderValue>,
    /// Whether trailers are passed on. Envoy: `enable_trailers`, off.
    pub trailers: bool,
    /// How long the client may take to close after the last answer. Envoy: `delayed_close_timeout`, 1 s.
    pub delayed_close: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            codec: CodecType::Auto,
            http2: Http2Config::default(),
            limits: HeadLimits::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            headers_timeout: Some(Duration::from_secs(15)),
            request_timeout: None,
            stream_idle_timeout: Some(Duration::from_secs(300)),
            max_requests: None,
            accept_http_10: false,
            default_host_for_http_10: None,
            trailers: false,
            delayed_close: Duration::from_secs(1),
        }
    }
}
