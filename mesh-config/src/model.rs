//! What a bootstrap comes to: plain, validated types, made of each policy's own config.
//!
//! Nothing here is a protobuf, and nothing on the data path reads anything else.

mod filters;
mod health;
mod source;
mod tls;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use http::HeaderName;
use mesh_balance::BalanceConfig;
use mesh_core::{
    Address, Locality, Metadata, MetadataValue, Thresholds, format::Captures, runtime::Runtime,
};
use mesh_http::{hygiene::EdgeConfig, pool::PoolConfig, server::ServerConfig};
use mesh_net::{
    BindOptions,
    dns::{DnsLookupFamily, RefreshConfig, ResolverConfig},
    filter_chain::ChainMatcher,
    proxy_protocol::ProxyVersion,
};
use mesh_outlier::OutlierConfig;
use mesh_ratelimit::RateLimitRule;
use mesh_retry::{DeadlineConfig, RetryConfig};
use mesh_route::{HashPolicies, MirrorPolicy, RouteTable};
use mesh_telemetry::{ExportConfig, Filter, LogFormat, StatsdConfig, Target};

use crate::{dynamic::Needs, language::UnsupportedReport};

pub use filters::{
    BufferConfig, CompressorFilter, CompressorOverride, DecompressorFilter, FilterOverride,
    FilterOverrides, HeaderMutationConfig, HealthCheckConfig, HealthCheckMode, HttpFilter,
    HttpFilterKind, RateLimitFilter, RouteFilterKind, RuleSelection,
};
pub use health::{EndpointCheck, GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe};
pub use source::{ControlServer, Dynamic, FileConfig, Origin, RuntimeSource, Source, StreamConfig};
pub use tls::{
    AsRead, AutoNames, CertificateSource, DownstreamTls, Secret, TransportSocketMatch, UpstreamTls,
    ValidationSource,
};

/// A bootstrap, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names this config in decisions and logs: a checksum of what was read.
    pub version: Arc<str>,
    /// Who runs it.
    pub node: Node,
    /// Where people look in; `None` opens no admin listener.
    pub admin: Option<Admin>,
    /// Where more config comes from.
    pub dynamic: Dynamic,
    /// Where load is reported, for as long as a control plane is followed. Envoy:
    /// `cluster_manager.load_stats_config`.
    pub load_stats: Option<Arc<StreamConfig>>,
    /// The listeners, in the order of the config.
    pub listeners: Vec<Arc<Listener>>,
    /// The clusters, in the order of the config.
    pub clusters: Vec<Arc<Cluster>>,
    /// The secrets that came from a control plane, by name.
    pub secrets: BTreeMap<Arc<str>, Arc<Secret>>,
    /// Values that may change while it runs. Envoy: `layered_runtime`.
    pub runtime: Runtime,
    /// Which stats are shown, how, and to whom they are sent.
    pub stats: StatsConfig,
    /// Fields that are known, set, and not enforced.
    pub report: UnsupportedReport,
    /// What `/config_dump` shows: the bootstrap as JSON, secrets redacted.
    pub dump: Arc<serde_json::Value>,
}

impl Config {
    /// Whether anything comes from elsewhere than the bootstrap.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        let Dynamic {
            listeners,
            clusters,
            runtime,
            ..
        } = &self.dynamic;
        let needs = |cluster: &Arc<Cluster>| !cluster.needs.is_empty();
        listeners.is_some()
            || clusters.is_some()
            || !runtime.is_empty()
            || self.clusters.iter().any(needs)
            || !self.listeners.iter().all(|listener| listener.is_complete())
    }
}

/// Envoy: `stats_config`, `stats_sinks`, `stats_flush_interval`, `stats_flush_on_admin`.
#[derive(Debug, Clone)]
pub struct StatsConfig {
    /// How they are shown.
    pub export: ExportConfig,
    /// When intervals of histograms end, and sinks are written to.
    pub flush: StatsFlush,
    /// Who gets them.
    pub sinks: Vec<StatsSink>,
    /// Whether workers say how long they keep to themselves. Envoy: `enable_dispatcher_stats`, false.
    pub dispatcher: bool,
}

