//! TCP proxying.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::Result;
use e2e::upstream::Reply;
use e2e::wait::WAIT_MAX;

use crate::config::{Bootstrap, tcp_proxy};
use crate::run::Run;
use crate::suite::{Group, group};

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n";

pub(super) fn groups() -> Vec<Group> {
    let chain = |prefix: &str, fields: &str| format!("- filters:\n{}", tcp_proxy(prefix, fields));
    let limit = "  - name: limit\n    typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: l, max_connections: 1}\n";
    let bootstrap = Bootstrap::default()
        .chains("plain", "", &chain("plain", "cluster: a"))
        .chains(
            "dead",
            "",
            &chain("dead", "cluster: dead\nmax_connect_attempts: 3"),
        )
        .chains("full", "", &chain("full", "cluster: full"))
        .chains("empty", "", &chain("empty", "cluster: empty"))
        .chains("idle", "", &chain("idle", "cluster: a\nidle_timeout: 0.3s"))
        .chains(
            "short",
            "",
            &chain(
                "short",
                "cluster: a\nmax_downstream_connection_duration: 0.3s",
            ),
        )
        .chains(
            "limited",
            "",
            &format!("- filters:\n{limit}{}", tcp_proxy("limited", "cluster: a")),
        )
        .cluster("a", &["a"], "")
        .cluster("dead", &["dead"], "")
        .cluster(
            "full",
            &["b"],
            "circuit_breakers: {thresholds: [{max_connections: 1}]}",
        )
        .cluster("empty", &[], "");
    vec![group(
        bootstrap,
        [
            ("tcp/exchange", exchange),
            ("tcp/half_close", half_close),
            ("tcp/connect_failure", connect_failure),
            ("tcp/max_connections", max_connections),
            ("tcp/no_endpoint", no_endpoint),
            ("tcp/idle_timeout", idle_timeout),
            ("tcp/max_duration", max_duration),
            ("tcp/connection_limit", connection_limit),
        ],
    )]
}

fn open(run: &Run<'_>, listener: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(run.address(listener)?)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    Ok(stream)
}

/// How a stream ends, and after how many bytes.
fn end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => format!("closed after {} bytes", all.len()),
        Err(error) => format!("{:?} after {} bytes", error.kind(), all.len()),
    }
}

/// Waits until a proxied connection is over, and notes its log line.
fn over(run: &mut Run<'_>, step: &str, cluster: &str) -> Result<()> {
    run.await_gauge(&format!("cluster.{cluster}.upstream_cx_active"), 0)?;
    run.settle(step)
}

fn exchange(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", [Reply::ok("hello")]);
    let step = run.step("an exchange");
    let mut stream = open(run, "plain")?;
    stream.write_all(GET)?;
    let ended = end(&mut stream);
    run.note("end", ended);
    drop(stream);
    over(run, &step, "a")?;
    run.counters(&[
        "tcp.plain.downstream_cx_total",
        "tcp.plain.downstream_cx_rx_bytes_total",
        "tcp.plain.downstream_cx_tx_bytes_total",
        "tcp.plain.downstream_cx_no_route",
        "cluster.a.upstream_cx_total",
        "cluster.a.upstream_cx_rx_bytes_total",
        "cluster.a.upstream_cx_tx_bytes_total",
        "cluster.a.upstream_cx_destroy",
        "cluster.a.upstream_rq_total",
    ])
}

fn half_close(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", [Reply::ok("late").after("go")]);
    let step = run.step("the client ends first");
    let mut stream = open(run, "plain")?;
    stream.write_all(GET)?;
    stream.shutdown(Shutdown::Write)?;
    run.await_requests("a", 1)?;
    run.up["a"].release("go");
    let ended = end(&mut stream);
    run.note("end", ended);
    drop(stream);
    over(run, &step, "a")
}

fn connect_failure(run: &mut Run<'_>) -> Result<()> {
    let step = run.step("nobody listens");
    let mut stream = open(run, "dead")?;
    let ended = end(&mut stream);
    run.note("end", ended);
    over(run, &step, "dead")?;
    run.counters(&[
        "cluster.dead.upstream_cx_total",
        "cluster.dead.upstream_cx_connect_fail",
        "cluster.dead.upstream_cx_connect_attempts_exceeded",
        "cluster.dead.upstream_cx_overflow",
        "tcp.dead.downstream_cx_total",
    ])
}

fn max_connections(run: &mut Run<'_>) -> Result<()> {
    run.up["b"].on("/x", [Reply::ok("held").after("go")]);
    let step = run.step("one too many");
    let mut first = open(run, "full")?;
    first.write_all(GET)?;
    run.await_requests("b", 1)?;
    let mut second = open(run, "full")?;
    let ended = end(&mut second);
    run.note("end of the second", ended);
    run.gauges(&["cluster.full.circuit_breakers.default.cx_open"])?;
    run.up["b"].release("go");
    let ended = end(&mut first);
    run.note("end of the first", ended);
    drop(first);
    over(run, &step, "full")?;
    run.counters(&[
        "cluster.full.upstream_cx_overflow",
        "cluster.full.upstream_cx_total",
    ])
}

fn no_endpoint(run: &mut Run<'_>) -> Result<()> {
    let step = run.step("an empty cluster");
    let mut stream = open(run, "empty")?;
    let ended = end(&mut stream);
    run.note("end", ended);
    over(run, &step, "empty")?;
    run.counters(&[
        "cluster.empty.upstream_cx_none_healthy",
        "cluster.empty.upstream_cx_total",
        "tcp.empty.downstream_cx_no_route",
    ])
}

fn idle_timeout(run: &mut Run<'_>) -> Result<()> {
    let step = run.step("silence");
    let mut stream = open(run, "idle")?;
    let ended = end(&mut stream);
    run.note("end", ended);
    over(run, &step, "a")?;
    run.counters(&["tcp.idle.idle_timeout"])
}

fn max_duration(run: &mut Run<'_>) -> Result<()> {
    let step = run.step("for too long");
    let mut stream = open(run, "short")?;
    let ended = end(&mut stream);
    run.note("end", ended);
    over(run, &step, "a")?;
    run.counters(&["tcp.short.max_downstream_connection_duration"])
}

fn connection_limit(run: &mut Run<'_>) -> Result<()> {
    let step = run.step("one too many");
    let first = open(run, "limited")?;
    run.await_gauge("cluster.a.upstream_cx_active", 1)?;
    let mut second = open(run, "limited")?;
    let ended = end(&mut second);
    run.note("end of the second", ended);
    run.gauges(&["connection_limit.l.active_connections"])?;
    drop(first);
    over(run, &step, "a")?;
    run.counters(&["connection_limit.l.limited_connections"])
}
