//! Ejecting hosts.

use std::time::Duration;

use anyhow::Result;
use e2e::upstream::Reply;
use e2e::wait::now;

use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

/// Clusters of one host without panic, so that an ejection shows as `no healthy upstream`: name,
/// host, fields of `outlier_detection`.
const CLUSTERS: [(&str, &str, &str); 12] = [
    (
        "fives",
        "a",
        "consecutive_5xx: 3, max_ejection_percent: 100",
    ),
    (
        "gateway",
        "b",
        "consecutive_5xx: 100, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, max_ejection_percent: 100",
    ),
    (
        "split",
        "dead",
        "split_external_local_origin_errors: true, consecutive_5xx: 1, consecutive_local_origin_failure: 2, max_ejection_percent: 100",
    ),
    (
        "local",
        "dead2",
        "consecutive_5xx: 2, max_ejection_percent: 100",
    ),
    (
        "splitfives",
        "c",
        "split_external_local_origin_errors: true, consecutive_5xx: 2, consecutive_local_origin_failure: 1, max_ejection_percent: 100",
    ),
    ("capped", "d", "consecutive_5xx: 2"),
    (
        "always",
        "e",
        "consecutive_5xx: 2, always_eject_one_host: true",
    ),
    (
        "unenforced",
        "f",
        "consecutive_5xx: 2, enforcing_consecutive_5xx: 0, max_ejection_percent: 100",
    ),
    (
        "back",
        "g",
        "consecutive_5xx: 1, max_ejection_percent: 100, interval: 0.3s, base_ejection_time: 0.6s, max_ejection_time: 60s",
    ),
    (
        "timeouts",
        "h",
        "consecutive_5xx: 2, max_ejection_percent: 100",
    ),
    (
        "resets",
        "i",
        "consecutive_5xx: 2, max_ejection_percent: 100",
    ),
    ("zero", "j", "consecutive_5xx: 0, max_ejection_percent: 100"),
];

pub(super) fn groups() -> Vec<Group> {
    let mut routes = "virtual_hosts:\n- name: all\n  domains: ['*']\n  routes:\n".to_owned();
    let mut bootstrap = Bootstrap::default();
    for (name, host, fields) in CLUSTERS {
        let timeout = if name == "timeouts" {
            ", timeout: 0.2s"
        } else {
            ""
        };
        routes += &format!(
            "  - {{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}{timeout}}}}}\n"
        );
        let interval = if fields.contains("interval:") {
            ""
        } else {
            ", interval: 0.05s, base_ejection_time: 600s, max_ejection_time: 600s"
        };
        let fields = format!(
            "common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}\noutlier_detection: {{{fields}{interval}}}"
        );
        bootstrap = bootstrap.cluster(name, &[host], &fields);
    }
    for name in ["panic", "pair"] {
        routes += &format!(
            "  - {{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}}}}}\n"
        );
    }
    let bootstrap = bootstrap
        .cluster("panic", &["k"], "outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 100, base_ejection_time: 600s, max_ejection_time: 600s}")
        .cluster(
            "pair",
            &["l", "m"],
            "common_lb_config: {healthy_panic_threshold: {value: 0}}\noutlier_detection: {consecutive_5xx: 1, max_ejection_percent: 50, base_ejection_time: 600s, max_ejection_time: 600s}",
        )
        .listener(&Hcm {
            routes: &routes,
            ..Hcm::default()
        });
    vec![group(
        bootstrap,
        [
            ("outlier/consecutive_5xx", consecutive_5xx),
            (
                "outlier/consecutive_gateway_failure",
                consecutive_gateway_failure,
            ),
            ("outlier/local_origin_split", local_origin_split),
            ("outlier/local_origin_together", local_origin_together),
            ("outlier/external_origin_split", external_origin_split),
            (
                "outlier/max_ejection_percent_by_default",
                max_ejection_percent,
            ),
            (
                "outlier/max_ejection_percent_of_two",
                max_ejection_percent_of_two,
            ),
            ("outlier/always_eject_one_host", always_eject_one_host),
            ("outlier/not_enforced", not_enforced),
            ("outlier/zero_never_ejects", zero_never_ejects),
            ("outlier/ejection_ends_and_grows", ejection_ends_and_grows),
            ("outlier/timeouts_count", timeouts_count),
            ("outlier/resets_count", resets_count),
            ("outlier/panic", panic),
        ],
    )]
}

/// Sends a request for each status, which the host answers.
fn answers(run: &mut Run<'_>, cluster: &str, host: &str, statuses: &[u16]) -> Result<()> {
    let path = format!("/{cluster}");
    run.up[host].on(&path, statuses.iter().map(|status| Reply::status(*status)));
    for status in statuses {
        run.send(get(&path).expect(*status))?;
    }
    Ok(())
}

fn await_ejection(run: &Run<'_>, cluster: &str) -> Result<()> {
    run.await_gauge(
        &format!("cluster.{cluster}.outlier_detection.ejections_active"),
        1,
    )?;
    run.await_gauge(&format!("cluster.{cluster}.membership_healthy"), 0)
}