/// When stats are flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsFlush {
    /// Again and again. Envoy: `stats_flush_interval`, 5 s.
    Every(Duration),
    /// Whenever somebody looks at `/stats`. Envoy: `stats_flush_on_admin`.
    OnAdmin,
}

/// Envoy: `stats_sinks[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsSink {
    /// What is sent.
    pub statsd: StatsdConfig,
    /// To whom.
    pub target: StatsTarget,
}

/// Where stats go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsTarget {
    /// Datagrams to this address.
    Datagrams(Address),
    /// One connection to an endpoint of this cluster. Envoy: `tcp_cluster_name`.
    Stream(Arc<str>),
}

/// Envoy: `core.v3.Node`.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// `node.id`.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// `node.locality`.
    pub locality: Locality,
}

/// Envoy: `Bootstrap.admin`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens.
    pub address: Address,
}

/// Envoy: `Listener`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name; made from the address when the config gives none.
    pub name: Arc<str>,
    /// Two listeners of one name and one fingerprint behave alike.
    pub fingerprint: u64,
    /// The part of its stats' names: `stat_prefix`, or the address; `None` means the real address, which
    /// is known only once it listens.
    pub stat_prefix: Option<String>,
    /// Where it listens: `address` and `additional_addresses`, in this order; there is one at least. An
    /// `api_listener` does not, whatever stands here.
    pub addresses: Vec<ListenAddress>,
    /// Whether it listens at all; one that does not gets what others hand it. Envoy: `bind_to_port`, true.
    pub bind_to_port: bool,
    /// Whether a connection whose original destination is the address of another listener goes to that one. Envoy:
    /// `use_original_dst`, false.
    pub use_original_dst: bool,
    /// Whether each new connection goes to the worker with the fewest. Envoy:
    /// `connection_balance_config.exact_balance`.
    pub exact_balance: bool,
    /// A line for each connection, when it ends. Envoy: `access_log`.
    pub access_log: Vec<AccessLogConfig>,
    /// One socket per worker, rather than one for all. Envoy: `enable_reuse_port`, true.
    pub reuse_port: bool,
    /// Who looks at a connection before a filter chain is chosen, in order.
    pub listener_filters: Vec<ListenerFilter>,
    /// How long they may take together; `None` is for ever. Envoy: 15 s.
    pub listener_filters_timeout: Option<Duration>,
    /// Their time being over, a connection goes on rather than being closed. Envoy: false.
    pub continue_on_listener_filters_timeout: bool,
    /// What may become of a connection, in the order of the config; the default chain is the last.
    pub chains: Vec<FilterChain>,
    /// Which of the chains takes a connection, by its number.
    pub matcher: ChainMatcher,
    /// The chain for connections that no other takes. Envoy: `default_filter_chain`.
    pub default_chain: Option<usize>,
    /// What has to come from a control plane before it can serve.
    pub needs: Needs,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub address: Address,
    /// How its sockets are made.
    pub bind: BindOptions,
}

impl ListenAddress {
    /// Whether the kernel chooses the port.
    #[must_use]
    pub const fn has_any_port(&self) -> bool {
        matches!(&self.address, Address::Socket(socket) if socket.port() == 0)
    }
}

impl Listener {
    /// Whether connections that were meant for others are taken as they are. Envoy: `transparent`.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        self.addresses
            .iter()
            .any(|address| address.bind.transparent)
    }

    /// Whether nothing of it has to come from elsewhere.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.needs.is_empty()
    }

    /// The first HTTP connection manager of its filter chains.
    #[must_use]
    pub fn manager(&self) -> Option<&Arc<ConnectionManager>> {
        self.managers().next()
    }

    /// All HTTP connection managers of its filter chains.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<ConnectionManager>> {
        self.chains.iter().filter_map(FilterChain::manager)
    }
}

/// Who looks at a connection before a filter chain is chosen.
#[derive(Debug, Clone)]
pub enum ListenerFilter {
    /// `envoy.filters.listener.proxy_protocol`.
    ProxyProtocol(ProxyProtocolConfig),
    /// `envoy.filters.listener.original_dst`.
    OriginalDst,
    /// `envoy.filters.listener.tls_inspector`.
    TlsInspector(TlsInspectorConfig),
}

