//! From a connection that was accepted to one that is open to an endpoint.

use std::sync::{Arc, atomic::Ordering};

use mesh_balance::PickContext;
use mesh_core::{
    Decision, Endpoint, Error, ErrorKind, Permit, Priority, Reason, RequestInfo, Resource,
    ResponseFlag, clock,
};
use mesh_net::Stream;

use super::{Shared, upstream::Upstream};
use crate::WorkerCluster;

/// Connects, and again after a failure as often as `max_connect_attempts` allows. `None` when there is
/// nothing to be done; then the flags say why.
pub(super) async fn connect(shared: &Shared, info: &RequestInfo) -> Option<(Stream, Upstream)> {
    let name = shared.config.clusters.pick(info.random);
    let Some(cluster) = shared.worker.cluster(name) else {
        shared.stats.downstream_cx_no_route().inc();
        info.flag(ResponseFlag::NoClusterFound);
        return None;
    };
    info.with(|facts| facts.cluster = Some(Arc::clone(cluster.cluster.name())));
    for attempt in 1.. {
        let permit = admit(&cluster, info)?;
        if attempt > shared.config.max_connect_attempts {
            info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
            let stats = &cluster.cluster.state.stats.router;
            stats.upstream_cx_connect_attempts_exceeded().inc();
            return None;
        }
        if let Some(connected) = attempt_once(shared, &cluster, permit, info, attempt).await? {
            return Some(connected);
        }
    }
    None
}

/// A place among the cluster's connections.
fn admit(cluster: &WorkerCluster, info: &RequestInfo) -> Option<Permit> {
    let state = &cluster.cluster.state;
    let resources = state.resources(Priority::Default);
    match resources.try_acquire(Resource::Connections) {
        Ok(permit) => Some(permit),
        Err(overflow) => {
            state.pool_stats.upstream.upstream_cx_overflow().inc();
            info.flag(ResponseFlag::UpstreamOverflow);
            info.decide(
                Decision::new(
                    "thresholds",
                    Reason::ConnectionsOverflow,
                    u64::from(overflow.in_use),
                    u64::from(overflow.limit),
                )
                .owned_by(cluster.cluster.name()),
            );
            None
        }
    }
}

/// One attempt: `Some(None)` when it failed and another may follow, `None` when there is no endpoint.
async fn attempt_once(
    shared: &Shared,
    cluster: &WorkerCluster,
    permit: Permit,
    info: &RequestInfo,
    number: u32,
) -> Option<Option<(Stream, Upstream)>> {
    let state = &cluster.cluster.state;
    let peer = info.connection.peer;
    let by_ip = peer.filter(|_| shared.config.hash_source_ip);
    let hash = by_ip.map(|peer| mesh_route::hash_of_ip(peer.ip()));
    let context = PickContext::new(&shared.worker.rng).hashed(hash);
    let meant = cluster.cluster.meant(None, &info.connection);
    let Ok((endpoint, monitor)) = cluster.pick_endpoint(&context, meant) else {
        state.stats.router.upstream_cx_none_healthy().inc();
        info.flag(ResponseFlag::NoHealthyUpstream);
        return None;
    };
    info.with(|facts| {
        facts.attempts = number;
        facts.endpoint = Some(Arc::clone(&endpoint));
        facts.tried.push(Arc::clone(&endpoint));
    });
    let stats = &state.pool_stats.upstream;
    stats.upstream_cx_total().inc();
    let started = clock::now();
    let connector = cluster.connector(Some(&info.connection));
    let connecting = connector.connect(Arc::clone(&endpoint));
    let limit = cluster.cluster.config.pool.connect_timeout;
    let result = tokio::time::timeout(limit, connecting).await;
    match result.unwrap_or_else(|_| Err(Error::new(ErrorKind::ConnectTimeout))) {
        Ok(stream) => {
            let took = (clock::now() - started).as_millis();
            let took = u64::try_from(took).unwrap_or(u64::MAX);
            stats.upstream_cx_connect_ms().record(took);
            if let Some(monitor) = &monitor {
                monitor.on_connected_finally();
            }
            info.with(|facts| {
                facts.upstream_local = stream.local_addr();
                facts.upstream_tls = stream.tls_facts();
            });
            Some(Some((
                stream,
                Upstream::new(
                    stats.clone(),
                    endpoint,
                    permit,
                    cluster.cluster.config.buffer_limit,
                ),
            )))
        }
        Err(error) => {
            stats.upstream_cx_connect_fail().inc();
            if error.kind() == ErrorKind::ConnectTimeout {
                stats.upstream_cx_connect_timeout().inc();
            }
            if let Some(monitor) = &monitor {
                monitor.on_failure(error.kind());
            }
            failed(&endpoint, &error, info);
            Some(None)
        }
    }
}

fn failed(endpoint: &Endpoint, error: &Error, info: &RequestInfo) {
    let fails = &endpoint.state.stats.cx_connect_fail;
    fails.fetch_add(1, Ordering::Relaxed);
    info.flag(ResponseFlag::UpstreamConnectionFailure);
    if let Some(message) = error.message() {
        info.with(|facts| facts.transport_failure = Some(message.to_owned().into()));
    }
}
