//! Upstreams that misbehave.

use anyhow::Result;
use e2e::upstream::Reply;

use super::http_options;
use crate::ask::{get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

pub(super) fn groups() -> Vec<Group> {
    let routes = "
        virtual_hosts:
        - name: all
          domains: ['*']
          routes:
          - {match: {prefix: /small}, route: {cluster: small}}
          - {match: {prefix: /count}, route: {cluster: count}}
          - {match: {prefix: /dead}, route: {cluster: dead}}
          - {match: {prefix: /}, route: {cluster: a}}
    ";
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            routes,
            ..Hcm::default()
        })
        .cluster("a", &["a"], "")
        .cluster("small", &["small"], &http_options("common_http_protocol_options: {max_response_headers_kb: 2}\n    explicit_http_config: {http_protocol_options: {}}"))
        .cluster("count", &["count"], &http_options("common_http_protocol_options: {max_headers_count: 5}\n    explicit_http_config: {http_protocol_options: {}}"))
        .cluster("dead", &["dead"], "");
    vec![group(
        bootstrap,
        [
            ("http/upstream_garbage", upstream_garbage),
            ("http/upstream_framing", upstream_framing),
            ("http/upstream_headers", upstream_headers),
            ("http/upstream_statuses", upstream_statuses),
            ("http/upstream_header_limits", upstream_header_limits),
            ("http/upstream_leaves_before_the_response", leaves_before),
            ("http/upstream_leaves_during_the_response", leaves_during),
            ("http/upstream_refuses", refuses),
            ("http/upstream_says_too_much", says_too_much),
            ("http/local_replies", local_replies),
        ],
    )]
}

