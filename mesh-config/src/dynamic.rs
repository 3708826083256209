//! Resources that arrive one by one, and the config that they come to together.
//!
//! [`Assembly`] holds the static bootstrap and what a control plane has sent beside it. A resource is first
//! [checked](Assembly::check) on its own, and once it may be used it is [put](Assembly::put) in; then
//! [`Assembly::config`] is the whole, with endpoints in their clusters and routes in their listeners, as if
//! it had stood in one file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use envoy_types::pb::envoy::{
    config::{
        bootstrap::v3::{Bootstrap, bootstrap::StaticResources},
        cluster::v3::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::v3::{
            ApiConfigSource, ConfigSource, Node, api_config_source::ApiType,
            config_source::ConfigSourceSpecifier, grpc_service::TargetSpecifier,
        },
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::{FilterChain, Listener, filter::ConfigType},
        route::v3::{RouteConfiguration, route::Action, route_action::ClusterSpecifier},
    },
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, http_connection_manager::RouteSpecifier,
    },
};
use prost::{Message, Name as _};

use crate::{
    LoadOptions, convert,
    language::{ConfigError, Language, Loaded},
    model::{Config, ControlPlane},
};

/// What may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Cluster`.
    Cluster,
    /// `ClusterLoadAssignment`.
    Endpoints,
    /// `Listener`.
    Listener,
    /// `RouteConfiguration`.
    Routes,
}

/// What a resource needs before it is of use: endpoints of a cluster, routes of a listener, clusters of
/// routes.
pub type Needs = BTreeSet<(Kind, String)>;

