use std::sync::Arc;

use http::StatusCode;
use mesh_core::{Resources, Thresholds, stats::Scope};

use crate::RetryStats;

/// What a request's retries are charged to: the budget and the stats of the cluster it goes to.
pub trait RetryContext {
    /// Where retry slots come from.
    fn resources(&self) -> &Arc<Resources>;

    /// Where retries are counted.
    fn stats(&self) -> &RetryStats;

    /// What decisions in the trace name as their owner.
    fn owner(&self) -> Option<&Arc<str>> {
        None
    }

    /// Whether the retry layer shall count its requests as [`mesh_core::Resource::Requests`], from the
    /// first attempt to the end of the response. Say no where something below does: the percentage of a
    /// budget is a share of them.
    fn counts_requests(&self) -> bool {
        false
    }

    /// A response with this status was not passed on but retried: for `retry.upstream_rq_<code>`.
    fn on_retried(&self, _status: StatusCode) {}
}

/// Where a retry layer finds the [`RetryContext`] of a request.
///
/// One layer serves many clusters; this is how each keeps a budget and stats of its own. In library use
/// it is [`OwnBudget`].
pub trait RetrySource<R: ?Sized> {
    /// What is found; cheap to make, since each request has one.
    type Context: RetryContext;

    /// The context of `request`. `None` passes the request through without retries.
    fn context(&self, request: &R) -> Option<Self::Context>;
}

/// One budget for everything that passes through the layer.
///
/// By default a fifth of the requests in flight may be retries, and three always may.
#[derive(Debug, Clone)]
pub struct OwnBudget {
    resources: Arc<Resources>,
    stats: RetryStats,
}

impl OwnBudget {
    /// A budget as `thresholds.retries` says; the other thresholds bound nothing here.
    #[must_use]
    pub fn new(thresholds: &Thresholds) -> Self {
        Self {
            resources: Resources::new(thresholds),
            stats: RetryStats::detached(),
        }
    }

    /// Exports the stats under `scope`.
    #[must_use]
    pub fn with_stats(mut self, scope: &Scope) -> Self {
        self.stats = RetryStats::register(scope);
        self
    }
}

impl Default for OwnBudget {
    fn default() -> Self {
        Self::new(&Thresholds::default())
    }
}

impl RetryContext for OwnBudget {
    fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    fn stats(&self) -> &RetryStats {
        &self.stats
    }

    fn counts_requests(&self) -> bool {
        true
    }
}

impl<R: ?Sized> RetrySource<R> for OwnBudget {
    type Context = Self;

    fn context(&self, _: &R) -> Option<Self> {
        Some(self.clone())
    }
}
