use e2e::upstream::{Reply, Upstream};

use crate::support::{binary, bootstrap, run, start, stderr};

fn upstream() -> Upstream {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/", [Reply::ok("hello")]);
    upstream
}

#[test]
fn a_misspelt_field_is_an_error_with_line_and_path() {
    let yaml = bootstrap(upstream().address(), "", "conect_timeout: 1s");
    let output = run(&["--config-yaml", &yaml]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("static_resources.clusters[0].conect_timeout"),
        "{text}"
    );
    assert!(text.contains(":27:5:"), "{text}");
    assert!(text.contains("connect_timeout"), "{text}");
}

#[test]
fn no_bootstrap_and_a_missing_file_are_errors() {
    assert!(stderr(&run(&[])).contains("--demo"));
    let output = run(&["-c", "/nowhere/bootstrap.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/bootstrap.yaml"));
}

#[test]
fn validate_says_what_is_good_and_exits() {
    let yaml = bootstrap(upstream().address(), "", "");
    let output = run(&["--config-yaml", &yaml, "--mode", "validate"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("OK"));
}

/// A transport that this proxy does not have yet.
const ALTS: &str = r#"transport_socket: {name: alts, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts, handshaker_service: a}}"#;

#[test]
fn config_that_protects_somebody_is_not_ignored() {
    let yaml = bootstrap(upstream().address(), "", ALTS);
    let output = run(&["--config-yaml", &yaml]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("transport_socket"),
        "{}",
        stderr(&output)
    );
    let output = run(&["--config-yaml", &yaml, "--mode", "validate"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("transport_socket"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_is_not_enforced_is_listed_and_strict_refuses_it() {
    let yaml = bootstrap(
        upstream().address(),
        "",
        "close_connections_on_host_health_failure: true",
    );
    let loose = run(&["--config-yaml", &yaml, "--mode", "validate"]);
    assert!(loose.status.success());
    let path = "static_resources.clusters[0].close_connections_on_host_health_failure";
    assert!(stderr(&loose).contains(path), "{}", stderr(&loose));
    let strict = run(&["--config-yaml", &yaml, "--mode", "validate", "--strict"]);
    assert_eq!(strict.status.code(), Some(1));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let yaml = bootstrap(upstream().address(), "", "").replacen(
        "name: ingress\n    address: {socket_address: {address: 127.0.0.1, port_value: 0}}",
        &format!("name: ingress\n    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"),
        1,
    );
    let output = run(&["--config-yaml", &yaml]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("ingress") && text.contains(&port.to_string()),
        "{text}"
    );
}

#[test]
fn several_workers_serve_the_same_port() {
    let upstream = upstream();
    upstream.on("/x", std::iter::repeat_n(Reply::ok("x"), 40));
    let yaml = bootstrap(upstream.address(), "", "");
    let proxy = e2e::process::Proxy::start_with(&binary(), &yaml, ["--concurrency", "4"]).unwrap();
    for _ in 0..40 {
        let mut connection =
            e2e::client::Connection::open(proxy.listener("ingress").unwrap()).unwrap();
        connection.send(&crate::support::get("/x"));
        assert_eq!(connection.response(false).status, 200);
    }
    assert_eq!(
        proxy
            .admin()
            .stat("http.ingress.downstream_rq_2xx")
            .unwrap(),
        40
    );
    drop(start(&yaml));
}

#[test]
fn a_socket_that_exists_once_is_served_by_several_workers() {
    let upstream = upstream();
    upstream.on("/x", std::iter::repeat_n(Reply::ok("x"), 10_000));
    let yaml = bootstrap(upstream.address(), "", "").replacen(
        "name: ingress\n",
        "name: ingress\n    enable_reuse_port: false\n",
        1,
    );
    let proxy = e2e::process::Proxy::start_with(&binary(), &yaml, ["--concurrency", "4"]).unwrap();
    let address = proxy.listener("ingress").unwrap();
    // Each worker has connections of its own to the upstream: one after the other, one worker needs one.
    let several = (0..10_000).any(|_| {
        let mut connection = e2e::client::Connection::open(address).unwrap();
        connection.send(&crate::support::get("/x"));
        assert_eq!(connection.response(false).status, 200);
        upstream.seen().accepted > 1
    });
    assert!(several);
}
