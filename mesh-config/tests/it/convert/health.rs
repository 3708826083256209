//! Active health checks.

use std::{ops::Range, sync::Arc, time::Duration};

use http::Method;
use mesh_balance::health::{HealthCheckConfig, Payload};
use mesh_config::model::{HealthCheck, HttpProbe, Probe, TcpProbe};
use mesh_telemetry::Target;

use super::{assert_refused, cluster, cluster_text, paths};

const AT: &str = "static_resources.clusters[0].health_checks[0]";
const REQUIRED: &str = "timeout: 1s, interval: 2s, unhealthy_threshold: 3, healthy_threshold: 4";

fn text(fields: &str) -> String {
    cluster_text(&format!("health_checks: [{{{REQUIRED}, {fields}}}]"))
}

fn check(fields: &str) -> Arc<HealthCheck> {
    let fields = format!("health_checks: [{{{REQUIRED}, {fields}}}]");
    cluster(&fields).health_check.clone().expect("a check")
}

fn http(fields: &str) -> HttpProbe {
    match &check(&format!("http_health_check: {{path: /up, {fields}}}")).probe {
        Probe::Http(probe) => (**probe).clone(),
        other => panic!("{other:?}"),
    }
}

fn only(range: Range<u16>) -> Vec<Range<u16>> {
    std::iter::once(range).collect()
}

fn refused(fields: &str, path: &str, reason: &str) {
    assert_refused(
        &text(fields),
        "health_checks",
        &format!("{AT}{path}"),
        reason,
    );
}

#[test]
fn what_is_not_said_is_envoys_default() {
    let check = check("tcp_health_check: {}");
    let second = Duration::from_secs(1);
    let schedule = HealthCheckConfig {
        unhealthy_threshold: 3,
        healthy_threshold: 4,
        ..HealthCheckConfig::new(second, 2 * second)
    };
    assert_eq!(check.schedule, schedule);
    assert_eq!(schedule.no_traffic_interval, 60 * second);
    assert!(check.reuse_connection);
    assert!(check.event_logs.is_empty());
    let probe = TcpProbe {
        send: Vec::new(),
        receive: Payload::default(),
    };
    assert_eq!(check.probe, Probe::Tcp(probe));
    let probe = http("");
    assert_eq!(
        (probe.method, probe.path.as_str(), &*probe.host),
        (Method::GET, "/up", "b")
    );
    assert_eq!(
        (probe.expected, probe.retriable),
        (only(200..201), Vec::new())
    );
    assert_eq!(probe.response_buffer_size, 1024);
    assert!(probe.service_name.is_none() && probe.headers.is_empty());
    assert!(cluster("").health_check.is_none());
}

#[test]
fn intervals_fall_back_on_each_other() {
    let schedule = |fields: &str| {
        check(&format!("{fields}, tcp_health_check: {{}}"))
            .schedule
            .clone()
    };
    let ms = Duration::from_millis;
    let some = schedule("unhealthy_interval: 0.5s, no_traffic_interval: 7s");
    assert_eq!(
        (some.unhealthy_interval, some.unhealthy_edge_interval),
        (ms(500), ms(500))
    );
    assert_eq!(some.healthy_edge_interval, ms(2000));
    assert_eq!(some.no_traffic_healthy_interval, ms(7000));
    let all = schedule(
        "unhealthy_interval: 0.5s, unhealthy_edge_interval: 0.6s, healthy_edge_interval: 0.7s, \
         no_traffic_interval: 7s, no_traffic_healthy_interval: 8s, initial_jitter: 0.1s, \
         interval_jitter: 0.2s, interval_jitter_percent: 30, always_log_health_check_failures: true, \
         always_log_health_check_success: true",
    );
    assert_eq!(
        (all.unhealthy_edge_interval, all.healthy_edge_interval),
        (ms(600), ms(700))
    );
    assert_eq!(all.no_traffic_healthy_interval, ms(8000));
    assert_eq!(
        (
            all.initial_jitter,
            all.interval_jitter,
            all.interval_jitter_percent
        ),
        (ms(100), ms(200), 30)
    );
    assert!(all.always_log_failures && all.always_log_success);
}

#[test]
fn http_checks_are_read() {
    let probe = http(
        "host: h, method: POST, send: {text: '6869'}, receive: [{text: 6F6b}, {binary: aGk=}], \
         response_buffer_size: 0, expected_statuses: [{start: 200, end: 300}], \
         retriable_statuses: [{start: 500, end: 600}], \
         request_headers_to_add: [{header: {key: a, value: b}}], request_headers_to_remove: [user-agent], \
         service_name_matcher: {prefix: us}",
    );
    assert_eq!((probe.method, &*probe.host), (Method::POST, "h"));
    assert_eq!(probe.send, b"hi");
    assert_eq!(
        probe.receive,
        Payload::new(vec![b"ok".to_vec(), b"hi".to_vec()])
    );
    assert_eq!(probe.response_buffer_size, 0);
    assert_eq!(
        (probe.expected, probe.retriable),
        (only(200..300), only(500..600))
    );
    assert_eq!(probe.headers.added()[0].name(), "a");
    assert!(
        probe
            .service_name
            .is_some_and(|name| name.matches(b"users"))
    );
    assert!(!http("codec_client_type: HTTP1").http2);
    assert!(http("codec_client_type: HTTP2").http2);
}

