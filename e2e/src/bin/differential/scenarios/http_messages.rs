//! HTTP/1.1 as messages on connections: framing, reuse, bodies, interim responses.

use anyhow::Result;
use e2e::upstream::Reply;

use super::http_options;
use crate::ask::{get, head, raw, request};
use crate::config::{ALL_TO_A, Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

pub(super) fn groups() -> Vec<Group> {
    let plain = Bootstrap::default()
        .listener(&Hcm::default())
        .listener(&Hcm {
            name: "two",
            fields: "common_http_protocol_options: {max_requests_per_connection: 2}",
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "continue",
            fields: "proxy_100_continue: true",
            ..Hcm::default()
        })
        .cluster("a", &["a"], "");
    let trailers = Bootstrap::default()
        .listener(&Hcm {
            fields: "http_protocol_options: {enable_trailers: true}",
            ..Hcm::default()
        })
        .cluster(
            "a",
            &["a"],
            &http_options("explicit_http_config: {http_protocol_options: {enable_trailers: true}}"),
        );
    let old = Bootstrap::default()
        .listener(&Hcm {
            fields: "http_protocol_options: {accept_http_10: true, default_host_for_http_10: old.example}",
            routes: ALL_TO_A,
            ..Hcm::default()
        })
        .cluster("a", &["a"], "");
    vec![
        group(
            plain,
            [
                ("http/keep_alive", keep_alive),
                ("http/pipelining", pipelining),
                ("http/chunked_request", chunked_request),
                ("http/chunked_response", chunked_response),
                ("http/trailers_are_dropped", trailers_are_dropped),
                ("http/expect_continue", expect_continue),
                (
                    "http/expect_continue_is_forwarded",
                    expect_continue_is_forwarded,
                ),
                ("http/head_requests", head_requests),
                ("http/bodiless_statuses", bodiless_statuses),
                ("http/http10_is_refused", http10_is_refused),
                ("http/interim_responses", interim_responses),
                ("http/response_before_request_is_complete", early_response),
                ("http/response_until_close", response_until_close),
                (
                    "http/max_requests_per_connection",
                    max_requests_per_connection,
                ),
                ("http/upgrade_is_refused", upgrade_is_refused),
                ("http/connect_is_refused", connect_is_refused),
                ("http/large_bodies", large_bodies),
                ("http/client_leaves", client_leaves),
            ],
        ),
        group(trailers, [("http/trailers_are_kept", trailers_are_kept)]),
        group(old, [("http/http10_is_accepted", http10_is_accepted)]),
    ]
}

fn keep_alive(run: &mut Run<'_>) -> Result<()> {
    let connection = run.open("main")?;
    let connection = run.send_on(connection, get("/1").expect(200))?;
    let connection = run.send_on(connection, get("/2").expect(200).fate())?;
    drop(connection);
    run.send(
        get("/close")
            .header("Connection", "close")
            .expect(200)
            .fate(),
    )?;
    run.send(request("POST", "/3").body("hello").expect(200).fate())?;
    run.up["a"].on(
        "/bye",
        [Reply::ok("bye").header("connection", "close").then_close()],
    );
    run.send(get("/bye").expect(200).fate())?;
    run.counters(&[
        "http.main.downstream_rq_total",
        "http.main.downstream_rq_2xx",
        "http.main.downstream_cx_total",
        "cluster.a.upstream_cx_total",
        "cluster.a.upstream_rq_total",
        "cluster.a.upstream_rq_200",
        "cluster.a.upstream_rq_2xx",
        "cluster.a.upstream_rq_completed",
    ])
}

fn pipelining(run: &mut Run<'_>) -> Result<()> {
    let three = ["/1", "/2", "/3"]
        .map(|path| head("GET", path) + "\r\n")
        .concat();
    run.send(raw(three).expect_all(&[200, 200, 200]))?;
    let with_bodies = head("POST", "/1")
        + "Content-Length: 3\r\n\r\nabc"
        + &head("POST", "/2")
        + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        + &head("GET", "/3")
        + "Connection: close\r\n\r\n"
        + &head("GET", "/never")
        + "\r\n";
    run.send(raw(with_bodies).expect_all(&[200, 200, 200, 0]))?;
    run.counters(&["http.main.downstream_rq_total"])
}

fn chunked_request(run: &mut Run<'_>) -> Result<()> {
    run.send(request("POST", "/1").chunked("hello").expect(200).fate())?;
    let start = head("POST", "/2") + "Transfer-Encoding: chunked\r\n\r\n";
    for body in [
        "0\r\n\r\n",
        "3;name=value;\"q\"\r\nabc\r\n0\r\n\r\n",
        "00000003\r\nabc\r\n00\r\n\r\n",
        "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
    ] {
        run.send(raw(start.clone() + body).expect(200))?;
    }
    Ok(())
}

fn chunked_response(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/chunked", [Reply::ok("hello").chunked()]);
    run.up["a"].on("/empty", [Reply::ok("").chunked()]);
    run.send(get("/chunked").expect(200).fate())?;
    run.send(get("/empty").expect(200).fate())?;
    Ok(())
}

const TRAILED: &str = "Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n3\r\nabc\r\n0\r\nx-end: 1\r\nX-Sum: 2\r\n\r\n";

fn trailers_are_dropped(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/t", [Reply::ok("hello").trailer("x-after", "1")]);
    run.send(raw(head("POST", "/t") + TRAILED).expect(200))?;
    Ok(())
}

fn trailers_are_kept(run: &mut Run<'_>) -> Result<()> {
    let reply = Reply::ok("hello")
        .trailer("x-after", "1")
        .trailer("X-More", "2");
    run.up["a"].on("/t", [reply]);
    run.send(raw(head("POST", "/t") + TRAILED).expect(200))?;
    Ok(())
}

fn expect_continue(run: &mut Run<'_>) -> Result<()> {
    let ask = request("POST", "/1")
        .header("Expect", "100-continue")
        .body("hello");
    run.send(ask.expect(200).fate())?;
    let ask = request("POST", "/2")
        .header("Expect", "100-Continue")
        .chunked("hello");
    run.send(ask.expect(200).fate())?;
    let ask = request("POST", "/3")
        .header("Expect", "something-else")
        .body("hello");
    run.send(ask.expect(200).fate())?;
    Ok(())
}

fn expect_continue_is_forwarded(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/",
        [Reply::ok("thanks").first("HTTP/1.1 100 Continue\r\n\r\n")],
    );
    let ask = request("POST", "/1")
        .header("Expect", "100-continue")
        .body("hello");
    run.send(ask.on("continue").expect(200).fate())?;
    Ok(())
}

