//! Asking hosts how they are.
//!
//! Each cluster's host is asked at another upstream, `check…`, whose requests the runner leaves out: how
//! many there are is a matter of time.

use anyhow::{Result, ensure};
use e2e::upstream::Reply;

use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const HTTP: &str = "http_health_check: {path: /hc}";

/// Clusters of one host without panic, so that a failure shows as `no healthy upstream`: name, host, whom
/// to ask about it, and fields of the check.
const CLUSTERS: [(&str, &str, &str, &str); 9] = [
    ("status", "a", "checka", HTTP),
    ("network", "b", "checkb", HTTP),
    (
        "retriable",
        "c",
        "checkc",
        "http_health_check: {path: /hc, expected_statuses: [{start: 200, end: 300}], retriable_statuses: [{start: 500, end: 501}]}",
    ),
    ("degraded", "d", "checkd", HTTP),
    (
        "passive",
        "e",
        "checke",
        "http_health_check: {path: /hc}, interval: 600s, no_traffic_interval: 600s",
    ),
    (
        // GET /hc HTTP/1.1, Host: t; then "200" and "Scripted".
        "tcp",
        "f",
        "checkf",
        "tcp_health_check: {send: {text: '474554202f686320485454502f312e310d0a486f73743a20740d0a0d0a'}, receive: [{text: '323030'}, {text: '5363726970746564'}]}",
    ),
    ("refused", "g", "dead", "tcp_health_check: {}"),
    ("silence", "h", "silent", HTTP),
    (
        "request",
        "i",
        "checki",
        "http_health_check: {path: '/hc?q=1', host: hc.example, method: POST, send: {text: '6869'}, receive: [{text: 6f6b}], request_headers_to_add: [{header: {key: x-a, value: '%UPSTREAM_REMOTE_PORT%b'}}, {header: {key: user-agent, value: me}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}], service_name_matcher: {prefix: users}}",
    ),
];

pub(super) fn groups() -> Vec<Group> {
    let mut routes = "virtual_hosts:\n- name: all\n  domains: ['*']\n  routes:\n".to_owned();
    let mut bootstrap = Bootstrap::default();
    for (name, host, asked, check) in CLUSTERS {
        routes += &format!(
            "  - {{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}}}}}\n"
        );
        let interval = if check.contains("interval:") {
            ""
        } else {
            "interval: 0.05s, no_traffic_interval: 0.05s, "
        };
        let check = format!(
            "timeout: 0.5s, {interval}healthy_threshold: 2, unhealthy_threshold: 3, {check}"
        );
        let fields = format!(
            "common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}
health_checks: [{{{check}, event_log_path: {name}.log}}]
load_assignment:
  cluster_name: {name}
  endpoints:
  - lb_endpoints:
    - endpoint:
        address: {{socket_address: {{address: 127.0.0.1, port_value: {{{{{host}}}}}}}}}
        health_check_config: {{port_value: {{{{{asked}}}}}}}
"
        );
        bootstrap = bootstrap.cluster_with(name, &fields);
    }
    let bootstrap = bootstrap.listener(&Hcm {
        routes: &routes,
        ..Hcm::default()
    });
    let checks = group(
        bootstrap,
        [
            (
                "health/another_status_fails_at_once",
                another_status_fails_at_once,
            ),
            ("health/network_failures_add_up", network_failures_add_up),
            (
                "health/retriable_statuses_add_up",
                retriable_statuses_add_up,
            ),
            ("health/degraded", degraded),
            (
                "health/an_answer_to_a_request_fails_at_once",
                an_answer_to_a_request_fails_at_once,
            ),
            ("health/tcp", tcp),
            ("health/refused_from_the_start", refused_from_the_start),
            ("health/silent_from_the_start", silent_from_the_start),
            ("health/what_is_asked", what_is_asked),
        ],
    );
    vec![checks, slow_start_group()]
}

/// How long slow start takes, in checks: two seconds at one in 50 ms, and some more.
const WINDOW_CHECKS: i64 = 50;

fn slow_start_group() -> Group {
    let host = |host: &str, asked: &str| {
        format!(
            "    - endpoint:
        address: {{socket_address: {{address: 127.0.0.1, port_value: {{{{{host}}}}}}}}}
        health_check_config: {{port_value: {{{{{asked}}}}}}}
"
        )
    };
    let fields = format!(
        "round_robin_lb_config: {{slow_start_config: {{slow_start_window: 2s}}}}
health_checks: [{{timeout: 0.5s, interval: 0.05s, no_traffic_interval: 0.05s, healthy_threshold: 1, unhealthy_threshold: 1, {HTTP}}}]
load_assignment:
  cluster_name: slow
  endpoints:
  - lb_endpoints:
{}{}",
        host("a", "checka"),
        host("b", "checkb")
    );
    let routes = "virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: slow}}]}]";
    let bootstrap = Bootstrap::default()
        .cluster_with("slow", &fields)
        .listener(&Hcm {
            routes,
            ..Hcm::default()
        });
    group(bootstrap, [("health/slow_start", slow_start)])
}

