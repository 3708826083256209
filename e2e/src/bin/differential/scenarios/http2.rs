//! HTTP/2 on either side, and its translation to and from HTTP/1.1.

use anyhow::Result;
use e2e::http2::{MAX_CONCURRENT_STREAMS, Request};
use e2e::upstream::Reply;

use super::http_options;
use crate::ask::{Ask, get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

pub(super) const HTTP2: &str = "explicit_http_config: {http2_protocol_options: {}}";

/// `REFUSED_STREAM`, of which the peer says that it has not looked at the stream.
const REFUSED: u32 = 7;

pub(super) fn groups() -> Vec<Group> {
    let routes = "
        virtual_hosts:
        - name: all
          domains: ['*']
          routes:
          - {match: {prefix: /one}, route: {cluster: one}}
          - {match: {prefix: /empty}, route: {cluster: empty}}
          - {match: {prefix: /slow}, route: {cluster: a, timeout: 0.3s}}
          - {match: {prefix: /retry}, route: {cluster: a, retry_policy: {retry_on: 'refused-stream,reset', num_retries: 1, retry_back_off: {base_interval: 0.001s}}}}
          - {match: {path: /direct}, direct_response: {status: 200, body: {inline_string: direct}}}
          - {match: {path: /wanted}, route: {cluster: a}}
          - {match: {prefix: /}, route: {cluster: a}}
    ";
    let hcm = |name, fields| Hcm {
        name,
        fields,
        routes,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&hcm("main", ""))
        .listener(&hcm(
            "lenient",
            "http2_protocol_options: {override_stream_error_on_invalid_http_message: true}",
        ))
        .listener(&hcm(
            "two",
            "http2_protocol_options: {max_concurrent_streams: 2}",
        ))
        .listener(&hcm(
            "few",
            "common_http_protocol_options: {max_requests_per_connection: 2}",
        ))
        .listener(&hcm("idle", "stream_idle_timeout: 0.3s"))
        .listener(&hcm(
            "trailers",
            "http_protocol_options: {enable_trailers: true}",
        ))
        .cluster("a", &["a"], &http_options(HTTP2))
        .cluster("one", &["b"], "")
        .cluster("empty", &[], &http_options(HTTP2));
    vec![group(
        bootstrap,
        [
            ("http2/both_ways", both_ways),
            ("http2/to_http1", to_http1),
            ("http2/from_http1", from_http1),
            ("http2/trailers_meet_http1", trailers_meet_http1),
            ("http2/authorities", authorities),
            ("http2/malformed_heads", malformed_heads),
            ("http2/expect_continue", expect_continue),
            ("http2/settings", settings),
            ("http2/upstream_takes_one_stream", upstream_takes_one_stream),
            ("http2/upstream_resets", upstream_resets),
            ("http2/upstream_resets_midway", upstream_resets_midway),
            ("http2/upstream_goes_away", upstream_goes_away),
            ("http2/upstream_closes", upstream_closes),
            ("http2/client_resets", client_resets),
            ("http2/early_answers", early_answers),
            ("http2/local_replies", local_replies),
            ("http2/limits", limits),
            ("http2/max_requests_per_connection", max_requests),
            ("http2/stream_idle_timeout", stream_idle_timeout),
            ("http2/stats", stats),
        ],
    )]
}

fn both_ways(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/x",
        [Reply::ok("hello").header("x-b", "1").header("x-b", "2")],
    );
    run.up["a"].on("/end", [Reply::ok("hello").trailer("x-end", "1")]);
    run.up["a"].on("/none", [Reply::status(204)]);
    run.up["a"].on("/same", [Reply::status(304).header("content-length", "5")]);
    run.send_http2(get("/x?y=1").expect(200))?;
    run.send_http2(get("/x").header("cookie", "a=1").header("cookie", "b=2"))?;
    run.send_http2(
        get("/x")
            .header("te", "trailers")
            .header("x-a", "1")
            .header("x-a", "2"),
    )?;
    run.send_http2(request("POST", "/x").data("some data"))?;
    run.send_http2(request("POST", "/x").body("known"))?;
    run.send_http2(request("POST", "/x").data("more").trailer("x-last", "2"))?;
    run.send_http2(get("/end"))?;
    run.send_http2(request("HEAD", "/x"))?;
    run.send_http2(get("/none"))?;
    run.send_http2(get("/same"))?;
    Ok(())
}

