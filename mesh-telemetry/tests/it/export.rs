use mesh_core::stats::{Distribution, HistogramSnapshot, Stat, Value};
use mesh_telemetry::{Buckets, ExportConfig, NameTest, Query, TagSpecifier, Tags, render};

fn counter(name: &str, n: u64) -> Stat {
    stat(name, Value::Counter(n))
}

fn gauge(name: &str, n: u64) -> Stat {
    stat(name, Value::Gauge(n))
}

fn stat(name: &str, value: Value) -> Stat {
    Stat {
        name: name.to_owned(),
        value,
    }
}

fn distribution(buckets: &[(u64, u64)]) -> Distribution {
    Distribution {
        count: buckets.iter().map(|(_, n)| n).sum(),
        sum: buckets.iter().map(|(bound, n)| bound * n).sum(),
        buckets: buckets.to_vec(),
    }
}

fn histogram(name: &str, buckets: &[(u64, u64)]) -> Stat {
    let snapshot = HistogramSnapshot {
        total: distribution(buckets),
        interval: Distribution::default(),
    };
    stat(name, Value::Histogram(snapshot))
}

fn some_stats() -> Vec<Stat> {
    let mut stats = vec![
        histogram("cluster.dead.upstream_cx_length_ms", &[(1, 1), (30, 3)]),
        histogram("cluster.dead.upstream_rq_per_cx", &[]),
        counter("cluster.dead.upstream_cx_total", 4),
        gauge("cluster.dead.upstream_cx_active", 0),
        counter("cluster.dead.upstream_rq_503", 2),
        counter("cluster.dead.upstream_rq_5xx", 2),
        stat("control_plane.identifier", Value::Text("a \"b\"\n".into())),
        gauge("server.live", 1),
    ];
    stats.sort_by(|a, b| a.name.cmp(&b.name));
    stats
}

fn shown(query: &str) -> String {
    render(
        &some_stats(),
        &Query::parse(query).unwrap(),
        &ExportConfig::default(),
    )
}

fn metrics(stats: &[Stat]) -> String {
    let query = Query::parse_prometheus("").unwrap();
    render(stats, &query, &ExportConfig::default())
}

#[test]
fn text_lists_words_then_numbers_then_histograms() {
    assert_eq!(
        shown(""),
        "\
control_plane.identifier: \"a \\\"b\\\"\\n\"
cluster.dead.upstream_cx_active: 0
cluster.dead.upstream_cx_total: 4
cluster.dead.upstream_rq_503: 2
cluster.dead.upstream_rq_5xx: 2
server.live: 1
cluster.dead.upstream_cx_length_ms: P0(nan,1.05) P25(nan,1.05) P50(nan,30.25) P75(nan,30.5) P90(nan,30.75) \
P95(nan,30.75) P99(nan,30.75) P99.5(nan,30.75) P99.9(nan,30.75) P100(nan,30.75)
cluster.dead.upstream_rq_per_cx: No recorded values
"
    );
}

#[test]
fn text_shows_only_what_is_asked_for() {
    assert_eq!(shown("usedonly&type=Gauges"), "server.live: 1\n");
    assert_eq!(
        shown("filter=%5Ecluster%5C.dead%5C.upstream_rq_5&usedonly"),
        "cluster.dead.upstream_rq_503: 2\ncluster.dead.upstream_rq_5xx: 2\n"
    );
    assert_eq!(
        shown("filter=cluster&invert_filter&type=Gauges&of_no_meaning=1"),
        "server.live: 1\n"
    );
    assert_eq!(
        shown("type=TextReadouts"),
        "control_plane.identifier: \"a \\\"b\\\"\\n\"\n"
    );
    assert_eq!(shown("type=Counters&filter=nothing"), "");
}

