//! How clusters speak to their endpoints.

use std::time::Duration;

use mesh_http::pool::{PoolConfig, UpstreamProtocol};
use mesh_retry::RetryOn;

use super::{HTTP_OPTIONS, assert_refused, cluster, cluster_text, paths};

const SECOND: Duration = Duration::from_secs(1);
const COMMON: &str = "common_http_protocol_options: {idle_timeout: 2s, max_connection_duration: 3s, max_headers_count: 4, \
    max_response_headers_kb: 5, max_requests_per_connection: 6}";

fn typed(fields: &str) -> String {
    format!(
        "typed_extension_protocol_options:\n  {HTTP_OPTIONS}:\n    '@type': type.googleapis.com/{HTTP_OPTIONS}\n{}",
        super::indented(fields, 4)
    )
}

fn refused(fields: &str, path: &str, reason: &str) {
    let needle = fields.lines().last().unwrap().split(':').next().unwrap();
    assert_refused(
        &cluster_text(fields),
        needle,
        &format!("static_resources.clusters[0].{path}"),
        reason,
    );
}

fn assert_all(pool: &PoolConfig) {
    assert_eq!(pool.idle_timeout, Some(2 * SECOND));
    assert_eq!(pool.max_connection_duration, Some(3 * SECOND));
    assert_eq!((pool.limits.count, pool.limits.bytes), (4, 5 * 1024));
    assert_eq!(pool.max_requests_per_connection, Some(6));
}

#[test]
fn options_are_read_where_they_are_now_and_where_they_were() {
    assert_all(
        &cluster(&typed(&format!(
            "{COMMON}\nexplicit_http_config: {{http_protocol_options: {{}}}}"
        )))
        .pool,
    );
    assert_all(
        &cluster(&typed(&format!(
            "{COMMON}\nuse_downstream_protocol_config: {{http2_protocol_options: {{}}}}"
        )))
        .pool,
    );
    assert_all(&cluster(&format!("{COMMON}\nhttp_protocol_options: {{}}")).pool);
    assert_eq!(
        cluster("max_requests_per_connection: 7")
            .pool
            .max_requests_per_connection,
        Some(7)
    );
    assert_eq!(
        cluster("max_requests_per_connection: 0")
            .pool
            .max_requests_per_connection,
        None
    );
    assert_eq!(
        cluster("common_http_protocol_options: {idle_timeout: 0s}")
            .pool
            .idle_timeout,
        None
    );
}

#[test]
fn the_older_fields_do_not_count_beside_the_typed_ones() {
    let fields = format!(
        "max_requests_per_connection: 7\n{}",
        typed("explicit_http_config: {http_protocol_options: {}}")
    );
    assert_eq!(*cluster(&fields).pool, PoolConfig::default());
}

#[test]
fn a_cluster_may_have_a_retry_policy() {
    let cluster = cluster(&typed(
        "explicit_http_config: {http_protocol_options: {}}\nretry_policy: {retry_on: 5xx, num_retries: 2}",
    ));
    let retry = cluster.retry.clone().unwrap();
    assert_eq!((retry.retry_on, retry.num_retries), (RetryOn::FIVE_XX, 2));
}

#[test]
fn other_protocols_are_refused() {
    let at = format!("typed_extension_protocol_options[\"{HTTP_OPTIONS}\"]");
    refused(
        &typed("explicit_http_config: {http3_protocol_options: {}}"),
        &format!("{at}.explicit_http_config.http3_protocol_options"),
        "HTTP/3 to upstreams is not supported",
    );
    refused(
        &typed("auto_config: {}"),
        &format!("{at}.auto_config"),
        "choosing the protocol by ALPN to upstreams is not supported",
    );
}

#[test]
fn a_cluster_speaks_what_its_options_say() {
    let http2 = "http2_protocol_options: {max_concurrent_streams: 7}";
    for (fields, protocol, streams) in [
        (String::new(), UpstreamProtocol::Http1, 1024),
        (http2.to_owned(), UpstreamProtocol::Http2, 7),
        (
            typed(&format!("explicit_http_config: {{{http2}}}")),
            UpstreamProtocol::Http2,
            7,
        ),
        (
            typed(&format!("use_downstream_protocol_config: {{{http2}}}")),
            UpstreamProtocol::Downstream,
            7,
        ),
    ] {
        let pool = &cluster(&fields).pool;
        let read = (pool.protocol, pool.http2.max_concurrent_streams);
        assert_eq!(read, (protocol, streams), "{fields}");
    }
}

#[test]
fn options_under_another_key_would_be_lost() {
    let fields = format!(
        "typed_extension_protocol_options:\n  other: {{'@type': type.googleapis.com/{HTTP_OPTIONS}, explicit_http_config: {{http_protocol_options: {{}}}}}}"
    );
    refused(
        &fields,
        "typed_extension_protocol_options[\"other\"]",
        &format!("nobody would find it: the key must be {HTTP_OPTIONS}"),
    );
}

#[test]
fn what_is_not_done_is_reported() {
    let text = cluster_text(&typed(
        "explicit_http_config: {http_protocol_options: {enable_trailers: true, send_fully_qualified_url: true}}\n\
         common_http_protocol_options: {max_stream_duration: 1s, headers_with_underscores_action: DROP_HEADER}\n\
         http_filters: [{name: codec, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec}}]",
    ));
    let at = format!(
        "static_resources.clusters[0].typed_extension_protocol_options[\"{HTTP_OPTIONS}\"]"
    );
    assert_eq!(
        paths(&text),
        [
            "explicit_http_config.http_protocol_options.send_fully_qualified_url",
            "common_http_protocol_options.max_stream_duration",
            "common_http_protocol_options.headers_with_underscores_action",
        ]
        .map(|path| format!("{at}.{path}"))
    );
}
