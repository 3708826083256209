//! Picking hosts, connecting to them, and keeping connections.

use anyhow::Result;
use e2e::upstream::Reply;

use super::http_options;
use crate::ask::{get, request};
use crate::config::{Bootstrap, Hcm, endpoint};
use crate::run::Run;
use crate::suite::{Group, group};

pub(super) fn groups() -> Vec<Group> {
    let names = [
        "rr", "weighted", "least", "leastw", "panic", "nopanic", "allbad", "nobody", "slow",
        "half", "pool", "two", "idle", "stale", "failover", "spill", "strict", "logical",
        "degraded",
    ];
    let mut routes = "virtual_hosts:\n- name: all\n  domains: ['*']\n  routes:\n".to_owned();
    for name in names {
        routes += &format!(
            "  - {{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}}}}}\n"
        );
    }
    let no_panic = "common_lb_config: {healthy_panic_threshold: {value: 0}}";
    let options = |fields: &str| {
        http_options(&format!(
            "common_http_protocol_options: {{{fields}}}\n    explicit_http_config: {{http_protocol_options: {{}}}}"
        ))
    };
    let assignment = |name: &str, endpoints: &[String]| {
        format!(
            "load_assignment:\n  cluster_name: {name}\n  endpoints:\n  - lb_endpoints:\n{}",
            endpoints.concat()
        )
    };
    let bad = "health_status: UNHEALTHY";
    let good = "";
    let weight = |weight: u32| format!("load_balancing_weight: {weight}");
    let weighted = [endpoint("a", &weight(3)), endpoint("b", &weight(1))];
    let two_bad = [endpoint("a", good), endpoint("b", bad), endpoint("c", bad)];
    let all_bad = [endpoint("a", bad), endpoint("b", bad)];
    let degraded = [
        endpoint("a", good),
        endpoint("b", "health_status: DEGRADED"),
        endpoint("c", "health_status: DRAINING"),
    ];
    let priorities = |name: &str, first: &[String], second: &[String]| {
        format!(
            "load_assignment:\n  cluster_name: {name}\n  endpoints:\n  - priority: 0\n    lb_endpoints:\n{}  - priority: 1\n    lb_endpoints:\n{}",
            first.concat(),
            second.concat()
        )
    };
    let dns = |name: &str, kind: &str| {
        format!(
            "type: {kind}\ndns_lookup_family: V4_ONLY\nload_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: localhost, port_value: {{{{a}}}}}}}}}}}}]}}]}}"
        )
    };
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            routes: &routes,
            ..Hcm::default()
        })
        .cluster("rr", &["a", "b", "c"], "")
        .cluster_with("weighted", &assignment("weighted", &weighted))
        .cluster(
            "least",
            &["a", "b"],
            "lb_policy: LEAST_REQUEST\nleast_request_lb_config: {choice_count: 12}",
        )
        .cluster_with(
            "leastw",
            &("lb_policy: LEAST_REQUEST\n".to_owned() + &assignment("leastw", &weighted)),
        )
        .cluster_with("panic", &assignment("panic", &two_bad))
        .cluster_with("nopanic", &(assignment("nopanic", &two_bad) + no_panic))
        .cluster_with("allbad", &(assignment("allbad", &all_bad) + no_panic))
        .cluster("nobody", &[], "")
        .cluster("slow", &["silent"], "connect_timeout: 0.2s")
        .cluster("half", &["a", "dead"], "")
        .cluster("pool", &["p"], "")
        .cluster("two", &["p"], &options("max_requests_per_connection: 2"))
        .cluster("idle", &["p"], &options("idle_timeout: 0.2s"))
        .cluster("stale", &["s"], "")
        .cluster_with(
            "failover",
            &priorities("failover", &[endpoint("a", bad)], &[endpoint("b", good)]),
        )
        .cluster_with(
            "spill",
            &priorities(
                "spill",
                &[endpoint("a", good), endpoint("c", bad)],
                &[endpoint("b", good)],
            ),
        )
        .cluster_with("degraded", &assignment("degraded", &degraded))
        .cluster_with("strict", &dns("strict", "STRICT_DNS"))
        .cluster_with("logical", &dns("logical", "LOGICAL_DNS"));
    vec![group(
        bootstrap,
        [
            ("balance/round_robin", round_robin),
            ("balance/round_robin_weighted", round_robin_weighted),
            ("balance/least_request", least_request),
            ("balance/least_request_weighted", least_request_weighted),
            ("balance/panic", panic),
            ("balance/no_panic", no_panic_only_healthy),
            ("balance/no_healthy_host", no_healthy_host),
            ("balance/failover", failover),
            ("balance/spill_over", spill_over),
            ("balance/degraded_and_draining", degraded_and_draining),
            ("balance/connect_timeout", connect_timeout),
            ("balance/half_the_hosts_refuse", half_the_hosts_refuse),
            ("balance/connections_are_reused", connections_are_reused),
            (
                "balance/max_requests_per_connection",
                max_requests_per_connection,
            ),
            ("balance/idle_timeout", idle_timeout),
            ("balance/closed_while_idle", closed_while_idle),
            ("balance/idle_race_get", idle_race_get),
            ("balance/idle_race_post", idle_race_post),
            ("balance/dns", dns_clusters),
        ],
    )]
}

