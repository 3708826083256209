//! Timeouts of the connection manager.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{get, head, raw, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

pub(super) fn groups() -> Vec<Group> {
    let with = |name: &'static str, fields: &'static str| Hcm {
        name,
        fields,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&with(
            "aging",
            "common_http_protocol_options: {max_connection_duration: 0.3s}\ndrain_timeout: 0.5s",
        ))
        .listener(&with(
            "idle",
            "common_http_protocol_options: {idle_timeout: 0.2s}\ndrain_timeout: 0.1s",
        ))
        .listener(&with("headers", "request_headers_timeout: 0.2s"))
        .listener(&with("request", "request_timeout: 0.2s"))
        .listener(&with("stream", "stream_idle_timeout: 0.3s"))
        .listener(&with(
            "duration",
            "common_http_protocol_options: {max_stream_duration: 0.3s}",
        ))
        .listener(&with(
            "age",
            "common_http_protocol_options: {max_connection_duration: 0.3s}\ndrain_timeout: 0.1s",
        ))
        .cluster("a", &["a"], "");
    vec![group(
        bootstrap,
        [
            ("http/idle_timeout", idle_timeout),
            ("http/old_connections", old_connections),
            ("http/request_headers_timeout", request_headers_timeout),
            ("http/request_timeout", request_timeout),
            ("http/stream_idle_timeout", stream_idle_timeout),
            ("http/max_stream_duration", max_stream_duration),
            ("http/max_connection_duration", max_connection_duration),
        ],
    )]
}

fn idle_timeout(run: &mut Run<'_>) -> Result<()> {
    let connection = run.open("idle")?;
    let mut connection = run.send_on(connection, get("/1").expect(200))?;
    let closes = connection.closes();
    run.note("idle connection is closed", closes.to_string());
    let closes = run.open("idle")?.closes();
    run.note("unused connection is closed", closes.to_string());
    run.counters(&[
        "http.idle.downstream_cx_idle_timeout",
        "http.idle.downstream_rq_total",
    ])
}

fn old_connections(run: &mut Run<'_>) -> Result<()> {
    let reached = "http.aging.downstream_cx_max_duration_reached";
    // The next answer says that it is the last.
    let connection = run.open("aging")?;
    let connection = run.send_on(connection, get("/1").on("aging").expect(200).fate())?;
    run.await_counter(reached, 1)?;
    let mut connection = run.send_on(connection, get("/2").on("aging").expect(200).fate())?;
    run.note("closed after that", connection.closes().to_string());
    // One that says nothing goes in time.
    let mut silent = run.open("aging")?;
    run.await_counter(reached, 2)?;
    run.note("silent one is closed", silent.closes().to_string());
    // A request that runs is answered.
    run.up["a"].on("/slow", [Reply::ok("late").after("old")]);
    let sent = run.start(get("/slow").on("aging").expect(200))?;
    run.await_counter(reached, 3)?;
    run.up["a"].release("old");
    run.finish(sent)?;
    let mut client = run.open_http2("aging", &[])?;
    run.send_http2_on(&mut client, get("/h2").on("aging").expect(200))?;
    let went = client.go_away();
    run.note("goes away", format!("{:?}", went.map(|(_, reason)| reason)));
    run.await_counter(reached, 4)
}

fn request_headers_timeout(run: &mut Run<'_>) -> Result<()> {
    run.send(raw("GET / HTTP/1.1\r\nHost: a").on("headers").expect(408))?;
    run.send(get("/fine").on("headers").expect(200).fate())?;
    run.counters(&["http.headers.downstream_rq_header_timeout"])
}

fn request_timeout(run: &mut Run<'_>) -> Result<()> {
    let partial = head("POST", "/partial") + "Content-Length: 10\r\n\r\nabc";
    run.send(raw(partial).on("request").expect(408))?;
    run.counters(&["http.request.downstream_rq_timeout"])?;
    // It is over once the request is complete, however long the response takes.
    run.up["a"].on("/slow", [Reply::ok("late").after("go")]);
    let sent = run.start(get("/slow").on("request").expect(200))?;
    run.await_requests("a", 1)?;
    run.up["a"].release("go");
    run.finish(sent)?;
    Ok(())
}

fn stream_idle_timeout(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/hang", [Reply::hang()]);
    run.send(get("/hang").on("stream").expect(504).fate())?;
    let partial = head("POST", "/partial") + "Content-Length: 10\r\n\r\nabc";
    run.send(raw(partial).on("stream").expect(408))?;
    let started = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    run.up["a"].on("/started", [Reply::raw(started).then_hang()]);
    run.send(request("GET", "/started").on("stream").expect(200).fate())?;
    run.counters(&["http.stream.downstream_rq_idle_timeout"])
}

fn max_stream_duration(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/hang", [Reply::hang()]);
    run.send(get("/hang").on("duration").expect(504).fate())?;
    run.counters(&["http.duration.downstream_rq_max_duration_reached"])
}

fn max_connection_duration(run: &mut Run<'_>) -> Result<()> {
    let connection = run.open("age")?;
    let mut connection = run.send_on(connection, get("/1").on("age").expect(200))?;
    let closes = connection.closes();
    run.note("old connection is closed", closes.to_string());
    run.counters(&["http.age.downstream_cx_max_duration_reached"])
}