/// Why a resource is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The path of the field, inside the resource.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Refusal {
    fn new(field: &str, reason: impl fmt::Display) -> Self {
        Self {
            field: field.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// The static bootstrap, and what came to it.
#[derive(Debug)]
pub struct Assembly {
    bootstrap: Bootstrap,
    language: Language,
    options: LoadOptions,
    strict: bool,
    clusters: BTreeMap<String, Cluster>,
    endpoints: BTreeMap<String, ClusterLoadAssignment>,
    listeners: BTreeMap<String, Listener>,
    routes: BTreeMap<String, RouteConfiguration>,
}

impl Assembly {
    /// Nothing has come yet. With `strict`, a resource that sets a field which is not enforced is refused;
    /// without, only when security depends on it.
    #[must_use]
    pub fn new(loaded: &Loaded, options: &LoadOptions, strict: bool) -> Self {
        Self {
            bootstrap: loaded.bootstrap.clone(),
            // Anything may come.
            language: Language::full(),
            options: options.clone(),
            strict,
            clusters: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
        }
    }

    /// Who we are, as the control plane is told.
    #[must_use]
    pub fn node(&self) -> Node {
        let mut node = self.bootstrap.node.clone().unwrap_or_default();
        let options = &self.options;
        if let Some(id) = &options.service_node {
            node.id.clone_from(id);
        }
        if let Some(cluster) = &options.service_cluster {
            node.cluster.clone_from(cluster);
        }
        node
    }

    /// Whether a resource of these bytes can be used, and what it needs. Nothing changes.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self, kind: Kind, name: &str, body: &[u8]) -> Result<Needs, Refusal> {
        let mut needs = Needs::new();
        let mut resources = StaticResources::default();
        let prefix = match kind {
            Kind::Cluster => {
                let cluster: Cluster = decode(body)?;
                if let Some(service) = service_of(&cluster)? {
                    needs.insert((Kind::Endpoints, service));
                }
                resources.clusters.push(with_endpoints(&cluster, None));
                "static_resources.clusters[0]"
            }
            Kind::Endpoints => {
                let cluster = Cluster {
                    name: name.to_owned(),
                    ..Cluster::default()
                };
                resources
                    .clusters
                    .push(with_endpoints(&cluster, Some(&decode(body)?)));
                "static_resources.clusters[0].load_assignment"
            }
            Kind::Listener => {
                let mut listener: Listener = decode(body)?;
                with_routes(&mut listener, &mut |routes| {
                    needs.insert((Kind::Routes, routes.to_owned()));
                    None
                })?;
                resources.listeners.push(listener);
                "static_resources.listeners[0]"
            }
            Kind::Routes => {
                let routes: RouteConfiguration = decode(body)?;
                needs.extend(clusters_of(&routes).map(|name| (Kind::Cluster, name)));
                let listener = self.listener_for(&routes);
                resources.listeners.push(listener);
                ROUTES_PATH
            }
        };
        let config = self.convert("the resource", resources).map_err(|error| {
            let problem = error.problems().first();
            let path = problem
                .map(|problem| problem.path.as_str())
                .unwrap_or_default();
            let field = path
                .strip_prefix(prefix)
                .unwrap_or(path)
                .trim_start_matches('.');
            let reason =
                problem.map_or_else(|| error.to_string(), |problem| problem.reason.clone());
            Refusal::new(field, reason)
        })?;
        let mut missing = config.report.entries.iter();
        match missing.find(|entry| entry.security || self.strict) {
            None => Ok(needs),
            Some(entry) => {
                let field = entry.path.strip_prefix(prefix).unwrap_or(&entry.path);
                let reason = format!("{} is not enforced", entry.field);
                Err(Refusal::new(field.trim_start_matches('.'), reason))
            }
        }
    }

    /// Takes a resource in that was checked, in place of the one of its name.
    pub fn put(&mut self, kind: Kind, name: &str, body: &[u8]) {
        let name = name.to_owned();
        // What was checked can be decoded.
        match kind {
            Kind::Cluster => drop(Cluster::decode(body).map(|m| self.clusters.insert(name, m))),
            Kind::Endpoints => {
                drop(ClusterLoadAssignment::decode(body).map(|m| self.endpoints.insert(name, m)));
            }
            Kind::Listener => drop(Listener::decode(body).map(|m| self.listeners.insert(name, m))),
            Kind::Routes => {
                drop(RouteConfiguration::decode(body).map(|m| self.routes.insert(name, m)));
            }
        }
    }

    /// Takes a resource out.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Cluster => drop(self.clusters.remove(name)),
            Kind::Endpoints => drop(self.endpoints.remove(name)),
            Kind::Listener => drop(self.listeners.remove(name)),
            Kind::Routes => drop(self.routes.remove(name)),
        }
    }

    /// The whole. What is static is never replaced by what came: a name that is taken stays taken.
    ///
    /// # Errors
    /// When parts that are right each do not fit together.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let mut resources = self.bootstrap.static_resources.clone().unwrap_or_default();
        let taken: BTreeSet<String> = resources.clusters.iter().map(|c| c.name.clone()).collect();
        for (name, cluster) in &self.clusters {
            if !taken.contains(name) {
                let service = service_of(cluster).ok().flatten();
                let endpoints = service.and_then(|service| self.endpoints.get(&service));
                resources.clusters.push(with_endpoints(cluster, endpoints));
            }
        }
        let taken: BTreeSet<String> = resources.listeners.iter().map(|l| l.name.clone()).collect();
        for (name, listener) in &self.listeners {
            if !taken.contains(name) {
                let mut listener = listener.clone();
                // What cannot be resolved was refused when it was checked.
                let _ = with_routes(&mut listener, &mut |routes| {
                    self.routes.get(routes).cloned()
                });
                resources.listeners.push(listener);
            }
        }
        self.convert("the control plane's config", resources)
    }

    fn convert(&self, name: &str, resources: StaticResources) -> Result<Config, ConfigError> {
        let bootstrap = Bootstrap {
            static_resources: Some(resources),
            // It has been read already.
            dynamic_resources: None,
            ..self.bootstrap.clone()
        };
        let loaded = Loaded::assembled(name, bootstrap, self.language.clone())?;
        convert(&loaded, &self.options)
    }

    /// A listener that has nothing but these routes.
    fn listener_for(&self, routes: &RouteConfiguration) -> Listener {
        use envoy_types::pb::{
            envoy::{
                config::{
                    core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
                    listener::v3::Filter,
                },
                extensions::filters::{
                    http::router::v3::Router,
                    network::http_connection_manager::v3::{HttpFilter, http_filter},
                },
            },
            google::protobuf::Any,
        };
        let any = |type_url: String, value: Vec<u8>| Any {
            type_url: format!("type.googleapis.com/{type_url}"),
            value,
        };
        let router = any(Router::full_name(), Vec::new());
        let manager = HttpConnectionManager {
            stat_prefix: "routes".to_owned(),
            route_specifier: Some(RouteSpecifier::RouteConfig(lenient(routes.clone()))),
            http_filters: vec![HttpFilter {
                name: "router".to_owned(),
                config_type: Some(http_filter::ConfigType::TypedConfig(router)),
                ..HttpFilter::default()
            }],
            ..HttpConnectionManager::default()
        };
        let manager = any(HttpConnectionManager::full_name(), manager.encode_to_vec());
        let filter = Filter {
            name: "routes".to_owned(),
            config_type: Some(ConfigType::TypedConfig(manager)),
        };
        let socket = SocketAddress {
            address: "127.0.0.1".to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(0)),
            ..SocketAddress::default()
        };
        Listener {
            name: "routes".to_owned(),
            address: Some(Address {
                address: Some(address::Address::SocketAddress(socket)),
            }),
            filter_chains: vec![FilterChain {
                filters: vec![filter],
                ..FilterChain::default()
            }],
            ..Listener::default()
        }
    }
}

