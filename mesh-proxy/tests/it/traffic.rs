use e2e::{
    client::Connection,
    upstream::{Reply, Upstream},
};

use crate::support::{bootstrap, get, start};

const LOG: &str = r#"access_log:
          - name: log
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format: {text_format_source: {inline_string: "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS%\n"}}"#;

#[test]
fn requests_are_proxied_on_kept_connections_and_logged() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on(
        "/x",
        [
            Reply::ok("one"),
            Reply::ok("two").chunked(),
            Reply::status(404),
        ],
    );
    let proxy = start(&bootstrap(upstream.address(), LOG, ""));
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    for (status, body) in [(200, "one"), (200, "two"), (404, "")] {
        connection.send(&get("/x"));
        let response = connection.response(false);
        assert_eq!(
            (response.status, response.body.data.as_slice()),
            (status, body.as_bytes())
        );
    }
    let requests = upstream.take_requests();
    assert!(
        requests.iter().all(|request| request.connection == 0),
        "one connection is enough"
    );
    let lines = proxy
        .stdout()
        .take_through(|line| line.contains("404"))
        .unwrap();
    assert_eq!(lines, ["/x 200 -", "/x 200 -", "/x 404 -"]);
}

#[test]
fn large_bodies_stream_both_ways() {
    let upstream = Upstream::start("a").unwrap();
    let large = "x".repeat(3 << 20);
    upstream.on("/big", [Reply::ok(&large)]);
    let proxy = start(&bootstrap(upstream.address(), "", ""));
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    let head = format!(
        "POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        large.len()
    );
    connection.send(head.as_bytes());
    connection.send(large.as_bytes());
    let response = connection.response(false);
    assert_eq!(
        (response.status, response.body.data.len()),
        (200, large.len())
    );
    let request = upstream.take_requests().remove(0);
    assert_eq!(request.body.data.len(), large.len());
}

#[test]
fn what_is_ambiguous_never_reaches_the_upstream() {
    let upstream = Upstream::start("a").unwrap();
    let proxy = start(&bootstrap(upstream.address(), "", ""));
    for bytes in [
        &b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
        connection.send(bytes);
        let status = connection.response(false).status;
        assert!((400..600).contains(&status), "{status} for {}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(upstream.seen().requests, 0);
}

#[test]
fn a_dead_upstream_is_a_503_and_a_silent_client_costs_nothing() {
    let dead = e2e::upstream::DeadPort::refusing().unwrap();
    let proxy = start(&bootstrap(dead.address(), LOG, ""));
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    connection.send(&get("/x"));
    assert_eq!(connection.response(false).status, 503);
    let lines = proxy
        .stdout()
        .take_through(|line| line.contains("503"))
        .unwrap();
    assert_eq!(lines, ["/x 503 UF"]);
}

#[test]
fn an_http_10_answer_that_breaks_off_ends_in_a_reset() {
    use std::io::{Read as _, Write as _};
    let upstream = Upstream::start("a").unwrap();
    upstream.on(
        "/x",
        [
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                .after("go")
                .then_close(),
        ],
    );
    let manager = "http_protocol_options: {accept_http_10: true}";
    let proxy = start(&bootstrap(upstream.address(), manager, ""));
    let mut client = std::net::TcpStream::connect(proxy.listener("ingress").unwrap()).unwrap();
    client
        .write_all(b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n")
        .unwrap();
    assert!(upstream.wait(|seen| seen.requests == 1));
    upstream.release("go");
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
