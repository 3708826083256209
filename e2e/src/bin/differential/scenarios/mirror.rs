//! Copies of requests for other clusters.

use anyhow::{Result, ensure};
use e2e::upstream::Reply;

use crate::ask::{Ask, get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const ROUTES: &str = r#"
    request_mirror_policies: [{cluster: m}]
    virtual_hosts:
    - name: host
      domains: [host.example]
      request_mirror_policies: [{cluster: o, disable_shadow_host_suffix_append: true}]
      include_request_attempt_count: true
      routes:
      - {name: own, match: {prefix: /own}, route: {cluster: a, request_mirror_policies: [{cluster: m}]}}
      - {name: above, match: {prefix: /}, route: {cluster: a}}
    - name: all
      domains: ['*']
      routes:
      - {name: never, match: {prefix: /never}, route: {cluster: a, request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 0}}}]}}
      - {name: always, match: {prefix: /always}, route: {cluster: a, request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 100}}}]}}
      - {name: two, match: {prefix: /two}, route: {cluster: a, request_mirror_policies: [{cluster: m}, {cluster: o}]}}
      - {name: byheader, match: {prefix: /byheader}, route: {cluster: a, request_mirror_policies: [{cluster_header: x-mirror}]}}
      - {name: literal, match: {prefix: /literal}, route: {cluster: a, request_mirror_policies: [{cluster: m, host_rewrite_literal: 'copy.example'}]}}
      - name: mutated
        match: {prefix: /mutated}
        route:
          cluster: a
          request_mirror_policies:
          - cluster: m
            request_headers_mutations:
            - {remove: x-secret}
            - {append: {header: {key: x-copy, value: 'of %REQ(:PATH)%'}}}
            - {append: {header: {key: x-both, value: copy}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}
      - name: rewritten
        match: {prefix: /rewritten}
        request_headers_to_add: [{header: {key: x-added, value: route}}]
        route: {cluster: a, prefix_rewrite: /new, host_rewrite_literal: 'live.example:8080', request_mirror_policies: [{cluster: m}]}
      - name: retried
        match: {prefix: /retried}
        route: {cluster: a, request_mirror_policies: [{cluster: m}], retry_policy: {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s}}}
      - {name: gone, match: {prefix: /gone}, route: {cluster: a, request_mirror_policies: [{cluster: dead}]}}
      - {name: full, match: {prefix: /full}, route: {cluster: a, request_mirror_policies: [{cluster: full}]}}
      - {name: short, match: {prefix: /short}, route: {cluster: a, timeout: 0.2s, request_mirror_policies: [{cluster: m}]}}
      - {name: cluster, match: {prefix: /cluster}, route: {cluster: own, request_mirror_policies: [{cluster: o}]}}
      - {name: direct, match: {prefix: /direct}, direct_response: {status: 200}}
      - {name: plain, match: {prefix: /}, route: {cluster: a}}
"#;

const FULL: &str = "circuit_breakers: {thresholds: [{max_requests: 0, max_pending_requests: 0, max_connections: 0}]}";

pub(super) fn groups() -> Vec<Group> {
    let hcm = Hcm {
        routes: ROUTES,
        ..Hcm::default()
    };
    let own = super::http_options(
        "explicit_http_config: {http_protocol_options: {}}\n    request_mirror_policies: [{cluster: m}]",
    );
    let bootstrap = Bootstrap::default()
        .listener(&hcm)
        .cluster("a", &["a"], "")
        .cluster("m", &["m"], "")
        .cluster("o", &["o"], "")
        .cluster("dead", &["dead"], "")
        .cluster("full", &["m"], FULL)
        .cluster("own", &["a"], &own);
    vec![group(
        bootstrap,
        [
            ("mirror/levels", levels),
            ("mirror/fractions", fractions),
            ("mirror/several", several),
            ("mirror/cluster_header", cluster_header),
            ("mirror/hosts", hosts),
            ("mirror/mutations", mutations),
            ("mirror/rewritten", rewritten),
            ("mirror/bodies", bodies),
            ("mirror/retries", retries),
            ("mirror/failures", failures),
            ("mirror/timeouts", timeouts),
            ("mirror/cluster_level", cluster_level),
        ],
    )]
}

/// Sends a request, and notes what it and its copies look like once these counters of clusters have grown by
/// so much since the scenario began.
fn mirrored(run: &mut Run<'_>, ask: Ask, counters: &[(&str, i64)]) -> Result<()> {
    let response = run.quietly(&ask)?;
    ensure!(response.status == 200, "{}: {}", ask.label, response.status);
    for (counter, delta) in counters {
        run.await_counter(&format!("cluster.{counter}"), *delta)?;
    }
    let step = run.step(&ask.label);
    run.settle(&step)
}

