//! The endpoints of clusters.

use std::path::PathBuf;

use mesh_config::model::{EndpointConfig, EndpointHealth, EndpointTarget};
use mesh_core::{Address, Locality};

use super::{assert_refused, cluster, cluster_text, paths};

const AT: &str = "static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints";

fn text(kind: &str, endpoints: &str) -> String {
    format!(
        "type: {kind}\nload_assignment:\n  cluster_name: b\n  endpoints:\n  - lb_endpoints:\n{}",
        super::indented(endpoints, 4)
    )
}

fn endpoints(kind: &str, endpoints: &str) -> Vec<EndpointConfig> {
    cluster(&text(kind, endpoints)).endpoints.to_vec()
}

fn refused(endpoints: &str, path: &str, reason: &str) {
    let needle = endpoints.lines().last().unwrap();
    assert_refused(
        &cluster_text(&text("STATIC", endpoints)),
        needle,
        &format!("{AT}{path}"),
        reason,
    );
}

#[test]
fn everything_that_an_endpoint_says_is_kept() {
    let cluster = cluster(
        "load_assignment:\n  cluster_name: b\n  endpoints:\n  - locality: {region: r, zone: z, sub_zone: s}\n    priority: 2\n    lb_endpoints:\n    \
         - endpoint: {address: {socket_address: {address: '::1', port_value: 80}}, hostname: h}\n      load_balancing_weight: 7\n      \
         health_status: DRAINING\n      metadata: {filter_metadata: {envoy.lb: {a: x, b: 1, c: true, d: {e: f}}, other: {g: h}}}\n  \
         - lb_endpoints: [{endpoint: {address: {pipe: {path: /run/b}}}}]",
    );
    let [first, second] = &*cluster.endpoints else {
        panic!("{:?}", cluster.endpoints)
    };
    assert_eq!(
        first.target,
        EndpointTarget::Address(Address::Socket("[::1]:80".parse().unwrap()))
    );
    assert_eq!(
        (&*first.hostname, first.weight, first.priority),
        ("h", 7, 2)
    );
    assert_eq!(first.health, EndpointHealth::Draining);
    let locality = Locality {
        region: "r".into(),
        zone: "z".into(),
        sub_zone: "s".into(),
    };
    assert_eq!(*first.locality, locality);
    let metadata: Vec<(&str, &str)> = first
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(metadata, [("a", "x"), ("b", "1"), ("c", "true")]);

    assert_eq!(
        second.target,
        EndpointTarget::Address(Address::Unix(PathBuf::from("/run/b")))
    );
    assert_eq!(
        (&*second.hostname, second.weight, second.priority),
        ("", 1, 0)
    );
    assert_eq!(second.health, EndpointHealth::Healthy);
}

#[test]
fn each_health_has_its_meaning() {
    for (name, health) in [
        ("UNKNOWN", EndpointHealth::Healthy),
        ("HEALTHY", EndpointHealth::Healthy),
        ("DEGRADED", EndpointHealth::Degraded),
        ("UNHEALTHY", EndpointHealth::Unhealthy),
        ("TIMEOUT", EndpointHealth::Unhealthy),
        ("DRAINING", EndpointHealth::Draining),
    ] {
        let one = format!(
            "- {{health_status: {name}, endpoint: {{address: {{socket_address: {{address: 1.1.1.1, port_value: 1}}}}}}}}"
        );
        assert_eq!(endpoints("STATIC", &one)[0].health, health, "{name}");
    }
}

#[test]
fn names_are_for_clusters_that_look_them_up() {
    let name = "- endpoint: {address: {socket_address: {address: host, port_value: 80}}}";
    let found = endpoints("STRICT_DNS", name);
    assert_eq!(found[0].target, EndpointTarget::Name("host".into(), 80));
    assert_eq!(&*found[0].hostname, "host");
    refused(
        name,
        "[0].endpoint.address.socket_address.address",
        "\"host\" is not an IP address; names are looked up for clusters of type STRICT_DNS and LOGICAL_DNS only",
    );
    // An address needs no look-up, and is the host that the upstream is asked for.
    let found = endpoints("LOGICAL_DNS", &name.replace("host", "127.0.0.1"));
    assert_eq!(
        found[0].target,
        EndpointTarget::Address(Address::Socket("127.0.0.1:80".parse().unwrap()))
    );
    assert_eq!(&*found[0].hostname, "127.0.0.1");
}

#[test]
fn endpoints_that_cannot_be_reached_are_refused() {
    refused("- load_balancing_weight: 1", "[0]", "endpoint is missing");
    refused(
        "- endpoint: {hostname: h}",
        "[0].endpoint.address",
        "is missing",
    );
    refused(
        "- endpoint_name: h",
        "[0].endpoint_name",
        "named endpoints are not supported",
    );
    refused(
        "- endpoint: {address: {envoy_internal_address: {server_listener_name: l}}}",
        "[0].endpoint.address.envoy_internal_address",
        "internal listeners are not supported",
    );
}

#[test]
fn overload_drops_are_reported() {
    let text = cluster_text(
        "load_assignment: {cluster_name: b, policy: {drop_overloads: [{category: c, drop_percentage: {numerator: 1}}]}}",
    );
    assert_eq!(
        paths(&text),
        ["static_resources.clusters[0].load_assignment.policy.drop_overloads"]
    );
}