/// Envoy: `envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInspectorConfig {
    /// Bytes to look at to begin with. Envoy: `initial_read_buffer_size`, 256 to 65536; there it is the maximum
    /// by default.
    pub first_look: usize,
    /// What begins as no ClientHello does is closed; else it counts as plaintext. Envoy:
    /// `close_connection_on_client_hello_parsing_errors`, false by default.
    pub close_on_parsing_errors: bool,
    /// A ClientHello that does not fit into so many bytes closes the connection. Envoy: `max_client_hello_size`,
    /// 256 to 16384, which is the default.
    pub client_hello_max: usize,
}

impl Default for TlsInspectorConfig {
    fn default() -> Self {
        Self {
            first_look: 2048,
            close_on_parsing_errors: false,
            client_hello_max: mesh_tls::inspector::CLIENT_HELLO_MAX,
        }
    }
}

/// Envoy: `envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol`.
#[derive(Debug, Clone)]
pub struct ProxyProtocolConfig {
    /// A connection without a header is let in. Envoy: false.
    pub allow_requests_without_proxy_protocol: bool,
    /// Versions that are refused; where headers are not needed, they are not looked for.
    pub disallowed_versions: Vec<ProxyVersion>,
    /// `stat_prefix`; empty if there is none.
    pub stat_prefix: Arc<str>,
    /// What is kept for upstreams to hear. `pass_through_tlvs`, nothing.
    pub pass_through: PassTlvs,
}

/// Envoy: `FilterChain`.
#[derive(Debug, Clone)]
pub struct FilterChain {
    /// `name`, for people; empty if it has none.
    pub name: Arc<str>,
    /// Two chains of one listener and one fingerprint behave alike.
    pub fingerprint: u64,
    /// How it is encrypted; `None` is plaintext. Envoy: `transport_socket`.
    pub tls: Option<Arc<DownstreamTls>>,
    /// What the connection passes, in order. The last one ends it; there is at least one.
    pub filters: Vec<NetworkFilter>,
}

impl FilterChain {
    /// The HTTP connection manager that it ends in, if it does.
    #[must_use]
    pub fn manager(&self) -> Option<&Arc<ConnectionManager>> {
        self.filters.iter().find_map(|filter| match filter {
            NetworkFilter::Http(manager) => Some(manager),
            _ => None,
        })
    }
}