/// How many of 44 requests the host gets that was ill.
fn share_of_b(run: &mut Run<'_>) -> Result<usize> {
    for _ in 0..44 {
        run.quietly(&get("/").any_host().expect(200))?;
    }
    let seen = [
        run.up["a"].take_requests().len(),
        run.up["b"].take_requests().len(),
    ];
    ensure!(seen[0] + seen[1] == 44, "requests were lost: {seen:?}");
    Ok(seen[1])
}

/// A host that was ill gets a small share at first, and all of it in the end.
fn slow_start(run: &mut Run<'_>) -> Result<()> {
    run.up["checkb"].on("/hc", [Reply::status(503)]);
    run.await_gauge("cluster.slow.membership_healthy", 1)?;
    // By now the other one is not new any more.
    run.await_counter(&stat("slow", "attempt"), 2 * WINDOW_CHECKS)?;
    run.up["checkb"].on("/hc", [Reply::ok("well")]);
    run.await_gauge("cluster.slow.membership_healthy", 2)?;
    let first = share_of_b(run)?;
    run.note(
        "a share, and a small one",
        (1..=14).contains(&first).to_string(),
    );
    // Twice the window, since checks are no clock.
    let attempts = 2 * WINDOW_CHECKS + 4 * WINDOW_CHECKS;
    run.await_counter(&stat("slow", "attempt"), attempts)?;
    // Its next turn was planned while its share was small.
    share_of_b(run)?;
    let last = share_of_b(run)?;
    run.note("all of it", (20..=24).contains(&last).to_string());
    if first > 14 || last < 20 {
        run.problem(format!("{first} of 44 at first, {last} in the end"));
    }
    Ok(())
}

fn stat(cluster: &str, name: &str) -> String {
    format!("cluster.{cluster}.health_check.{name}")
}

fn await_healthy(run: &Run<'_>, cluster: &str, healthy: i64) -> Result<()> {
    run.await_gauge(&stat(cluster, "healthy"), healthy)?;
    run.await_gauge(&format!("cluster.{cluster}.membership_healthy"), healthy)
}

fn gauges(run: &mut Run<'_>, cluster: &str) -> Result<()> {
    let membership = |class: &str| format!("cluster.{cluster}.membership_{class}");
    run.gauges(&[
        &stat(cluster, "healthy"),
        &stat(cluster, "degraded"),
        &membership("total"),
        &membership("healthy"),
        &membership("degraded"),
        &membership("excluded"),
    ])?;
    run.health(cluster)
}

/// Notes the events of a cluster since the start, without their times and ports.
fn events(run: &mut Run<'_>, cluster: &str, last: &str) -> Result<()> {
    let lines = run.await_line(&format!("{cluster}.log"), last)?;
    for (number, line) in lines.iter().enumerate() {
        let mut event: serde_json::Value = serde_json::from_str(line)?;
        ensure!(event["timestamp"].is_string(), "no time: {line}");
        event["timestamp"] = "<time>".into();
        event["host"]["socket_address"]["port_value"] = 0.into();
        run.note(&format!("event {}", number + 1), event.to_string());
    }
    Ok(())
}

fn another_status_fails_at_once(run: &mut Run<'_>) -> Result<()> {
    await_healthy(run, "status", 1)?;
    run.send(get("/status").expect(200))?;
    gauges(run, "status")?;
    run.up["checka"].on("/hc", [Reply::status(503), Reply::status(404)]);
    await_healthy(run, "status", 0)?;
    run.send(get("/status").expect(503))?;
    gauges(run, "status")?;
    run.counters(&[&stat("status", "network_failure")])?;
    run.up["checka"].on("/hc", [Reply::ok("well")]);
    await_healthy(run, "status", 1)?;
    // The gauge moves before every worker has heard of it.
    run.await_status(&get("/status"), 200)?;
    gauges(run, "status")?;
    events(run, "status", "\"first_check\":false")
}

