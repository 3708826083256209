//! Clusters: balancing, thresholds, outlier detection.

use std::time::Duration;

use mesh_balance::{Aggression, BalanceConfig, LbPolicy, SelectionMethod, SlowStartConfig};
use mesh_config::model::Discovery;
use mesh_core::{Percent, RetryLimit, Thresholds};
use mesh_outlier::OutlierConfig;

use super::{assert_refused, cluster, cluster_text, paths, report};

const AT: &str = "static_resources.clusters[0]";
const SECOND: Duration = Duration::from_secs(1);

fn refused(fields: &str, needle: &str, path: &str, reason: &str) {
    assert_refused(
        &cluster_text(fields),
        needle,
        &format!("{AT}{path}"),
        reason,
    );
}

#[test]
fn a_cluster_with_a_name_only_has_envoys_defaults() {
    let cluster = cluster("");
    assert_eq!((&*cluster.name, cluster.stat_name.as_str()), ("b", "b"));
    assert!(matches!(cluster.discovery, Discovery::Static));
    assert!(cluster.endpoints.is_empty());
    assert_eq!(cluster.balance, BalanceConfig::default());
    assert_eq!(cluster.thresholds, Thresholds::default());
    assert_eq!(cluster.thresholds_high, Thresholds::default());
    assert_eq!(cluster.track_remaining, (false, false));
    assert_eq!(cluster.outlier, None);
    assert_eq!(cluster.pool.connect_timeout, 5 * SECOND);
    assert_eq!(cluster.pool.idle_timeout, Some(3600 * SECOND));
    assert!(cluster.retry.is_none());
}

#[test]
fn stats_may_have_another_name() {
    assert_eq!(cluster("alt_stat_name: a:b").stat_name, "a_b");
    assert_eq!(
        cluster("connect_timeout: 0.25s").pool.connect_timeout,
        SECOND / 4
    );
}

#[test]
fn balancing_is_read() {
    let policy = |fields: &str| cluster(fields).balance.policy;
    assert_eq!(policy("lb_policy: RANDOM"), LbPolicy::Random);
    assert_eq!(
        policy("lb_policy: LEAST_REQUEST"),
        LbPolicy::LeastRequest(Default::default())
    );
    let LbPolicy::LeastRequest(config) = policy(
        "lb_policy: LEAST_REQUEST\n\
         least_request_lb_config: {choice_count: 5, active_request_bias: {default_value: 0.5, runtime_key: k}}",
    ) else {
        panic!("another policy")
    };
    assert_eq!(config.choice_count.get(), 5);
    assert!((config.active_request_bias.get() - 0.5).abs() < 1e-9);
    assert_eq!(config.selection_method, SelectionMethod::NChoices);

    let balance = cluster(
        "common_lb_config: {healthy_panic_threshold: {value: 12.5}, zone_aware_lb_config: {fail_traffic_on_panic: true}}\n\
         load_assignment: {cluster_name: b, policy: {overprovisioning_factor: 100, weighted_priority_health: true}}",
    )
    .balance;
    assert_eq!(balance.healthy_panic_threshold, Percent::new(12.5).unwrap());
    assert!(balance.fail_traffic_on_panic && balance.weighted_priority_health);
    assert_eq!(balance.overprovisioning_factor, 100);
}

fn typed(policies: &[(&str, &str)]) -> String {
    let policies = policies.iter().map(|(name, fields)| {
        format!("\n  - typed_extension_config: {{name: a, typed_config: {{'@type': type.googleapis.com/{name}{fields}}}}}")
    });
    format!(
        "load_balancing_policy:\n  policies:{}",
        policies.collect::<String>()
    )
}

const LEAST: &str = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
const RANDOM: &str = "envoy.extensions.load_balancing_policies.random.v3.Random";
const PICK_FIRST: &str = "envoy.extensions.load_balancing_policies.pick_first.v3.PickFirst";
const MAGLEV: &str = "envoy.extensions.load_balancing_policies.maglev.v3.Maglev";

#[test]
fn the_first_typed_policy_that_envoy_knows_decides() {
    let text = typed(&[
        ("google.protobuf.Empty", ""),
        (
            LEAST,
            ", choice_count: 3, selection_method: FULL_SCAN, \
            locality_lb_config: {zone_aware_lb_config: {fail_traffic_on_panic: true}}",
        ),
        (MAGLEV, ""),
    ]);
    let cluster = cluster(&format!("lb_policy: RANDOM\n{text}"));
    let LbPolicy::LeastRequest(config) = cluster.balance.policy else {
        panic!("another policy")
    };
    assert_eq!(config.choice_count.get(), 3);
    assert_eq!(config.selection_method, SelectionMethod::FullScan);
    assert!(cluster.balance.fail_traffic_on_panic);
    assert_eq!(paths(&cluster_text(&text)), Vec::<String>::new());
}

