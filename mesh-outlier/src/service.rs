use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use mesh_core::{BoxError, Classify, Error, Generic, HttpClassify, Requests, Responses};
use tower_service::Service;

use crate::{BodyWatch, Monitor, OutlierFuture};

/// The service of one endpoint, whose outcomes are reported to its [`Monitor`].
///
/// It refuses nothing and is ready when the inner service is: an ejection is for the balancer above, who
/// stops picking the endpoint.
///
/// # Cancel safety
/// Dropping the future before there is an outcome reports nothing: the client went away. For HTTP, a timer
/// that gave the call up is told from that, and reported: by the request's
/// [`Attempt`](mesh_core::Attempt), or by the deadline in its [`RequestInfo`](mesh_core::RequestInfo).
pub struct Outlier<S, C = HttpClassify, K = Generic> {
    inner: S,
    monitor: Monitor,
    classify: C,
    protocol: PhantomData<fn() -> K>,
}

impl<S, C, K> Outlier<S, C, K> {
    /// Reports the outcomes of `inner` to `monitor`.
    #[must_use]
    pub fn new(inner: S, monitor: Monitor, classify: C) -> Self {
        Self {
            inner,
            monitor,
            classify,
            protocol: PhantomData,
        }
    }
}

impl<S, C, R, K> Service<R> for Outlier<S, C, K>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
    K: Requests<R> + Responses<S::Response, BodyWatch>,
{
    type Response = K::Held;
    type Error = Error;
    type Future = OutlierFuture<S::Future, C, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::from_boxed(error.into()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (monitor, classify) = (self.monitor.clone(), self.classify.clone());
        OutlierFuture::watch(request, monitor, classify, |r| self.inner.call(r))
    }
}

impl<S: Clone, C: Clone, K> Clone for Outlier<S, C, K> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.monitor.clone(),
            self.classify.clone(),
        )
    }
}

impl<S: fmt::Debug, C, K> fmt::Debug for Outlier<S, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlier")
            .field("inner", &self.inner)
            .field("monitor", &self.monitor)
            .finish_non_exhaustive()
    }
}
