//! Where requests go.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use mesh_balance::BalanceConfig;
use mesh_core::{Metadata, Thresholds};
use mesh_http::pool::PoolConfig;
use mesh_net::{
    dns::{DnsLookupFamily, RefreshConfig, ResolverConfig},
    proxy_protocol::ProxyVersion,
};
use mesh_outlier::OutlierConfig;
use mesh_retry::RetryConfig;
use mesh_route::{HashPolicies, MirrorPolicy};

use super::{AutoNames, EndpointConfig, HealthCheck, TransportSocketMatch, UpstreamTls};
use crate::dynamic::Needs;

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
