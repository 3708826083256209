//! The one place that turns an error into a response.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use mesh_core::{Body, Error, ErrorKind, LocalReply, RequestInfo};

/// What the reply depends on besides the error.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplyContext {
    /// The request is gRPC: errors travel as `grpc-status`.
    pub grpc: bool,
    /// The request was a HEAD: the answer's body is not sent.
    pub head: bool,
    /// The request had been received completely.
    pub request_complete: bool,
    /// The attempts made; more than one changes the text.
    pub attempts: u32,
    /// Envoy: `Router.suppress_envoy_headers`.
    pub suppress_envoy_headers: bool,
}

impl ReplyContext {
    /// Reads what a request tells.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| {
                let value = value.as_bytes();
                value
                    .strip_prefix(b"application/grpc")
                    .is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
            });
        Self {
            grpc,
            head: request.method() == http::Method::HEAD,
            request_complete: true,
            ..Self::default()
        }
    }
}

/// The reply to `error`, whose flag, details and failure reason go into `info`.
///
/// A policy's own [`LocalReply`] wins; the rest are Envoy's router replies.
#[must_use]
pub fn describe(error: &Error, info: &RequestInfo, context: ReplyContext) -> LocalReply {
    let kind = error.kind();
    let transport = error.message().filter(|_| is_connect(kind));
    let reply = match error.reply() {
        Some(reply) => reply.clone(),
        None => usual(error, context, transport),
    };
    if let Some(flag) = kind.flag() {
        info.flag(flag);
    }
    info.with(|facts| {
        facts.details = Some(reply.details.clone());
        if let Some(transport) = transport {
            facts.transport_failure = Some(Cow::Owned(transport.to_owned()));
        }
    });
    reply
}

/// Turns `error` into what the client gets; see [`describe`].
#[must_use]
pub fn response(error: Error, info: Option<&RequestInfo>, context: ReplyContext) -> Response<Body> {
    let kind = error.kind();
    let reply = match info {
        Some(info) => describe(&error, info, context),
        None => error
            .reply()
            .cloned()
            .unwrap_or_else(|| usual(&error, context, None)),
    };
    let mut response = if context.grpc {
        grpc(&reply, kind)
    } else {
        plain(reply)
    };
    if kind_overloaded(kind) && !context.suppress_envoy_headers {
        response
            .headers_mut()
            .insert("x-envoy-overloaded", HeaderValue::from_static("true"));
    }
    response
}

/// What a gRPC client gets for a reply of the route's own, whatever its status.
#[must_use]
pub fn grpc_response(reply: &LocalReply) -> Response<Body> {
    grpc(reply, ErrorKind::Denied)
}

/// The status that `error` would be answered with, were the request not gRPC.
#[must_use]
pub fn status(error: &Error) -> StatusCode {
    match error.reply() {
        Some(reply) => reply.status,
        None => {
            usual(
                error,
                ReplyContext {
                    request_complete: true,
                    ..ReplyContext::default()
                },
                None,
            )
            .status
        }
    }
}

const fn is_connect(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectFailure | ErrorKind::ConnectTimeout)
}

const fn kind_overloaded(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Overflow(_) | ErrorKind::BreakerOpen)
}

fn usual(error: &Error, context: ReplyContext, transport: Option<&str>) -> LocalReply {
    let reply = LocalReply::new;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let late = if context.request_complete {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::REQUEST_TIMEOUT
    };
    match error.kind() {
        ErrorKind::NoRoute => reply(StatusCode::NOT_FOUND, "", "route_not_found"),
        ErrorKind::NoCluster => reply(unavailable, "", "cluster_not_found"),
        ErrorKind::NoHealthyUpstream => {
            reply(unavailable, "no healthy upstream", "no_healthy_upstream")
        }
        ErrorKind::RequestTimeout => reply(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            "response_timeout",
        ),
        ErrorKind::PerTryTimeout => reply(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            "upstream_per_try_timeout",
        ),
        ErrorKind::PerTryIdleTimeout => reply(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            "upstream_per_try_idle_timeout",
        ),
        ErrorKind::StreamIdleTimeout => reply(late, "stream timeout", "stream_idle_timeout"),
        ErrorKind::MaxStreamDuration => reply(
            late,
            "upstream max stream duration reached",
            "upstream_max_stream_duration_reached",
        ),
        ErrorKind::StreamDuration => {
            reply(late, "downstream duration timeout", "max_duration_timeout")
        }
        ErrorKind::RequestReceiveTimeout => reply(
            StatusCode::REQUEST_TIMEOUT,
            "request timeout",
            "request_overall_timeout",
        ),
        ErrorKind::RateLimited => reply(
            StatusCode::TOO_MANY_REQUESTS,
            "local_rate_limited",
            "local_rate_limited",
        ),
        ErrorKind::RetryBufferExceeded => reply(
            StatusCode::INSUFFICIENT_STORAGE,
            "exceeded request buffer limit while retrying upstream",
            "request_payload_exceeded_retry_buffer_limit",
        ),
        ErrorKind::DownstreamProtocol => {
            reply(StatusCode::BAD_REQUEST, "Bad Request", "http1.codec_error")
        }
        ErrorKind::DownstreamGone | ErrorKind::DownstreamReset => {
            reply(StatusCode::BAD_REQUEST, "", "downstream_remote_disconnect")
        }
        ErrorKind::TooLarge => reply(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
            "request_payload_too_large",
        ),
        ErrorKind::Denied => reply(StatusCode::FORBIDDEN, "", "denied"),
        ErrorKind::FaultInjected => reply(unavailable, "fault filter abort", "fault_filter_abort"),
        ErrorKind::Unavailable => reply(unavailable, "unavailable", "unavailable"),
        kind => reset(kind, context, transport),
    }
}

