//! What is published: a thousand clusters and five thousand routes, by default.

use std::net::{Ipv4Addr, SocketAddr};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster, OutlierDetection,
                cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
            },
            core::v3::{
                Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource,
                HealthStatus, SocketAddress, address::Address as AddressKind,
                config_source::ConfigSourceSpecifier, data_source::Specifier,
                socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
            listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
            route::v3::{
                DirectResponseAction, RetryPolicy, Route, RouteAction, RouteConfiguration,
                RouteMatch, VirtualHost, route::Action, route_action::ClusterSpecifier,
                route_match::PathSpecifier,
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
use mesh_xds::{
    ResourceType,
    server::{Entry, Snapshot},
};
use prost::{Message, Name};

/// The node of the proxies.
pub(super) const NODE: &str = "bench";
/// Routes of one virtual host.
const ROUTES_PER_HOST: usize = 100;

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) clusters: usize,
    pub(super) endpoints: usize,
    pub(super) routes: usize,
}

impl Scale {
    pub(super) const FULL: Self = Self {
        clusters: 1_000,
        endpoints: 10,
        routes: 5_000,
    };
}

/// Everything, as it is at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct World {
    pub(super) scale: Scale,
    /// Where the proxy listens.
    pub(super) listen: SocketAddr,
    /// Every cluster, assignment and route differs from one to the next.
    pub(super) version: u32,
    /// The only healthy endpoint of the first cluster.
    pub(super) probed: SocketAddr,
}

impl World {
    pub(super) fn snapshot(&self) -> Snapshot {
        let clusters = (0..self.scale.clusters).map(|n| self.cluster(n));
        let endpoints = (0..self.scale.clusters).map(|n| self.endpoints(n));
        Snapshot::new()
            .with(ResourceType::Cluster, clusters.collect())
            .with(ResourceType::Endpoints, endpoints.collect())
            .with(ResourceType::Listener, vec![self.listener()])
            .with(ResourceType::RouteConfiguration, vec![self.routes()])
    }

    fn cluster(&self, n: usize) -> Entry {
        let name = name(n);
        let cluster = Cluster {
            name: name.clone(),
            // Still a second, but another one each time.
            connect_timeout: millis(1_000 + self.version),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: Some(ads()),
                ..EdsClusterConfig::default()
            }),
            outlier_detection: Some(OutlierDetection::default()),
            ..Cluster::default()
        };
        entry(&name, &cluster)
    }

    fn endpoints(&self, n: usize) -> Entry {
        let endpoint = |m: usize| {
            let probed = n == 0 && m == 0;
            let other = SocketAddr::from((
                Ipv4Addr::new(10, (n / 250) as u8, (n % 250) as u8, m as u8 + 1),
                80,
            ));
            let health = match (n, m) {
                (0, 1..) => HealthStatus::Unhealthy,
                _ => HealthStatus::Unknown,
            };
            LbEndpoint {
                host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                    address: Some(address(if probed { self.probed } else { other })),
                    ..Endpoint::default()
                })),
                health_status: health as i32,
                load_balancing_weight: number(self.version + 1),
                ..LbEndpoint::default()
            }
        };
        let assignment = ClusterLoadAssignment {
            cluster_name: name(n),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: (0..self.scale.endpoints).map(endpoint).collect(),
                load_balancing_weight: number(1),
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        };
        entry(&name(n), &assignment)
    }

    /// One virtual host for whoever measures, and many for nobody.
    fn routes(&self) -> Entry {
        let said = DirectResponseAction {
            status: 200,
            body: Some(DataSource {
                specifier: Some(Specifier::InlineString(self.version.to_string())),
                ..DataSource::default()
            }),
            ..DirectResponseAction::default()
        };
        let version = Route {
            r#match: prefix("/version"),
            action: Some(Action::DirectResponse(said)),
            ..Route::default()
        };
        let probe = self.route("/probe", 0);
        let mut hosts = vec![host("probe", "*", vec![version, probe])];
        for first in (0..self.scale.routes).step_by(ROUTES_PER_HOST) {
            let last = (first + ROUTES_PER_HOST).min(self.scale.routes);
            let routes = first..last;
            let routes = routes.map(|n| self.route(&format!("/s{n}/"), n % self.scale.clusters));
            let name = format!("host-{first}");
            hosts.push(host(&name, &format!("{name}.example"), routes.collect()));
        }
        let routes = RouteConfiguration {
            name: "web".to_owned(),
            virtual_hosts: hosts,
            ..RouteConfiguration::default()
        };
        entry("web", &routes)
    }

    fn route(&self, path: &str, cluster: usize) -> Route {
        let action = RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name(cluster))),
            timeout: millis(2_000 + self.version),
            retry_policy: Some(RetryPolicy {
                retry_on: "connect-failure,gateway-error".to_owned(),
                num_retries: number(2),
                ..RetryPolicy::default()
            }),
            ..RouteAction::default()
        };
        Route {
            r#match: prefix(path),
            action: Some(Action::Route(action)),
            ..Route::default()
        }
    }

    fn listener(&self) -> Entry {
        let router = HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(HttpConfigType::TypedConfig(any(&Router::default()))),
            ..HttpFilter::default()
        };
        let manager = HttpConnectionManager {
            stat_prefix: "web".to_owned(),
            route_specifier: Some(RouteSpecifier::Rds(Rds {
                config_source: Some(ads()),
                route_config_name: "web".to_owned(),
            })),
            http_filters: vec![router],
            ..HttpConnectionManager::default()
        };
        let filter = Filter {
            name: "envoy.filters.network.http_connection_manager".to_owned(),
            config_type: Some(ConfigType::TypedConfig(any(&manager))),
        };
        let listener = Listener {
            name: "web".to_owned(),
            address: Some(address(self.listen)),
            filter_chains: vec![FilterChain {
                filters: vec![filter],
                ..FilterChain::default()
            }],
            ..Listener::default()
        };
        entry("web", &listener)
    }
}

fn name(n: usize) -> String {
    format!("cluster-{n}")
}

fn host(name: &str, domain: &str, routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: name.to_owned(),
        domains: vec![domain.to_owned()],
        routes,
        ..VirtualHost::default()
    }
}

fn prefix(path: &str) -> Option<RouteMatch> {
    Some(RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix(path.to_owned())),
        ..RouteMatch::default()
    })
}

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

fn millis(millis: u32) -> Option<Duration> {
    Some(Duration {
        seconds: i64::from(millis / 1_000),
        nanos: i32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
    })
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}
