//! Headers of which Envoy keeps one entry: several values are joined with commas.

use http::HeaderName;
use smallvec::SmallVec;

/// Observed on Envoy 1.40, for requests and responses; the proxy's own control headers that a client
/// cannot send are in it because mutations may append to them.
const INLINE: &[&str] = &[
    "accept",
    "accept-encoding",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "origin",
    "pragma",
    "proxy-connection",
    "referer",
    "te",
    "upgrade",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-degraded",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-immediate-health-check-fail",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-ratelimited",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-canary",
    "x-envoy-upstream-healthchecked-cluster",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-service-time",
    "x-envoy-upstream-stream-duration-ms",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// Those that Envoy keeps as one entry in responses only.
const INLINE_RESPONSE: &[&str] = &[
    "age",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "last-modified",
    "location",
    "server",
    "vary",
];

/// Whether Envoy joins several values of `name` in a request; in a response, the list is longer.
pub(crate) fn is_inline(name: &HeaderName) -> bool {
    INLINE.binary_search(&name.as_str()).is_ok()
}

/// The same for a response.
pub(crate) fn is_inline_response(name: &HeaderName) -> bool {
    is_inline(name) || INLINE_RESPONSE.binary_search(&name.as_str()).is_ok()
}

/// `values` with commas in between.
pub(crate) fn join<'a>(values: impl Iterator<Item = &'a [u8]>) -> SmallVec<[u8; 128]> {
    let mut joined = SmallVec::new();
    for (i, value) in values.enumerate() {
        if i > 0 {
            joined.push(b',');
        }
        joined.extend_from_slice(value);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::{INLINE, INLINE_RESPONSE};

    #[test]
    fn the_lists_are_sorted() {
        assert!(INLINE.is_sorted());
        assert!(INLINE_RESPONSE.is_sorted());
    }
}
