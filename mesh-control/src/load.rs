//! What proxies report: how much they send where, and how it goes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::config::core::v3::Node;
use mesh_core::clock;
use mesh_xds::{load::ClusterLoad, server::LoadSink};

use crate::{build::APP, stats::ControlStats};

/// The most nodes whose reports are kept; of more, the one that has been silent longest is forgotten.
const NODES_MAX: usize = 10_000;
/// What nobody has renewed for so long counts no longer.
pub const STALE_AFTER: Duration = Duration::from_secs(60);

/// What proxies say of one endpoint of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointView {
    /// Proxies that report of it.
    pub proxies: usize,
    /// What is wrong with it, and how many of them say so. Those who say nothing is, are not here.
    pub unhealthy: BTreeMap<String, usize>,
    /// Its requests in the last interval of each.
    pub issued: u64,
    /// How many of those that ended have failed.
    pub errors: u64,
}

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
                let (load, ok, failed) = loads.entry(name(report, cluster)).or_default();
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

    /// What proxies say of each endpoint, by cluster and address.
    #[must_use]
    pub fn endpoints(&self) -> BTreeMap<(String, SocketAddr), EndpointView> {
        let now = clock::now();
        let mut views: BTreeMap<_, EndpointView> = BTreeMap::new();
        let reports = self.lock();
        let fresh = reports
            .values()
            .filter(|report| now.saturating_duration_since(report.at) <= STALE_AFTER);
        let clusters =
            fresh.flat_map(|report| report.clusters.iter().map(move |c| (name(report, c), c)));
        for (name, cluster) in clusters {
            for (address, endpoint) in &cluster.endpoints {
                let key = (name.clone(), *address);
                let view = views.entry(key).or_default();
                view.proxies += 1;
                view.issued += endpoint.load.total_issued_requests;
                view.errors += endpoint.load.total_error_requests;
                if !matches!(endpoint.health.as_str(), "" | "healthy") {
                    *view.unhealthy.entry(endpoint.health.clone()).or_default() += 1;
                }
            }
        }
        views
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

/// What the cluster is called here: each service has an application of its own.
fn name(report: &Report, cluster: &ClusterLoad) -> String {
    if cluster.cluster_name == APP {
        format!("{}/{APP}", report.cluster)
    } else {
        cluster.cluster_name.clone()
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

#[cfg(test)]
mod tests {
    use mesh_xds::load::{EndpointLoad, LocalityLoad};

    use super::*;

    fn report(issued: u64, errors: u64, health: &str) -> ClusterLoad {
        let load = LocalityLoad {
            total_successful_requests: issued - errors,
            total_error_requests: errors,
            total_issued_requests: issued,
            ..LocalityLoad::default()
        };
        let endpoint = EndpointLoad {
            load,
            health: health.to_owned(),
            ..EndpointLoad::default()
        };
        ClusterLoad {
            cluster_name: "users".to_owned(),
            localities: [(endpoint.of.clone(), load)].into(),
            endpoints: [(([10, 0, 0, 1], 80).into(), endpoint)].into(),
            load_report_interval: Duration::from_secs(10),
            ..ClusterLoad::default()
        }
    }

    fn node(id: &str) -> Node {
        Node {
            id: id.to_owned(),
            ..Node::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_proxies_report_is_added_up_until_it_is_old() {
        let loads = Loads::new(ControlStats::detached());
        loads.on_report(&node("a"), vec![report(100, 0, "healthy")]);
        loads.on_report(&node("b"), vec![report(50, 25, "/failed_outlier_check")]);
        let users = loads.by_cluster()["users"];
        assert_eq!((users.proxies, users.issued_per_second), (2, 15.0));
        assert!((users.error_rate - 25.0 / 150.0).abs() < 1e-9);
        let endpoints = loads.endpoints();
        let view = &endpoints[&("users".to_owned(), ([10, 0, 0, 1], 80).into())];
        assert_eq!((view.proxies, view.issued, view.errors), (2, 150, 25));
        assert_eq!(
            view.unhealthy,
            [("/failed_outlier_check".to_owned(), 1)].into()
        );

        // A newer report takes the place of the one before; a proxy that is silent is forgotten.
        tokio::time::advance(STALE_AFTER).await;
        loads.on_report(&node("b"), vec![report(10, 0, "healthy")]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(loads.by_cluster()["users"].proxies, 1);
        assert!(
            loads
                .endpoints()
                .values()
                .all(|view| view.unhealthy.is_empty())
        );
    }
}
