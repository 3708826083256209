//! Where the layers of the router find their policies: in what was decided about the request.

use std::sync::Arc;

use http::{Request, StatusCode};
use mesh_core::{Body, PolicySource, Priority, RequestInfo, Resources};
use mesh_retry::{DeadlineConfig, RetryConfig, RetryContext, RetrySource, RetryStats, WatchedBody};

use super::Forwarding;
use crate::{Cluster, stats::ClusterStats};

/// The retry policy of the request's route or cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteRetry;

impl PolicySource<Request<WatchedBody<Body>>, RetryConfig> for RouteRetry {
    fn policy(&self, request: &Request<WatchedBody<Body>>) -> Option<Arc<RetryConfig>> {
        RequestInfo::of(request)?
            .route::<Forwarding>()?
            .retry
            .clone()
    }
}

/// The route's timeout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteDeadline;

impl PolicySource<Request<Body>, DeadlineConfig> for RouteDeadline {
    fn policy(&self, request: &Request<Body>) -> Option<Arc<DeadlineConfig>> {
        RequestInfo::of(request)?
            .route::<Forwarding>()?
            .deadline()
            .cloned()
    }
}

/// Charges retries to the request's cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charge;

/// The cluster that a request's retries are charged to.
pub(crate) struct Charged {
    cluster: Arc<Cluster>,
    priority: Priority,
}

impl RetrySource<Request<WatchedBody<Body>>> for Charge {
    type Context = Charged;

    fn context(&self, request: &Request<WatchedBody<Body>>) -> Option<Charged> {
        let forwarding = RequestInfo::of(request)?.route::<Forwarding>()?;
        let cluster = Arc::clone(&forwarding.worker_cluster()?.cluster);
        Some(Charged {
            cluster,
            priority: forwarding.priority(),
        })
    }
}

impl Charged {
    fn stats(&self) -> &ClusterStats {
        &self.cluster.state.stats
    }
}

impl RetryContext for Charged {
    fn resources(&self) -> &Arc<Resources> {
        self.cluster.resources(self.priority)
    }

    fn stats(&self) -> &RetryStats {
        &self.cluster.state.retry_stats
    }

    fn owner(&self) -> Option<&Arc<str>> {
        Some(self.cluster.name())
    }

    fn on_retried(&self, status: StatusCode) {
        Self::stats(self).retried.count(status.as_u16());
    }
}