fn to_http1(run: &mut Run<'_>) -> Result<()> {
    run.up["b"].on("/one/chunked", [Reply::ok("pieces").chunked()]);
    run.up["b"].on("/one/end", [Reply::ok("hello").trailer("x-end", "1")]);
    run.up["b"].on(
        "/one/hop",
        [Reply::ok("x")
            .header("connection", "keep-alive, x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")],
    );
    run.up["b"].on(
        "/one/close",
        [Reply::ok("x").header("connection", "close").then_close()],
    );
    run.up["b"].on("/one/none", [Reply::status(204)]);
    run.send_http2(get("/one").expect(200))?;
    run.send_http2(get("/one").header("cookie", "a=1").header("cookie", "b=2"))?;
    run.send_http2(get("/one").header("te", "trailers"))?;
    run.send_http2(request("POST", "/one").data("no length"))?;
    run.send_http2(request("POST", "/one").body("known"))?;
    run.send_http2(request("POST", "/one").data("more").trailer("x-last", "2"))?;
    run.send_http2(request("HEAD", "/one"))?;
    run.send_http2(request("OPTIONS", "*"))?;
    run.send_http2(get("/one/chunked"))?;
    run.send_http2(get("/one/end"))?;
    run.send_http2(get("/one/hop"))?;
    run.send_http2(get("/one/close"))?;
    run.send_http2(get("/one/none"))?;
    Ok(())
}

fn from_http1(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", [Reply::ok("hello")]);
    run.up["a"].on("/end", [Reply::ok("hello").trailer("x-end", "1")]);
    run.up["a"].on(
        "/length",
        [Reply::ok("hello").header("content-length", "5")],
    );
    run.send(get("/x").expect(200).fate())?;
    run.send(get("/x").header("Connection", "x-hop").header("X-Hop", "1"))?;
    run.send(
        get("/x")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Connection", "keep-alive"),
    )?;
    run.send(get("/x").header("TE", "trailers, gzip"))?;
    run.send(get("/x").header("Cookie", "a=1; b=2"))?;
    run.send(get("/x").host("other.example:81"))?;
    run.send(request("POST", "/x").chunked("pieces"))?;
    run.send(request("POST", "/x").body("known"))?;
    run.send(request("HEAD", "/x").fate())?;
    run.send(get("/end").fate())?;
    run.send(get("/length").fate())?;
    run.send(get("/x").header("Connection", "close").fate())?;
    Ok(())
}

fn trailers_meet_http1(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/end", [Reply::ok("hello").trailer("x-end", "1")]);
    run.send(get("/end").on("trailers"))?;
    let chunks = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Last: 2\r\n\r\n";
    let head = crate::ask::head("POST", "/x");
    run.send(crate::ask::raw(format!("{head}{chunks}")).on("trailers"))?;
    run.send_http2(
        request("POST", "/one")
            .data("more")
            .trailer("x-last", "2")
            .on("trailers"),
    )?;
    Ok(())
}

fn authorities(run: &mut Run<'_>) -> Result<()> {
    run.send_http2(get("/x").host("a.example:81"))?;
    run.send_http2(get("/x").header("host", "test.example"))?;
    run.send_http2(get("/x").header("host", "evil.example"))?;
    run.send_http2(get("/x").host("").header("host", "host.example"))?;
    run.send_http2(get("/x").host(""))?;
    run.send_http2(get("/x").host("UPPER.example"))?;
    run.send_http2(get("/one").header("host", "evil.example"))?;
    Ok(())
}

fn head(fields: &[(&str, &str)]) -> Request {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Request {
        fields: fields.iter().map(own).collect(),
        ..Request::default()
    }
}

const PLAIN: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/x"),
    (":authority", "test.example"),
];

/// The stream ends, and the connection lives on.
fn malformed_heads(run: &mut Run<'_>) -> Result<()> {
    for (what, extra, left_out) in [
        ("no path", &[][..], ":path"),
        ("no method", &[], ":method"),
        ("no scheme", &[], ":scheme"),
        ("an empty path", &[(":path", "")], ":path"),
        ("a pseudo field that nobody knows", &[(":strange", "1")], ""),
        ("a status in a request", &[(":status", "200")], ""),
        ("two paths", &[(":path", "/y")], ""),
        ("upper case", &[("X-Upper", "1")], ""),
        ("a field of the connection", &[("connection", "close")], ""),
        (
            "a coding of the transfer",
            &[("transfer-encoding", "chunked")],
            "",
        ),
        ("keep-alive", &[("keep-alive", "timeout=5")], ""),
        ("te without trailers", &[("te", "gzip")], ""),
        ("a space in a name", &[("x y", "1")], ""),
        ("a line end in a value", &[("x-a", "1\r\n2")], ""),
    ] {
        let kept = PLAIN.iter().filter(|(name, _)| *name != left_out);
        let mut fields: Vec<_> = kept.copied().collect();
        fields.extend_from_slice(extra);
        let mut client = run.open_http2("lenient", &[])?;
        let stream = client.send(&head(&fields));
        let mut ask = get("/x");
        ask.label = what.to_owned();
        run.finish_http2(&mut client, stream, &ask)?;
        let alive = run.send_http2_on(&mut client, get("/direct"))?.status == 200;
        run.note(
            &format!("{what}: the connection"),
            if alive { "kept" } else { "closed" },
        );
    }
    Ok(())
}

