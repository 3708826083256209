use std::time::Instant;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use mesh_core::{Error, ErrorKind, LocalReply, Sent};

use crate::{LocalRateLimit, Quota, RequestView, XRateLimitHeaders};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");

/// The refusal of one request, with the answer that Envoy would give.
pub(crate) fn refusal(
    limit: &LocalRateLimit,
    quota: &Quota,
    request: &RequestView<'_>,
    now: Instant,
) -> Error {
    let config = limit.config();
    let mut reply = LocalReply::new(
        config.refusal_status(),
        "local_rate_limited",
        "local_rate_limited",
    );
    config
        .response_headers_to_add
        .add(request, &mut reply.headers);
    if config.enable_x_ratelimit_headers == XRateLimitHeaders::DraftVersion03 {
        add_quota(&mut reply.headers, quota, now);
    }
    if config.rate_limited_as_resource_exhausted && is_grpc(request) {
        reply.headers.insert(GRPC_STATUS, RESOURCE_EXHAUSTED);
    }
    Error::new(ErrorKind::RateLimited)
        .with_sent(Sent::Nothing)
        .with_reply(reply)
}

fn is_grpc(request: &RequestView<'_>) -> bool {
    let content_type = request.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| {
        value
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// Tells the client what is left, in place of what anybody said before.
pub(crate) fn add_quota(headers: &mut HeaderMap, quota: &Quota, now: Instant) {
    headers.insert(LIMIT, number(quota.limit().into()));
    headers.insert(REMAINING, number(quota.remaining(now).into()));
    headers.insert(RESET, number(quota.reset(now).as_secs()));
}

/// Costs one allocation, and none for the most frequent number.
fn number(n: u64) -> HeaderValue {
    const ZERO: HeaderValue = HeaderValue::from_static("0");
    if n == 0 {
        return ZERO;
    }
    HeaderValue::from_str(itoa::Buffer::new().format(n)).unwrap_or(ZERO)
}