fn head_requests(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/long",
        [Reply::raw(
            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
        )],
    );
    run.up["a"].on(
        "/chunked",
        [Reply::raw(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        )],
    );
    run.up["a"].on("/bare", [Reply::raw("HTTP/1.1 200 OK\r\n\r\n")]);
    for path in ["/long", "/chunked", "/bare"] {
        run.send(request("HEAD", path).expect(200).fate())?;
    }
    Ok(())
}

fn bodiless_statuses(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/204", [Reply::status(204)]);
    run.up["a"].on("/304", [Reply::status(304).header("etag", "\"1\"")]);
    run.up["a"].on(
        "/length",
        [Reply::raw(
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        )],
    );
    run.send(get("/204").expect(204).fate())?;
    run.send(get("/304").expect(304).fate())?;
    run.send(get("/length").expect(304).fate())?;
    Ok(())
}

fn http10_is_refused(run: &mut Run<'_>) -> Result<()> {
    run.send(raw("GET / HTTP/1.0\r\n\r\n").expect(426))?;
    run.send(raw("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").expect(426))?;
    run.send(raw("GET / HTTP/2.0\r\nHost: a\r\n\r\n").expect(426))?;
    run.send(raw("GET /\r\n\r\n").expect(426))?;
    run.counters(&[
        "http.main.downstream_rq_4xx",
        "http.main.downstream_cx_protocol_error",
    ])
}

