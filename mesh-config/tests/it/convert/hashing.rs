//! Ring hash, Maglev, and what requests are hashed by.

use std::time::Duration;

use mesh_balance::{HashFunction, LbPolicy, RingSizes};
use mesh_config::model::NetworkFilter;
use mesh_core::format::RequestField;
use mesh_route::{Action, HashPolicy, HashSource, SessionCookie};

use super::{
    assert_refused, cluster, cluster_text, config, listener_text, paths, route, route_text,
};

const AT: &str = "static_resources.clusters[0]";
const ROUTE: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.hash_policy";

fn refused(fields: &str, needle: &str, path: &str, reason: &str) {
    let at = format!("{AT}{path}");
    assert_refused(&cluster_text(fields), needle, &at, reason);
}

fn ring(fields: &str) -> mesh_balance::RingHashConfig {
    match cluster(fields).balance.policy {
        LbPolicy::RingHash(config) => config,
        other => panic!("{other:?}"),
    }
}

fn maglev(fields: &str) -> mesh_balance::MaglevConfig {
    match cluster(fields).balance.policy {
        LbPolicy::Maglev(config) => config,
        other => panic!("{other:?}"),
    }
}

/// A policy of the newer kind.
fn typed(policy: &str, fields: &str) -> String {
    format!(
        "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: a, typed_config: {{\
         '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.{policy}, {fields}}}}}}}]}}"
    )
}

const ODD: &str = "common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true, hash_balance_factor: 125}}\n";

#[test]
fn tables_are_read() {
    assert_eq!(ring("lb_policy: RING_HASH"), Default::default());
    assert_eq!(maglev("lb_policy: MAGLEV"), Default::default());
    let sized = ring(
        "lb_policy: RING_HASH\nring_hash_lb_config: {minimum_ring_size: 5, maximum_ring_size: 50, hash_function: MURMUR_HASH_2}",
    );
    assert_eq!(sized.sizes, RingSizes::new(5, 50).unwrap());
    assert_eq!(sized.hash_function, HashFunction::MurmurHash2);
    let sized = maglev("lb_policy: MAGLEV\nmaglev_lb_config: {table_size: 101}");
    assert_eq!(sized.table_size.get(), 101);

    for policy in ["RING_HASH", "MAGLEV"] {
        let text = format!("{ODD}lb_policy: {policy}");
        let balance = cluster(&text).balance;
        assert_eq!(balance.hash_balance_factor.unwrap().get(), 125);
        assert_eq!(paths(&cluster_text(&text)), Vec::<String>::new());
    }
    assert!(ring(&format!("{ODD}lb_policy: RING_HASH")).use_hostname_for_hashing);
    assert!(maglev(&format!("{ODD}lb_policy: MAGLEV")).use_hostname_for_hashing);
}

#[test]
fn tables_of_the_newer_kind_are_read() {
    let common = "consistent_hashing_lb_config: {use_hostname_for_hashing: true, hash_balance_factor: 150, hash_policy: [{query_parameter: {name: q}}]}";
    let text = typed(
        "ring_hash.v3.RingHash",
        &format!(
            "minimum_ring_size: 7, hash_function: MURMUR_HASH_2, hash_balance_factor: 999, {common}"
        ),
    );
    let config = ring(&text);
    assert_eq!(config.sizes.minimum(), 7);
    assert_eq!(config.hash_function, HashFunction::MurmurHash2);
    assert!(config.use_hostname_for_hashing);
    let query = HashSource::QueryParameter("q".into());
    let whole = cluster(&text);
    assert_eq!(whole.balance.hash_balance_factor.unwrap().get(), 150);
    assert_eq!(whole.hash.as_ref().unwrap()[0].source, query);
    assert_eq!(paths(&cluster_text(&text)), Vec::<String>::new());
    // The older fields, where there are no common ones.
    let older = "use_hostname_for_hashing: true, hash_balance_factor: 110";
    let older = cluster(&typed("ring_hash.v3.RingHash", older));
    assert_eq!(older.balance.hash_balance_factor.unwrap().get(), 110);

    let text = typed("maglev.v3.Maglev", &format!("table_size: 13, {common}"));
    let config = maglev(&text);
    assert_eq!(config.table_size.get(), 13);
    assert!(config.use_hostname_for_hashing);
    assert_eq!(cluster(&text).hash.as_ref().unwrap()[0].source, query);
    // What is said of all policies is not for this kind.
    let other = cluster(&format!(
        "{ODD}{}",
        typed("maglev.v3.Maglev", "table_size: 13")
    ));
    assert_eq!(other.balance.hash_balance_factor, None);
}

#[test]
fn tables_that_cannot_be_are_refused() {
    refused(
        "lb_policy: RING_HASH\nring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}",
        "ring_hash_lb_config",
        ".ring_hash_lb_config",
        "ring sizes must lie within 1 and 8388608, the minimum below the maximum, not 9 and 8",
    );
    refused(
        "lb_policy: MAGLEV\nmaglev_lb_config: {table_size: 100}",
        "table_size",
        ".maglev_lb_config.table_size",
        "the size of a maglev table must be a prime number up to 5000011, not 100",
    );
}

