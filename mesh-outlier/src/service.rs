use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use mesh_core::{
    BoxError, Classify, EndGuard, Error, ErrorKind, Generic, HttpClassify, Requests, Responses,
    StreamEnd,
};
use tower_service::Service;

use crate::{Monitor, OutlierFuture};

/// The service of one endpoint, whose outcomes are reported to its [`Monitor`].
///
/// It refuses nothing and is ready when the inner service is: an ejection is for the balancer above, who
/// stops picking the endpoint.
///
/// # Cancel safety
/// Dropping the future before there is an outcome reports nothing: the client went away. If a timer gave
/// the attempt up, which for HTTP its [`Attempt`](mesh_core::Attempt) tells, that is reported.
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
        let attempt = K::attempt(&request).cloned();
        OutlierFuture::new(
            self.inner.call(request),
            self.monitor.clone(),
            attempt,
            self.classify.clone(),
        )
    }
}

/// Reports a response body that breaks off.
#[derive(Debug)]
pub struct BodyWatch(pub(crate) Option<Monitor>);

impl EndGuard for BodyWatch {
    fn on_end(&mut self, end: StreamEnd) {
        if let (StreamEnd::Failed, Some(monitor)) = (end, &self.0) {
            monitor.on_failure(ErrorKind::ConnectionTermination);
        }
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
