use http::Request;
use mesh_core::{Cidr, ConnectionInfo, ErrorKind, Rng};

use super::{EdgeConfig, Prepared, prepare_request};
use crate::hygiene::Underscores;

fn prepare(
    config: &EdgeConfig,
    uri: &str,
    headers: &[(&str, &str)],
) -> Result<(http::request::Parts, Prepared), mesh_core::Error> {
    let mut builder = Request::builder().uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let (mut parts, ()) = builder.body(()).unwrap().into_parts();
    let local = "192.0.2.9:80".parse().ok();
    let connection = ConnectionInfo::new(1, local, "203.0.113.7:5000".parse().ok());
    let prepared = prepare_request(&mut parts, config, &connection, &Rng::seeded(1))?;
    Ok((parts, prepared))
}

fn value<'a>(parts: &'a http::request::Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn control_headers_of_strangers_are_stripped() {
    let headers = [
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-internal", "true"),
        ("x-envoy-attempt-count", "9"),
        ("x-forwarded-client-cert", "URI=spiffe://a/b"),
    ];
    let (parts, prepared) = prepare(&EdgeConfig::default(), "/", &headers).unwrap();
    assert_eq!(value(&parts, "x-envoy-retry-on"), None);
    assert_eq!(value(&parts, "x-envoy-internal"), None);
    assert_eq!(value(&parts, "x-forwarded-client-cert"), None);
    assert_eq!(value(&parts, "x-envoy-attempt-count"), Some("9"));
    assert!(!prepared.internal);
}

#[test]
fn an_internal_client_keeps_its_control_headers() {
    let config = EdgeConfig {
        internal_addresses: vec![Cidr::new("10.0.0.0".parse().unwrap(), 8).unwrap()],
        ..EdgeConfig::default()
    };
    let headers = [("x-envoy-retry-on", "5xx"), ("x-forwarded-for", "10.1.1.1")];
    let (parts, prepared) = prepare(&config, "/", &headers).unwrap();
    assert_eq!(value(&parts, "x-envoy-retry-on"), Some("5xx"));
    assert_eq!(value(&parts, "x-envoy-internal"), Some("true"));
    assert_eq!(prepared.remote.unwrap().ip().to_string(), "10.1.1.1");
    let headers = [
        ("x-envoy-retry-on", "5xx"),
        ("x-forwarded-for", "10.1.1.1,10.1.1.2"),
    ];
    assert!(!prepare(&config, "/", &headers).unwrap().1.internal);
}

#[test]
fn the_edge_appends_the_peer_and_trusts_only_so_many_hops() {
    let config = EdgeConfig {
        use_remote_address: true,
        ..EdgeConfig::default()
    };
    let headers = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
    ];
    let (parts, prepared) = prepare(&config, "/", &headers).unwrap();
    assert_eq!(
        value(&parts, "x-forwarded-for"),
        Some("1.2.3.4,203.0.113.7")
    );
    assert_eq!(value(&parts, "x-forwarded-proto"), Some("http"));
    assert_eq!(
        value(&parts, "x-envoy-external-address"),
        Some("203.0.113.7")
    );
    assert_eq!(prepared.remote, "203.0.113.7:5000".parse().ok());
    let config = EdgeConfig {
        xff_num_trusted_hops: 1,
        ..config
    };
    let (_, prepared) = prepare(&config, "/", &headers).unwrap();
    assert_eq!(prepared.remote.unwrap().ip().to_string(), "1.2.3.4");
}