/// An attempt that ended before there was an answer.
fn reset(kind: ErrorKind, context: ReplyContext, transport: Option<&str>) -> LocalReply {
    let status = if kind == ErrorKind::UpstreamProtocol {
        StatusCode::BAD_GATEWAY
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let retried = if context.attempts > 1 {
        "retried and the latest "
    } else {
        ""
    };
    let text = kind.text();
    let body = format!(
        "upstream connect error or disconnect/reset before headers. {retried}reset reason: {text}"
    );
    // Why connecting failed is for operators: it is in the details, not in the answer.
    let mut details = format!("upstream_reset_before_response_started{{{text}");
    if let Some(transport) = transport {
        details.push('|');
        details.push_str(transport);
    }
    details.push('}');
    LocalReply {
        status,
        body: Bytes::from(body),
        headers: http::HeaderMap::new(),
        details: Cow::Owned(details.replace(' ', "_")),
    }
}

fn plain(reply: LocalReply) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if !reply.body.is_empty() {
        response
            .headers_mut()
            .entry(header::CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("text/plain"));
        // For HEAD, which gets the length and not the body.
        let length = HeaderValue::from(reply.body.len());
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
        *response.body_mut() = Body::from(reply.body);
    }
    response
}

/// Trailers-only: HTTP 200, the status and the text in headers.
fn grpc(reply: &LocalReply, kind: ErrorKind) -> Response<Body> {
    let code = match reply.status.as_u16() {
        _ if kind == ErrorKind::StreamDuration => "4",
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    };
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = reply.headers.clone();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers
        .entry("grpc-status")
        .or_insert(HeaderValue::from_static(code));
    if reply.body.is_empty() {
        return response;
    }
    if let Ok(message) = HeaderValue::from_maybe_shared(percent_encode(&reply.body)) {
        headers.insert("grpc-message", message);
    }
    response
}

/// As the gRPC protocol asks: printable ASCII but `%` stands for itself.
fn percent_encode(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    for &b in text {
        if (b' '..=b'~').contains(&b) && b != b'%' {
            out.push(b);
        } else {
            out.extend_from_slice(format!("%{b:02X}").as_bytes());
        }
    }
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use mesh_core::{Error, ErrorKind, LocalReply, Resource};

    use super::{ReplyContext, response};

    fn text(error: Error, context: ReplyContext) -> (u16, String) {
        let response = response(error, None, context);
        (
            response.status().as_u16(),
            String::from_utf8(response.body().as_full().unwrap().to_vec()).unwrap(),
        )
    }

    #[test]
    fn router_replies_read_as_envoys() {
        let context = ReplyContext {
            request_complete: true,
            ..ReplyContext::default()
        };
        assert_eq!(
            text(ErrorKind::NoRoute.into(), context),
            (404, String::new())
        );
        assert_eq!(
            text(ErrorKind::NoHealthyUpstream.into(), context),
            (503, "no healthy upstream".into())
        );
        let error = Error::new(ErrorKind::ConnectFailure)
            .with_message("delayed connect error: Connection refused");
        assert_eq!(
            text(error, ReplyContext { attempts: 2, ..context }),
            (
                503,
                "upstream connect error or disconnect/reset before headers. retried and the latest \
                 reset reason: remote connection failure"
                    .into()
            )
        );
        assert_eq!(text(ErrorKind::UpstreamProtocol.into(), context).0, 502);
        let overflow = response(ErrorKind::Overflow(Resource::Pending).into(), None, context);
        assert_eq!(overflow.headers()["x-envoy-overloaded"], "true");
    }

    #[test]
    fn a_grpc_request_gets_its_status_in_headers() {
        let request = Request::builder()
            .header("content-type", "application/grpc+proto")
            .body(())
            .unwrap();
        let context = ReplyContext::of(&request);
        let reply = LocalReply::new(StatusCode::TOO_MANY_REQUESTS, "too 100% many", "x");
        let response = response(
            Error::new(ErrorKind::RateLimited).with_reply(reply),
            None,
            context,
        );
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "too 100%25 many");
    }
}
