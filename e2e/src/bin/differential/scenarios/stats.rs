//! Stats: names, labels, histograms.

use std::collections::BTreeSet;

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const STATS: &str = r"
stats_flush_on_admin: true
stats_config:
  stats_tags:
  - {tag_name: fixed.tag, fixed_value: value}
  - {tag_name: shard, regex: '\.(shard_(.+?)\.)'}
  histogram_bucket_settings:
  - {match: {suffix: downstream_rq_time}, buckets: [1000, 60000]}
";

const MATCHER: &str = "
stats_config:
  use_all_default_tags: false
  stats_tags: [{tag_name: envoy.cluster_name}]
  stats_matcher:
    inclusion_list:
      patterns: [{prefix: cluster.a.upstream_rq_}, {exact: http.main.downstream_rq_total}]
";

pub(super) fn groups() -> Vec<Group> {
    let bootstrap = |top: &str| {
        Bootstrap::default()
            .listener(&Hcm::default())
            .cluster("a", &["a"], "")
            .cluster("b.shard_7", &["b"], "")
            .top(top)
    };
    vec![
        group(
            bootstrap(STATS),
            [
                ("stats/prometheus_labels", prometheus_labels),
                ("stats/histograms", histograms),
                ("stats/queries", queries),
            ],
        ),
        group(bootstrap(MATCHER), [("stats/matcher", matcher)]),
    ]
}

/// The metrics that we have, as far as both must agree on them: name and labels without values.
fn metrics(page: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, _)| name.to_owned())
        .filter(|name| wanted(name))
        .collect()
}

const FAMILIES: [&str; 12] = [
    "envoy_cluster_upstream_rq{",
    "envoy_cluster_upstream_rq_xx{",
    "envoy_cluster_upstream_rq_total{",
    "envoy_cluster_external_upstream_rq{",
    "envoy_cluster_upstream_cx_active{",
    "envoy_cluster_circuit_breakers_default_cx_open{",
    "envoy_cluster_membership_healthy{",
    "envoy_http_downstream_rq_xx{",
    "envoy_http_downstream_cx_total{",
    "envoy_http_downstream_rq_time_bucket{",
    "envoy_server_live{",
    "envoy_cluster_manager_active_clusters{",
];

fn prometheus_labels(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", [Reply::ok("x"), Reply::status(503)]);
    run.send(get("/x").expect(200))?;
    run.send(get("/x").expect(503))?;
    run.await_counter("http.main.downstream_rq_completed", 2)?;
    let page = run.page("/stats/prometheus")?;
    for family in FAMILIES {
        let mark =
            |name: &str| name.contains("prefix=\"mark\"") || name.contains("prefix=\"admin\"");
        let of_family = metrics(&page, |name| name.starts_with(family) && !mark(name));
        for name in of_family {
            run.note(&format!("metric {name}"), "there");
        }
        let kind = format!(
            "# TYPE {} ",
            family.trim_end_matches('{').trim_end_matches("_bucket")
        );
        let kinds: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with(&kind))
            .collect();
        run.note(&kind, kinds.join(" "));
    }
    Ok(())
}

fn histograms(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", std::iter::repeat_n(Reply::ok("x"), 2));
    run.send(get("/x").expect(200))?;
    run.send(get("/x").expect(200))?;
    let path = "/stats?filter=^http.main.downstream_rq_time&histogram_buckets=cumulative";
    // Both requests took less than a minute, and count below the same bound.
    run.await_page(path, |page| page.contains("B60000("))?;
    let shape = |page: &str| -> String {
        page.chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect()
    };
    let total = |page: &str| -> Option<String> {
        let last = page.split("B60000(").nth(1)?;
        Some(last.split(')').next()?.split(',').nth(1)?.to_owned())
    };
    let page = run.page(path)?;
    run.note("cumulative", total(&page).unwrap_or_default());
    run.note("bounds", page.matches(" B").count().to_string());
    for mode in ["summary", "disjoint"] {
        let path = format!("/stats?filter=^http.main.downstream_rq_time&histogram_buckets={mode}");
        let page = run.page(&path)?;
        let words: Vec<&str> = page
            .split([' ', '('])
            .filter(|w| w.starts_with(['P', 'B']))
            .collect();
        run.note(mode, words.join(" "));
    }
    let page =
        run.page("/stats?filter=^http.main.downstream_rq_time&histogram_buckets=detailed")?;
    let keys: Vec<&str> = page
        .lines()
        .map(|line| line.split('=').next().unwrap_or_default())
        .collect();
    run.note("detailed", keys.join(" "));
    let unused = run.page("/stats?filter=^cluster.b.shard_7.upstream_cx_connect_ms")?;
    run.note("unused", shape(&unused));
    Ok(())
}

fn queries(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/x").expect(200))?;
    for query in [
        "type=nothing",
        "histogram_buckets=detailed&format=prometheus",
        "filter=^server.live$",
        "filter=^server.live$&format=json",
        "filter=^http.main.downstream_rq_2xx$&usedonly",
        "filter=^http.main.downstream_rq_5xx$&usedonly",
        "filter=^http.main.downstream_rq_2xx$&type=Gauges",
        "filter=^cluster.a.upstream_rq_total$&format=prometheus",
    ] {
        run.admin("GET", &format!("/stats?{query}"))?;
    }
    Ok(())
}

fn matcher(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", [Reply::ok("x")]);
    run.send(get("/x").expect(200))?;
    let text = run.page("/stats")?;
    for name in [
        "cluster.a.upstream_rq_200",
        "cluster.a.upstream_rq_total",
        "cluster.a.upstream_cx_total",
        "cluster.b.shard_7.upstream_rq_total",
        "http.main.downstream_rq_total",
        "http.main.downstream_rq_2xx",
        "server.live",
    ] {
        let start = format!("{name}: ");
        let there = text.lines().any(|line| line.starts_with(&start));
        run.note(name, there.to_string());
    }
    let page = run.page("/stats/prometheus")?;
    for name in metrics(&page, |name| {
        name.starts_with("envoy_cluster_upstream_rq_200")
    }) {
        run.note(&format!("metric {name}"), "there");
    }
    Ok(())
}