fn upstream_garbage(run: &mut Run<'_>) -> Result<()> {
    for (path, bytes) in [
        ("/words", "this is not http\r\n\r\n"),
        ("/version", "HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("/status", "HTTP/1.1 20x OK\r\ncontent-length: 0\r\n\r\n"),
        ("/short", "HTTP/1.1 20\r\ncontent-length: 0\r\n\r\n"),
        ("/empty", "\r\n\r\n"),
    ] {
        run.up["a"].on(path, [Reply::raw(bytes).then_close()]);
        let status = match path {
            "/version" => 200,
            "/short" => 0,
            _ => 502,
        };
        run.send(get(path).expect(status).fate())?;
    }
    run.counters(&[
        "cluster.a.upstream_cx_protocol_error",
        "cluster.a.upstream_rq_502",
    ])
}

fn upstream_framing(run: &mut Run<'_>) -> Result<()> {
    for (path, fields, body) in [
        (
            "/both",
            "content-length: 3\r\ntransfer-encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        ("/twice", "content-length: 3\r\ncontent-length: 3", "abc"),
        ("/differ", "content-length: 3\r\ncontent-length: 4", "abcd"),
        ("/list", "content-length: 3, 3", "abc"),
        ("/minus", "content-length: -3", "abc"),
        ("/gzip", "transfer-encoding: gzip", "abc"),
        (
            "/gzchunk",
            "transfer-encoding: gzip, chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        ("/identity", "transfer-encoding: identity", "abc"),
        (
            "/chunk",
            "transfer-encoding: chunked",
            "x\r\nabc\r\n0\r\n\r\n",
        ),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}");
        run.up["a"].on(path, [Reply::raw(bytes).then_close()]);
        run.send(get(path).fate())?;
    }
    Ok(())
}

fn upstream_headers(run: &mut Run<'_>) -> Result<()> {
    for (path, fields) in [
        ("/nul", "x-a: a\0b"),
        ("/del", "x-a: a\x7fb"),
        ("/space", "x-a : b"),
        ("/fold", "x-a: b\r\n c"),
        ("/noname", ": b"),
        ("/nocolon", "x-a"),
        ("/empty", "x-a:"),
        ("/under", "x_a: b"),
        ("/utf8", "x-a: \u{e9}"),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\ncontent-length: 1\r\n\r\nx");
        run.up["a"].on(path, [Reply::raw(bytes).then_close()]);
        run.send(get(path).fate())?;
    }
    Ok(())
}

fn upstream_statuses(run: &mut Run<'_>) -> Result<()> {
    for status in [
        200, 201, 299, 301, 404, 418, 425, 499, 500, 511, 599, 600, 999,
    ] {
        run.up["a"].on(&format!("/{status}"), [Reply::status(status)]);
        run.send(get(&format!("/{status}")).expect(status))?;
    }
    let reason = Reply::raw("HTTP/1.1 200 Quite All Right\r\ncontent-length: 0\r\n\r\n");
    run.up["a"].on("/reason", [reason]);
    run.up["a"].on(
        "/none",
        [Reply::raw("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n")],
    );
    run.send(get("/reason").expect(200))?;
    run.send(get("/none").expect(200))?;
    run.counters(&[
        "cluster.a.upstream_rq_2xx",
        "cluster.a.upstream_rq_3xx",
        "cluster.a.upstream_rq_4xx",
        "cluster.a.upstream_rq_5xx",
        "cluster.a.upstream_rq_418",
        "http.main.downstream_rq_4xx",
        "http.main.downstream_rq_5xx",
    ])
}

fn upstream_header_limits(run: &mut Run<'_>) -> Result<()> {
    let long = "a".repeat(3000);
    run.up["small"].on("/", [Reply::ok("x").header("x-a", &long)]);
    run.send(get("/small").fate())?;
    let many = (0..8).fold(Reply::ok("x"), |reply, n| {
        reply.header(&format!("x-{n}"), "v")
    });
    run.up["count"].on("/", [many]);
    run.send(get("/count").fate())?;
    Ok(())
}

fn leaves_before(run: &mut Run<'_>) -> Result<()> {
    for (path, reply) in [
        ("/close", Reply::close()),
        ("/reset", Reply::reset()),
        (
            "/half",
            Reply::raw("HTTP/1.1 200 OK\r\ncontent-le").then_close(),
        ),
    ] {
        run.up["a"].on(path, [reply]);
        let status = if path == "/half" { 502 } else { 503 };
        run.send(get(path).expect(status).fate())?;
        run.send(request("POST", path).body("data").expect(status).fate())?;
    }
    run.counters(&[
        "cluster.a.upstream_rq_503",
        "cluster.a.upstream_cx_destroy_remote_with_active_rq",
        "cluster.a.upstream_rq_rx_reset",
    ])
}

fn leaves_during(run: &mut Run<'_>) -> Result<()> {
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (path, reply) in [
        ("/length", Reply::raw(length).then_close()),
        ("/chunked", Reply::raw(chunked).then_close()),
        ("/reset", Reply::raw(length).then_reset()),
    ] {
        run.up["a"].on(path, [reply]);
        let ask = get(path).fate();
        // A reset may overtake what was sent before it.
        run.send(if path == "/reset" {
            ask
        } else {
            ask.expect(200)
        })?;
    }
    run.counters(&[
        "cluster.a.upstream_rq_rx_reset",
        "http.main.downstream_rq_tx_reset",
    ])
}

fn refuses(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/dead").expect(503).fate())?;
    run.send(request("POST", "/dead").body("data").expect(503).fate())?;
    run.send(request("HEAD", "/dead").expect(503).fate())?;
    run.counters(&[
        "cluster.dead.upstream_cx_connect_fail",
        "cluster.dead.upstream_cx_total",
        "cluster.dead.upstream_rq_total",
        "cluster.dead.upstream_rq_503",
        "cluster.dead.upstream_rq_5xx",
        "cluster.dead.upstream_rq_pending_total",
        "cluster.dead.upstream_rq_pending_failure_eject",
    ])
}

fn says_too_much(run: &mut Run<'_>) -> Result<()> {
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
    run.up["a"].on("/two", [Reply::raw(two.repeat(2))]);
    run.send(get("/two").expect(200).fate())?;
    run.send(get("/after").expect(200).fate())?;
    Ok(())
}

fn local_replies(run: &mut Run<'_>) -> Result<()> {
    for (name, value) in [
        ("accept", "application/json"),
        ("content-type", "application/grpc"),
    ] {
        run.send(request("POST", "/dead").header(name, value).body("x"))?;
    }
    Ok(())
}
