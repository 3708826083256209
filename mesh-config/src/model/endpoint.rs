//! The endpoints of a cluster.

use std::{collections::BTreeMap, sync::Arc};

use mesh_core::{Address, Locality, MetadataValue};

use super::EndpointCheck;

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
    /// By which of the cluster's `socket_matches` it is connected to: see [`TransportSocketMatch::pick`](super::TransportSocketMatch::pick).
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