fn expect_continue(run: &mut Run<'_>) -> Result<()> {
    let mut client = run.open_http2("main", &[])?;
    let ask = request("POST", "/x")
        .header("expect", "100-continue")
        .open();
    let stream = client.send(&ask.http2());
    run.await_requests("a", 1)?;
    client.writer().data(stream, b"late", true);
    run.finish_http2(&mut client, stream, &ask.expect(200))?;
    Ok(())
}

fn settings(run: &mut Run<'_>) -> Result<()> {
    for listener in ["main", "two"] {
        let mut client = run.open_http2(listener, &[])?;
        let settings = client.settings();
        let most = settings
            .iter()
            .find(|(id, _)| *id == MAX_CONCURRENT_STREAMS);
        run.note(
            &format!("{listener}: max_concurrent_streams"),
            format!("{most:?}"),
        );
        let tunnels = client.knows_tunnels();
        run.note(&format!("{listener}: tunnels"), tunnels.to_string());
    }
    Ok(())
}

/// A third request waits for no connection, but opens one.
fn upstream_takes_one_stream(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].set_http2(&[(MAX_CONCURRENT_STREAMS, 1)]);
    run.up["a"].on("/held", [Reply::ok("held").after("go")]);
    run.up["a"].close_connections();
    run.await_gauge("cluster.a.upstream_cx_active", 0)?;
    // Now the peer's limit is known.
    run.send_http2(get("/x").expect(200))?;
    let mut client = run.open_http2("main", &[])?;
    let held = get("/held").expect(200);
    let streams = [client.send(&held.http2()), client.send(&held.http2())];
    run.await_requests("a", 3)?;
    run.note("connections", run.up["a"].seen().accepted.to_string());
    run.up["a"].release("go");
    for stream in streams {
        let status = client.response(stream).status;
        run.note("status", status.to_string());
    }
    run.settle("held")
}

fn upstream_resets(run: &mut Run<'_>) -> Result<()> {
    for reason in [0, 1, 2, REFUSED, 8, 11, 13] {
        run.up["a"].on("/x", [Reply::reset_stream(reason)]);
        // One of the two has broken the protocol.
        let status = if reason == 1 { 502 } else { 503 };
        run.send_http2(get("/x").expect(status))?;
        run.send(get("/x").expect(status))?;
    }
    run.up["a"].on(
        "/retry",
        [Reply::reset_stream(REFUSED), Reply::ok("second")],
    );
    run.send_http2(get("/retry").expect(200))?;
    run.up["a"].on("/retry", [Reply::reset_stream(8), Reply::ok("second")]);
    run.send_http2(get("/retry").expect(200))?;
    run.counters(&[
        "cluster.a.upstream_rq_rx_reset",
        "cluster.a.upstream_rq_tx_reset",
        "cluster.a.upstream_rq_retry",
        "cluster.a.upstream_rq_503",
        "cluster.a.http2.rx_reset",
    ])
}

fn upstream_resets_midway(run: &mut Run<'_>) -> Result<()> {
    for reason in [0, 2, 8] {
        run.up["a"].on(
            "/x",
            [Reply::ok("half")
                .header("content-length", "8")
                .then_reset_stream(reason)],
        );
        run.send_http2(get("/x"))?;
        run.send(get("/x").fate())?;
    }
    run.counters(&[
        "cluster.a.upstream_rq_rx_reset",
        "http.main.downstream_rq_tx_reset",
    ])
}

fn upstream_goes_away(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].close_connections();
    run.await_gauge("cluster.a.upstream_cx_active", 0)?;
    // The first stream of a new connection is its last.
    run.up["a"].on(
        "/x",
        [Reply::ok("last").then_go_away(1, 0), Reply::ok("next")],
    );
    run.send_http2(get("/x").expect(200))?;
    run.await_counter("cluster.a.upstream_cx_destroy", 2)?;
    run.send_http2(get("/x").expect(200))?;
    run.note("connections", run.up["a"].seen().accepted.to_string());
    Ok(())
}

