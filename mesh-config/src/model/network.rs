//! What a connection passes.

use std::{sync::Arc, time::Duration};

use super::{AccessLogConfig, ConnectionManager};

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
