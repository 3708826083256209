use std::{fmt, marker::PhantomData};

use mesh_core::{Generic, Http, HttpClassify};
use tower_layer::Layer;

use crate::{Monitor, Outlier};

/// Reports how requests to one endpoint go; see the [crate documentation](crate).
pub struct OutlierLayer<C = HttpClassify, K = Generic> {
    monitor: Monitor,
    classify: C,
    protocol: PhantomData<fn() -> K>,
}

impl OutlierLayer<HttpClassify, Http> {
    /// Around an HTTP service: the status counts, for gRPC also as `grpc-status` in the headers, and so
    /// does a body that breaks off.
    #[must_use]
    pub fn http(monitor: Monitor) -> Self {
        Self::with(monitor, HttpClassify)
    }
}

impl<C> OutlierLayer<C> {
    /// Around any service, whose results `classify` reads.
    #[must_use]
    pub fn new(monitor: Monitor, classify: C) -> Self {
        Self::with(monitor, classify)
    }
}

impl<C, K> OutlierLayer<C, K> {
    fn with(monitor: Monitor, classify: C) -> Self {
        Self {
            monitor,
            classify,
            protocol: PhantomData,
        }
    }
}

impl<C: Clone, K> Clone for OutlierLayer<C, K> {
    fn clone(&self) -> Self {
        Self::with(self.monitor.clone(), self.classify.clone())
    }
}

impl<C, K> fmt::Debug for OutlierLayer<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierLayer")
            .field("monitor", &self.monitor)
            .finish_non_exhaustive()
    }
}

impl<S, C: Clone, K> Layer<S> for OutlierLayer<C, K> {
    type Service = Outlier<S, C, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Outlier::new(inner, self.monitor.clone(), self.classify.clone())
    }
}