fn levels(run: &mut Run<'_>) -> Result<()> {
    mirrored(run, get("/x"), &[("m.upstream_rq_200", 1)])?;
    mirrored(
        run,
        get("/x").host("host.example"),
        &[("o.upstream_rq_200", 1)],
    )?;
    mirrored(
        run,
        get("/own").host("host.example"),
        &[("m.upstream_rq_200", 2)],
    )?;
    mirrored(run, get("/direct"), &[])
}

fn fractions(run: &mut Run<'_>) -> Result<()> {
    mirrored(run, get("/never"), &[])?;
    mirrored(run, get("/always"), &[("m.upstream_rq_200", 1)])
}

fn several(run: &mut Run<'_>) -> Result<()> {
    mirrored(
        run,
        get("/two"),
        &[("m.upstream_rq_200", 1), ("o.upstream_rq_200", 1)],
    )?;
    let post = request("POST", "/two").body("hello");
    mirrored(
        run,
        post,
        &[("m.upstream_rq_200", 2), ("o.upstream_rq_200", 2)],
    )?;
    run.counters(&[
        "cluster.a.upstream_rq_200",
        "cluster.a.internal.upstream_rq_200",
        "cluster.a.external.upstream_rq_200",
        "cluster.m.upstream_rq_total",
        "cluster.m.internal.upstream_rq_200",
        "cluster.m.external.upstream_rq_200",
        "http.main.downstream_rq_total",
        "http.main.rq_total",
    ])
}

fn cluster_header(run: &mut Run<'_>) -> Result<()> {
    let ask = |name: &str| get("/byheader").header("x-mirror", name);
    mirrored(run, ask("o"), &[("o.upstream_rq_200", 1)])?;
    mirrored(run, ask("nowhere"), &[])?;
    mirrored(run, get("/byheader"), &[])
}

fn hosts(run: &mut Run<'_>) -> Result<()> {
    mirrored(
        run,
        get("/x").host("a.example:8080"),
        &[("m.upstream_rq_200", 1)],
    )?;
    mirrored(
        run,
        get("/literal").host("a.example:8080"),
        &[("m.upstream_rq_200", 2)],
    )
}

fn mutations(run: &mut Run<'_>) -> Result<()> {
    let ask = get("/mutated?q")
        .header("x-secret", "1")
        .header("x-both", "live");
    mirrored(run, ask, &[("m.upstream_rq_200", 1)])
}

fn rewritten(run: &mut Run<'_>) -> Result<()> {
    let ask = get("/rewritten/x").header("x-forwarded-for", "1.2.3.4");
    mirrored(
        run,
        ask.header("x-envoy-retry-on", "5xx"),
        &[("m.upstream_rq_200", 1)],
    )
}

fn bodies(run: &mut Run<'_>) -> Result<()> {
    let long = "0123456789".repeat(20_000);
    mirrored(
        run,
        request("POST", "/x").body("hello"),
        &[("m.upstream_rq_200", 1)],
    )?;
    mirrored(
        run,
        request("POST", "/x").chunked("hello"),
        &[("m.upstream_rq_200", 2)],
    )?;
    mirrored(
        run,
        request("POST", "/x").body(&long),
        &[("m.upstream_rq_200", 3)],
    )
}

fn retries(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/retried", [Reply::status(503), Reply::ok("x")]);
    run.up["m"].on("/retried", [Reply::status(503)]);
    mirrored(run, get("/retried"), &[("m.upstream_rq_503", 1)])?;
    run.counters(&[
        "cluster.a.upstream_rq_retry",
        "cluster.m.upstream_rq_retry",
        "cluster.m.upstream_rq_total",
    ])
}

fn failures(run: &mut Run<'_>) -> Result<()> {
    run.up["m"].on("/x", [Reply::close()]);
    mirrored(run, get("/gone"), &[("dead.upstream_rq_503", 1)])?;
    mirrored(run, get("/full"), &[("full.upstream_rq_503", 1)])?;
    let post = request("POST", "/x").body("hello");
    mirrored(run, post, &[("m.upstream_rq_503", 1)])?;
    run.counters(&[
        "cluster.dead.upstream_cx_connect_fail",
        "cluster.full.upstream_rq_pending_overflow",
        "cluster.full.internal.upstream_rq_503",
        "cluster.a.upstream_rq_200",
        "http.main.downstream_rq_5xx",
    ])
}

fn timeouts(run: &mut Run<'_>) -> Result<()> {
    run.up["m"].on("/short", [Reply::hang()]);
    mirrored(run, get("/short"), &[("m.upstream_rq_timeout", 1)])?;
    run.counters(&["cluster.a.upstream_rq_timeout", "cluster.m.upstream_rq_504"])
}

fn cluster_level(run: &mut Run<'_>) -> Result<()> {
    mirrored(run, get("/cluster"), &[("m.upstream_rq_200", 1)])
}
