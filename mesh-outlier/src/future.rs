use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::{Attempt, BoxError, Classify, Error, ErrorKind, Outcome, Responses};
use pin_project::{pin_project, pinned_drop};

use crate::{Monitor, service::BodyWatch};

/// The answer of a service whose outcomes are [reported](crate::Outlier).
#[pin_project(PinnedDrop)]
pub struct OutlierFuture<F, C, K> {
    #[pin]
    inner: F,
    /// There until an outcome is known.
    monitor: Option<Monitor>,
    attempt: Option<Attempt>,
    classify: C,
    protocol: PhantomData<fn() -> K>,
}

impl<F, C, K> OutlierFuture<F, C, K> {
    pub(crate) const fn new(
        inner: F,
        monitor: Monitor,
        attempt: Option<Attempt>,
        classify: C,
    ) -> Self {
        Self {
            inner,
            monitor: Some(monitor),
            attempt,
            classify,
            protocol: PhantomData,
        }
    }
}

impl<F, T, E, C, K> Future for OutlierFuture<F, C, K>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    C: Classify<T>,
    K: Responses<T, BodyWatch>,
{
    type Output = Result<K::Held, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx)).map_err(|error| Error::from_boxed(error.into()));
        let monitor = this.monitor.take();
        if let (Some(monitor), Some(outcome)) = (&monitor, this.classify.classify(result.as_ref()))
        {
            if was_connected(outcome, this.attempt.as_ref()) {
                monitor.on_connected();
            }
            monitor.on_outcome(outcome);
        }
        Poll::Ready(result.map(|response| K::hold(response, BodyWatch(monitor))))
    }
}

#[pinned_drop]
impl<F, C, K> PinnedDrop for OutlierFuture<F, C, K> {
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        let (Some(monitor), Some(attempt)) = (this.monitor, this.attempt) else {
            return;
        };
        if attempt.is_timed_out() {
            if attempt.is_connected() {
                monitor.on_connected();
            }
            monitor.on_failure(ErrorKind::PerTryTimeout);
        }
    }
}

/// Whether there had been a connection, as far as that can be known.
fn was_connected(outcome: Outcome, attempt: Option<&Attempt>) -> bool {
    match outcome {
        Outcome::Status(_)
        | Outcome::Failure(
            ErrorKind::ConnectionTermination
            | ErrorKind::RemoteReset
            | ErrorKind::RemoteRefused
            | ErrorKind::UpstreamProtocol,
        ) => true,
        Outcome::Failure(_) => attempt.is_some_and(Attempt::is_connected),
    }
}

impl<F, C, K> fmt::Debug for OutlierFuture<F, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierFuture")
            .field("monitor", &self.monitor)
            .finish_non_exhaustive()
    }
}