#[test]
fn json_has_the_shape_of_envoy() {
    let expected = r#"{"stats":[
        {"name":"control_plane.identifier","value":"a \"b\"\n"},
        {"name":"cluster.dead.upstream_cx_active","value":0},
        {"name":"cluster.dead.upstream_cx_total","value":4},
        {"name":"cluster.dead.upstream_rq_503","value":2},
        {"name":"cluster.dead.upstream_rq_5xx","value":2},
        {"name":"server.live","value":1},
        {"histograms":{
            "supported_quantiles":[0,25,50,75,90,95,99,99.5,99.9,100],
            "computed_quantiles":[
                {"name":"cluster.dead.upstream_cx_length_ms","values":[
                    {"cumulative":1.05,"interval":null},{"cumulative":1.05,"interval":null},
                    {"cumulative":30.25,"interval":null},{"cumulative":30.5,"interval":null},
                    {"cumulative":30.75,"interval":null},{"cumulative":30.75,"interval":null},
                    {"cumulative":30.75,"interval":null},{"cumulative":30.75,"interval":null},
                    {"cumulative":30.75,"interval":null},{"cumulative":30.75,"interval":null}]},
                {"name":"cluster.dead.upstream_rq_per_cx","values":[
                    {"cumulative":null,"interval":null},{"cumulative":null,"interval":null},
                    {"cumulative":null,"interval":null},{"cumulative":null,"interval":null},
                    {"cumulative":null,"interval":null},{"cumulative":null,"interval":null},
                    {"cumulative":null,"interval":null},{"cumulative":null,"interval":null},
                    {"cumulative":null,"interval":null},{"cumulative":null,"interval":null}]}]}}]}"#;
    let compact: String = expected.lines().map(str::trim_start).collect();
    assert_eq!(shown("format=json"), compact);
    let parsed: serde_json::Value = serde_json::from_str(&shown("format=json")).unwrap();
    assert_eq!(parsed["stats"][0]["value"], "a \"b\"\n");
    assert_eq!(shown("format=json&filter=nothing"), "{\"stats\":[]}");
}

#[test]
fn json_escapes_what_a_name_may_hold() {
    let stats = [counter("cluster.\"\\\u{1}\t\r\n☃.x", 1)];
    let text = render(
        &stats,
        &Query::parse("format=json").unwrap(),
        &ExportConfig::default(),
    );
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["stats"][0]["name"], "cluster.\"\\\u{1}\t\r\n☃.x");
}

#[test]
fn prometheus_groups_by_type_and_extracts_labels() {
    let stats = [
        gauge("cluster.a.upstream_cx_active", 3),
        counter("cluster.a.upstream_rq_503", 1),
        counter("cluster.a.upstream_rq_5xx", 1),
        counter("cluster.b.upstream_rq_503", 7),
        stat("control_plane.identifier", Value::Text("x".into())),
        gauge("server.live", 1),
    ];
    assert_eq!(
        metrics(&stats),
        r#"# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="a"} 1
envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="b"} 7
# TYPE envoy_cluster_upstream_rq_xx counter
envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="a"} 1
# TYPE envoy_cluster_upstream_cx_active gauge
envoy_cluster_upstream_cx_active{envoy_cluster_name="a"} 3
# TYPE envoy_server_live gauge
envoy_server_live{} 1
"#
    );
}

#[test]
fn prometheus_shows_histograms_with_envoys_bounds() {
    let stats = [histogram(
        "http.in.downstream_rq_time",
        &[(0, 1), (12, 2), (9_000_000, 1)],
    )];
    let below = |bound: &str, n: u32| {
        format!(
            "envoy_http_downstream_rq_time_bucket{{envoy_http_conn_manager_prefix=\"in\",le=\"{bound}\"}} {n}\n"
        )
    };
    let mut expected = "# TYPE envoy_http_downstream_rq_time histogram\n".to_owned();
    for bound in ["0.5", "1", "5", "10"] {
        expected += &below(bound, 1);
    }
    for bound in [
        "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000",
        "300000", "600000", "1800000", "3600000",
    ] {
        expected += &below(bound, 3);
    }
    expected += &below("+Inf", 4);
    expected +=
        "envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix=\"in\"} 9000024\n";
    expected += "envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix=\"in\"} 4\n";
    assert_eq!(metrics(&stats), expected);
    let none = metrics(&[histogram("h", &[])]);
    assert!(none.contains("envoy_h_bucket{le=\"0.5\"} 0\n"), "{none}");
    assert!(
        none.ends_with("envoy_h_sum{} 0\nenvoy_h_count{} 0\n"),
        "{none}"
    );
}