/// Where the routes stand in [`Assembly::listener_for`].
const ROUTES_PATH: &str =
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config";

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Refusal> {
    M::decode(body).map_err(|error| Refusal::new("", format!("it cannot be decoded: {error}")))
}

/// The name under which the endpoints of a cluster come, if they come from the control plane.
fn service_of(cluster: &Cluster) -> Result<Option<String>, Refusal> {
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
    if cluster.cluster_discovery_type != Some(eds) {
        return Ok(None);
    }
    let config = cluster.eds_cluster_config.as_ref();
    only_aggregated(
        "eds_cluster_config.eds_config",
        config.and_then(|c| c.eds_config.as_ref()),
    )?;
    let service = config.map(|config| config.service_name.clone());
    Ok(Some(
        service
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| cluster.name.clone()),
    ))
}

/// Everything comes over the one stream.
fn only_aggregated(field: &str, source: Option<&ConfigSource>) -> Result<(), Refusal> {
    match source.and_then(|source| source.config_source_specifier.as_ref()) {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        _ => Err(Refusal::new(
            field,
            "only config over the aggregated stream (ads) is supported",
        )),
    }
}

/// The cluster with its endpoints in it: those given, or none yet.
fn with_endpoints(cluster: &Cluster, endpoints: Option<&ClusterLoadAssignment>) -> Cluster {
    let mut cluster = cluster.clone();
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
    if cluster.cluster_discovery_type == Some(eds) || endpoints.is_some() {
        cluster.cluster_discovery_type =
            Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
        cluster.eds_cluster_config = None;
        let name = cluster.name.clone();
        let none = || ClusterLoadAssignment {
            cluster_name: name,
            ..ClusterLoadAssignment::default()
        };
        cluster.load_assignment = Some(endpoints.cloned().unwrap_or_else(none));
    }
    cluster
}

/// Routes of a control plane may name clusters that are not there yet; they answer 503 until they are.
fn lenient(mut routes: RouteConfiguration) -> RouteConfiguration {
    if routes.validate_clusters.is_none() {
        let no = envoy_types::pb::google::protobuf::BoolValue { value: false };
        routes.validate_clusters = Some(no);
    }
    routes
}

/// Puts routes where they are referred to: those that `find` gives, or none, which answer 404.
fn with_routes(
    listener: &mut Listener,
    find: &mut dyn FnMut(&str) -> Option<RouteConfiguration>,
) -> Result<(), Refusal> {
    let chains = listener.filter_chains.iter_mut();
    for chain in chains.chain(listener.default_filter_chain.as_mut()) {
        for filter in &mut chain.filters {
            let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type else {
                continue;
            };
            let name = any.type_url.rsplit('/').next();
            if name != Some(HttpConnectionManager::full_name().as_str()) {
                continue;
            }
            let mut manager: HttpConnectionManager = decode(&any.value)?;
            let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier else {
                continue;
            };
            only_aggregated("rds.config_source", rds.config_source.as_ref())?;
            let none = RouteConfiguration {
                name: rds.route_config_name.clone(),
                ..RouteConfiguration::default()
            };
            let routes = find(&rds.route_config_name).unwrap_or(none);
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(lenient(routes)));
            any.value = manager.encode_to_vec();
        }
    }
    Ok(())
}