/// Sends requests and notes how many each host got.
fn spread(run: &mut Run<'_>, path: &str, requests: usize, hosts: &[&str]) -> Result<Vec<usize>> {
    for _ in 0..requests {
        run.quietly(&get(path))?;
    }
    run.spread(hosts)
}

fn round_robin(run: &mut Run<'_>) -> Result<()> {
    let spread = spread(run, "/rr", 30, &["a", "b", "c"])?;
    run.note("spread", format!("{spread:?}"));
    Ok(())
}

fn round_robin_weighted(run: &mut Run<'_>) -> Result<()> {
    let spread = spread(run, "/weighted", 40, &["a", "b"])?;
    run.note(
        "three to one, give or take one",
        (spread[0].abs_diff(30) <= 1).to_string(),
    );
    Ok(())
}

fn least_request(run: &mut Run<'_>) -> Result<()> {
    for host in ["a", "b"] {
        run.up[host].on("/least/held", [Reply::ok("held").after("go")]);
    }
    let held = run.start(get("/least/held").expect(200).any_host())?;
    let either = |run: &Run<'_>| run.up["a"].seen().requests + run.up["b"].seen().requests == 1;
    let reached = e2e::wait::until(e2e::wait::Deadline::default(), || either(run).then_some(()));
    run.note("held", reached.is_some().to_string());
    let a_is_busy = run.up["a"].seen().requests == 1;
    let first = run.spread(&["a", "b"])?;
    run.note("held at one host", first.iter().sum::<usize>().to_string());
    let spread = spread(run, "/least", 40, &["a", "b"])?;
    let busy = spread[usize::from(!a_is_busy)];
    run.note(
        "the busy host gets next to nothing",
        (busy <= 2).to_string(),
    );
    for host in ["a", "b"] {
        run.up[host].release("go");
    }
    run.finish(held)?;
    Ok(())
}

fn least_request_weighted(run: &mut Run<'_>) -> Result<()> {
    let spread = spread(run, "/leastw", 40, &["a", "b"])?;
    run.note(
        "three to one, give or take two",
        (spread[0].abs_diff(30) <= 2).to_string(),
    );
    Ok(())
}

fn panic(run: &mut Run<'_>) -> Result<()> {
    let spread = spread(run, "/panic", 30, &["a", "b", "c"])?;
    run.note("spread", format!("{spread:?}"));
    run.counters(&["cluster.panic.lb_healthy_panic"])?;
    run.gauges(&[
        "cluster.panic.membership_healthy",
        "cluster.panic.membership_total",
    ])
}

fn no_panic_only_healthy(run: &mut Run<'_>) -> Result<()> {
    let spread = spread(run, "/nopanic", 10, &["a", "b", "c"])?;
    run.note("spread", format!("{spread:?}"));
    run.counters(&["cluster.nopanic.lb_healthy_panic"])
}

fn no_healthy_host(run: &mut Run<'_>) -> Result<()> {
    for path in ["/allbad", "/nobody"] {
        run.send(get(path).expect(503).fate())?;
    }
    run.counters(&[
        "cluster.allbad.upstream_cx_none_healthy",
        "cluster.nobody.upstream_cx_none_healthy",
        "cluster.nobody.upstream_rq_503",
    ])
}

fn failover(run: &mut Run<'_>) -> Result<()> {
    for _ in 0..3 {
        run.send(get("/failover").expect(200))?;
    }
    Ok(())
}