/// What a connection passes. Envoy: the network filters.
#[derive(Debug, Clone)]
pub enum NetworkFilter {
    /// `envoy.filters.network.http_connection_manager`; ends the chain.
    Http(Arc<ConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`; ends the chain.
    TcpProxy(Arc<TcpProxyConfig>),
    /// `envoy.filters.network.connection_limit`.
    ConnectionLimit(ConnectionLimitConfig),
}

/// Envoy: `TcpProxy`.
#[derive(Debug, Clone)]
pub struct TcpProxyConfig {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// `cluster` or `weighted_clusters`.
    pub clusters: TcpClusters,
    /// Whether the client's address decides which endpoint a connection goes to, in clusters that pick by hash. Envoy:
    /// `hash_policy`, any.
    pub hash_source_ip: bool,
    /// How long nothing may move in either direction; `None` is for ever. Envoy: `idle_timeout`, 1 hour.
    pub idle_timeout: Option<Duration>,
    /// At least 1. Envoy: `max_connect_attempts`, 1.
    pub max_connect_attempts: u32,
    /// How long a connection may last. Envoy: `max_downstream_connection_duration`, off.
    pub max_downstream_connection_duration: Option<Duration>,
    /// `access_log`.
    pub access_log: Vec<AccessLogConfig>,
    /// How much is kept for a slow receiver on either side. Envoy: `Listener.per_connection_buffer_limit_bytes`,
    /// 1 MiB.
    pub buffer_limit: u64,
}

/// The clusters that share the connections of a TCP proxy. There is one at least, and some weight.
#[derive(Debug, Clone)]
pub struct TcpClusters {
    clusters: Vec<(Arc<str>, u32)>,
    total: u64,
}

impl TcpClusters {
    /// One for all.
    #[must_use]
    pub fn one(name: impl Into<Arc<str>>) -> Self {
        Self {
            clusters: vec![(name.into(), 1)],
            total: 1,
        }
    }

    /// Each by its weight; `None` when the weights come to nothing.
    #[must_use]
    pub fn weighted(clusters: Vec<(Arc<str>, u32)>) -> Option<Self> {
        let total = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
        (total > 0).then_some(Self { clusters, total })
    }

    /// The cluster for a connection, by a random number of its own.
    #[must_use]
    pub fn pick(&self, random: u64) -> &Arc<str> {
        let mut at = random % self.total;
        let found = self.clusters.iter().find(|(_, weight)| {
            let weight = u64::from(*weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        });
        let (name, _) = found.unwrap_or(&self.clusters[0]);
        name
    }
}

/// Envoy: `ConnectionLimit`.
#[derive(Debug, Clone)]
pub struct ConnectionLimitConfig {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// How many connections may be open at once, on all workers; at least 1. Envoy: `max_connections`.
    pub max_connections: u64,
    /// How long a connection that is refused is kept before it is closed. Envoy: `delay`, at once.
    pub delay: Option<Duration>,
}

/// Envoy: `HttpConnectionManager`.
#[derive(Debug, Clone)]
pub struct ConnectionManager {
    /// What its routes are converted in, when they come on their own.
    pub(crate) place: Arc<RoutePlace>,
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// Timeouts and limits of the codec.
    pub server: Arc<ServerConfig>,
    /// Headers, paths and addresses.
    pub edge: Arc<EdgeConfig>,
    /// `route_config`.
    pub routes: Arc<RouteTable<RoutePolicies>>,
    /// The request headers that the routes' formats quote; log formats are bound behind them.
    pub captures: Captures,
    /// The name of `route_config`, or that by which it came.
    pub route_config_name: Arc<str>,
    /// It came, or will come, from a control plane. Envoy: `rds`.
    pub rds: bool,
    /// `upgrade_configs`.
    pub upgrades: UpgradeRules,
    /// `http_filters`, in order, without the router.
    pub http_filters: Vec<HttpFilter>,
    /// The router, which is always last.
    pub router: RouterConfig,
    /// `access_log`.
    pub access_log: Vec<AccessLogConfig>,
    /// How long a stream may last; `None` is for ever. Envoy:
    /// `common_http_protocol_options.max_stream_duration`.
    pub max_stream_duration: Option<Duration>,
    /// `access_log_options`.
    pub access_log_options: AccessLogOptions,
}

/// What routes depend on, of the connection manager that they are in.
#[derive(Debug, Clone)]
pub(crate) struct RoutePlace {
    /// The path that names what belongs to the filter chain.
    pub(crate) owner: Arc<str>,
    /// `per_connection_buffer_limit_bytes`.
    pub(crate) buffer_limit: u64,
    /// The names of all its filters, known or not.
    pub(crate) filters: HashSet<String>,
}

/// Envoy: `envoy.filters.http.router`.
#[derive(Debug, Clone, Default)]
pub struct RouterConfig {
    /// `suppress_envoy_headers`.
    pub suppress_envoy_headers: bool,
    /// `respect_expected_rq_timeout`.
    pub respect_expected_rq_timeout: bool,
    /// `upstream_log`: one line per attempt.
    pub upstream_log: Vec<AccessLogConfig>,
    /// `upstream_log_options`; a new request is an attempt that has its connection.
    pub upstream_log_options: AccessLogOptions,
}

/// When lines are written beside the last one. Envoy: `HcmAccessLogOptions`, `UpstreamAccessLogOptions`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// When the request begins, too. Envoy: `flush_access_log_on_new_request`,
    /// `flush_upstream_log_on_upstream_stream`.
    pub flush_on_new_request: bool,
    /// Again and again while it goes on. Envoy: `access_log_flush_interval`, `upstream_log_flush_interval`.
    pub flush_interval: Option<Duration>,
}

/// One access log.
#[derive(Debug, Clone)]
pub struct AccessLogConfig {
    /// File, stdout or stderr.
    pub target: Target,
    /// Each line.
    pub format: LogFormat,
    /// Which requests.
    pub filter: Option<Filter>,
}

/// Which tunnels are allowed.
pub type UpgradeRules = Arc<[UpgradeRule]>;

/// Whether a kind of tunnel is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRule {
    /// The protocol's name, in lower case. Envoy: `upgrade_type`.
    pub upgrade_type: Box<str>,
    /// Whether it is allowed. Envoy: `enabled`, true.
    pub enabled: bool,
    /// CONNECT ends here: what is inside goes to the cluster as it is. Envoy: `connect_config`.
    pub terminates: bool,
}

impl UpgradeRule {
    /// The rule among `rules` for the protocol of that name.
    #[must_use]
    pub fn find<'a>(rules: &'a [Self], name: &[u8]) -> Option<&'a Self> {
        let same = |rule: &&Self| rule.upgrade_type.as_bytes().eq_ignore_ascii_case(name);
        rules.iter().find(same)
    }
}

/// What a route says to policies, as far as it says anything.
#[derive(Debug, Clone, Default)]
pub struct RoutePolicies {
    /// `upgrade_configs`, which win over the connection manager's.
    pub upgrades: UpgradeRules,
    /// `Route.metadata`, for logs.
    pub metadata: Option<Arc<Metadata>>,
    /// The retry policy of the route or its virtual host.
    pub retry: Option<Arc<RetryConfig>>,
    /// `RouteAction.timeout`; `None` where nothing is forwarded.
    pub deadline: Option<Arc<DeadlineConfig>>,
    /// What is different about the filters of the chain: each entry is the sum of all levels.
    pub filters: Arc<FilterOverrides>,
    /// The same for each weighted cluster, by its place, where some cluster has overrides of its own; then
    /// these stand in for `filters` altogether. Empty otherwise.
    pub weighted_filters: Vec<Arc<FilterOverrides>>,
    /// The `rate_limits` of the route and its virtual host, for each `local_ratelimit` filter (by name) that
    /// has descriptors and no rules of its own: those of the filter's stage, put together as its
    /// `vh_rate_limits` says.
    pub rate_limit_rules: Arc<BTreeMap<Arc<str>, Arc<[RateLimitRule]>>>,
}

/// Envoy: `Cluster`.
///
/// Two that are equal behave alike, so that a push which brings an equal one changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// `name`.
    pub name: Arc<str>,
    /// `alt_stat_name`, or the name; `:` already replaced by `_`.
    pub stat_name: String,
    /// Where the endpoints come from.
    pub discovery: Discovery,
    /// `load_assignment`.
    pub endpoints: Arc<[EndpointConfig]>,
    /// How one is picked.
    pub balance: BalanceConfig,
    /// What the hash of requests is made of, in place of what their routes say. Envoy:
    /// `HttpProtocolOptions.hash_policy`, or that of the `consistent_hashing_lb_config` of a typed policy, which
    /// wins.
    pub hash: Option<HashPolicies>,
    /// `circuit_breakers` of the default priority.
    pub thresholds: Thresholds,
    /// `circuit_breakers` of the high priority.
    pub thresholds_high: Thresholds,
    /// `track_remaining`, of the default and the high priority.
    pub track_remaining: (bool, bool),
    /// `outlier_detection`; `None` is off.
    pub outlier: Option<OutlierConfig>,
    /// `health_checks`; `None` is off.
    pub health_check: Option<Arc<HealthCheck>>,
    /// Whether an endpoint that has left the assignment goes at once, even if its checks pass.
    /// `ignore_health_on_host_removal`.
    pub ignore_health_on_host_removal: bool,
    /// Whether endpoints that were never checked are left out of what shares are reckoned from.
    /// `common_lb_config.ignore_new_hosts_until_first_hc`.
    pub ignore_new_hosts_until_first_hc: bool,
    /// Connections.
    pub pool: Arc<PoolConfig>,
    /// How much a TCP proxy keeps for a slow receiver on either side. `per_connection_buffer_limit_bytes`, 1 MiB.
    pub buffer_limit: u64,
    /// How they are encrypted; `None` is plaintext. Envoy: `transport_socket`.
    pub tls: Option<Arc<UpstreamTls>>,
    /// How endpoints are connected to that ask for it. Envoy: `transport_socket_matches`.
    pub socket_matches: Vec<TransportSocketMatch>,
    /// Where the server's name comes from, if not from `tls`. Envoy: `upstream_http_protocol_options`.
    pub auto_names: AutoNames,
    /// What is said in front of each connection, encrypted or not; `None` is nothing. Envoy:
    /// `envoy.transport_sockets.upstream_proxy_protocol`.
    pub proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
    /// The cluster's own retry policy, which wins over the route's.
    pub retry: Option<Arc<RetryConfig>>,
    /// The cluster's own mirrors, which stand in for the route's. Envoy:
    /// `HttpProtocolOptions.request_mirror_policies`.
    pub mirrors: Arc<[MirrorPolicy]>,
    /// `metadata`, for logs.
    pub metadata: Option<Arc<Metadata>>,
    /// What has to come from a control plane before it can be used.
    pub needs: Needs,
}

/// Envoy: `ProxyProtocolConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamProxyProtocol {
    /// `version`, V1.
    pub version: ProxyVersion,
    /// What of the client's own header is passed on, where the listener kept it. `pass_through_tlvs`, nothing.
    pub pass_through: PassTlvs,
    /// What is added, by type; it stands in for what the client said. `added_tlvs`.
    pub added: Vec<(u8, Box<[u8]>)>,
}

/// Which extensions of a PROXY protocol header are kept. Envoy: `ProxyProtocolPassThroughTLVs`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PassTlvs {
    /// None.
    #[default]
    Nothing,
    /// `INCLUDE_ALL`.
    Everything,
    /// Those of these types. `INCLUDE`.
    Only(Vec<u8>),
}

impl PassTlvs {
    /// Whether those of this type are kept.
    #[must_use]
    pub fn takes(&self, kind: u8) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }
}

