//! Resource limits of clusters.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const ROUTES: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {match: {prefix: /nopending}, route: {cluster: nopending}}
      - {match: {prefix: /retrying}, route: {cluster: retrying, retry_policy: {retry_on: '5xx,reset,connect-failure', num_retries: 3}}}
      - {match: {prefix: /queue}, route: {cluster: queue}}
      - {match: {prefix: /requests}, route: {cluster: requests}}
      - {match: {prefix: /both/high}, route: {cluster: both, priority: HIGH}}
      - {match: {prefix: /both}, route: {cluster: both}}
      - {match: {prefix: /nocx}, route: {cluster: nocx}}
      - {match: {prefix: /remaining}, route: {cluster: remaining}}
"#;

pub(super) fn groups() -> Vec<Group> {
    let limits = |fields: &str| format!("circuit_breakers: {{thresholds: [{fields}]}}");
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            routes: ROUTES,
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "quiet",
            routes: ROUTES,
            router: "suppress_envoy_headers: true",
            ..Hcm::default()
        })
        .cluster("nopending", &["a"], &limits("{max_pending_requests: 0}"))
        .cluster("retrying", &["b"], &limits("{max_pending_requests: 0}"))
        .cluster("queue", &["c"], &limits("{max_connections: 1, max_pending_requests: 1}"))
        .cluster("requests", &["d"], &limits("{max_requests: 1}"))
        .cluster("both", &["e"], &limits("{priority: DEFAULT, max_requests: 1}, {priority: HIGH, max_requests: 2}"))
        .cluster("nocx", &["f"], &limits("{max_connections: 0}"))
        .cluster(
            "remaining",
            &["g"],
            &limits("{max_connections: 5, max_pending_requests: 6, max_requests: 7, max_retries: 8, track_remaining: true}"),
        );
    vec![group(
        bootstrap,
        [
            (
                "thresholds/max_pending_requests_zero",
                max_pending_requests_zero,
            ),
            (
                "thresholds/overflow_is_not_retried",
                overflow_is_not_retried,
            ),
            ("thresholds/max_connections_queues", max_connections_queues),
            ("thresholds/max_pending_requests", max_pending_requests),
            ("thresholds/max_requests", max_requests),
            ("thresholds/priorities_are_apart", priorities_are_apart),
            ("thresholds/max_connections_zero", max_connections_zero),
            ("thresholds/remaining", remaining),
        ],
    )]
}

fn max_pending_requests_zero(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/nopending").expect(503).fate())?;
    run.send(get("/nopending").on("quiet").expect(503))?;
    run.counters(&[
        "cluster.nopending.upstream_rq_pending_overflow",
        "cluster.nopending.upstream_rq_active_overflow",
        "cluster.nopending.upstream_rq_503",
        "cluster.nopending.upstream_rq_5xx",
        "cluster.nopending.upstream_rq_total",
        "cluster.nopending.upstream_cx_total",
    ])?;
    run.gauges(&["cluster.nopending.circuit_breakers.default.rq_pending_open"])
}

fn overflow_is_not_retried(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/retrying").expect(503))?;
    run.counters(&[
        "cluster.retrying.upstream_rq_retry",
        "cluster.retrying.upstream_rq_pending_overflow",
    ])
}

fn max_connections_queues(run: &mut Run<'_>) -> Result<()> {
    run.up["c"].on(
        "/queue",
        [
            Reply::ok("first").after("one"),
            Reply::ok("second").after("two"),
        ],
    );
    let first = run.start(get("/queue").expect(200))?;
    run.await_requests("c", 1)?;
    let second = run.start(get("/queue").expect(200))?;
    run.await_gauge("cluster.queue.upstream_rq_pending_active", 1)?;
    run.gauges(&[
        "cluster.queue.circuit_breakers.default.cx_open",
        "cluster.queue.circuit_breakers.default.rq_pending_open",
        "cluster.queue.upstream_cx_active",
        "cluster.queue.upstream_rq_active",
    ])?;
    run.up["c"].release("one");
    run.finish(first)?;
    run.up["c"].release("two");
    run.finish(second)?;
    run.counters(&[
        "cluster.queue.upstream_cx_overflow",
        "cluster.queue.upstream_cx_total",
        "cluster.queue.upstream_rq_total",
    ])
}