#[test]
fn a_cluster_may_have_policies_of_its_own() {
    let options = "typed_extension_protocol_options:\n  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n    explicit_http_config: {http_protocol_options: {}}\n    hash_policy: [{connection_properties: {source_ip: true}}]\n";
    let hash = |fields: &str| {
        cluster(fields)
            .hash
            .clone()
            .map(|policies| policies[0].source.clone())
    };
    assert_eq!(hash(options), Some(HashSource::SourceIp));
    assert_eq!(hash(""), None);
    let both = typed(
        "maglev.v3.Maglev",
        "consistent_hashing_lb_config: {hash_policy: [{query_parameter: {name: q}}]}",
    );
    let query = HashSource::QueryParameter("q".into());
    assert_eq!(hash(&format!("{options}{both}")), Some(query));
}

#[test]
fn the_policies_of_a_route_are_read_in_order() {
    let text = "match: {prefix: /}\nroute:\n  cluster: b\n  hash_policy:\n  \
        - {header: {header_name: X-A, regex_rewrite: {pattern: {regex: a}, substitution: b}}, terminal: true}\n  \
        - {cookie: {name: c, ttl: 5.5s, path: /p, attributes: [{name: Secure}, {name: SameSite, value: Lax}]}}\n  \
        - {connection_properties: {source_ip: false}}\n  \
        - {connection_properties: {source_ip: true}}\n  \
        - {query_parameter: {name: q}}";
    assert_eq!(paths(&route_text(text)), Vec::<String>::new());
    let entry = route(text);
    let Action::Route(action) = entry.action() else {
        panic!("no route")
    };
    let [header, cookie, ip, query] = &action.hash[..] else {
        panic!("{:?}", action.hash)
    };
    assert!(header.terminal);
    let HashSource::Header { field, rewrite } = &header.source else {
        panic!("{header:?}")
    };
    assert_eq!(*field, RequestField::from_name("x-a").unwrap());
    assert!(rewrite.is_some());
    let plain = |source| HashPolicy {
        source,
        terminal: false,
    };
    let attributes = [("Secure", ""), ("SameSite", "Lax")];
    let made = SessionCookie::new("c", Some(Duration::from_secs(5)), "/p", attributes).unwrap();
    let HashSource::Cookie(cookie) = &cookie.source else {
        panic!("{cookie:?}")
    };
    assert_eq!(cookie.set_to(1), made.set_to(1));
    assert_eq!(*ip, plain(HashSource::SourceIp));
    assert_eq!(*query, plain(HashSource::QueryParameter("q".into())));
}

#[test]
fn what_cannot_be_hashed_is_refused() {
    for (policy, needle, path, reason) in [
        (
            "filter_state: {key: k}",
            "filter_state",
            ".filter_state",
            "no filter leaves any state: requests would go to other endpoints than they should",
        ),
        (
            "header: {header_name: 'a b'}",
            "header_name",
            ".header.header_name",
            "\"a b\" is not a header name",
        ),
        (
            "cookie: {name: \"a\\u00e9\\u0001\", ttl: 1s}",
            "cookie",
            ".cookie",
            "the cookie \"aé\\u{1}\" could not be sent as a header",
        ),
    ] {
        let text = route_text(&format!(
            "match: {{prefix: /}}\nroute: {{cluster: b, hash_policy: [{{{policy}}}]}}"
        ));
        assert_refused(&text, needle, &format!("{ROUTE}[0]{path}"), reason);
    }
}

#[test]
fn weighted_clusters_may_go_by_hash() {
    let by_hash = |fields: &str| {
        let entry = route(&format!(
            "match: {{prefix: /}}\nroute: {{weighted_clusters: {{{fields} clusters: [{{name: b, weight: 1}}]}}}}"
        ));
        let Action::Route(action) = entry.action() else {
            panic!("no route")
        };
        action.cluster.goes_by_hash()
    };
    assert!(by_hash("use_hash_policy: true,"));
    assert!(!by_hash("use_hash_policy: false,"));
    assert!(!by_hash(""));
}

fn tcp(fields: &str) -> String {
    listener_text(&format!(
        "address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\nfilter_chains: [{{filters: [{{name: t, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: b, {fields}}}}}]}}]"
    ))
}

#[test]
fn a_tcp_proxy_may_hash_the_clients_address() {
    let by_ip = |fields: &str| {
        let config = config(&tcp(fields));
        let NetworkFilter::TcpProxy(proxy) = &config.listeners[0].chains[0].filters[0] else {
            panic!("no TCP proxy")
        };
        proxy.hash_source_ip
    };
    assert!(by_ip("hash_policy: [{source_ip: {}}]"));
    assert!(!by_ip(""));
    assert_refused(
        &tcp("hash_policy: [{filter_state: {key: k}}]"),
        "filter_state",
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.hash_policy[0].filter_state",
        "no filter leaves any state: connections would go to other endpoints than they should",
    );
}