/// Each name and what Envoy 1.40 makes of it.
#[test]
fn names_become_labels_as_envoys_do() {
    let cases = [
        (
            "cluster.a.b.upstream_rq_total",
            r#"envoy_cluster_b_upstream_rq_total{envoy_cluster_name="a"}"#,
        ),
        (
            "cluster.dead.external.upstream_rq_503",
            r#"envoy_cluster_external_upstream_rq{envoy_response_code="503",envoy_cluster_name="dead"}"#,
        ),
        (
            "cluster.dead.ext_authz.eap.error",
            r#"envoy_cluster_ext_authz_error{envoy_cluster_name="dead",envoy_ext_authz_prefix="eap"}"#,
        ),
        (
            "cluster.dead.circuit_breakers.default.cx_open",
            r#"envoy_cluster_circuit_breakers_default_cx_open{envoy_cluster_name="dead"}"#,
        ),
        (
            "cluster.outbound|80||r.upstream_rq_timeout",
            r#"envoy_cluster_upstream_rq_timeout{envoy_cluster_name="outbound|80||r"}"#,
        ),
        (
            "cluster_manager.active_clusters",
            "envoy_cluster_manager_active_clusters{}",
        ),
        (
            "connection_limit.connlim.active_connections",
            r#"envoy_connection_limit_active_connections{envoy_connection_limit_prefix="connlim"}"#,
        ),
        (
            "http.ingress.downstream_rq_4xx",
            r#"envoy_http_downstream_rq_xx{envoy_response_code_class="4",envoy_http_conn_manager_prefix="ingress"}"#,
        ),
        (
            "http.ingress.ext_authz.eap.ok",
            r#"envoy_http_ext_authz_ok{envoy_ext_authz_prefix="eap",envoy_http_conn_manager_prefix="ingress"}"#,
        ),
        (
            "http.ingress.fault.aborts_injected",
            r#"envoy_http_fault_aborts_injected{envoy_http_conn_manager_prefix="ingress"}"#,
        ),
        (
            "http.ingress.rbac.pre_.policy.pol.allowed",
            r#"envoy_http_rbac_policy_allowed{envoy_rbac_policy_name="pol",envoy_rbac_http_prefix="pre_",envoy_http_conn_manager_prefix="ingress"}"#,
        ),
        (
            "http.ingress.rbac.shadow_allowed",
            r#"envoy_http_rbac_shadow_allowed{envoy_http_conn_manager_prefix="ingress"}"#,
        ),
        (
            "http.ingress.rds.a.b.config_reload",
            r#"envoy_http_rds_config_reload{envoy_rds_route_config="a.b",envoy_http_conn_manager_prefix="ingress"}"#,
        ),
        (
            "listener.127.0.0.1_0.downstream_cx_total",
            r#"envoy_listener_downstream_cx_total{envoy_listener_address="127.0.0.1_0"}"#,
        ),
        (
            "listener.127.0.0.1_0.http.ingress.downstream_rq_5xx",
            r#"envoy_listener_http_downstream_rq_xx{envoy_response_code_class="5",envoy_http_conn_manager_prefix="ingress",envoy_listener_address="127.0.0.1_0"}"#,
        ),
        (
            "listener.127.0.0.1_0.worker_1.downstream_cx_active",
            r#"envoy_listener_worker_downstream_cx_active{envoy_worker_id="1",envoy_listener_address="127.0.0.1_0"}"#,
        ),
        (
            "listener.[__1]_0.no_filter_chain_match",
            r#"envoy_listener_no_filter_chain_match{envoy_listener_address="[__1]_0"}"#,
        ),
        (
            "listener.tcplis.worker_0.downstream_cx_total",
            r#"envoy_listener_worker_downstream_cx_total{envoy_worker_id="0",envoy_listener_address="tcplis"}"#,
        ),
        (
            "listener.admin.downstream_cx_total",
            "envoy_listener_admin_downstream_cx_total{}",
        ),
        (
            "listener.admin.http.admin.downstream_rq_2xx",
            r#"envoy_listener_admin_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="admin"}"#,
        ),
        (
            "listener_manager.workers_started",
            "envoy_listener_manager_workers_started{}",
        ),
        (
            "local_rate_limit.nlr.rate_limited",
            r#"envoy_local_rate_limit_rate_limited{envoy_local_network_ratelimit_prefix="nlr"}"#,
        ),
        (
            "rl.http_local_rate_limit.ok",
            r#"envoy_http_local_rate_limit_ok{envoy_local_http_ratelimit_prefix="rl"}"#,
        ),
        (
            "rl.one.http_local_rate_limit.ok",
            "envoy_rl_one_http_local_rate_limit_ok{}",
        ),
        (
            "server.worker_1.watchdog_miss",
            r#"envoy_server_worker_watchdog_miss{envoy_worker_id="1"}"#,
        ),
        (
            "tcp.tcp.v6.idle_timeout",
            r#"envoy_tcp_v6_idle_timeout{envoy_tcp_prefix="tcp"}"#,
        ),
        (
            "tcp.tcppre.downstream_cx_total",
            r#"envoy_tcp_downstream_cx_total{envoy_tcp_prefix="tcppre"}"#,
        ),
        (
            "thread_local_cluster_manager.worker_0.clusters_inflated",
            r#"envoy_thread_local_cluster_manager_worker_clusters_inflated{envoy_worker_id="0"}"#,
        ),
        (
            "vhost.vh.route.r1.upstream_rq_5xx",
            r#"envoy_vhost_route_upstream_rq_xx{envoy_response_code_class="5",envoy_virtual_host="vh",envoy_route="r1"}"#,
        ),
        (
            "vhost.vh.vcluster.vc.upstream_rq_503",
            r#"envoy_vhost_vcluster_upstream_rq{envoy_response_code="503",envoy_virtual_cluster="vc",envoy_virtual_host="vh"}"#,
        ),
    ];
    for (name, metric) in cases {
        let text = metrics(&[counter(name, 1)]);
        assert_eq!(
            text.lines().nth(1),
            Some(format!("{metric} 1").as_str()),
            "{name}"
        );
    }
}

