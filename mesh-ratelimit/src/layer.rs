use mesh_core::{Fixed, Rng, clock};
use tower_layer::Layer;

use crate::{LocalRateLimit, LocalRateLimitConfig, RateLimit};

/// Puts a [`RateLimit`] over a service; see the [crate's page](crate).
#[derive(Debug, Clone)]
pub struct RateLimitLayer<P> {
    source: P,
    rng: Rng,
}

impl RateLimitLayer<Fixed<LocalRateLimit>> {
    /// The same limit for every request; clones and all services of this layer share its buckets.
    #[must_use]
    pub fn fixed(config: LocalRateLimitConfig) -> Self {
        Self::new(Fixed::new(LocalRateLimit::new(config, clock::now())))
    }
}

impl<P> RateLimitLayer<P> {
    /// The limit that `source` finds for each request.
    #[must_use]
    pub fn new(source: P) -> Self {
        Self {
            source,
            rng: Rng::default(),
        }
    }

    /// Draws from `rng`, so that a test knows the outcome.
    #[must_use]
    pub fn with_rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }
}

impl<S, P: Clone> Layer<S> for RateLimitLayer<P> {
    type Service = RateLimit<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit {
            inner,
            source: self.source.clone(),
            rng: self.rng.clone(),
        }
    }
}
