//! The resources of a small mesh, for control planes in tests.

use std::net::SocketAddr;

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret, TlsCertificate, secret::Type as SecretType,
    },
    service::runtime::v3::Runtime,
};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
            },
            core::v3::{
                Address, AggregatedConfigSource, ApiVersion, ConfigSource, Locality, SocketAddress,
                address::Address as AddressKind, config_source::ConfigSourceSpecifier,
                socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
            listener::v3::{ApiListener, Filter, FilterChain, Listener, filter::ConfigType},
            route::v3::{
                Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
                route_action::ClusterSpecifier, route_match::PathSpecifier,
            },
        },
        extensions::filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
                http_filter::ConfigType as HttpConfigType,
            },
        },
    },
    google::protobuf::{Any, Duration, UInt32Value},
};
use mesh_xds::server::Entry;
use prost::{Message, Name};

fn entry(name: &str, message: &impl Message) -> Entry {
    Entry::new(name, message.encode_to_vec())
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}

fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

fn address(address: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    Address {
        address: Some(AddressKind::SocketAddress(socket)),
    }
}

/// An EDS cluster.
#[must_use]
pub fn cluster(name: &str) -> Entry {
    cluster_of(name, DiscoveryType::Eds)
}

/// A cluster that contradicts itself, which shows only when it is built.
#[must_use]
pub fn broken_cluster(name: &str) -> Entry {
    cluster_of(name, DiscoveryType::Static)
}

fn cluster_of(name: &str, discovery: DiscoveryType) -> Entry {
    let cluster = Cluster {
        name: name.to_owned(),
        connect_timeout: Some(Duration {
            seconds: 1,
            nanos: 0,
        }),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            ..EdsClusterConfig::default()
        }),
        ..Cluster::default()
    };
    entry(name, &cluster)
}

/// One endpoint.
#[must_use]
pub fn endpoints(name: &str, endpoint: SocketAddr) -> Entry {
    let endpoint = Endpoint {
        address: Some(address(endpoint)),
        ..Endpoint::default()
    };
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    };
    let locality = LocalityLbEndpoints {
        locality: Some(Locality {
            region: "here".to_owned(),
            ..Locality::default()
        }),
        lb_endpoints: vec![endpoint],
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        ..LocalityLbEndpoints::default()
    };
    let assignment = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    };
    entry(name, &assignment)
}

/// Everything goes to `cluster`.
#[must_use]
pub fn routes(name: &str, cluster: &str) -> Entry {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..RouteAction::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let configuration = RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    };
    entry(name, &configuration)
}

fn manager(routes: &str) -> Any {
    let router = HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(HttpConfigType::TypedConfig(any(&Router::default()))),
        ..HttpFilter::default()
    };
    let rds = Rds {
        config_source: Some(ads()),
        route_config_name: routes.to_owned(),
    };
    any(&HttpConnectionManager {
        stat_prefix: "interop".to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        http_filters: vec![router],
        ..HttpConnectionManager::default()
    })
}

/// A listener on a port of the kernel's choice.
#[must_use]
pub fn listener(name: &str, routes: &str) -> Entry {
    listener_on(name, routes, SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A listener on this address.
#[must_use]
pub fn listener_on(name: &str, routes: &str, at: SocketAddr) -> Entry {
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(ConfigType::TypedConfig(manager(routes))),
    };
    let chain = FilterChain {
        filters: vec![filter],
        ..FilterChain::default()
    };
    let listener = Listener {
        name: name.to_owned(),
        address: Some(address(at)),
        filter_chains: vec![chain],
        ..Listener::default()
    };
    entry(name, &listener)
}

/// A listener that only a client in the process uses.
#[must_use]
pub fn api_listener(name: &str, routes: &str) -> Entry {
    let listener = Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener {
            api_listener: Some(manager(routes)),
        }),
        ..Listener::default()
    };
    entry(name, &listener)
}

/// A certificate and its key, in PEM.
#[must_use]
pub fn certificate(name: &str, chain: &str, key: &str) -> Entry {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key)),
        ..TlsCertificate::default()
    };
    secret(name, SecretType::TlsCertificate(certificate))
}

/// Anchors, in PEM.
#[must_use]
pub fn anchors(name: &str, bundle: &str) -> Entry {
    let context = CertificateValidationContext {
        trusted_ca: Some(inline(bundle)),
        ..CertificateValidationContext::default()
    };
    secret(name, SecretType::ValidationContext(context))
}

fn secret(name: &str, kind: SecretType) -> Entry {
    let secret = Secret {
        name: name.to_owned(),
        r#type: Some(kind),
    };
    entry(name, &secret)
}

/// A layer of the runtime with one number in it.
#[must_use]
pub fn runtime(name: &str, key: &str, number: f64) -> Entry {
    let value = Value {
        kind: Some(Kind::NumberValue(number)),
    };
    let layer = Struct {
        fields: [(key.to_owned(), value)].into(),
    };
    let runtime = Runtime {
        name: name.to_owned(),
        layer: Some(layer),
    };
    entry(name, &runtime)
}

fn inline(text: &str) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineString(text.to_owned())),
        ..DataSource::default()
    }
}
