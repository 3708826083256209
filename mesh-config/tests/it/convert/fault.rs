//! Injected faults: the filter's config.

use std::{sync::Arc, time::Duration};

use http::Request;
use mesh_config::model::HttpFilterKind;
use mesh_fault::{Abort, Delay, FaultConfig, RateLimit};

use super::{ROUTER, assert_refused, bare_manager_text, config, report};

const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";

fn text(fields: &str) -> String {
    bare_manager_text(&format!(
        "stat_prefix: i\nroute_config: {{name: r}}\nhttp_filters:\n- name: fault\n  typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, {fields}}}\n- {ROUTER}"
    ))
}

fn fault(fields: &str) -> Arc<FaultConfig> {
    let config = config(&text(fields));
    match &config.listeners[0].manager().unwrap().http_filters[0].kind {
        HttpFilterKind::Fault(fault) => Arc::clone(fault),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_happens_by_default_and_without_a_percentage() {
    let none = fault("upstream_cluster: ''");
    assert!(none.delay.is_none() && none.abort.is_none() && none.response_rate_limit.is_none());
    assert!(none.upstream_cluster.is_none() && none.max_active_faults.is_none());
    let never = fault("delay: {fixed_delay: 1s}, abort: {http_status: 503}")
        .abort
        .clone();
    assert!(!never.unwrap().percentage.includes(0));
}

#[test]
fn every_field_arrives() {
    let fault = fault(
        "delay: {fixed_delay: 0.5s, percentage: {numerator: 3, denominator: TEN_THOUSAND}}, \
         abort: {grpc_status: 8, percentage: {numerator: 50}, response_body: broken}, \
         response_rate_limit: {fixed_limit: {limit_kbps: 7}, percentage: {numerator: 1, denominator: MILLION}}, \
         upstream_cluster: users, downstream_nodes: [n1, n2], max_active_faults: 4, \
         headers: [{name: x-chaos, string_match: {exact: 'yes'}}], \
         delay_percent_runtime: key, disable_downstream_cluster_stats: true",
    );
    let delay = fault.delay.unwrap();
    assert_eq!(delay.delay, Delay::Fixed(Duration::from_millis(500)));
    assert!(delay.percentage.includes(2) && !delay.percentage.includes(3));
    let abort = fault.abort.as_ref().unwrap();
    assert_eq!(
        (abort.abort, &abort.response_body[..]),
        (Abort::Grpc(8), &b"broken"[..])
    );
    let limit = fault.response_rate_limit.unwrap();
    assert_eq!(limit.limit, RateLimit::Fixed(7.try_into().unwrap()));
    assert!(limit.percentage.includes(0) && !limit.percentage.includes(1));
    assert_eq!(fault.upstream_cluster.as_deref(), Some("users"));
    assert_eq!(
        (fault.downstream_nodes.len(), fault.max_active_faults),
        (2, Some(4))
    );
    let matches = fault.headers.clone();
    let chaos = FaultConfig {
        headers: matches,
        ..FaultConfig::default()
    };
    let request = |value| Request::get("/").header("x-chaos", value).body(()).unwrap();
    assert!(chaos.applies_to(&request("yes")) && !chaos.applies_to(&request("no")));
}

#[test]
fn headers_may_decide() {
    let fault = fault(
        "delay: {header_delay: {}}, abort: {header_abort: {}}, response_rate_limit: {header_limit: {}}",
    );
    assert_eq!(fault.delay.unwrap().delay, Delay::Header);
    assert_eq!(fault.abort.as_ref().unwrap().abort, Abort::Header);
    assert_eq!(fault.response_rate_limit.unwrap().limit, RateLimit::Header);
}

#[test]
fn what_is_not_honoured_is_reported() {
    assert_eq!(report(&text("delay_percent_runtime: key")), []);
    let report = report(&text("filter_metadata: {a: b}"));
    assert_eq!(report[0].0, format!("{AT}.filter_metadata"));
    assert!(!report[0].2);
}

#[test]
fn a_rate_of_nothing_is_refused() {
    let fields = "response_rate_limit: {fixed_limit: {limit_kbps: 0}}";
    let path = format!("{AT}.response_rate_limit.fixed_limit.limit_kbps");
    assert_refused(&text(fields), fields, &path, "must be at least 1");
}
