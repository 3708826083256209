use std::{fmt, marker::PhantomData, sync::Arc};

use mesh_core::{Fixed, Generic, Http, Mode, Resources, Thresholds};
use tower_layer::Layer;

use super::{ThresholdsService, ThresholdsStats};

/// Bounds how many requests run and wait at once; see the [crate documentation](crate).
pub struct ThresholdsLayer<P, K = Generic> {
    source: P,
    stats: ThresholdsStats,
    mode: Mode,
    protocol: PhantomData<fn() -> K>,
}

impl ThresholdsLayer<Fixed<Resources>> {
    /// Around any service, with resources of its own: everything that one layer value wraps shares them.
    /// A request is over when its response is there.
    #[must_use]
    pub fn new(thresholds: &Thresholds) -> Self {
        Self::from_source(Fixed(Resources::new(thresholds)))
    }

    /// Around any service, with resources that others use as well.
    #[must_use]
    pub fn shared(resources: &Arc<Resources>) -> Self {
        Self::from_source(Fixed(Arc::clone(resources)))
    }
}

impl<P> ThresholdsLayer<P> {
    /// Around any service, with resources found for each request: those of its cluster and priority.
    #[must_use]
    pub fn from_source(source: P) -> Self {
        Self {
            source,
            stats: ThresholdsStats::detached(),
            mode: Mode::default(),
            protocol: PhantomData,
        }
    }

    /// Around HTTP services only: a request is over when its response body is, and what was refused is
    /// traced in its [`mesh_core::RequestInfo`].
    #[must_use]
    pub fn http(self) -> ThresholdsLayer<P, Http> {
        ThresholdsLayer {
            source: self.source,
            stats: self.stats,
            mode: self.mode,
            protocol: PhantomData,
        }
    }
}

impl<P, K> ThresholdsLayer<P, K> {
    /// Where to count; by default the counts are not exported.
    #[must_use]
    pub fn stats(mut self, stats: ThresholdsStats) -> Self {
        self.stats = stats;
        self
    }

    /// Whether to refuse, or only to count what would have been refused. Default: refuse.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }
}

impl<P: Clone, K> Clone for ThresholdsLayer<P, K> {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            stats: self.stats.clone(),
            mode: self.mode,
            protocol: PhantomData,
        }
    }
}

impl<P: fmt::Debug, K> fmt::Debug for ThresholdsLayer<P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThresholdsLayer")
            .field("source", &self.source)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl<S, P: Clone, K> Layer<S> for ThresholdsLayer<P, K> {
    type Service = ThresholdsService<S, P, K>;

    fn layer(&self, inner: S) -> Self::Service {
        ThresholdsService::new(inner, self.source.clone(), self.stats.clone(), self.mode)
    }
}