fn network_failures_add_up(run: &mut Run<'_>) -> Result<()> {
    await_healthy(run, "network", 1)?;
    // Two are not enough, and a success in between starts anew.
    let script = [
        Reply::close(),
        Reply::reset(),
        Reply::ok("well"),
        Reply::close(),
        Reply::close(),
        Reply::ok("well"),
    ];
    run.up["checkb"].on("/hc", script);
    run.await_counter(&stat("network", "failure"), 4)?;
    let success = stat("network", "success");
    run.await_counter(&success, 3)?;
    run.counters(&[
        &stat("network", "failure"),
        &stat("network", "network_failure"),
        &stat("network", "passive_failure"),
    ])?;
    gauges(run, "network")?;
    run.up["checkb"].on("/hc", [Reply::close()]);
    await_healthy(run, "network", 0)?;
    run.send(get("/network").expect(503))?;
    gauges(run, "network")
}

fn retriable_statuses_add_up(run: &mut Run<'_>) -> Result<()> {
    await_healthy(run, "retriable", 1)?;
    let script = [
        Reply::status(500),
        Reply::status(500),
        Reply::status(299),
        Reply::status(204),
    ];
    run.up["checkc"].on("/hc", script);
    run.await_counter(&stat("retriable", "failure"), 2)?;
    run.await_counter(&stat("retriable", "success"), 3)?;
    gauges(run, "retriable")?;
    run.up["checkc"].on("/hc", [Reply::status(500)]);
    await_healthy(run, "retriable", 0)?;
    gauges(run, "retriable")?;
    run.counters(&[&stat("retriable", "network_failure")])
}

fn degraded(run: &mut Run<'_>) -> Result<()> {
    await_healthy(run, "degraded", 1)?;
    run.up["checkd"].on("/hc", [Reply::ok("").header("x-envoy-degraded", "")]);
    run.await_gauge(&stat("degraded", "degraded"), 1)?;
    run.await_gauge("cluster.degraded.membership_degraded", 1)?;
    run.send(get("/degraded").expect(200))?;
    gauges(run, "degraded")?;
    run.up["checkd"].on("/hc", [Reply::ok("")]);
    run.await_gauge("cluster.degraded.membership_degraded", 0)?;
    gauges(run, "degraded")?;
    events(run, "degraded", "no_longer_degraded_host")
}

fn an_answer_to_a_request_fails_at_once(run: &mut Run<'_>) -> Result<()> {
    await_healthy(run, "passive", 1)?;
    let last = Reply::ok("last").header("x-envoy-immediate-health-check-fail", "yes");
    run.up["e"].on("/passive", [Reply::ok("first"), last]);
    run.send(get("/passive").expect(200))?;
    run.send(get("/passive").expect(200))?;
    await_healthy(run, "passive", 0)?;
    run.send(get("/passive").expect(503))?;
    gauges(run, "passive")?;
    run.counters(&[
        &stat("passive", "failure"),
        &stat("passive", "passive_failure"),
        &stat("passive", "network_failure"),
    ])?;
    events(run, "passive", "PASSIVE")
}

fn tcp(run: &mut Run<'_>) -> Result<()> {
    await_healthy(run, "tcp", 1)?;
    run.send(get("/tcp").expect(200))?;
    run.up["checkf"].on("/hc", [Reply::status(404)]);
    await_healthy(run, "tcp", 0)?;
    run.send(get("/tcp").expect(503))?;
    gauges(run, "tcp")?;
    run.up["checkf"].on("/hc", [Reply::ok("well")]);
    await_healthy(run, "tcp", 1)?;
    gauges(run, "tcp")
}

fn refused_from_the_start(run: &mut Run<'_>) -> Result<()> {
    run.await_counter(&stat("refused", "network_failure"), 1)?;
    run.send(get("/refused").expect(503))?;
    gauges(run, "refused")?;
    events(run, "refused", "health_check_failure_event")
}

fn silent_from_the_start(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/silence").expect(503))?;
    gauges(run, "silence")?;
    events(run, "silence", "health_check_failure_event")
}

fn what_is_asked(run: &mut Run<'_>) -> Result<()> {
    // Without the name of its cluster, nobody is healthy.
    await_healthy(run, "request", 0)?;
    let named =
        |body: &str| Reply::ok(body).header("x-envoy-upstream-healthchecked-cluster", "users-1");
    run.up["checki"].on("/hc", [named("it is not")]);
    run.await_counter(&stat("request", "failure"), 3)?;
    gauges(run, "request")?;
    run.up["checki"].on("/hc", [named("it is ok")]);
    await_healthy(run, "request", 1)?;
    let asked = run.up["checki"].take_requests();
    let Some(request) = asked.first() else {
        run.problem("nobody asked");
        return Ok(());
    };
    run.note("start", request.head.start.clone());
    let mut fields: Vec<String> = request
        .head
        .fields
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("x-a"))
        .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
        .collect();
    fields.sort();
    run.note("fields", fields.join(" | "));
    run.note("body", e2e::wire::printable(&request.body.data));
    run.counters(&[&stat("request", "network_failure")])
}