#[test]
fn a_policy_that_is_not_there_is_refused() {
    let elsewhere = "is not supported: requests would go to other endpoints than they should";
    refused(
        &typed(&[(PICK_FIRST, ""), (RANDOM, "")]),
        "pick_first",
        ".load_balancing_policy.policies[0]",
        &format!("{PICK_FIRST} {elsewhere}"),
    );
    refused(
        &typed(&[("google.protobuf.Empty", "")]),
        "policies:",
        ".load_balancing_policy.policies",
        "there is no policy that is known",
    );
    refused(
        "lb_policy: LOAD_BALANCING_POLICY_CONFIG",
        "name: b",
        ".load_balancing_policy.policies",
        "there is no policy that is known",
    );
    refused(
        "lb_subset_config: {subset_selectors: [{keys: [a]}]}",
        "lb_subset_config",
        ".lb_subset_config.subset_selectors",
        "subsets are not supported: requests would go to endpoints outside of them",
    );
    assert_eq!(
        paths(&cluster_text("lb_subset_config: {panic_mode_any: true}")),
        Vec::<String>::new()
    );
}

#[test]
fn thresholds_are_read_by_priority() {
    let cluster = cluster(
        "circuit_breakers:\n  thresholds:\n  \
         - {max_connections: 1, max_pending_requests: 2, max_requests: 3, max_retries: 4}\n  \
         - {priority: HIGH, max_retries: 9, retry_budget: {budget_percent: {value: 50}, min_retry_concurrency: 1}, track_remaining: true}",
    );
    let default = Thresholds {
        max_connections: 1,
        max_pending_requests: 2,
        max_requests: 3,
        retries: RetryLimit::Max(4),
    };
    assert_eq!(cluster.thresholds, default);
    let budget = RetryLimit::Budget {
        percent: Percent::whole(50),
        min: 1,
    };
    assert_eq!(
        cluster.thresholds_high,
        Thresholds {
            retries: budget,
            ..Thresholds::default()
        }
    );
    assert_eq!(cluster.track_remaining, (false, true));
}

#[test]
fn retries_have_a_budget_unless_the_config_says_otherwise() {
    let retries = |fields: &str| {
        cluster(&format!("circuit_breakers: {{thresholds: [{{{fields}}}]}}"))
            .thresholds
            .retries
    };
    let budget = RetryLimit::Budget {
        percent: Percent::whole(20),
        min: 3,
    };
    assert_eq!(retries("max_requests: 1"), budget);
    assert_eq!(retries("retry_budget: {}"), budget);
    assert_eq!(retries("max_retries: 0"), RetryLimit::Max(0));
}

#[test]
fn the_first_threshold_of_a_priority_counts_and_the_others_are_reported() {
    let fields = "circuit_breakers: {thresholds: [{max_requests: 1}, {max_requests: 2}]}";
    assert_eq!(cluster(fields).thresholds.max_requests, 1);
    assert_eq!(
        report(&cluster_text(fields)),
        [(
            format!("{AT}.circuit_breakers.thresholds[1]"),
            Some("a further entry of the same priority".to_owned()),
            false
        )]
    );
}

#[test]
fn outlier_detection_is_read() {
    assert_eq!(
        cluster("outlier_detection: {}").outlier,
        Some(OutlierConfig::default())
    );
    let outlier = cluster(
        "outlier_detection:\n  consecutive_5xx: 1\n  interval: 2s\n  base_ejection_time: 3s\n  max_ejection_percent: 4\n  \
         enforcing_consecutive_5xx: 5\n  enforcing_success_rate: 6\n  success_rate_minimum_hosts: 7\n  \
         success_rate_request_volume: 8\n  success_rate_stdev_factor: 9\n  consecutive_gateway_failure: 10\n  \
         enforcing_consecutive_gateway_failure: 11\n  split_external_local_origin_errors: true\n  \
         consecutive_local_origin_failure: 13\n  enforcing_consecutive_local_origin_failure: 14\n  \
         enforcing_local_origin_success_rate: 15\n  failure_percentage_threshold: 16\n  enforcing_failure_percentage: 17\n  \
         enforcing_failure_percentage_local_origin: 18\n  failure_percentage_minimum_hosts: 19\n  \
         failure_percentage_request_volume: 20\n  max_ejection_time: 21s\n  max_ejection_time_jitter: 22s\n  \
         successful_active_health_check_uneject_host: false\n  always_eject_one_host: true",
    )
    .outlier
    .clone();
    let wanted = OutlierConfig::builder()
        .consecutive_5xx(1)
        .interval(2 * SECOND)
        .base_ejection_time(3 * SECOND)
        .max_ejection_percent(4)
        .enforcing_consecutive_5xx(5)
        .enforcing_success_rate(6)
        .success_rate_minimum_hosts(7)
        .success_rate_request_volume(8)
        .success_rate_stdev_factor(9)
        .consecutive_gateway_failure(10)
        .enforcing_consecutive_gateway_failure(11)
        .split_external_local_origin_errors(true)
        .consecutive_local_origin_failure(13)
        .enforcing_consecutive_local_origin_failure(14)
        .enforcing_local_origin_success_rate(15)
        .failure_percentage_threshold(16)
        .enforcing_failure_percentage(17)
        .enforcing_failure_percentage_local_origin(18)
        .failure_percentage_minimum_hosts(19)
        .failure_percentage_request_volume(20)
        .max_ejection_time(21 * SECOND)
        .max_ejection_time_jitter(22 * SECOND)
        .successful_active_health_check_uneject_host(false)
        .always_eject_one_host(true);
    assert_eq!(outlier, Some(wanted.build().unwrap()));
    refused(
        "outlier_detection: {base_ejection_time: 30s, max_ejection_time: 10s}",
        "outlier_detection",
        ".outlier_detection",
        "max_ejection_time must be greater than or equal to base_ejection_time",
    );
}

