//! What a bootstrap comes to: plain, validated types, made of each policy's own config; a file for each noun.
//!
//! Nothing here is a protobuf, and nothing on the data path reads anything else.

mod cluster;
mod endpoint;
mod filters;
mod health;
mod listener;
mod manager;
mod network;
mod source;
mod stats;
mod tls;

use std::{collections::BTreeMap, sync::Arc};

use mesh_core::{Address, Locality, runtime::Runtime};

use crate::language::UnsupportedReport;

pub use cluster::{
    Cluster, Discovery, DnsConfig, EdsConfig, OriginalDstConfig, PassTlvs, UpstreamProxyProtocol,
};
pub use endpoint::{EndpointConfig, EndpointHealth, EndpointTarget};
pub use filters::{
    BufferConfig, CompressorFilter, CompressorOverride, CorsPolicy, DecompressorFilter,
    FilterOverride, FilterOverrides, HeaderMutationConfig, HealthCheckConfig, HealthCheckMode,
    HttpFilter, HttpFilterKind, RateLimitFilter, RouteFilterKind, RuleSelection,
};
pub use health::{EndpointCheck, GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe};
pub use listener::{
    FilterChain, ListenAddress, Listener, ListenerFilter, ProxyProtocolConfig, TlsInspectorConfig,
};
pub(crate) use manager::RoutePlace;
pub use manager::{
    AccessLogConfig, AccessLogOptions, ConnectionManager, RoutePolicies, RouterConfig, UpgradeRule,
    UpgradeRules,
};
pub use network::{ConnectionLimitConfig, NetworkFilter, TcpClusters, TcpProxyConfig};
pub use source::{ControlServer, Dynamic, FileConfig, Origin, RuntimeSource, Source, StreamConfig};
pub use stats::{StatsConfig, StatsFlush, StatsSink, StatsTarget};
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