#[test]
fn tcp_checks_are_read() {
    let check = check(
        "reuse_connection: false, tcp_health_check: {send: {text: 00ff}, receive: [{text: '01'}]}",
    );
    assert!(!check.reuse_connection);
    let probe = TcpProbe {
        send: vec![0, 255],
        receive: Payload::new(vec![vec![1]]),
    };
    assert_eq!(check.probe, Probe::Tcp(probe));
}

#[test]
fn grpc_checks_are_read() {
    let check = |fields: &str| {
        let http2 = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
            {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
            explicit_http_config: {http2_protocol_options: {}}}}";
        let fields = format!("health_checks: [{{{REQUIRED}, {fields}}}]\n{http2}");
        match &cluster(&fields)
            .health_check
            .as_ref()
            .expect("a check")
            .probe
        {
            Probe::Grpc(probe) => (**probe).clone(),
            other => panic!("{other:?}"),
        }
    };
    let probe = check("grpc_health_check: {}");
    assert_eq!((probe.service_name.as_str(), &*probe.authority), ("", "b"));
    let probe = check(
        "grpc_health_check: {service_name: s, authority: a, initial_metadata: [{header: {key: k, value: v}}]}",
    );
    assert_eq!((probe.service_name.as_str(), &*probe.authority), ("s", "a"));
    assert_eq!(probe.headers.added()[0].name(), "k");
    refused(
        "grpc_health_check: {}",
        ".grpc_health_check",
        "needs a cluster that speaks HTTP/2",
    );
}

#[test]
fn events_go_to_files() {
    let check = check(
        "tcp_health_check: {}, event_log_path: /a, event_logger: [{name: f, typed_config: {\
         '@type': type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink, \
         event_log_path: /b}}]",
    );
    assert_eq!(check.event_logs, [Target::path("/a"), Target::path("/b")]);
}

#[test]
fn an_endpoint_may_be_asked_elsewhere_or_not_at_all() {
    let endpoints = cluster(
        "load_assignment:\n  cluster_name: b\n  endpoints:\n  - lb_endpoints:\n\
         \x20   - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}, health_check_config: {port_value: 2, hostname: h}}\n\
         \x20   - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 3}}, health_check_config: {address: {socket_address: {address: 127.0.0.2, port_value: 4}}}}\n\
         \x20   - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 5}}, health_check_config: {disable_active_health_check: true}}\n",
    );
    let asked: Vec<_> = endpoints
        .endpoints
        .iter()
        .map(|endpoint| {
            let mesh_config::model::EndpointTarget::Address(address) = &endpoint.target else {
                panic!("an address");
            };
            let check = &endpoint.check;
            (
                check.address(address).to_string(),
                check.hostname.to_string(),
                check.disabled,
            )
        })
        .collect();
    let row = |address: &str, hostname: &str, disabled| {
        (address.to_owned(), hostname.to_owned(), disabled)
    };
    assert_eq!(
        asked,
        [
            row("127.0.0.1:2", "h", false),
            row("127.0.0.2:4", "", false),
            row("127.0.0.1:5", "", true)
        ]
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    refused(
        "http_health_check: {path: up}",
        ".http_health_check.path",
        "must be a path: it begins with a slash",
    );
    refused(
        "http_health_check: {path: /, send: {text: '00'}}",
        ".http_health_check.send",
        "requests with method GET have no body",
    );
    refused(
        "http_health_check: {path: /, receive: [{text: '0011'}], response_buffer_size: 1}",
        ".http_health_check.receive",
        "is longer than response_buffer_size, 1 bytes",
    );
    refused(
        "http_health_check: {path: /, expected_statuses: [{start: 200, end: 200}]}",
        ".http_health_check.expected_statuses[0]",
        "a range of statuses must lie within [100, 600) and not be empty, not [200, 200)",
    );
    refused(
        "tcp_health_check: {receive: [{text: 0g}]}",
        ".tcp_health_check.receive[0].text",
        "\"0g\" is not hexadecimal",
    );
    let two = format!(
        "health_checks: [{{{REQUIRED}, tcp_health_check: {{}}}}, {{{REQUIRED}, tcp_health_check: {{}}}}]"
    );
    assert_refused(
        &cluster_text(&two),
        "health_checks",
        "static_resources.clusters[0].health_checks",
        "there may be only one health check",
    );
}

#[test]
fn checks_of_other_kinds_are_reported() {
    for (fields, path) in [
        ("custom_health_check: {name: redis}", ".custom_health_check"),
        (
            "http_health_check: {path: /, codec_client_type: HTTP3}",
            ".http_health_check.codec_client_type",
        ),
    ] {
        assert_eq!(paths(&text(fields)), [format!("{AT}{path}")]);
    }
}
