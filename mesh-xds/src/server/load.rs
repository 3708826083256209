use std::time::Duration;

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
};

use crate::{load::ClusterLoad, wire::proto_duration};

/// Who gets the load reports of clients.
pub trait LoadSink: Send + Sync {
    /// A report of one client. `node` is as the client gave it in its first message.
    fn on_report(&self, node: &Node, clusters: Vec<ClusterLoad>);
}

/// What clients are asked to report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LrsSettings {
    /// How often. Default 10 s.
    pub load_reporting_interval: Duration,
    /// Which clusters; all when empty.
    pub clusters: Vec<String>,
    /// Each endpoint for itself, and what is thought of its health. Default false.
    pub report_endpoint_granularity: bool,
}

impl Default for LrsSettings {
    fn default() -> Self {
        Self {
            load_reporting_interval: Duration::from_secs(10),
            clusters: Vec::new(),
            report_endpoint_granularity: false,
        }
    }
}

impl LrsSettings {
    pub(crate) fn response(&self) -> LoadStatsResponse {
        LoadStatsResponse {
            clusters: self.clusters.clone(),
            send_all_clusters: self.clusters.is_empty(),
            load_reporting_interval: Some(proto_duration(self.load_reporting_interval)),
            report_endpoint_granularity: self.report_endpoint_granularity,
        }
    }
}

/// Takes a message of a stream to the sink; the first one has the node and usually no report.
pub(crate) fn deliver(sink: &dyn LoadSink, node: &mut Node, request: LoadStatsRequest) {
    if let Some(given) = request.node {
        *node = given;
    }
    if !request.cluster_stats.is_empty() {
        let clusters = request.cluster_stats.into_iter().map(ClusterLoad::from);
        sink.on_report(node, clusters.collect());
    }
}