#[test]
fn prometheus_escapes_label_values() {
    let text = metrics(&[counter("cluster.a\\b\"c\nd.x", 1)]);
    assert!(
        text.ends_with("envoy_cluster_x{envoy_cluster_name=\"a\\\\b\\\"c\\nd\"} 1\n"),
        "{text}"
    );
}

#[test]
fn prometheus_never_repeats_a_type_line_or_a_sample() {
    let stats = [
        counter("a.b", 1),
        counter("a_b", 2),
        gauge("a-b", 3),
        counter("a.b_c", 4),
    ];
    assert_eq!(
        metrics(&stats),
        "# TYPE envoy_a_b counter\nenvoy_a_b{} 1\n# TYPE envoy_a_b_c counter\nenvoy_a_b_c{} 4\n"
    );
}

#[test]
fn prometheus_shows_words_when_asked() {
    let stats = [stat("cluster.a.version_text", Value::Text("v\"1".into()))];
    let query = Query::parse_prometheus("text_readouts").unwrap();
    assert_eq!(
        render(&stats, &query, &ExportConfig::default()),
        "# TYPE envoy_cluster_version_text gauge\nenvoy_cluster_version_text{envoy_cluster_name=\"a\",text_value=\"v\\\"1\"} 0\n"
    );
}

#[test]
fn tags_of_ones_own_are_cut_out_of_names() {
    let tags = Tags::new(
        false,
        vec![
            TagSpecifier::fixed("mesh.id", "m1"),
            TagSpecifier::regex("cluster_name", r"^cluster\.((.+?)\.)upstream").unwrap(),
        ],
    )
    .unwrap();
    let stats = [counter("cluster.a.b.upstream_rq_503", 1)];
    let query = Query::parse_prometheus("").unwrap();
    let config = ExportConfig {
        tags,
        ..ExportConfig::default()
    };
    assert_eq!(
        render(&stats, &query, &config),
        "# TYPE envoy_cluster_upstream_rq_503 counter\nenvoy_cluster_upstream_rq_503{mesh_id=\"m1\",cluster_name=\"a.b\"} 1\n"
    );
    assert!(TagSpecifier::regex("x", "(").is_err());
    assert!(TagSpecifier::regex("x", "no group").is_err());
    let twice = vec![TagSpecifier::fixed("envoy.cluster_name", "x")];
    assert!(Tags::new(true, twice).is_err());
}

#[test]
fn a_query_that_makes_no_sense_is_refused() {
    let error = |query: &str| Query::parse(query).unwrap_err().to_string();
    assert!(error("filter=(").starts_with("Invalid re2 regex: "));
    assert_eq!(error("type=bogus"), "invalid &type= param");
    assert!(error("format=bogus").starts_with("usage: /stats?format="));
    assert!(error("histogram_buckets=bogus").starts_with("usage: "));
    assert_eq!(
        error("format=prometheus&histogram_buckets=detailed"),
        "unsupported prometheus histogram bucket mode"
    );
    assert!(error(&format!("filter={}", "a".repeat(2000))).contains("1024"));
    assert!(error("filter=(a{1000}){1000}").starts_with("Invalid re2 regex: "));
}

/// What was recorded, and what of it in the last interval; the texts are what Envoy 1.40 shows.
fn recorded() -> [Stat; 1] {
    let snapshot = HistogramSnapshot {
        total: distribution(&[(0, 3), (1, 1), (47, 1)]),
        interval: distribution(&[(47, 1)]),
    };
    [stat("h.rq_time", Value::Histogram(snapshot))]
}

fn shown_with_bounds(query: &str) -> String {
    let mut config = ExportConfig::default();
    let test = NameTest::new(|name| name.starts_with("h."));
    config.buckets.add(test, &[100.0, 0.5, 10.0, 10.0]).unwrap();
    render(&recorded(), &Query::parse(query).unwrap(), &config)
}

