use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::{BoxError, Classify, Error, Requests, Responses};
use pin_project::{pin_project, pinned_drop};

use crate::{BodyWatch, Monitor, witness::Witness};

/// The answer of a service whose outcomes are [reported](crate::Outlier).
#[pin_project(PinnedDrop)]
pub struct OutlierFuture<F, C, K> {
    #[pin]
    inner: F,
    /// There until the inner future ends.
    witness: Option<Witness>,
    classify: C,
    protocol: PhantomData<fn() -> K>,
}

impl<F, C, K> OutlierFuture<F, C, K> {
    pub(crate) const fn new(inner: F, witness: Witness, classify: C) -> Self {
        Self {
            inner,
            witness: Some(witness),
            classify,
            protocol: PhantomData,
        }
    }

    /// Reports the outcome of one call to `monitor`: what [`Outlier`](crate::Outlier) does, for whoever picks
    /// an endpoint anew for each call and has no service to wrap.
    pub fn watch<R>(request: R, monitor: Monitor, classify: C, call: impl FnOnce(R) -> F) -> Self
    where
        K: Requests<R>,
    {
        let witness = Witness {
            monitor,
            attempt: K::attempt(&request).cloned(),
            info: K::info(&request).cloned(),
        };
        Self::new(call(request), witness, classify)
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
        let witness = this.witness.take().expect("polled after completion");
        let watch = witness.on_head(this.classify.classify(result.as_ref()));
        Poll::Ready(result.map(|response| K::hold(response, watch)))
    }
}

#[pinned_drop]
impl<F, C, K> PinnedDrop for OutlierFuture<F, C, K> {
    fn drop(self: Pin<&mut Self>) {
        if let Some(witness) = self.project().witness {
            witness.on_drop();
        }
    }
}

impl<F, C, K> fmt::Debug for OutlierFuture<F, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierFuture")
            .field("witness", &self.witness)
            .finish_non_exhaustive()
    }
}