fn stats(run: &mut Run<'_>, cluster: &str) -> Result<()> {
    let name = |stat: &str| format!("cluster.{cluster}.outlier_detection.{stat}");
    let counters = [
        "ejections_enforced_total",
        "ejections_overflow",
        "ejections_detected_consecutive_5xx",
        "ejections_enforced_consecutive_5xx",
        "ejections_detected_consecutive_gateway_failure",
        "ejections_enforced_consecutive_gateway_failure",
        "ejections_detected_consecutive_local_origin_failure",
        "ejections_enforced_consecutive_local_origin_failure",
        "ejections_total",
        "ejections_consecutive_5xx",
    ]
    .map(name);
    run.counters(&counters.each_ref().map(String::as_str))?;
    run.gauges(&[
        &name("ejections_active"),
        &format!("cluster.{cluster}.membership_healthy"),
    ])
}

fn consecutive_5xx(run: &mut Run<'_>) -> Result<()> {
    answers(run, "fives", "a", &[500, 503, 200, 500, 404, 500, 500])?;
    stats(run, "fives")?;
    answers(run, "fives", "a", &[501])?;
    await_ejection(run, "fives")?;
    run.send(get("/fives").expect(503))?;
    run.counters(&["cluster.fives.upstream_cx_none_healthy"])?;
    stats(run, "fives")
}

fn consecutive_gateway_failure(run: &mut Run<'_>) -> Result<()> {
    answers(run, "gateway", "b", &[502, 500, 503, 501, 504])?;
    stats(run, "gateway")?;
    answers(run, "gateway", "b", &[502])?;
    await_ejection(run, "gateway")?;
    run.send(get("/gateway").expect(503))?;
    stats(run, "gateway")
}

fn local_origin_split(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/split").expect(503))?;
    stats(run, "split")?;
    run.send(get("/split").expect(503))?;
    await_ejection(run, "split")?;
    run.send(get("/split").expect(503))?;
    stats(run, "split")
}

fn local_origin_together(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/local").expect(503))?;
    run.send(get("/local").expect(503))?;
    await_ejection(run, "local")?;
    stats(run, "local")
}

fn external_origin_split(run: &mut Run<'_>) -> Result<()> {
    answers(run, "splitfives", "c", &[503, 503])?;
    await_ejection(run, "splitfives")?;
    stats(run, "splitfives")
}

fn max_ejection_percent(run: &mut Run<'_>) -> Result<()> {
    answers(run, "capped", "d", &[503, 503])?;
    run.await_counter("cluster.capped.outlier_detection.ejections_overflow", 1)?;
    answers(run, "capped", "d", &[200])?;
    stats(run, "capped")
}

fn max_ejection_percent_of_two(run: &mut Run<'_>) -> Result<()> {
    for host in ["l", "m"] {
        run.up[host].on("/pair", [Reply::status(503)]);
    }
    run.send(get("/pair").expect(503).any_host())?;
    run.await_gauge("cluster.pair.membership_healthy", 1)?;
    run.send(get("/pair").expect(503).any_host())?;
    run.await_counter("cluster.pair.outlier_detection.ejections_overflow", 1)?;
    stats(run, "pair")
}

fn always_eject_one_host(run: &mut Run<'_>) -> Result<()> {
    answers(run, "always", "e", &[503, 503])?;
    await_ejection(run, "always")?;
    stats(run, "always")
}

fn not_enforced(run: &mut Run<'_>) -> Result<()> {
    answers(run, "unenforced", "f", &[503, 503])?;
    run.await_counter(
        "cluster.unenforced.outlier_detection.ejections_detected_consecutive_5xx",
        1,
    )?;
    answers(run, "unenforced", "f", &[200])?;
    stats(run, "unenforced")
}

fn zero_never_ejects(run: &mut Run<'_>) -> Result<()> {
    answers(run, "zero", "j", &[503, 503, 503, 200])?;
    stats(run, "zero")
}

fn ejection_ends_and_grows(run: &mut Run<'_>) -> Result<()> {
    // The second failure comes within an interval of the return, before anything is forgiven.
    for (round, least) in [(1, 600), (2, 1200)] {
        answers(run, "back", "g", &[503])?;
        await_ejection(run, "back")?;
        let began = now();
        run.await_gauge("cluster.back.outlier_detection.ejections_active", 0)?;
        // What the gauges took to be read counts neither way: a tenth is allowed for.
        let enough = began.elapsed() >= Duration::from_millis(least * 9 / 10);
        run.note(
            &format!("ejection {round} lasts {round} times the base"),
            enough.to_string(),
        );
        // The gauge moves before every worker has heard of it.
        run.up["g"].on("/back", [Reply::ok("back")]);
        run.await_status(&get("/back"), 200)?;
    }
    stats(run, "back")
}

fn timeouts_count(run: &mut Run<'_>) -> Result<()> {
    run.up["h"].on("/timeouts", [Reply::hang()]);
    run.send(get("/timeouts").expect(504))?;
    run.send(get("/timeouts").expect(504))?;
    await_ejection(run, "timeouts")?;
    stats(run, "timeouts")
}

fn resets_count(run: &mut Run<'_>) -> Result<()> {
    run.up["i"].on("/resets", [Reply::close()]);
    run.send(get("/resets").expect(503))?;
    run.send(get("/resets").expect(503))?;
    await_ejection(run, "resets")?;
    stats(run, "resets")
}

fn panic(run: &mut Run<'_>) -> Result<()> {
    answers(run, "panic", "k", &[503])?;
    await_ejection(run, "panic")?;
    answers(run, "panic", "k", &[200])?;
    run.counters(&["cluster.panic.lb_healthy_panic"])?;
    stats(run, "panic")
}
