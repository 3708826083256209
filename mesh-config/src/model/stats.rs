//! Which stats are shown, and to whom they are sent.

use std::{sync::Arc, time::Duration};

use mesh_core::Address;
use mesh_telemetry::{ExportConfig, StatsdConfig};

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
