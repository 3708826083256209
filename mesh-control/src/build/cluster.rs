use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
        },
        core::v3::{HealthStatus, Http2ProtocolOptions, Locality as WireLocality, TransportSocket},
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint as WireEndpoint, LbEndpoint, LocalityLbEndpoints,
            lb_endpoint::HostIdentifier,
        },
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{
            ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
        },
    },
};
use mesh_core::Locality;
use mesh_xds::ResourceType;
use prost::Name as _;

use super::{
    APP, Built, Origin,
    listener::tls,
    wire::{address, ads, any, duration, number},
};
use crate::mesh::{Endpoint, Health, Mesh, Mtls, Protocol, Service};

/// How long a connection may take to be made, unless the mesh file says otherwise. Envoy's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The cluster of a service, as `caller` sees it; with mTLS, no two callers see the same.
pub(super) fn service(mesh: &Mesh, service: &Service, caller: Option<&Service>) -> Built {
    let mut origin = Origin::new(&mesh.document, &service.path);
    let policies = &service.policies;
    let mut cluster = match &policies.cluster {
        Some(placed) => {
            origin.place("", &placed.path);
            (*placed.value).clone()
        }
        None => Cluster::default(),
    };
    service.name.clone_into(&mut cluster.name);
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
    cluster.eds_cluster_config = Some(EdsClusterConfig {
        eds_config: Some(ads()),
        ..EdsClusterConfig::default()
    });
    if let Some(placed) = &policies.connect_timeout {
        origin.place("connect_timeout", &placed.path);
        cluster.connect_timeout = Some(placed.value);
    }
    cluster
        .connect_timeout
        .get_or_insert_with(|| duration(CONNECT_TIMEOUT));
    if let Some(placed) = &policies.outlier_detection {
        origin.place("outlier_detection", &placed.path);
        cluster.outlier_detection = Some(placed.value.clone());
    }
    if let Some(placed) = &policies.health_checks {
        origin.place("health_checks", &placed.path);
        cluster.health_checks.clone_from(&placed.value);
    }
    if let Some(placed) = &policies.thresholds {
        origin.place("circuit_breakers.thresholds[0]", &placed.path);
        cluster.circuit_breakers = Some(CircuitBreakers {
            thresholds: vec![placed.value],
            ..CircuitBreakers::default()
        });
    }
    speak(&mut cluster, service.protocol);
    // Only who has a sidecar can prove who it is.
    let has_sidecar = service
        .sidecar
        .as_ref()
        .is_some_and(|s| s.inbound.is_some());
    if let (Some(mtls), Some(caller), true) = (&mesh.mtls, caller, has_sidecar) {
        origin.place("transport_socket", &mtls.path);
        cluster.transport_socket = Some(upstream_tls(mtls, service, caller));
    }
    Built::new(ResourceType::Cluster, &service.name, &cluster, origin)
}

/// The cluster of the application next to a sidecar.
pub(super) fn app(mesh: &Mesh, service: &Service, app: SocketAddr) -> Built {
    let path = service.sidecar.as_ref().map_or("", |sidecar| &sidecar.path);
    let origin = Origin::new(&mesh.document, path);
    let mut cluster = Cluster {
        name: APP.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: APP.to_owned(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![lb_endpoint(&app.into())],
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    };
    speak(&mut cluster, service.protocol);
    Built::new(ResourceType::Cluster, APP, &cluster, origin)
}

fn speak(cluster: &mut Cluster, protocol: Protocol) {
    if protocol == Protocol::Http {
        return;
    }
    let http2 = ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default());
    let explicit = ExplicitHttpConfig {
        protocol_config: Some(http2),
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    cluster
        .typed_extension_protocol_options
        .entry(HttpProtocolOptions::full_name())
        .or_insert_with(|| any(&options));
}

fn upstream_tls(mtls: &Mtls, service: &Service, caller: &Service) -> TransportSocket {
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
    let peer = mtls.identity(&service.name);
    let context = UpstreamTlsContext {
        common_tls_context: Some(tls::context(mtls, &caller.name, &peer, true)),
        ..UpstreamTlsContext::default()
    };
    tls::socket(any(&context))
}

/// The endpoints of a service: those of the mesh file and those discovered.
pub(super) fn endpoints(mesh: &Mesh, service: &Service, discovered: &[Endpoint]) -> Built {
    let path = format!("{}.endpoints", service.path);
    let origin = Origin::new(&mesh.document, &path);
    let all = service.endpoints.iter().chain(discovered);
    let all: BTreeMap<SocketAddr, &Endpoint> = all.map(|e| (e.address, e)).collect();
    let mut localities: BTreeMap<(u32, &Locality), Vec<LbEndpoint>> = BTreeMap::new();
    for endpoint in all.values() {
        let key = (endpoint.priority, &endpoint.locality);
        localities
            .entry(key)
            .or_default()
            .push(lb_endpoint(endpoint));
    }
    let localities = localities
        .into_iter()
        .map(|((priority, locality), endpoints)| {
            let weights = endpoints.iter().filter_map(|e| e.load_balancing_weight);
            let weight = weights.fold(0_u32, |sum, weight| sum.saturating_add(weight.value));
            LocalityLbEndpoints {
                locality: Some(WireLocality {
                    region: locality.region.clone(),
                    zone: locality.zone.clone(),
                    sub_zone: locality.sub_zone.clone(),
                }),
                priority,
                load_balancing_weight: number(weight.max(1)),
                lb_endpoints: endpoints,
                ..LocalityLbEndpoints::default()
            }
        });
    let assignment = ClusterLoadAssignment {
        cluster_name: service.name.clone(),
        endpoints: localities.collect(),
        ..ClusterLoadAssignment::default()
    };
    Built::new(ResourceType::Endpoints, &service.name, &assignment, origin)
}

fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let health = match endpoint.health {
        // What nothing is known of is taken as healthy by everybody.
        Health::Healthy => HealthStatus::Unknown,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
        Health::Degraded => HealthStatus::Degraded,
    };
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(WireEndpoint {
            address: Some(address(endpoint.address)),
            ..WireEndpoint::default()
        })),
        health_status: health as i32,
        load_balancing_weight: number(endpoint.weight),
        ..LbEndpoint::default()
    }
}