fn upstream_closes(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", [Reply::close()]);
    run.send_http2(request("POST", "/x").data("x").expect(503))?;
    run.up["a"].on(
        "/x",
        [Reply::ok("half").header("content-length", "8").then_close()],
    );
    run.send_http2(request("POST", "/x").data("x"))?;
    run.send(request("POST", "/x").body("x").fate())?;
    run.counters(&["cluster.a.upstream_cx_destroy_remote_with_active_rq"])
}

fn client_resets(run: &mut Run<'_>) -> Result<()> {
    for (what, reply) in [
        ("before the answer", Reply::hang()),
        ("during the answer", Reply::ok("half").then_hang()),
    ] {
        run.up["a"].reset();
        run.up["a"].on("/x", [reply]);
        let step = run.step(what);
        let mut client = run.open_http2("main", &[])?;
        let stream = client.send(&get("/x").http2());
        run.await_requests("a", 1)?;
        if what == "during the answer" {
            client.body(stream, 4);
        }
        client.writer().reset(stream, 8);
        run.await_gauge("cluster.a.upstream_rq_active", 0)?;
        run.settle(&step)?;
    }
    run.counters(&[
        "http.main.downstream_rq_rx_reset",
        "cluster.a.upstream_rq_tx_reset",
        "cluster.a.upstream_rq_cancelled",
    ])
}

/// The answer is complete before the request is.
fn early_answers(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", [Reply::status(413).early()]);
    for path in ["/x", "/direct", "/empty"] {
        let mut client = run.open_http2("main", &[])?;
        let ask = request("POST", path).open();
        let stream = client.send(&ask.http2());
        run.finish_http2(&mut client, stream, &ask)?;
    }
    Ok(())
}

fn local_replies(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/slow", [Reply::hang()]);
    run.send_http2(get("/empty").expect(503))?;
    run.send_http2(request("HEAD", "/empty").expect(503))?;
    run.send_http2(get("/direct").expect(200))?;
    run.send_http2(get("/slow").expect(504))?;
    run.send(get("/slow").expect(504))?;
    Ok(())
}

fn limits(run: &mut Run<'_>) -> Result<()> {
    let long = "a".repeat(70_000);
    run.send_http2(get("/x").header("x-long", &long))?;
    let many = (0..110).fold(get("/x"), |ask, n| ask.header(&format!("x-{n}"), "1"));
    run.send_http2(many)?;
    Ok(())
}

fn max_requests(run: &mut Run<'_>) -> Result<()> {
    let mut client = run.open_http2("few", &[])?;
    for _ in 0..2 {
        run.send_http2_on(&mut client, get("/direct").expect(200))?;
    }
    let went = client.go_away();
    run.note("GOAWAY", format!("{:?}", went.map(|(_, reason)| reason)));
    run.counters(&["http.few.downstream_cx_max_requests_reached"])
}

fn stream_idle_timeout(run: &mut Run<'_>) -> Result<()> {
    let ask = |path: &str| -> Ask { request("POST", path).data("some").open().on("idle") };
    for path in ["/x", "/one"] {
        let mut client = run.open_http2("idle", &[])?;
        let stream = client.send(&ask(path).http2());
        run.finish_http2(&mut client, stream, &ask(path).expect(408))?;
    }
    run.up["a"].on("/x", [Reply::hang()]);
    run.send_http2(get("/x").on("idle").expect(504))?;
    run.up["a"].on("/x", [Reply::ok("half").then_hang()]);
    run.send_http2(get("/x").on("idle"))?;
    run.counters(&["http.idle.downstream_rq_idle_timeout"])
}

fn stats(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].close_connections();
    run.await_gauge("cluster.a.upstream_cx_active", 0)?;
    let mut client = run.open_http2("main", &[])?;
    for _ in 0..3 {
        run.send_http2_on(&mut client, get("/x").expect(200))?;
    }
    run.gauges(&["http.main.downstream_cx_http2_active"])?;
    drop(client);
    run.await_gauge("http.main.downstream_cx_http2_active", 0)?;
    run.counters(&[
        "http.main.downstream_cx_total",
        "http.main.downstream_cx_http2_total",
        "http.main.downstream_rq_total",
        "http.main.downstream_rq_http2_total",
        "http.main.downstream_rq_2xx",
        "cluster.a.upstream_cx_total",
        "cluster.a.upstream_cx_http2_total",
        "cluster.a.upstream_rq_total",
        "cluster.a.upstream_rq_completed",
        "cluster.a.upstream_rq_pending_total",
    ])
}