#[test]
fn histograms_are_shown_in_four_ways() {
    let text = |mode: &str| shown_with_bounds(&format!("histogram_buckets={mode}"));
    assert_eq!(
        text("cumulative"),
        "h.rq_time: B0.5(0,3) B10(0,4) B100(1,5)\n"
    );
    assert_eq!(
        text("disjoint"),
        "h.rq_time: B0.5(0,3) B10(0,1) B100(1,1)\n"
    );
    let summary = "P0(47.5,0) P25(47.5,0) P50(47.5,0) P75(47.5,1.05) P90(47.5,47.5) P95(47.5,47.5) \
        P99(47.5,47.5) P99.5(47.5,47.5) P99.9(47.5,47.5) P100(47.5,47.5)";
    assert_eq!(text("summary"), format!("h.rq_time: {summary}\n"));
    assert_eq!(
        text("detailed"),
        format!(
            "h.rq_time:\n  totals=0,0:3, 1,0.1:1, 47,1:1\n  intervals=47,1:1\n  summary={summary}\n"
        )
    );
    let json = |mode: &str| shown_with_bounds(&format!("format=json&histogram_buckets={mode}"));
    assert_eq!(
        json("disjoint"),
        r#"{"stats":[{"histograms":[{"name":"h.rq_time","buckets":[{"upper_bound":0.5,"interval":0,"cumulative":3},{"upper_bound":10,"interval":0,"cumulative":1},{"upper_bound":100,"interval":1,"cumulative":1}]}]}]}"#
    );
    let detailed: serde_json::Value = serde_json::from_str(&json("detailed")).unwrap();
    let details = &detailed["stats"][0]["histograms"]["details"][0];
    assert_eq!(details["intervals"][0]["width"], 1.0);
    assert_eq!(details["totals"][1]["lower_bound"], 1);
    assert_eq!(details["percentiles"][3]["cumulative"], 1.05);
}

#[test]
fn a_prometheus_summary_is_of_the_last_interval() {
    let text = shown_with_bounds("format=prometheus&histogram_buckets=summary");
    assert!(
        text.starts_with("# TYPE envoy_h_rq_time summary\nenvoy_h_rq_time{quantile=\"0\"} 47.5\n")
    );
    assert!(
        text.ends_with("envoy_h_rq_time_sum{} 47\nenvoy_h_rq_time_count{} 1\n"),
        "{text}"
    );
    let cumulative = shown_with_bounds("format=prometheus");
    assert!(
        cumulative.contains("envoy_h_rq_time_bucket{le=\"10\"} 4\n"),
        "{cumulative}"
    );
    assert!(
        cumulative.contains("envoy_h_rq_time_count{} 5\n"),
        "{cumulative}"
    );
}

#[test]
fn bounds_that_make_no_sense_are_refused() {
    let add = |bounds: &[f64]| {
        Buckets::default()
            .add(NameTest::new(|_| true), bounds)
            .is_err()
    };
    assert!(add(&[]) && add(&[0.0]) && add(&[f64::NAN]) && add(&[-1.0, 2.0]));
    assert!(add(&vec![1.0; 1001]));
}

#[test]
fn stats_that_nobody_wants_are_shown_nowhere() {
    let config = ExportConfig {
        only: Some(NameTest::new(|name| name.starts_with("a."))),
        ..ExportConfig::default()
    };
    let stats = [
        counter("a.x", 1),
        histogram("b.h", &[(1, 1)]),
        counter("b.x", 1),
    ];
    for (query, wanted) in [
        ("", "a.x: 1\n"),
        ("format=json", r#"{"stats":[{"name":"a.x","value":1}]}"#),
        (
            "format=prometheus",
            "# TYPE envoy_a_x counter\nenvoy_a_x{} 1\n",
        ),
    ] {
        assert_eq!(
            render(&stats, &Query::parse(query).unwrap(), &config),
            wanted
        );
    }
}

#[test]
fn of_envoys_own_tags_only_those_named_are_extracted() {
    let named = TagSpecifier::envoy_default("envoy.cluster_name").unwrap();
    let config = ExportConfig {
        tags: Tags::new(false, vec![named]).unwrap(),
        ..ExportConfig::default()
    };
    let query = Query::parse_prometheus("").unwrap();
    assert_eq!(
        render(&[counter("cluster.a.upstream_rq_503", 1)], &query, &config),
        "# TYPE envoy_cluster_upstream_rq_503 counter\nenvoy_cluster_upstream_rq_503{envoy_cluster_name=\"a\"} 1\n"
    );
    assert!(TagSpecifier::envoy_default("nobody's").is_err());
}