fn spill_over(run: &mut Run<'_>) -> Result<()> {
    const REQUESTS: usize = 300;
    let spread = spread(run, "/spill", REQUESTS, &["a", "b", "c"])?;
    // Half of the first priority is healthy: it takes 70 of 100, give or take.
    run.note(
        "seven tenths",
        (spread[0].abs_diff(REQUESTS * 7 / 10) < 45).to_string(),
    );
    run.note("unhealthy host", spread[2].to_string());
    Ok(())
}

fn degraded_and_draining(run: &mut Run<'_>) -> Result<()> {
    run.gauges(&[
        "cluster.degraded.membership_healthy",
        "cluster.degraded.membership_degraded",
        "cluster.degraded.membership_total",
    ])
}

fn connect_timeout(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/slow").expect(503).fate())?;
    run.counters(&[
        "cluster.slow.upstream_cx_connect_timeout",
        "cluster.slow.upstream_cx_connect_fail",
        "cluster.slow.upstream_rq_503",
        "cluster.slow.upstream_rq_pending_failure_eject",
    ])
}

fn half_the_hosts_refuse(run: &mut Run<'_>) -> Result<()> {
    let mut refused = 0;
    for _ in 0..10 {
        let response = run.quietly(&get("/half"))?;
        refused += usize::from(response.status == 503);
    }
    run.note("refused", refused.to_string());
    run.counters(&[
        "cluster.half.upstream_cx_connect_fail",
        "cluster.half.upstream_rq_200",
    ])
}

fn connections_are_reused(run: &mut Run<'_>) -> Result<()> {
    for _ in 0..4 {
        run.send(get("/pool").expect(200))?;
    }
    run.up["p"].on(
        "/pool/held",
        ["one", "two"].map(|word| Reply::ok("held").after(word)),
    );
    let first = run.start(get("/pool/held").expect(200))?;
    run.await_requests("p", 5)?;
    let second = run.start(get("/pool/held").expect(200))?;
    run.await_requests("p", 6)?;
    run.gauges(&[
        "cluster.pool.upstream_cx_active",
        "cluster.pool.upstream_rq_active",
    ])?;
    run.up["p"].release("one");
    run.finish(first)?;
    run.up["p"].release("two");
    run.finish(second)?;
    run.send(get("/pool").expect(200))?;
    run.counters(&[
        "cluster.pool.upstream_cx_total",
        "cluster.pool.upstream_rq_total",
    ])
}

fn max_requests_per_connection(run: &mut Run<'_>) -> Result<()> {
    for _ in 0..5 {
        run.send(get("/two").expect(200))?;
    }
    run.counters(&[
        "cluster.two.upstream_cx_total",
        "cluster.two.upstream_cx_max_requests",
    ])
}

fn idle_timeout(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/idle").expect(200))?;
    run.await_counter("cluster.idle.upstream_cx_idle_timeout", 1)?;
    run.send(get("/idle").expect(200))?;
    run.counters(&["cluster.idle.upstream_cx_total"])
}

fn closed_while_idle(run: &mut Run<'_>) -> Result<()> {
    run.up["s"].on("/stale", [Reply::ok("x").then_close()]);
    for _ in 0..4 {
        run.send(get("/stale").expect(200))?;
        anyhow::ensure!(
            run.up["s"].wait(|seen| seen.open == 0),
            "the upstream did not close"
        );
    }
    run.counters(&["cluster.stale.upstream_rq_200"])
}

/// The second request on a connection finds it closed: the peer had read it and did nothing.
fn idle_race(run: &mut Run<'_>) {
    run.up["s"].on(
        "/stale",
        [Reply::ok("first"), Reply::close(), Reply::ok("replayed")],
    );
}

fn idle_race_get(run: &mut Run<'_>) -> Result<()> {
    idle_race(run);
    run.send(get("/stale").expect(200))?;
    run.send(get("/stale").expect(503))?;
    run.counters(&["cluster.stale.upstream_rq_503"])
}

fn idle_race_post(run: &mut Run<'_>) -> Result<()> {
    idle_race(run);
    run.send(get("/stale").expect(200))?;
    run.send(request("POST", "/stale").body("once").expect(503))?;
    run.counters(&["cluster.stale.upstream_rq_503"])
}

fn dns_clusters(run: &mut Run<'_>) -> Result<()> {
    for name in ["strict", "logical"] {
        run.await_gauge(&format!("cluster.{name}.membership_total"), 1)?;
        run.send(get(&format!("/{name}")).expect(200))?;
    }
    Ok(())
}