fn max_pending_requests(run: &mut Run<'_>) -> Result<()> {
    run.up["c"].on(
        "/queue",
        [
            Reply::ok("first").after("one"),
            Reply::ok("second").after("two"),
        ],
    );
    let first = run.start(get("/queue").expect(200))?;
    run.await_requests("c", 1)?;
    let second = run.start(get("/queue").expect(200))?;
    run.await_gauge("cluster.queue.upstream_rq_pending_active", 1)?;
    run.send(get("/queue").expect(503).fate())?;
    run.up["c"].release("one");
    run.finish(first)?;
    run.up["c"].release("two");
    run.finish(second)?;
    run.await_gauge("cluster.queue.circuit_breakers.default.rq_pending_open", 0)?;
    run.counters(&[
        "cluster.queue.upstream_rq_pending_overflow",
        "cluster.queue.upstream_rq_503",
        "cluster.queue.upstream_rq_200",
    ])
}

fn max_requests(run: &mut Run<'_>) -> Result<()> {
    run.up["d"].on(
        "/requests",
        [Reply::ok("first").after("go"), Reply::ok("second")],
    );
    let first = run.start(get("/requests").expect(200))?;
    run.await_requests("d", 1)?;
    run.gauges(&["cluster.requests.circuit_breakers.default.rq_open"])?;
    run.send(get("/requests").expect(503))?;
    run.up["d"].release("go");
    run.finish(first)?;
    run.send(get("/requests").expect(200))?;
    run.gauges(&["cluster.requests.circuit_breakers.default.rq_open"])?;
    run.counters(&[
        "cluster.requests.upstream_rq_pending_overflow",
        "cluster.requests.upstream_rq_active_overflow",
        "cluster.requests.upstream_rq_503",
    ])
}

fn priorities_are_apart(run: &mut Run<'_>) -> Result<()> {
    let words = ["one", "two", "three"];
    run.up["e"].on("/both", words.map(|word| Reply::ok("held").after(word)));
    let first = run.start(get("/both").expect(200))?;
    run.await_requests("e", 1)?;
    run.send(get("/both").expect(503))?;
    let second = run.start(get("/both/high").expect(200))?;
    run.await_requests("e", 2)?;
    let third = run.start(get("/both/high").expect(200))?;
    run.await_requests("e", 3)?;
    run.send(get("/both/high").expect(503))?;
    run.gauges(&[
        "cluster.both.circuit_breakers.default.rq_open",
        "cluster.both.circuit_breakers.high.rq_open",
    ])?;
    for (held, word) in [first, second, third].into_iter().zip(words) {
        run.up["e"].release(word);
        run.finish(held)?;
    }
    Ok(())
}

fn max_connections_zero(run: &mut Run<'_>) -> Result<()> {
    // A host without any connection gets one all the same.
    run.send(get("/nocx").expect(200))?;
    run.counters(&[
        "cluster.nocx.upstream_cx_overflow",
        "cluster.nocx.upstream_cx_total",
    ])
}

const REMAINING: [&str; 4] = [
    "cluster.remaining.circuit_breakers.default.remaining_cx",
    "cluster.remaining.circuit_breakers.default.remaining_pending",
    "cluster.remaining.circuit_breakers.default.remaining_rq",
    "cluster.remaining.circuit_breakers.default.remaining_retries",
];

fn remaining(run: &mut Run<'_>) -> Result<()> {
    run.gauges(&REMAINING)?;
    run.up["g"].on("/remaining", [Reply::ok("held").after("go")]);
    let held = run.start(get("/remaining").expect(200))?;
    run.await_requests("g", 1)?;
    run.await_gauge(REMAINING[2], 6)?;
    run.await_gauge(REMAINING[0], 4)?;
    run.up["g"].release("go");
    run.finish(held)?;
    run.await_gauge(REMAINING[2], 7)
}
