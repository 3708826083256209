//! Clusters whose endpoints have names.

use std::time::Duration;

use mesh_config::model::{Discovery, DnsConfig};
use mesh_net::dns::{DnsDiscovery, DnsLookupFamily, FailureRefreshRate, RefreshConfig};

use super::{assert_refused, cluster, cluster_text, config, indented, paths};

const SECOND: Duration = Duration::from_secs(1);
const ENDPOINT: &str = "load_assignment: {cluster_name: b, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: host, port_value: 1}}}}]}]}";

fn dns(fields: &str) -> DnsConfig {
    match &cluster(&format!("{ENDPOINT}\n{fields}")).discovery {
        Discovery::Dns(dns) => (**dns).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_envoys() {
    let strict = dns("type: STRICT_DNS");
    assert_eq!(strict.refresh, RefreshConfig::default());
    assert_eq!(strict.family, DnsLookupFamily::Auto);
    assert!(strict.resolver.resolvers.is_empty());
    assert_eq!(strict.resolver.query_tries, 4);
    assert_eq!(
        dns("type: LOGICAL_DNS").refresh.discovery,
        DnsDiscovery::Logical
    );
}

#[test]
fn everything_about_refreshing_is_read() {
    let wanted = RefreshConfig {
        discovery: DnsDiscovery::Strict,
        dns_refresh_rate: 2 * SECOND,
        dns_failure_refresh_rate: Some(
            FailureRefreshRate::new(3 * SECOND, Some(4 * SECOND)).unwrap(),
        ),
        respect_dns_ttl: true,
        dns_jitter: 5 * SECOND,
    };
    let fields = "dns_refresh_rate: 2s, dns_failure_refresh_rate: {base_interval: 3s, max_interval: 4s}, \
        respect_dns_ttl: true, dns_jitter: 5s, dns_lookup_family: V4_PREFERRED";
    let lines = fields
        .replace("}, ", "}\n")
        .replace("s, d", "s\nd")
        .replace("true, ", "true\n");
    let own = dns(&format!("type: STRICT_DNS\n{lines}"));
    assert_eq!(own.refresh, wanted);
    assert_eq!(own.family, DnsLookupFamily::V4Preferred);

    let extension = |more: &str| {
        dns(&format!(
            "cluster_type: {{name: envoy.cluster.dns, typed_config: {{'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, {fields}{more}}}}}"
        ))
    };
    assert_eq!(extension("").refresh, wanted);
    assert_eq!(extension("").family, DnsLookupFamily::V4Preferred);
    let logical = extension(", all_addresses_in_single_endpoint: true");
    assert_eq!(logical.refresh.discovery, DnsDiscovery::Logical);
}

const CARES: &str = "typed_dns_resolver_config:\n  name: a\n  typed_config:\n    '@type': type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig\n    \
    resolvers: [{socket_address: {address: 127.0.0.53, port_value: 5353}}, {socket_address: {address: '::1', port_value: 0}}]\n    \
    dns_resolver_options: {use_tcp_for_dns_lookups: true, no_default_search_domain: true}\n    \
    query_timeout_seconds: 2\n    query_tries: 3";

#[test]
fn the_newest_way_to_name_a_resolver_wins() {
    let servers = |dns: &DnsConfig| -> Vec<String> {
        dns.resolver
            .resolvers
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let old =
        "type: STRICT_DNS\ndns_resolvers: [{socket_address: {address: 1.1.1.1, port_value: 1}}]";
    assert_eq!(servers(&dns(old)), ["1.1.1.1:1"]);
    let newer = format!(
        "{old}\ndns_resolution_config: {{resolvers: [{{socket_address: {{address: 2.2.2.2, port_value: 2}}}}]}}"
    );
    assert_eq!(servers(&dns(&newer)), ["2.2.2.2:2"]);
    let newest = dns(&format!("{newer}\n{CARES}"));
    assert_eq!(servers(&newest), ["127.0.0.53:5353", "[::1]:53"]);
    let resolver = newest.resolver;
    assert!(resolver.use_tcp_for_dns_lookups && resolver.no_default_search_domain);
    assert_eq!(
        (resolver.query_timeout, resolver.query_tries),
        (2 * SECOND, 3)
    );
    assert_eq!(resolver.timeout, 6 * SECOND);
}

#[test]
fn the_bootstrap_has_a_resolver_for_clusters_without_one() {
    let text = cluster_text(&format!("type: STRICT_DNS\n{ENDPOINT}"));
    let config = config(&format!("{text}{}", indented(CARES, 0)));
    let Discovery::Dns(dns) = &config.clusters[0].discovery else {
        panic!("no names")
    };
    assert_eq!(dns.resolver.query_tries, 3);
}

#[test]
fn what_envoy_refuses_is_refused() {
    assert_refused(
        &cluster_text(
            "type: STRICT_DNS\ndns_failure_refresh_rate: {base_interval: 5s, max_interval: 1s}",
        ),
        "dns_failure",
        "static_resources.clusters[0].dns_failure_refresh_rate.max_interval",
        "max_interval must be greater than or equal to base_interval",
    );
    assert_refused(
        &cluster_text(
            "type: STRICT_DNS\ndns_resolvers: [{socket_address: {address: name, port_value: 1}}]",
        ),
        "dns_resolvers",
        "static_resources.clusters[0].dns_resolvers[0].socket_address.address",
        "\"name\" is not an IP address; names are looked up for clusters of type STRICT_DNS and LOGICAL_DNS only",
    );
}

#[test]
fn a_logical_cluster_is_one_name() {
    let one = "{endpoint: {address: {socket_address: {address: host, port_value: 1}}}}";
    let exactly = "a LOGICAL_DNS cluster must have exactly one endpoint";
    let at = "static_resources.clusters[0].load_assignment";
    assert_refused(
        &cluster_text(&format!(
            "type: LOGICAL_DNS\nload_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{one}, {one}]}}]}}"
        )),
        "load_assignment",
        &format!("{at}.endpoints"),
        exactly,
    );
    assert_refused(&cluster_text("type: LOGICAL_DNS"), "name: b", at, exactly);
}

#[test]
fn other_resolvers_are_reported() {
    let text = cluster_text(&format!(
        "type: STRICT_DNS\n{ENDPOINT}\ntyped_dns_resolver_config: {{name: a, typed_config: {{'@type': type.googleapis.com/envoy.extensions.network.dns_resolver.apple.v3.AppleDnsResolverConfig}}}}"
    ));
    assert_eq!(
        paths(&text),
        ["static_resources.clusters[0].typed_dns_resolver_config.typed_config"]
    );
}