#[test]
fn a_forwarded_for_that_is_no_text_makes_nobody_internal() {
    let config = EdgeConfig {
        use_remote_address: true,
        xff_num_trusted_hops: 1,
        internal_addresses: vec![Cidr::new("203.0.113.0".parse().unwrap(), 24).unwrap()],
        ..EdgeConfig::default()
    };
    let (mut parts, ()) = Request::builder()
        .header("x-forwarded-for", &b"\xff, 198.51.100.9"[..])
        .header("x-envoy-retry-on", "5xx")
        .body(())
        .unwrap()
        .into_parts();
    let connection = ConnectionInfo::new(1, None, "203.0.113.7:5000".parse().ok());
    let prepared = prepare_request(&mut parts, &config, &connection, &Rng::seeded(1)).unwrap();
    assert_eq!(prepared.remote.unwrap().ip().to_string(), "198.51.100.9");
    assert!(!prepared.internal);
    assert_eq!(value(&parts, "x-envoy-retry-on"), None);
    assert_eq!(
        parts.headers["x-forwarded-for"].as_bytes(),
        b"\xff, 198.51.100.9,203.0.113.7"
    );
}

#[test]
fn hop_by_hop_headers_end_here_but_protected_ones_cannot_be_nominated_away() {
    let headers = [
        ("connection", "keep-alive, x-drop, x-forwarded-for, host"),
        ("keep-alive", "5"),
        ("x-drop", "1"),
        ("x-forwarded-for", "1.2.3.4"),
        ("host", "a"),
        ("te", "gzip"),
        ("proxy-connection", "x"),
    ];
    let (parts, _) = prepare(&EdgeConfig::default(), "/", &headers).unwrap();
    let mut names: Vec<_> = parts.headers.keys().map(|n| n.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "host",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-request-id"
        ]
    );
}

#[test]
fn a_request_id_is_a_version_4_uuid_and_is_kept_inside() {
    let (parts, _) = prepare(&EdgeConfig::default(), "/", &[]).unwrap();
    let id = value(&parts, "x-request-id").unwrap();
    assert!(
        id.len() == 36 && id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]),
        "{id}"
    );
    let (parts, _) = prepare(&EdgeConfig::default(), "/", &[("x-request-id", "mine")]).unwrap();
    assert_eq!(value(&parts, "x-request-id"), Some("mine"));
    let edge = EdgeConfig {
        use_remote_address: true,
        ..EdgeConfig::default()
    };
    let (parts, _) = prepare(&edge, "/", &[("x-request-id", "mine")]).unwrap();
    assert_ne!(value(&parts, "x-request-id"), Some("mine"));
}

#[test]
fn hosts_lose_ports_and_dots_as_told() {
    let host = |config: EdgeConfig, host: &str| {
        let (parts, _) = prepare(&config, "/", &[("host", host)]).unwrap();
        value(&parts, "host").unwrap().to_owned()
    };
    let any = EdgeConfig {
        strip_any_host_port: true,
        ..EdgeConfig::default()
    };
    assert_eq!(host(any.clone(), "a:81"), "a");
    assert_eq!(host(any, "[::1]"), "[::1]");
    let own = EdgeConfig {
        strip_matching_host_port: true,
        ..EdgeConfig::default()
    };
    assert_eq!(host(own.clone(), "a:80"), "a");
    assert_eq!(host(own, "a:81"), "a:81");
    let dot = EdgeConfig {
        strip_trailing_host_dot: true,
        ..EdgeConfig::default()
    };
    assert_eq!(host(dot, "a.:80"), "a:80");
}

#[test]
fn underscores_are_refused_or_dropped_as_told() {
    let reject = EdgeConfig {
        underscores: Underscores::RejectRequest,
        ..EdgeConfig::default()
    };
    let error = prepare(&reject, "/", &[("a_b", "1")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DownstreamProtocol);
    let drop = EdgeConfig {
        underscores: Underscores::DropHeader,
        ..EdgeConfig::default()
    };
    let (parts, prepared) = prepare(&drop, "/", &[("a_b", "1"), ("c", "2")]).unwrap();
    assert_eq!(
        (value(&parts, "a_b"), value(&parts, "c")),
        (None, Some("2"))
    );
    assert_eq!(prepared.dropped_underscores, 1);
}
