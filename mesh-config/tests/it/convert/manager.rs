//! Connection managers: timeouts, limits, headers, paths.

use std::time::Duration;

use mesh_http::{
    h2::{FloodLimits, Http2Config, KeepaliveConfig},
    hygiene::{EscapedSlashes, ServerHeader, Underscores},
    server::CodecType,
};

use super::{assert_refused, bare_manager_text, config, manager, manager_text, paths};

const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn defaults_are_envoys_but_for_the_headers_timeout() {
    let manager = manager("");
    let server = &manager.server;
    assert_eq!(&*manager.stat_prefix, "i");
    assert_eq!(&*manager.route_config_name, "main");
    assert_eq!(server.idle_timeout, Some(3600 * SECOND));
    assert_eq!(server.stream_idle_timeout, Some(300 * SECOND));
    assert_eq!(server.request_timeout, None);
    assert_eq!(server.headers_timeout, Some(15 * SECOND));
    assert_eq!(server.delayed_close, SECOND);
    assert_eq!(server.max_requests, None);
    assert_eq!((server.limits.bytes, server.limits.count), (60 * 1024, 100));
    assert!(!server.accept_http_10 && !server.trailers);
    assert_eq!(manager.edge.server_name, "envoy");
    assert!(!manager.edge.use_remote_address && manager.edge.generate_request_id);
    assert!(manager.edge.internal_addresses.is_empty());
}

#[test]
fn timeouts_and_limits_are_read() {
    let manager = manager(
        "stream_idle_timeout: 1s\nrequest_timeout: 2s\nrequest_headers_timeout: 3s\ndelayed_close_timeout: 4s\n\
         max_request_headers_kb: 96\n\
         common_http_protocol_options: {idle_timeout: 5s, max_headers_count: 7, max_requests_per_connection: 9, \
         headers_with_underscores_action: REJECT_REQUEST}\n\
         http_protocol_options: {accept_http_10: true, default_host_for_http_10: old.example, enable_trailers: true}",
    );
    let server = &manager.server;
    assert_eq!(server.stream_idle_timeout, Some(SECOND));
    assert_eq!(server.request_timeout, Some(2 * SECOND));
    assert_eq!(server.headers_timeout, Some(3 * SECOND));
    assert_eq!(server.delayed_close, 4 * SECOND);
    assert_eq!(server.idle_timeout, Some(5 * SECOND));
    assert_eq!((server.limits.bytes, server.limits.count), (96 * 1024, 7));
    assert_eq!(server.max_requests, Some(9));
    assert!(server.accept_http_10 && server.trailers);
    assert_eq!(
        server.default_host_for_http_10.as_ref().unwrap(),
        "old.example"
    );
    assert_eq!(manager.edge.underscores, Underscores::RejectRequest);
}

#[test]
fn http2_options_are_read() {
    let manager = manager(
        "codec_type: http2\n\
         http2_protocol_options: {hpack_table_size: 1, max_concurrent_streams: 2, initial_stream_window_size: 65535, \
         initial_connection_window_size: 65536, allow_connect: true, \
         max_consecutive_inbound_frames_with_empty_payload: 3, max_inbound_priority_frames_per_stream: 4, \
         max_inbound_window_update_frames_per_data_frame_sent: 5, max_outbound_control_frames: 6, \
         connection_keepalive: {interval: 1s, timeout: 2s, interval_jitter: {value: 7}}}",
    );
    assert_eq!(manager.server.codec, CodecType::Http2);
    let expected = Http2Config {
        hpack_table_size: 1,
        max_concurrent_streams: 2,
        initial_stream_window_size: 65535,
        initial_connection_window_size: 65536,
        allow_connect: true,
        keepalive: Some(KeepaliveConfig {
            interval: Some(SECOND),
            timeout: 2 * SECOND,
            interval_jitter_percent: 7,
        }),
        flood: FloodLimits {
            max_consecutive_inbound_frames_with_empty_payload: 3,
            max_inbound_priority_frames_per_stream: 4,
            max_inbound_window_update_frames_per_data_frame_sent: 5,
            max_inbound_control_frames: 6,
            ..FloodLimits::default()
        },
        ..Http2Config::default()
    };
    assert_eq!(manager.server.http2, expected);
}

#[test]
fn zero_turns_timeouts_and_limits_off() {
    let manager = manager(
        "stream_idle_timeout: 0s\nrequest_timeout: 0s\nrequest_headers_timeout: 0s\ndelayed_close_timeout: 0s\n\
         common_http_protocol_options: {idle_timeout: 0s, max_requests_per_connection: 0}",
    );
    let server = &manager.server;
    assert_eq!(server.stream_idle_timeout, None);
    assert_eq!(server.request_timeout, None);
    assert_eq!(server.headers_timeout, None);
    assert_eq!(server.delayed_close, Duration::ZERO);
    assert_eq!((server.idle_timeout, server.max_requests), (None, None));
}