#[test]
fn clusters_that_ask_somebody_else_are_refused() {
    refused(
        "cluster_type: {name: envoy.clusters.aggregate, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [a]}}",
        "cluster_type",
        ".cluster_type",
        "clusters of type \"envoy.clusters.aggregate\" are not supported",
    );
}

#[test]
fn settings_of_another_type_are_refused() {
    refused(
        "eds_cluster_config: {service_name: s}",
        "eds",
        ".eds_cluster_config",
        "is only for clusters of type EDS",
    );
}

#[test]
fn slow_start_is_read_wherever_it_stands() {
    let slow = "slow_start_config: {slow_start_window: 30s, aggression: {default_value: 2, runtime_key: k}, min_weight_percent: {value: 5}}";
    let expected = SlowStartConfig {
        window: 30 * SECOND,
        aggression: Aggression::new(2.0),
        min_weight_percent: Percent::whole(5),
    };
    let typed = |name: &str, kind: &str| {
        format!(
            "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: lb, typed_config: {{'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3.{kind}, {slow}}}}}}}]}}"
        )
    };
    for fields in [
        format!("round_robin_lb_config: {{{slow}}}"),
        format!("lb_policy: LEAST_REQUEST\nleast_request_lb_config: {{{slow}}}"),
        typed("round_robin", "RoundRobin"),
        typed("least_request", "LeastRequest"),
    ] {
        assert_eq!(cluster(&fields).balance.slow_start, Some(expected));
        assert_eq!(paths(&cluster_text(&fields)), [""; 0]);
    }
    let defaults = "round_robin_lb_config: {slow_start_config: {slow_start_window: 30s}}";
    let defaults = cluster(defaults).balance.slow_start;
    assert_eq!(defaults, Some(SlowStartConfig::new(30 * SECOND)));
    let off = "round_robin_lb_config: {slow_start_config: {slow_start_window: 0s}}";
    assert_eq!(cluster(off).balance.slow_start, None);
}

#[test]
fn what_is_not_done_is_reported() {
    let tls = "{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts, handshaker_service: a}}";
    let entries = report(&cluster_text(&format!(
        "health_checks: [{{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, custom_health_check: {{name: mine}}}}]\n\
         preconnect_policy: {{}}\ntransport_socket: {tls}\ntransport_socket_matches: [{{name: m, transport_socket: {tls}}}]\n\
         common_lb_config: {{locality_weighted_lb_config: {{}}}}\n\
         outlier_detection: {{detect_degraded_hosts: true}}\ncircuit_breakers: {{per_host_thresholds: [{{max_connections: 1}}]}}\n\
         upstream_connection_options: {{tcp_keepalive: {{}}}}"
    )));
    let entries: Vec<(&str, bool)> = entries
        .iter()
        .map(|(path, _, security)| {
            (
                path.strip_prefix(AT).unwrap().strip_prefix('.').unwrap(),
                *security,
            )
        })
        .collect();
    assert_eq!(
        entries,
        [
            ("health_checks[0].custom_health_check", false),
            ("circuit_breakers.per_host_thresholds", false),
            ("outlier_detection.detect_degraded_hosts", false),
            ("transport_socket.typed_config", true),
            ("common_lb_config.locality_weighted_lb_config", false),
            ("upstream_connection_options", false),
            (
                "transport_socket_matches[0].transport_socket.typed_config",
                true
            ),
            ("preconnect_policy", false),
        ]
    );
}

#[test]
fn an_original_destination_is_where_the_client_meant_to_go() {
    let config = |fields: &str| {
        let text = format!("type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\n{fields}");
        match &cluster(&text).discovery {
            Discovery::OriginalDst(config) => config.clone(),
            other => panic!("{other:?}"),
        }
    };
    let default = config("");
    assert_eq!(
        (default.http_header, default.upstream_port_override),
        (None, None)
    );
    assert_eq!(default.cleanup_interval, Duration::from_secs(5));
    let set = config(
        "cleanup_interval: 1s\noriginal_dst_lb_config: {use_http_header: true, upstream_port_override: 7}",
    );
    assert_eq!(set.http_header.unwrap(), "x-envoy-original-dst-host");
    assert_eq!(set.upstream_port_override, Some(7));
    let named = config("original_dst_lb_config: {use_http_header: true, http_header_name: X-Go}");
    assert_eq!(named.http_header.unwrap(), "x-go");
    assert_refused(
        &cluster_text("type: ORIGINAL_DST\nlb_policy: RANDOM"),
        "RANDOM",
        "static_resources.clusters[0].lb_policy",
        "a cluster of type ORIGINAL_DST must have the policy CLUSTER_PROVIDED",
    );
}
