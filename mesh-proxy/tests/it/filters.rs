//! HTTP filters in a running proxy.

use e2e::{
    client::Connection,
    coding,
    process::Proxy,
    upstream::{Reply, Upstream},
};

use crate::support::{binary, bootstrap, get, signal, start};

/// The usual bootstrap with these filters before the router.
fn with(upstream: &Upstream, manager: &str, filters: &str) -> String {
    let text = bootstrap(upstream.address(), manager, "");
    let list = "http_filters:\n";
    assert!(text.contains(list));
    text.replacen(list, &format!("{list}{filters}"), 1)
}

fn filter(name: &str, kind: &str, fields: &str) -> String {
    format!(
        "          - {{name: {name}, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.{kind}, {fields}}}}}\n"
    )
}

const GZIP: &str = "compressor_library: {name: lib, typed_config: {'@type': type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}";

#[test]
fn answers_are_compressed_for_those_who_accept_it() {
    let upstream = Upstream::start("a").unwrap();
    let compressor = filter("gzip", "compressor.v3.Compressor", GZIP);
    let proxy = start(&with(&upstream, "", &compressor));
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    upstream.on(
        "/text",
        [Reply::ok(&"hello ".repeat(1000)).header("content-type", "text/plain")],
    );
    connection.send(b"GET /text HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let response = connection.response(false);
    assert_eq!(response.status, 200);
    assert!(
        response.body.data.len() < 200,
        "{}",
        response.body.data.len()
    );
    let text = coding::decode("gzip", &response.body.data).unwrap();
    assert_eq!(text, "hello ".repeat(1000).as_bytes());
}

#[test]
fn faults_are_injected_and_the_log_says_so() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", [Reply::ok("x")]);
    let fault = filter(
        "fault",
        "fault.v3.HTTPFault",
        "abort: {http_status: 418, percentage: {numerator: 100}}, headers: [{name: x-chaos, present_match: true}]",
    );
    let log = r#"access_log:
          - name: log
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format: {text_format_source: {inline_string: "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}"#;
    let proxy = start(&with(&upstream, log, &fault));
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    connection.send(b"GET /x HTTP/1.1\r\nHost: a\r\nX-Chaos: 1\r\n\r\n");
    assert_eq!(connection.response(false).status, 418);
    connection.send(&get("/x"));
    assert_eq!(connection.response(false).status, 200);
    let lines = proxy
        .stdout()
        .take_through(|line| line.contains("200"))
        .unwrap();
    assert_eq!(lines, ["418 FI fault_filter_abort", "200 - via_upstream"]);
    let aborted = proxy
        .admin()
        .stat("http.ingress.fault.aborts_injected")
        .unwrap();
    assert_eq!(aborted, 1);
}

#[test]
fn a_request_that_is_too_large_to_be_buffered_never_reaches_the_upstream() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", [Reply::ok("x")]);
    let buffer = filter("buffer", "buffer.v3.Buffer", "max_request_bytes: 1000");
    let proxy = start(&with(&upstream, "", &buffer));
    let post = |bytes: usize| {
        let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
        let chunk = "x".repeat(bytes);
        let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.send(format!("{head}{bytes:x}\r\n{chunk}\r\n0\r\n\r\n").as_bytes());
        connection.response(false).status
    };
    assert_eq!(post(1001), 413);
    assert_eq!(upstream.seen().requests, 0);
    assert_eq!(post(1000), 200);
    let request = upstream.take_requests().remove(0);
    let length = request
        .head
        .fields
        .iter()
        .find(|(name, _)| name == "content-length");
    assert_eq!(length.map(|(_, value)| value.as_str()), Some("1000"));
}

#[test]
fn while_it_drains_health_checks_fail() {
    let upstream = Upstream::start("a").unwrap();
    let health = filter(
        "health",
        "health_check.v3.HealthCheck",
        "pass_through_mode: false, headers: [{name: ':path', string_match: {exact: /health}}]",
    );
    let flags = ["--drain-min-time-s", "30", "--drain-time-s", "30"];
    let proxy = Proxy::start_with(&binary(), &with(&upstream, "", &health), flags).unwrap();
    let address = proxy.listener("ingress").unwrap();
    let mut connection = Connection::open(address).unwrap();
    connection.send(&get("/health"));
    assert_eq!(connection.response(false).status, 200);
    signal(&proxy, rustix::process::Signal::TERM);
    let failing = e2e::wait::until(e2e::wait::Deadline::default(), || {
        let mut connection = Connection::open(address).ok()?;
        connection.send(&get("/health"));
        (connection.response(false).status == 503).then_some(())
    });
    assert!(failing.is_some());
    assert_eq!(upstream.seen().requests, 0);
}
