use std::time::Duration;

use mesh_config::model::{StatsFlush, StatsTarget};
use mesh_core::stats::{Stat, Value};
use mesh_telemetry::{Dialect, Query, render};

use super::{config, paths, refusal, report};

fn shown(text: &str, names: &[&str]) -> String {
    let stats = names.iter().map(|name| Stat {
        name: (*name).to_owned(),
        value: Value::Counter(1),
    });
    let stats: Vec<Stat> = stats.collect();
    let export = config(text).stats.export;
    render(&stats, &Query::parse_prometheus("").unwrap(), &export)
}

#[test]
fn tags_are_cut_out_of_names_as_the_config_says() {
    let tags = |tags: &str| {
        let text = format!("stats_config: {{{tags}}}");
        let shown = shown(&text, &["cluster.a.x_y.total"]);
        shown.lines().nth(1).unwrap().to_owned()
    };
    assert_eq!(
        tags(
            "stats_tags: [{tag_name: shard, regex: '\\.(x_(.+?)\\.)'}, {tag_name: f, fixed_value: v}]"
        ),
        r#"envoy_cluster_total{shard="y",f="v",envoy_cluster_name="a"} 1"#
    );
    assert_eq!(
        tags("use_all_default_tags: false"),
        "envoy_cluster_a_x_y_total{} 1"
    );
    assert_eq!(
        tags("use_all_default_tags: false, stats_tags: [{tag_name: envoy.cluster_name}]"),
        r#"envoy_cluster_x_y_total{envoy_cluster_name="a"} 1"#
    );
    let unknown =
        refusal("stats_config: {use_all_default_tags: false, stats_tags: [{tag_name: mine}]}");
    assert!(unknown.contains("stats_tags[0].tag_name: "), "{unknown}");
    let broken = refusal("stats_config: {stats_tags: [{tag_name: a, regex: '('}]}");
    assert!(broken.contains("stats_tags[0].regex: "), "{broken}");
}

#[test]
fn a_matcher_says_which_stats_there_are() {
    let names = |matcher: &str| {
        let text = format!("stats_config: {{stats_matcher: {{{matcher}}}}}");
        let export = config(&text).stats.export;
        let all = ["a.x", "a.y", "b.x"].into_iter();
        all.filter(|name| export.shows(name)).collect::<Vec<_>>()
    };
    assert_eq!(
        names("inclusion_list: {patterns: [{prefix: a.}]}"),
        ["a.x", "a.y"]
    );
    assert_eq!(
        names("exclusion_list: {patterns: [{suffix: .x}, {exact: q}]}"),
        ["a.y"]
    );
    assert_eq!(names("reject_all: true"), Vec::<&str>::new());
    assert_eq!(names("reject_all: false").len(), 3);
}

#[test]
fn histograms_have_the_bounds_of_the_first_match() {
    let settings = "stats_config: {histogram_bucket_settings: [\
        {match: {suffix: _time}, buckets: [10, 1]}, {match: {prefix: a.}, buckets: [3]}]}";
    let buckets = config(settings).stats.export.buckets;
    assert_eq!(buckets.bounds("a.rq_time"), [1.0, 10.0]);
    assert_eq!(buckets.bounds("a.length"), [3.0]);
    assert_eq!(buckets.bounds("b.length").len(), 19);
}

#[test]
fn flushes_happen_again_and_again_or_when_somebody_looks() {
    let flush = |text: &str| config(text).stats.flush;
    assert_eq!(flush("{}"), StatsFlush::Every(Duration::from_secs(5)));
    assert_eq!(
        flush("stats_flush_interval: 0.25s"),
        StatsFlush::Every(Duration::from_millis(250))
    );
    assert_eq!(flush("stats_flush_on_admin: true"), StatsFlush::OnAdmin);
}

fn sink(kind: &str, fields: &str) -> String {
    format!(
        "stats_sinks: [{{name: s, typed_config: {{'@type': type.googleapis.com/envoy.config.metrics.v3.{kind}, {fields}}}}}]"
    )
}

const ADDRESS: &str =
    "address: {socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 8125}}";

#[test]
fn sinks_know_where_to_send_what() {
    let of = |text: &str| config(text).stats.sinks.remove(0);
    let plain = of(&sink("StatsdSink", ADDRESS));
    assert_eq!(
        (
            plain.statsd.prefix.as_str(),
            plain.statsd.datagram_bytes_max
        ),
        ("envoy", 1432)
    );
    assert!(matches!(plain.target, StatsTarget::Datagrams(_)));
    let dog = of(&sink(
        "DogStatsdSink",
        &format!("{ADDRESS}, prefix: p, max_bytes_per_datagram: 512"),
    ));
    assert_eq!(dog.statsd.dialect, Dialect::DogStatsd);
    assert_eq!(
        (dog.statsd.prefix.as_str(), dog.statsd.datagram_bytes_max),
        ("p", 512)
    );
    let stream = sink("StatsdSink", "tcp_cluster_name: c");
    let with = format!("{stream}\nstatic_resources: {{clusters: [{{name: c}}]}}");
    assert_eq!(of(&with).target, StatsTarget::Stream("c".into()));
    assert_eq!(paths(&sink("StatsdSink", ADDRESS)), Vec::<String>::new());
}

#[test]
fn nothing_is_sent_in_the_clear_to_where_the_config_wants_tls() {
    let text = format!(
        "{}\nstatic_resources: {{clusters: [{{name: c, transport_socket: {{name: tls}}}}]}}",
        sink("StatsdSink", "tcp_cluster_name: c")
    );
    let about = report(&text);
    let path = "stats_sinks[0].typed_config.tcp_cluster_name";
    assert!(
        about
            .iter()
            .any(|(at, _, security)| at == path && *security),
        "{about:?}"
    );
}

#[test]
fn sinks_of_other_kinds_are_reported() {
    assert_eq!(
        paths(&sink("HystrixSink", "num_buckets: 3")),
        ["stats_sinks[0].typed_config"]
    );
}
