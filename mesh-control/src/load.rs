//! What proxies report: how much they send where, and how it goes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::config::core::v3::Node;
use mesh_core::clock;
use mesh_xds::{load::ClusterLoad, server::LoadSink};

use crate::stats::ControlStats;

/// The most nodes whose reports are kept; of more, the one that has been silent longest is forgotten.
const NODES_MAX: usize = 10_000;
/// What nobody has renewed for so long counts no longer.
pub const STALE_AFTER: Duration = Duration::from_secs(60);

/// What was sent to a cluster, by all proxies together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Proxies that send to it.
    pub proxies: usize,
    /// Requests per second that were begun.
    pub issued_per_second: f64,
    /// Of those that ended, how many failed: 0 to 1.
    pub error_rate: f64,
    /// Requests that run.
    pub in_progress: u64,
    /// Requests per second that were dropped by policy.
    pub dropped_per_second: f64,
}

struct Report {
    at: Instant,
    cluster: String,
    clusters: Vec<ClusterLoad>,
}

/// The last report of each proxy.
pub struct Loads {
    reports: Mutex<BTreeMap<String, Report>>,
    counters: ControlStats,
}

impl std::fmt::Debug for Loads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loads({} nodes)", self.lock().len())
    }
}

impl Loads {
    pub(crate) fn new(counters: ControlStats) -> Self {
        Self {
            reports: Mutex::default(),
            counters,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The load of each cluster, over the last interval of each proxy.
    #[must_use]
    pub fn by_cluster(&self) -> BTreeMap<String, Load> {
        let now = clock::now();
        let mut loads: BTreeMap<String, (Load, u64, u64)> = BTreeMap::new();
        for report in self.lock().values() {
            if now.saturating_duration_since(report.at) > STALE_AFTER {
                continue;
            }
            for cluster in &report.clusters {
                let seconds = cluster.load_report_interval.as_secs_f64().max(0.001);
                let (load, ok, failed) = loads.entry(cluster.cluster_name.clone()).or_default();
                load.proxies += 1;
                for locality in cluster.localities.values() {
                    load.issued_per_second += locality.total_issued_requests as f64 / seconds;
                    load.in_progress += locality.total_requests_in_progress;
                    *ok += locality.total_successful_requests;
                    *failed += locality.total_error_requests;
                }
                let dropped: u64 = cluster.dropped.values().sum();
                load.dropped_per_second += dropped as f64 / seconds;
            }
        }
        let rated = loads.into_iter().map(|(name, (mut load, ok, failed))| {
            load.error_rate = failed as f64 / (ok + failed).max(1) as f64;
            (name, load)
        });
        rated.collect()
    }

    /// Each node that reports, and the group that it is of.
    #[must_use]
    pub fn nodes(&self) -> Vec<(String, String)> {
        let reports = self.lock();
        let nodes = reports.iter();
        nodes
            .map(|(id, report)| (id.clone(), report.cluster.clone()))
            .collect()
    }
}

impl LoadSink for Loads {
    fn on_report(&self, node: &Node, clusters: Vec<ClusterLoad>) {
        self.counters.load_reports().inc();
        let mut reports = self.lock();
        if reports.len() >= NODES_MAX && !reports.contains_key(&node.id) {
            let oldest = reports.iter().min_by_key(|(_, report)| report.at);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                reports.remove(&id);
            }
        }
        let report = Report {
            at: clock::now(),
            cluster: node.cluster.clone(),
            clusters,
        };
        reports.insert(node.id.clone(), report);
    }
}
