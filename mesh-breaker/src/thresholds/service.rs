use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use mesh_core::{
    BoxError, Decision, Error, ErrorKind, Generic, Mode, Overflow, Permit, PolicySource, Reason,
    Requests, Resource, Resources, Responses, Sent,
};
use tower_service::Service;

use super::{ThresholdsFuture, ThresholdsStats};

/// A service behind bounds; see the [crate documentation](crate).
///
/// It is always ready: which bounds apply depends on the request. Within the future of a call the inner
/// service, a clone, is driven ready; a request that has to wait for that takes a place among the
/// waiting, and one that finds the service ready does not.
///
/// # Cancel safety
/// Dropping the future or the response gives back what was taken.
pub struct ThresholdsService<S, P, K = Generic> {
    inner: S,
    source: P,
    stats: ThresholdsStats,
    mode: Mode,
    protocol: PhantomData<fn() -> K>,
}

impl<S, P, K> ThresholdsService<S, P, K> {
    pub(super) fn new(inner: S, source: P, stats: ThresholdsStats, mode: Mode) -> Self {
        Self {
            inner,
            source,
            stats,
            mode,
            protocol: PhantomData,
        }
    }
}

impl<S, P, R, K> Service<R> for ThresholdsService<S, P, K>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    P: PolicySource<R, Resources>,
    K: Requests<R> + Responses<S::Response, Option<Permit>>,
{
    type Response = K::Held;
    type Error = Error;
    type Future = ThresholdsFuture<S, R, K>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let gate = self.source.policy(&request).map(|resources| Gate {
            resources,
            stats: self.stats.clone(),
            mode: self.mode,
        });
        ThresholdsFuture::new(self.inner.clone(), request, gate)
    }
}

/// The bounds that apply to one request.
pub(super) struct Gate {
    resources: Arc<Resources>,
    stats: ThresholdsStats,
    mode: Mode,
}

/// A place among the waiting.
pub(super) struct Waiting {
    _permit: Permit,
    stats: ThresholdsStats,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stats.upstream_rq_pending_active().dec();
    }
}

impl Gate {
    pub(super) fn wait<R, K: Requests<R>>(&self, request: &R) -> Result<Waiting, Error> {
        let permit = self.enter::<R, K>(Resource::Pending, request)?;
        self.stats.upstream_rq_pending_total().inc();
        self.stats.upstream_rq_pending_active().inc();
        Ok(Waiting {
            _permit: permit,
            stats: self.stats.clone(),
        })
    }

    pub(super) fn run<R, K: Requests<R>>(&self, request: &R) -> Result<Permit, Error> {
        self.enter::<R, K>(Resource::Requests, request)
    }

    fn enter<R, K: Requests<R>>(&self, resource: Resource, request: &R) -> Result<Permit, Error> {
        self.resources.try_acquire(resource).or_else(|overflow| {
            if let Some(info) = K::info(request) {
                info.decide(decision(&overflow, self.mode));
            }
            if self.mode == Mode::Shadow {
                self.stats.shadow_rq_overflow().inc();
                return Ok(self.resources.acquire_beyond(resource));
            }
            match resource {
                Resource::Pending => self.stats.upstream_rq_pending_overflow().inc(),
                _ => self.stats.upstream_rq_active_overflow().inc(),
            }
            Err(Error::new(ErrorKind::Overflow(resource))
                .with_sent(Sent::Nothing)
                .with_source(overflow))
        })
    }
}

fn decision(overflow: &Overflow, mode: Mode) -> Decision {
    let reason = match overflow.resource {
        Resource::Pending => Reason::PendingOverflow,
        _ => Reason::RequestsOverflow,
    };
    Decision::new(
        "thresholds",
        reason,
        overflow.in_use.into(),
        overflow.limit.into(),
    )
    .shadowed(mode == Mode::Shadow)
}

impl<S: Clone, P: Clone, K> Clone for ThresholdsService<S, P, K> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.source.clone(),
            self.stats.clone(),
            self.mode,
        )
    }
}

impl<S: fmt::Debug, P: fmt::Debug, K> fmt::Debug for ThresholdsService<S, P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThresholdsService")
            .field("inner", &self.inner)
            .field("source", &self.source)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