/// Where a cluster's endpoints come from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Discovery {
    /// The addresses of the config.
    Static,
    /// A control plane gives them. Envoy: `EDS`.
    Eds(EdsConfig),
    /// Names are looked up again and again: `STRICT_DNS` or `LOGICAL_DNS`, as `refresh.discovery` says.
    Dns(Box<DnsConfig>),
    /// Wherever the client meant to go. Envoy: `ORIGINAL_DST`.
    OriginalDst(OriginalDstConfig),
}

/// Envoy: `Cluster.EdsClusterConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdsConfig {
    /// The name of the `ClusterLoadAssignment`: `service_name`, or the cluster's name.
    pub service_name: Arc<str>,
}

/// Envoy: `Cluster.OriginalDstLbConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalDstConfig {
    /// The request header that says where to go, in place of the connection. Envoy: `use_http_header`,
    /// `http_header_name`; off.
    pub http_header: Option<HeaderName>,
    /// The port, whatever anybody says. Envoy: `upstream_port_override`.
    pub upstream_port_override: Option<u16>,
    /// How often endpoints are forgotten that nobody has meant since the last time. Envoy:
    /// `Cluster.cleanup_interval`, 5 s.
    pub cleanup_interval: Duration,
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsConfig {
    /// Who is asked. Envoy: `typed_dns_resolver_config`.
    pub resolver: ResolverConfig,
    /// IPv4, IPv6 or both. Envoy: `dns_lookup_family`.
    pub family: DnsLookupFamily,
    /// When, and which of the addresses count.
    pub refresh: RefreshConfig,
}

/// One endpoint, as the config describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// An address, or a name to resolve.
    pub target: EndpointTarget,
    /// `hostname`.
    pub hostname: Arc<str>,
    /// `load_balancing_weight`, at least 1.
    pub weight: u32,
    /// `priority`.
    pub priority: u32,
    /// `locality`.
    pub locality: Arc<Locality>,
    /// `health_status` says that it is not to be used, or only in need.
    pub health: EndpointHealth,
    /// Flat `envoy.lb` metadata.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// `health_check_config`.
    pub check: EndpointCheck,
    /// By which of the cluster's `socket_matches` it is connected to: see [`TransportSocketMatch::pick`].
    pub socket_labels: Option<Arc<[MetadataValue]>>,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointTarget {
    /// Here.
    Address(Address),
    /// Wherever this name resolves to.
    Name(String, u16),
}

/// Envoy: `health_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointHealth {
    /// `UNKNOWN`, `HEALTHY`.
    #[default]
    Healthy,
    /// `DEGRADED`.
    Degraded,
    /// `UNHEALTHY`, `TIMEOUT`.
    Unhealthy,
    /// `DRAINING`.
    Draining,
}
