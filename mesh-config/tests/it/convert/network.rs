//! Network filters other than the connection manager.

use std::{sync::Arc, time::Duration};

use mesh_config::model::{NetworkFilter, TcpProxyConfig};

use super::{ADDRESS, assert_refused, config, listener_text, report};

const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";

fn text(filters: &[String]) -> String {
    listener_text(&format!(
        "{ADDRESS}\nfilter_chains: [{{filters: [{}]}}]",
        filters.join(", ")
    ))
}

fn tcp(fields: &str) -> String {
    format!(
        "{{name: tcp, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, {fields}}}}}"
    )
}

fn limit(fields: &str) -> String {
    format!(
        "{{name: limit, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: l, {fields}}}}}"
    )
}

fn proxy(fields: &str) -> Arc<TcpProxyConfig> {
    let config = config(&text(&[tcp(fields)]));
    match config.listeners[0].chains[0].filters.as_slice() {
        [NetworkFilter::TcpProxy(proxy)] => Arc::clone(proxy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tcp_proxy_with_envoys_defaults_and_without() {
    let default = proxy("cluster: b");
    assert_eq!(&**default.clusters.pick(7), "b");
    assert_eq!(default.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(default.max_connect_attempts, 1);
    assert_eq!(default.max_downstream_connection_duration, None);
    let set = proxy(
        "cluster: b, idle_timeout: 0s, max_connect_attempts: 3, max_downstream_connection_duration: 2s",
    );
    assert_eq!(set.idle_timeout, None);
    assert_eq!(set.max_connect_attempts, 3);
    assert_eq!(
        set.max_downstream_connection_duration,
        Some(Duration::from_secs(2))
    );
}

#[test]
fn weights_share_the_random_numbers_out() {
    let yaml = "static_resources:\n  clusters: [{name: a}, {name: b}]\n  listeners:\n  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}\n    filter_chains: [{filters: [FILTER]}]";
    let weights = "weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 3}]}";
    let config = config(&yaml.replace("FILTER", &tcp(weights)));
    let [NetworkFilter::TcpProxy(proxy)] = config.listeners[0].chains[0].filters.as_slice() else {
        panic!()
    };
    let picked: Vec<&str> = (0..8).map(|n| &**proxy.clusters.pick(n)).collect();
    assert_eq!(picked, ["a", "b", "b", "b", "a", "b", "b", "b"]);
}

#[test]
fn a_tcp_proxy_that_leads_nowhere_is_refused() {
    assert_refused(
        &text(&[tcp("cluster: other")]),
        "cluster: other",
        &format!("{AT}.cluster"),
        "there is no cluster named \"other\"",
    );
    assert_refused(
        &text(&[tcp("cluster: b, tunneling_config: {hostname: a}")]),
        "tunneling_config",
        &format!("{AT}.tunneling_config"),
        "tunnels through HTTP are not supported",
    );
    let nowhere = "the last filter must end the chain: connections would go nowhere";
    assert_refused(
        &text(&[limit("max_connections: 1")]),
        "max_connections",
        "static_resources.listeners[0].filter_chains[0].filters",
        nowhere,
    );
}

#[test]
fn what_a_tcp_proxy_does_not_honour_is_in_the_report() {
    let text = text(&[tcp(
        "cluster: b, on_demand: {}, backoff_options: {base_interval: 1s}, metadata_match: {filter_metadata: {envoy.lb: {a: b}}}",
    )]);
    let found: Vec<String> = report(&text).into_iter().map(|(path, ..)| path).collect();
    for field in ["backoff_options", "metadata_match"] {
        let path = format!("{AT}.{field}");
        assert!(
            found.iter().any(|found| found.starts_with(&path)),
            "{found:?}"
        );
    }
}

#[test]
fn a_connection_limit_counts_unless_it_is_switched_off() {
    let filters = |fields: &str| {
        let config = config(&text(&[limit(fields), tcp("cluster: b")]));
        config.listeners[0].chains[0].filters.clone()
    };
    let on = filters(
        "max_connections: 5, delay: 1s, runtime_enabled: {default_value: true, runtime_key: k}",
    );
    let [NetworkFilter::ConnectionLimit(limit), _] = on.as_slice() else {
        panic!("{on:?}")
    };
    assert_eq!(
        (limit.max_connections, limit.delay),
        (5, Some(Duration::from_secs(1)))
    );
    let off =
        filters("max_connections: 5, runtime_enabled: {default_value: false, runtime_key: k}");
    assert_eq!(off.len(), 1);
}
