use e2e::{
    client::Connection,
    process::Proxy,
    upstream::{Reply, Upstream},
};

use crate::support::{bootstrap, get, start};

fn proxy() -> (Upstream, Proxy) {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", std::iter::repeat_n(Reply::ok("x"), 3));
    let proxy = start(&bootstrap(upstream.address(), "", "outlier_detection: {}"));
    (upstream, proxy)
}

fn ask(proxy: &Proxy, request: &str) -> (u16, String) {
    let mut connection = Connection::open(proxy.admin().address()).unwrap();
    connection.send(request.as_bytes());
    let response = connection.response(false);
    (
        response.status,
        String::from_utf8(response.body.data).unwrap(),
    )
}

#[test]
fn every_page_answers() {
    let (_upstream, proxy) = proxy();
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    connection.send(&get("/x"));
    assert_eq!(connection.response(false).status, 200);
    for (page, part) in [
        ("/", "action='clusters'"),
        (
            "/clusters",
            "upstream::default_priority::max_connections::1024",
        ),
        ("/clusters", "health_flags::healthy"),
        ("/clusters?format=json", "cluster_statuses"),
        ("/config_dump", "envoy.admin.v3.BootstrapConfigDump"),
        ("/listeners", "ingress::127.0.0.1:"),
        ("/listeners?format=json", "listener_statuses"),
        ("/memory", "allocated"),
        ("/ready", "LIVE"),
        ("/server_info", "command_line_options"),
        ("/stats", "cluster.upstream.upstream_rq_200: 1"),
        (
            "/stats?filter=downstream_rq_2xx&format=json",
            "http.ingress.downstream_rq_2xx",
        ),
        (
            "/stats/prometheus",
            "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"upstream\"} 1",
        ),
    ] {
        let text = proxy.admin().text(page).unwrap();
        assert!(text.contains(part), "{page} has no {part}:\n{text}");
    }
}

#[test]
fn changes_are_post_only() {
    let (_upstream, proxy) = proxy();
    for page in [
        "/quitquitquit",
        "/drain_listeners",
        "/logging?level=off",
        "/reset_counters",
    ] {
        let (status, _) = ask(
            &proxy,
            &format!("GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        );
        assert_eq!(status, 405, "{page}");
    }
    assert_eq!(
        ask(
            &proxy,
            "POST /logging?level=debug HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        .0,
        200
    );
    assert_eq!(
        ask(
            &proxy,
            "POST /logging?level=loud HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        .0,
        400
    );
    assert_eq!(
        ask(&proxy, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").0,
        404
    );
}

#[test]
fn a_web_page_cannot_reach_it_through_a_name_of_its_own() {
    let (_upstream, proxy) = proxy();
    assert_eq!(
        ask(&proxy, "GET /stats HTTP/1.1\r\nHost: evil.test\r\n\r\n").0,
        403
    );
    let foreign =
        "POST /reset_counters HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\n\r\n";
    assert_eq!(ask(&proxy, foreign).0, 403);
    assert_eq!(
        ask(&proxy, "GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").0,
        200
    );
}

#[test]
fn quitquitquit_quits() {
    let (_upstream, mut proxy) = proxy();
    assert_eq!(
        ask(
            &proxy,
            "POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        .0,
        200
    );
    assert!(proxy.ended().unwrap().success());
}

#[test]
fn drained_listeners_accept_no_more() {
    let (_upstream, proxy) = proxy();
    assert_eq!(
        ask(
            &proxy,
            "POST /drain_listeners HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        .0,
        200
    );
    let address = proxy.listener("ingress").unwrap();
    let refused = e2e::wait::until(e2e::wait::Deadline::default(), || {
        Connection::open(address).is_err().then_some(())
    });
    assert!(refused.is_some());
    assert_eq!(
        ask(&proxy, "GET /stats HTTP/1.1\r\nHost: localhost\r\n\r\n").0,
        200
    );
}