/// The clusters that routes send requests to.
fn clusters_of(routes: &RouteConfiguration) -> impl Iterator<Item = String> {
    let mut names = BTreeSet::new();
    for route in routes.virtual_hosts.iter().flat_map(|host| &host.routes) {
        let Some(Action::Route(action)) = &route.action else {
            continue;
        };
        match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => drop(names.insert(name.clone())),
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                names.extend(weighted.clusters.iter().map(|cluster| cluster.name.clone()));
            }
            _ => {}
        }
    }
    names.into_iter()
}

/// What `dynamic_resources` asks for: one aggregated stream, or nothing.
///
/// # Errors
/// The path and the reason of what is not supported.
pub(crate) fn control_plane(bootstrap: &Bootstrap) -> Result<Option<ControlPlane>, Refusal> {
    let Some(dynamic) = &bootstrap.dynamic_resources else {
        return Ok(None);
    };
    for (field, source) in [
        ("lds_config", &dynamic.lds_config),
        ("cds_config", &dynamic.cds_config),
    ] {
        if source.is_some() {
            only_aggregated(field, source.as_ref())?;
        }
    }
    let Some(ads) = &dynamic.ads_config else {
        if dynamic.lds_config.is_none() && dynamic.cds_config.is_none() {
            return Ok(None);
        }
        return Err(Refusal::new(
            "ads_config",
            "is needed: only the aggregated stream is supported",
        ));
    };
    let timeout = |source: &Option<ConfigSource>| {
        let timeout = source.as_ref()?.initial_fetch_timeout.as_ref()?;
        Some(std::time::Duration::from_secs(
            u64::try_from(timeout.seconds).unwrap_or(0),
        ))
    };
    let delta = match ApiType::try_from(ads.api_type) {
        Ok(ApiType::Grpc | ApiType::AggregatedGrpc) => false,
        Ok(ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc) => true,
        _ => {
            return Err(Refusal::new(
                "ads_config.api_type",
                "only gRPC is supported",
            ));
        }
    };
    Ok(Some(ControlPlane {
        delta,
        servers: servers(bootstrap, ads)?,
        listeners: dynamic.lds_config.is_some(),
        clusters: dynamic.cds_config.is_some(),
        initial_fetch_timeout: timeout(&dynamic.lds_config)
            .or_else(|| timeout(&dynamic.cds_config)),
        set_node_on_first_message_only: ads.set_node_on_first_message_only,
    }))
}

/// The endpoints of the static clusters that the gRPC services name.
fn servers(bootstrap: &Bootstrap, ads: &ApiConfigSource) -> Result<Vec<String>, Refusal> {
    use envoy_types::pb::envoy::config::{
        core::v3::{address, socket_address::PortSpecifier},
        endpoint::v3::lb_endpoint::HostIdentifier,
    };
    let clusters = bootstrap
        .static_resources
        .iter()
        .flat_map(|resources| &resources.clusters);
    let mut servers = Vec::new();
    for service in &ads.grpc_services {
        let Some(TargetSpecifier::EnvoyGrpc(envoy)) = &service.target_specifier else {
            return Err(Refusal::new(
                "ads_config.grpc_services",
                "only envoy_grpc is supported",
            ));
        };
        let cluster = clusters
            .clone()
            .find(|cluster| cluster.name == envoy.cluster_name);
        let Some(cluster) = cluster else {
            let reason = format!("there is no static cluster {:?}", envoy.cluster_name);
            return Err(Refusal::new("ads_config.grpc_services", reason));
        };
        if cluster.transport_socket.is_some() {
            let reason = "TLS towards a control plane is not supported";
            return Err(Refusal::new("ads_config.grpc_services", reason));
        }
        let localities = cluster
            .load_assignment
            .iter()
            .flat_map(|load| &load.endpoints);
        for endpoint in localities.flat_map(|locality| &locality.lb_endpoints) {
            let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
                continue;
            };
            match endpoint
                .address
                .as_ref()
                .and_then(|address| address.address.as_ref())
            {
                Some(address::Address::SocketAddress(socket)) => {
                    if let Some(PortSpecifier::PortValue(port)) = socket.port_specifier {
                        let port = u16::try_from(port).unwrap_or(0);
                        servers.push(format!("http://{}:{port}", socket.address));
                    }
                }
                Some(address::Address::Pipe(pipe)) => servers.push(format!("unix://{}", pipe.path)),
                _ => {}
            }
        }
    }
    if servers.is_empty() {
        return Err(Refusal::new(
            "ads_config.grpc_services",
            "no server has an address",
        ));
    }
    Ok(servers)
}