fn http10_is_accepted(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/chunked", [Reply::ok("hello").chunked()]);
    run.send(raw("GET /1 HTTP/1.0\r\n\r\n").expect(200))?;
    run.send(raw("GET /2 HTTP/1.0\r\nHost: a.example\r\n\r\n").expect(200))?;
    run.send(
        raw("GET /3 HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n").expect(200),
    )?;
    run.send(raw("GET /chunked HTTP/1.0\r\nHost: a.example\r\n\r\n").expect(200))?;
    run.send(
        raw("POST /4 HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            .expect(200),
    )?;
    run.send(raw("POST /5 HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").expect(200))?;
    Ok(())
}

fn interim_responses(run: &mut Run<'_>) -> Result<()> {
    for (path, line) in [
        ("/100", "100 Continue"),
        ("/102", "102 Processing"),
        ("/103", "103 Early Hints"),
        ("/199", "199 Odd"),
        ("/101", "101 Switching Protocols"),
    ] {
        let interim = format!("HTTP/1.1 {line}\r\nlink: </a>\r\n\r\n");
        run.up["a"].on(path, [Reply::ok("final").first(interim)]);
        let status = if path == "/101" { 101 } else { 200 };
        run.send(get(path).expect(status).fate())?;
    }
    Ok(())
}

fn early_response(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/", [Reply::status(403).body("no").early().then_hang()]);
    let start = head("POST", "/early") + "Content-Length: 100\r\n\r\nsome of it";
    run.send(raw(start).expect(403))?;
    run.counters(&["http.main.downstream_rq_4xx", "cluster.a.upstream_rq_4xx"])
}

fn response_until_close(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/",
        [Reply::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end").then_close()],
    );
    run.send(get("/eof").expect(200).fate())?;
    run.up["a"].on(
        "/old",
        [Reply::raw("HTTP/1.0 200 OK\r\n\r\nold").then_close()],
    );
    run.send(get("/old").expect(200).fate())?;
    Ok(())
}

fn max_requests_per_connection(run: &mut Run<'_>) -> Result<()> {
    let connection = run.open("two")?;
    let connection = run.send_on(connection, get("/1").on("two").expect(200))?;
    run.send_on(connection, get("/2").on("two").expect(200).fate())?;
    run.counters(&["http.two.downstream_cx_max_requests_reached"])
}

fn upgrade_is_refused(run: &mut Run<'_>) -> Result<()> {
    for upgrade in ["websocket", "h2c", "TLS/1.0", "something"] {
        let ask = get("/up")
            .header("Connection", "Upgrade")
            .header("Upgrade", upgrade);
        run.send(ask.expect(if upgrade == "h2c" { 200 } else { 403 }).fate())?;
    }
    let ask = get("/up").header("Upgrade", "websocket");
    run.send(ask.expect(200).fate())?;
    run.counters(&[
        "http.main.downstream_rq_ws_on_non_ws_route",
        "http.main.downstream_rq_4xx",
    ])
}

fn connect_is_refused(run: &mut Run<'_>) -> Result<()> {
    run.send(
        raw("CONNECT test.example:443 HTTP/1.1\r\nHost: test.example:443\r\n\r\n").expect(404),
    )?;
    run.send(raw("CONNECT / HTTP/1.1\r\nHost: test.example\r\n\r\n").expect(400))?;
    run.send(raw("CONNECT test.example HTTP/1.1\r\nHost: test.example\r\n\r\n").expect(400))?;
    Ok(())
}

fn large_bodies(run: &mut Run<'_>) -> Result<()> {
    let body = "0123456789abcdef".repeat(1 << 17);
    run.up["a"].on("/length", [Reply::ok(&body)]);
    run.up["a"].on("/chunked", [Reply::ok(&body).chunked()]);
    run.send(request("POST", "/length").body(&body).expect(200).fate())?;
    run.send(
        request("POST", "/chunked")
            .chunked(&body)
            .expect(200)
            .fate(),
    )?;
    Ok(())
}

fn client_leaves(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/", [Reply::hang()]);
    let sent = run.start(get("/left"))?;
    run.await_requests("a", 1)?;
    drop(sent);
    run.await_counter("http.main.downstream_cx_destroy_remote_active_rq", 1)?;
    run.await_gauge("cluster.a.upstream_rq_active", 0)?;
    let step = run.step("the client left");
    run.settle(&step)?;
    run.counters(&[
        "http.main.downstream_rq_rx_reset",
        "cluster.a.upstream_rq_cancelled",
    ])
}
