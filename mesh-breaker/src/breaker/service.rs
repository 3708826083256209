use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use mesh_core::{BoxError, Classify, Error, Generic, HttpClassify, Requests, Responses, clock};
use tower_service::Service;

use super::{BreakerFuture, Circuit, Probe};
use crate::Refusal;

/// A service behind a breaker; see the [crate documentation](crate).
///
/// # Readiness
/// An open breaker is *ready*, and refuses in `call`. Were it pending, its callers would queue for as
/// long as the upstream is down, which is what a breaker is there to prevent; and a probe reserved in
/// `poll_ready` would be lost with every handle that was polled and then kept. While it lets calls pass,
/// it is ready when the inner service is. A call made on the word of an open breaker is refused even if
/// the breaker closed in between, since the inner service was not asked whether it is ready.
///
/// # Cancel safety
/// Dropping the future before there is an outcome counts as neither success nor failure; a probe gives its
/// place to another call.
pub struct Breaker<S, C = HttpClassify, K = Generic> {
    inner: S,
    circuit: Arc<Circuit>,
    classify: C,
    /// What `poll_ready` found, when the inner service was not asked.
    refusal: Option<Refusal>,
    protocol: PhantomData<fn() -> K>,
}

impl<S, C, K> Breaker<S, C, K> {
    /// Puts `inner` behind `circuit`.
    #[must_use]
    pub fn new(inner: S, circuit: Arc<Circuit>, classify: C) -> Self {
        Self {
            inner,
            circuit,
            classify,
            refusal: None,
            protocol: PhantomData,
        }
    }

    /// The state shared with other services.
    #[must_use]
    pub const fn circuit(&self) -> &Arc<Circuit> {
        &self.circuit
    }

    fn refuse<F, R>(&self, refusal: Refusal, request: &R) -> BreakerFuture<F, C, K>
    where
        K: Requests<R>,
    {
        if let Some(info) = K::info(request) {
            info.decide(refusal.decision());
        }
        BreakerFuture::refused(refusal.into())
    }
}

impl<S, C, R, K> Service<R> for Breaker<S, C, K>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
    K: Requests<R> + Responses<S::Response, Option<Probe>>,
{
    type Response = K::Held;
    type Error = Error;
    type Future = BreakerFuture<S::Future, C, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.refusal = self.circuit.refusal(clock::now);
        if self.refusal.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::from_boxed(error.into()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        if let Some(refusal) = self.refusal.take() {
            self.circuit.stats().refused().inc();
            return self.refuse(refusal, &request);
        }
        match self.circuit.admit(clock::now) {
            Ok(ticket) => {
                BreakerFuture::calling(self.inner.call(request), ticket, self.classify.clone())
            }
            Err(refusal) => self.refuse(refusal, &request),
        }
    }
}

/// A clone starts without a finding: it has asked nobody yet.
impl<S: Clone, C: Clone, K> Clone for Breaker<S, C, K> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            Arc::clone(&self.circuit),
            self.classify.clone(),
        )
    }
}

impl<S: fmt::Debug, C, K> fmt::Debug for Breaker<S, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("inner", &self.inner)
            .field("circuit", &self.circuit)
            .finish_non_exhaustive()
    }
}
