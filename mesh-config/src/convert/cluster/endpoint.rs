//! `ClusterLoadAssignment`: the endpoints of a cluster.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, sync::Arc};

use envoy_types::pb::{
    envoy::config::{
        cluster::v3::Cluster,
        core::v3::{Address as AddressMessage, HealthStatus, Metadata, address},
        endpoint::v3::{
            ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            locality_lb_endpoints,
        },
    },
    google::protobuf::value::Kind,
};
use mesh_core::{Address, Locality};
use mesh_net::dns::DnsDiscovery;

use super::{MESSAGE, health, socket};
use crate::{
    convert::{bootstrap, context::Context, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::{Discovery, EndpointConfig, EndpointHealth, EndpointTarget},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[("load_assignment", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.endpoint.v3.ClusterLoadAssignment",
        fields: &[
            ("cluster_name", Meaningless),
            ("endpoints", Enforced),
            ("policy", Enforced),
            ("named_endpoints", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
        fields: &[
            ("overprovisioning_factor", Enforced),
            ("weighted_priority_health", Enforced),
            // For control planes.
            ("endpoint_stale_after", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.endpoint.v3.LocalityLbEndpoints",
        fields: &[
            ("locality", Enforced),
            ("lb_endpoints", Enforced),
            ("priority", Enforced),
            ("load_balancer_endpoints", Enforced),
            ("leds_cluster_locality_config", Enforced),
            // For balancing among localities, which is reported.
            ("load_balancing_weight", Meaningless),
            ("proximity", Meaningless),
            ("metadata", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.endpoint.v3.LbEndpoint",
        fields: &[
            ("endpoint", Enforced),
            ("endpoint_name", Enforced),
            ("health_status", Enforced),
            ("metadata", Enforced),
            ("load_balancing_weight", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.endpoint.v3.Endpoint",
        fields: &[
            ("address", Enforced),
            ("hostname", Enforced),
            ("health_check_config", Enforced),
            ("observability_name", Meaningless),
        ],
    },
];

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &Cluster,
    discovery: &Discovery,
) -> Vec<EndpointConfig> {
    let at = at.field("load_assignment");
    let groups = from
        .load_assignment
        .as_ref()
        .map_or(&[][..], |a| &a.endpoints);
    let endpoints = groups_of(cx, &at, groups, discovery);
    let logical =
        matches!(discovery, Discovery::Dns(dns) if dns.refresh.discovery == DnsDiscovery::Logical);
    let one_name = matches!(groups, [group] if group.lb_endpoints.len() == 1);
    if logical && !one_name {
        let list = at.field("endpoints");
        let reason = "a LOGICAL_DNS cluster must have exactly one endpoint";
        cx.invalid(if groups.is_empty() { &at } else { &list }, reason);
    }
    endpoints
}

/// The endpoints of a `ClusterLoadAssignment` at `at`, which has addresses rather than names.
pub(in crate::convert) fn assignment(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ClusterLoadAssignment,
) -> Vec<EndpointConfig> {
    groups_of(cx, at, &from.endpoints, &Discovery::Static)
}

fn groups_of(
    cx: &Context<'_>,
    at: &At<'_>,
    groups: &[LocalityLbEndpoints],
    discovery: &Discovery,
) -> Vec<EndpointConfig> {
    let list = at.field("endpoints");
    let mut endpoints = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let at = list.index(index);
        if group.lb_config.is_some() {
            use locality_lb_endpoints::LbConfig::{
                LedsClusterLocalityConfig, LoadBalancerEndpoints,
            };
            let field = match group.lb_config {
                Some(LoadBalancerEndpoints(_)) | None => "load_balancer_endpoints",
                Some(LedsClusterLocalityConfig(_)) => "leds_cluster_locality_config",
            };
            cx.invalid(&at.field(field), "only lb_endpoints is supported");
        }
        let locality = Arc::new(bootstrap::locality(group.locality.as_ref()));
        let list = at.field("lb_endpoints");
        let converted = group
            .lb_endpoints
            .iter()
            .enumerate()
            .filter_map(|(index, from)| {
                one(cx, &list.index(index), from, group, &locality, discovery)
            });
        endpoints.extend(converted);
    }
    endpoints
}

fn one(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &LbEndpoint,
    group: &LocalityLbEndpoints,
    locality: &Arc<Locality>,
    discovery: &Discovery,
) -> Option<EndpointConfig> {
    let endpoint = match from.host_identifier.as_ref() {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => {
            cx.invalid(
                &at.field("endpoint_name"),
                "named endpoints are not supported",
            );
            return None;
        }
        None => {
            cx.invalid(at, "endpoint is missing");
            return None;
        }
    };
    let at = at.field("endpoint");
    let check = health::endpoint(cx, &at, endpoint.health_check_config.as_ref());
    let at = at.field("address");
    let Some(address) = &endpoint.address else {
        cx.invalid(&at, "is missing");
        return None;
    };
    let (target, name) = match discovery {
        Discovery::Dns(_) => name(cx, &at, address)?,
        Discovery::Static | Discovery::Eds(_) | Discovery::OriginalDst(_) => (
            EndpointTarget::Address(value::address(cx, &at, address)?),
            String::new(),
        ),
    };
    let hostname = value::nonempty(&endpoint.hostname).unwrap_or(&name);
    Some(EndpointConfig {
        target,
        hostname: Arc::from(hostname),
        weight: value::number(from.load_balancing_weight).unwrap_or(1),
        priority: group.priority,
        locality: Arc::clone(locality),
        health: match from.health_status() {
            HealthStatus::Unknown | HealthStatus::Healthy => EndpointHealth::Healthy,
            HealthStatus::Unhealthy | HealthStatus::Timeout => EndpointHealth::Unhealthy,
            HealthStatus::Draining => EndpointHealth::Draining,
            HealthStatus::Degraded => EndpointHealth::Degraded,
        },
        metadata: Arc::new(metadata(from.metadata.as_ref())),
        check,
        socket_labels: socket::labels(from.metadata.as_ref(), group.metadata.as_ref()),
    })
}

/// What is to be looked up, and what the endpoint's hostname is unless the config says otherwise. An IP
/// address needs no look-up.
fn name(cx: &Context<'_>, at: &At<'_>, from: &AddressMessage) -> Option<(EndpointTarget, String)> {
    let Some(address::Address::SocketAddress(socket)) = &from.address else {
        cx.invalid(
            at,
            "a cluster with names needs a socket_address with a name",
        );
        return None;
    };
    let (host, port) = value::host_and_port(cx, &at.field("socket_address"), socket)?;
    let target = match host.parse::<IpAddr>() {
        Ok(ip) => EndpointTarget::Address(Address::Socket(SocketAddr::new(ip, port))),
        Err(_) => EndpointTarget::Name(host.to_owned(), port),
    };
    Some((target, host.to_owned()))
}

/// The flat values under `envoy.lb`, as text.
fn metadata(from: Option<&Metadata>) -> BTreeMap<String, String> {
    let fields = from.and_then(|from| from.filter_metadata.get("envoy.lb"));
    let flat = fields
        .into_iter()
        .flat_map(|lb| &lb.fields)
        .filter_map(|(key, value)| {
            let text = match value.kind.as_ref()? {
                Kind::StringValue(text) => text.clone(),
                Kind::NumberValue(number) => number.to_string(),
                Kind::BoolValue(value) => value.to_string(),
                Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => return None,
            };
            Some((key.clone(), text))
        });
    flat.collect()
}