#[test]
fn everything_about_headers_and_paths_is_read() {
    let text = manager_text(
        "use_remote_address: true\nxff_num_trusted_hops: 2\nskip_xff_append: true\n\
         internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}\n\
         generate_request_id: false\npreserve_external_request_id: true\nalways_set_request_id_in_response: true\n\
         add_user_agent: true\nserver_name: mesh\nserver_header_transformation: PASS_THROUGH\nvia: me\n\
         normalize_path: true\nmerge_slashes: true\npath_with_escaped_slashes_action: UNESCAPE_AND_FORWARD\n\
         strip_any_host_port: true\nstrip_trailing_host_dot: true",
    );
    let config = config(&format!("node: {{id: me, cluster: c}}\n{text}"));
    assert!(config.report.is_empty(), "{:?}", config.report);
    let edge = &config.listeners[0].manager().unwrap().edge;
    assert!(edge.use_remote_address && edge.skip_xff_append && edge.add_user_agent);
    assert_eq!(edge.xff_num_trusted_hops, 2);
    assert!(edge.internal_addresses[0].contains("10.1.2.3".parse().unwrap()));
    assert!(!edge.internal_addresses[0].contains("11.1.2.3".parse().unwrap()));
    assert!(!edge.generate_request_id);
    assert!(edge.preserve_external_request_id && edge.always_set_request_id_in_response);
    assert_eq!(
        (edge.node_id.as_str(), edge.node_cluster.as_str()),
        ("me", "c")
    );
    assert_eq!(edge.server_name, "mesh");
    assert_eq!(edge.server_header, ServerHeader::PassThrough);
    assert_eq!(edge.via.as_ref().unwrap(), "me");
    assert!(edge.normalize_path && edge.merge_slashes);
    assert_eq!(edge.escaped_slashes, EscapedSlashes::UnescapeAndForward);
    assert!(edge.strip_any_host_port && !edge.strip_matching_host_port);
    assert!(edge.strip_trailing_host_dot);
}

#[test]
fn a_network_may_be_written_too_precisely() {
    let manager = manager(
        "internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.1, prefix_len: 99}]}",
    );
    let range = manager.edge.internal_addresses[0];
    assert!(range.contains("10.0.0.1".parse().unwrap()));
    assert!(!range.contains("10.0.0.0".parse().unwrap()));
}

#[test]
fn what_envoy_refuses_is_refused() {
    let refused = |fields: &str, needle, path: &str, reason| {
        assert_refused(
            &manager_text(fields),
            needle,
            &format!("{AT}{path}"),
            reason,
        );
    };
    refused(
        "codec_type: HTTP3",
        "codec_type",
        ".codec_type",
        "HTTP3 is not supported: use AUTO, HTTP1 or HTTP2",
    );
    refused(
        "strip_matching_host_port: true\nstrip_any_host_port: true",
        "strip_any",
        ".strip_any_host_port",
        "only one of strip_matching_host_port and strip_any_host_port can be set",
    );
    refused(
        "request_timeout: -1s",
        "request_timeout",
        ".request_timeout",
        "a duration must not be negative",
    );
    refused(
        "internal_address_config: {cidr_ranges: [{address_prefix: x}]}",
        "cidr_ranges",
        ".internal_address_config.cidr_ranges[0].address_prefix",
        "\"x\" is not an IP address",
    );
}

#[test]
fn routes_from_elsewhere_need_an_elsewhere() {
    let with = |routes| {
        bare_manager_text(&format!(
            "stat_prefix: i\nhttp_filters: [{}]\n{routes}",
            super::ROUTER
        ))
    };
    assert_refused(
        &with("rds: {config_source: {ads: {}}, route_config_name: r}"),
        "rds:",
        &format!("{AT}.rds.config_source"),
        "needs dynamic_resources.ads_config, which is not there",
    );
}

#[test]
fn connections_may_have_an_age() {
    let second = "common_http_protocol_options: {max_connection_duration: 1s}";
    let limit = |fields| manager(fields).max_connection_duration;
    assert_eq!(limit(second), Some(SECOND));
    assert_eq!(limit(""), None);
}

#[test]
fn what_is_not_done_is_reported() {
    assert_eq!(
        paths(&manager_text(
            "tracing: {}\nlocal_reply_config: {}\n\
             common_http_protocol_options: {max_response_headers_kb: 1}\n\
             http_protocol_options: {allow_absolute_url: false}\nhttp2_protocol_options: {allow_metadata: true, \
             override_stream_error_on_invalid_http_message: false}"
        )),
        [
            "tracing",
            "http2_protocol_options.allow_metadata",
            "local_reply_config",
            "http2_protocol_options.override_stream_error_on_invalid_http_message",
            "common_http_protocol_options.max_response_headers_kb",
            "http_protocol_options.allow_absolute_url",
        ]
        .map(|path| format!("{AT}.{path}"))
    );
}

#[test]
fn more_headers_than_the_codec_keeps_are_reported() {
    let text = manager_text("common_http_protocol_options: {max_headers_count: 5000}");
    let config = config(&text);
    assert_eq!(
        config.listeners[0].manager().unwrap().server.limits.count,
        1024
    );
    let value = config.report.entries[0].value.as_deref();
    assert_eq!(value, Some("5000, of which 1024 are enforced"));
}
