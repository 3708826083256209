//! Retries against time, budgets, buffers and hosts.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const ROUTES: &str = r#"
    virtual_hosts:
    - name: small
      domains: [small.example]
      request_body_buffer_limit: 1000
      routes:
      - {match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: '5xx', retry_back_off: {base_interval: 0.001s}}}}
    - name: legacy
      domains: [legacy.example]
      routes:
      - {match: {prefix: /}, per_request_buffer_limit_bytes: 1000, route: {cluster: a, retry_policy: {retry_on: '5xx', retry_back_off: {base_interval: 0.001s}}}}
    - name: all
      domains: ['*']
      routes:
      - {match: {prefix: /try}, route: {cluster: a, retry_policy: {retry_on: '5xx', num_retries: 2, per_try_timeout: 0.25s, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /cxonly}, route: {cluster: a, retry_policy: {retry_on: connect-failure, num_retries: 2, per_try_timeout: 0.25s, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /long}, route: {cluster: a, timeout: 0.3s, retry_policy: {retry_on: '5xx', num_retries: 2, per_try_timeout: 0.5s, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /idle}, route: {cluster: a, retry_policy: {retry_on: '5xx', per_try_idle_timeout: 0.25s, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /global}, route: {cluster: a, timeout: 0.4s, retry_policy: {retry_on: '5xx', num_retries: 5, retry_back_off: {base_interval: 10s, max_interval: 10s}}}}
      - {match: {prefix: /hosts}, route: {cluster: two, retry_policy: {retry_on: '5xx', num_retries: 1, retry_back_off: {base_interval: 0.001s}, host_selection_retry_max_attempts: 20, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}}}
      - {match: {prefix: /nobody}, route: {cluster: nobody, retry_policy: {retry_on: '5xx,connect-failure,reset', num_retries: 2}}}
      - {match: {prefix: /none}, route: {cluster: none, retry_policy: {retry_on: '5xx', num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /one}, route: {cluster: one, retry_policy: {retry_on: '5xx', num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /budget}, route: {cluster: budget, retry_policy: {retry_on: '5xx', num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}
      - name: backoff
        match: {prefix: /backoff}
        route:
          cluster: a
          retry_policy:
            retry_on: '5xx'
            retry_back_off: {base_interval: 0.001s}
            rate_limited_retry_back_off:
              max_interval: 2s
              reset_headers:
              - {name: retry-after, format: SECONDS}
              - {name: x-reset, format: UNIX_TIMESTAMP}
"#;

pub(super) fn groups() -> Vec<Group> {
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            routes: ROUTES,
            ..Hcm::default()
        })
        .cluster("a", &["a"], "")
        .cluster("two", &["b", "c"], "")
        .cluster("nobody", &[], "")
        .cluster("none", &["d"], "circuit_breakers: {thresholds: [{max_retries: 0}]}")
        .cluster("one", &["e"], "circuit_breakers: {thresholds: [{max_retries: 1}]}")
        .cluster(
            "budget",
            &["f"],
            "circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 1}, min_retry_concurrency: 1}}]}",
        );
    vec![group(
        bootstrap,
        [
            ("retries/per_try_timeout", per_try_timeout),
            (
                "retries/per_try_timeout_and_connect_failure",
                per_try_timeout_alone,
            ),
            (
                "retries/per_try_timeout_above_the_route_timeout",
                per_try_timeout_above,
            ),
            ("retries/per_try_idle_timeout", per_try_idle_timeout),
            (
                "retries/route_timeout_ends_back_off",
                route_timeout_ends_back_off,
            ),
            ("retries/previous_hosts", previous_hosts),
            ("retries/no_host", no_host),
            ("retries/overflow", overflow),
            ("retries/overflow_while_one_is_in_flight", |run| {
                in_flight(run, "one", "e")
            }),
            ("retries/budget_overflow", |run| {
                in_flight(run, "budget", "f")
            }),
            ("retries/body_over_the_limit", |run| {
                over_the_limit(run, "small.example")
            }),
            ("retries/body_over_the_legacy_limit", |run| {
                over_the_limit(run, "legacy.example")
            }),
            ("retries/rate_limited_back_off", rate_limited_back_off),
        ],
    )]
}

const STATS: [&str; 8] = [
    "cluster.a.upstream_rq_retry",
    "cluster.a.upstream_rq_retry_success",
    "cluster.a.upstream_rq_retry_limit_exceeded",
    "cluster.a.upstream_rq_per_try_timeout",
    "cluster.a.upstream_rq_per_try_idle_timeout",
    "cluster.a.upstream_rq_timeout",
    "cluster.a.upstream_rq_504",
    "cluster.a.retry.upstream_rq_504",
];

fn per_try_timeout(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/try", [Reply::hang(), Reply::ok("x")]);
    run.send(get("/try").expect(200))?;
    run.up["a"].on("/try", [Reply::hang()]);
    run.send(get("/try").expect(504))?;
    run.counters(&STATS)
}

fn per_try_timeout_alone(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/cxonly", [Reply::hang(), Reply::ok("x")]);
    run.send(get("/cxonly").expect(504))?;
    run.counters(&STATS)
}

fn per_try_timeout_above(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/long", [Reply::hang(), Reply::ok("x")]);
    run.send(get("/long").expect(504))?;
    run.counters(&STATS)
}

fn per_try_idle_timeout(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/idle", [Reply::hang(), Reply::ok("x")]);
    run.send(get("/idle").expect(200))?;
    run.up["a"].on("/idle", [Reply::hang()]);
    run.send(get("/idle").expect(504))?;
    run.counters(&STATS)
}

fn route_timeout_ends_back_off(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/global", [Reply::status(503)]);
    // The delay is anything below ten seconds: rarely, it is short enough for another attempt.
    let mut connection = run.open("main")?;
    connection.send(&get("/global").bytes());
    let response = connection.response(false);
    run.note("status", response.status.to_string());
    let body = String::from_utf8_lossy(&response.body.data).into_owned();
    run.note("body", body);
    Ok(())
}

fn previous_hosts(run: &mut Run<'_>) -> Result<()> {
    for host in ["b", "c"] {
        run.up[host].on("/hosts", [Reply::status(503)]);
    }
    for _ in 0..8 {
        run.quietly(&get("/hosts"))?;
        let spread = run.spread(&["b", "c"])?;
        run.note(
            &format!("attempts at each host, {}", run.up["b"].seen().requests),
            format!("{spread:?}"),
        );
    }
    run.counters(&[
        "cluster.two.upstream_rq_retry",
        "cluster.two.upstream_rq_total",
    ])
}

fn no_host(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/nobody").expect(503))?;
    run.counters(&[
        "cluster.nobody.upstream_cx_none_healthy",
        "cluster.nobody.upstream_rq_retry",
        "cluster.nobody.upstream_rq_503",
    ])
}

fn overflow(run: &mut Run<'_>) -> Result<()> {
    run.up["d"].on("/none", [Reply::status(503), Reply::ok("x")]);
    run.send(get("/none").expect(503))?;
    run.counters(&[
        "cluster.none.upstream_rq_retry",
        "cluster.none.upstream_rq_retry_overflow",
        "cluster.none.upstream_rq_503",
    ])?;
    run.gauges(&["cluster.none.circuit_breakers.default.rq_retry_open"])
}

/// The first request's retry is held upstream, so that the second request may not retry.
fn in_flight(run: &mut Run<'_>, cluster: &str, upstream: &str) -> Result<()> {
    let path = format!("/{cluster}");
    let held = Reply::ok("held").after("go");
    run.up[upstream].on(
        &path,
        [Reply::status(503), held, Reply::status(502), Reply::ok("x")],
    );
    let first = run.start(get(&path).expect(200))?;
    run.await_requests(upstream, 2)?;
    run.gauges(&[&format!(
        "cluster.{cluster}.circuit_breakers.default.rq_retry_open"
    )])?;
    run.send(get(&path).expect(502))?;
    run.up[upstream].release("go");
    run.finish(first)?;
    run.send(get(&path).expect(200))?;
    run.counters(&[
        &format!("cluster.{cluster}.upstream_rq_retry"),
        &format!("cluster.{cluster}.upstream_rq_retry_overflow"),
        &format!("cluster.{cluster}.upstream_rq_retry_success"),
    ])
}

fn over_the_limit(run: &mut Run<'_>, host: &str) -> Result<()> {
    run.up["a"].on("/body", [Reply::status(503), Reply::ok("x")]);
    let post = |length: usize| {
        request("POST", "/body")
            .host(host)
            .body(&"b".repeat(length))
    };
    run.send(post(5000).expect(503))?;
    run.up["a"].on("/body", [Reply::status(503), Reply::ok("x")]);
    run.send(post(900).expect(200))?;
    run.counters(&[
        "cluster.a.retry_or_shadow_abandoned",
        "cluster.a.upstream_rq_retry",
    ])
}

fn rate_limited_back_off(run: &mut Run<'_>) -> Result<()> {
    for (name, value) in [
        ("retry-after", "1"),
        ("retry-after", "100"),
        ("x-reset", "5"),
        ("retry-after", "soon"),
    ] {
        let first = Reply::status(503).header(name, value);
        run.up["a"].on("/backoff", [first, Reply::ok("x")]);
        run.send(get("/backoff").expect(200))?;
    }
    run.counters(&[
        "cluster.a.upstream_rq_retry_backoff_ratelimited",
        "cluster.a.upstream_rq_retry_backoff_exponential",
    ])
}
