//! Load reports: what was sent to each locality and endpoint, and what is thought of those.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use mesh_config::model::StreamConfig;
use mesh_core::{Address, Endpoint, Locality, clock};
use mesh_xds::{
    load::{EndpointLoad, LoadReporter, LocalityLoad},
    transport::{Call, LoadDriver, Server},
    wire::Node,
};

use super::call::ThroughCluster;
use crate::{Cluster, Mesh};

/// Reports for as long as it is not dropped.
pub(super) async fn report(mesh: Mesh, config: Arc<StreamConfig>, node: Node) {
    let server = |server| -> Server {
        let call: Arc<dyn Call> = Arc::new(ThroughCluster::new(&mesh, server));
        Server::Call(call)
    };
    let servers: Vec<Server> = config.servers.iter().map(server).collect();
    // It has one server at least, and times that were checked.
    let Some(reconnect) = super::sources::reconnect(&config) else {
        return;
    };
    let driver = LoadDriver::new(node, servers, reconnect, mesh.rng().clone());
    let mut collector = Collector::new(mesh);
    driver
        .run(move |now, reporter| collector.collect(now, reporter))
        .await;
}

/// What an endpoint had counted when it was looked at last.
#[derive(Clone, Copy, Default)]
struct Counted {
    issued: u64,
    successful: u64,
    failed: u64,
}

/// Compares what endpoints have counted with what they had.
struct Collector {
    mesh: Mesh,
    before: Instant,
    counted: HashMap<(Arc<str>, Address), Counted>,
    clusters: HashSet<Arc<str>>,
}

impl Collector {
    fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            before: clock::now(),
            counted: HashMap::new(),
            clusters: HashSet::new(),
        }
    }

    fn collect(&mut self, now: Instant, reporter: &mut LoadReporter) {
        let clusters = self.mesh.clusters();
        let (mut counted, mut names) = (HashMap::new(), HashSet::new());
        for cluster in clusters.list() {
            // One that came since then has sent nothing before.
            reporter.on_cluster(self.before, cluster.name(), "");
            self.cluster(now, cluster, reporter, &mut counted);
            names.insert(Arc::clone(cluster.name()));
        }
        for gone in self.clusters.difference(&names) {
            reporter.on_cluster_removed(gone);
        }
        // What is not there any more is not remembered.
        (self.counted, self.clusters, self.before) = (counted, names, now);
    }

    fn cluster(
        &self,
        now: Instant,
        cluster: &Cluster,
        reporter: &mut LoadReporter,
        counted: &mut HashMap<(Arc<str>, Address), Counted>,
    ) {
        let name = (&**cluster.name(), "");
        let mut localities: BTreeMap<(Locality, u32), LocalityLoad> = BTreeMap::new();
        for endpoint in cluster.endpoints().endpoints() {
            let key = (Arc::clone(cluster.name()), endpoint.address().clone());
            let before = self.counted.get(&key).copied().unwrap_or_default();
            let (after, load) = since(endpoint, before);
            counted.insert(key, after);
            let of = ((*endpoint.locality).clone(), endpoint.priority);
            let sum = localities.entry(of.clone()).or_default();
            sum.total_issued_requests += load.total_issued_requests;
            sum.total_successful_requests += load.total_successful_requests;
            sum.total_error_requests += load.total_error_requests;
            sum.total_requests_in_progress += load.total_requests_in_progress;
            if let (true, Address::Socket(address)) =
                (reporter.wants_endpoints(), endpoint.address())
            {
                let health = endpoint.state.health_flags();
                let endpoint = EndpointLoad { of, load, health };
                reporter.add_endpoint(now, name, *address, &endpoint);
            }
        }
        for ((locality, priority), load) in &localities {
            reporter.add(now, name, (locality, *priority), load);
        }
    }
}

/// What an endpoint has counted, and how much of it is new.
fn since(endpoint: &Endpoint, before: Counted) -> (Counted, LocalityLoad) {
    let stats = &endpoint.state.stats;
    // Relaxed: each is a number by itself, and the next report has what this one misses.
    let after = Counted {
        issued: stats.rq_total.load(Ordering::Relaxed),
        successful: stats.rq_success.load(Ordering::Relaxed),
        failed: stats.rq_error.load(Ordering::Relaxed),
    };
    let load = LocalityLoad {
        total_issued_requests: after.issued.wrapping_sub(before.issued),
        total_successful_requests: after.successful.wrapping_sub(before.successful),
        total_error_requests: after.failed.wrapping_sub(before.failed),
        total_requests_in_progress: stats.rq_active.load(Ordering::Relaxed),
    };
    (after, load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let endpoint = Endpoint::standalone(([127, 0, 0, 1], 80).into());
        let stats = &endpoint.state.stats;
        stats.rq_total.store(5, Ordering::Relaxed);
        stats.rq_error.store(2, Ordering::Relaxed);
        stats.rq_active.store(3, Ordering::Relaxed);
        let (seen, first) = since(&endpoint, Counted::default());
        assert_eq!(
            (first.total_issued_requests, first.total_error_requests),
            (5, 2)
        );
        stats.rq_total.store(9, Ordering::Relaxed);
        let (_, next) = since(&endpoint, seen);
        assert_eq!(
            (next.total_issued_requests, next.total_error_requests),
            (4, 0)
        );
        assert_eq!(next.total_requests_in_progress, 3);
    }
}
