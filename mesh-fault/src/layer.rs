use mesh_core::{Fixed, Rng, stats::Scope};
use tower_layer::Layer;

use crate::{Fault, FaultConfig, FaultStats};

/// Puts a [`Fault`] over a service; see the [crate's page](crate).
#[derive(Debug, Clone)]
pub struct FaultLayer<P> {
    source: P,
    rng: Rng,
    stats: FaultStats,
}

impl FaultLayer<Fixed<FaultConfig>> {
    /// The same faults for every request.
    #[must_use]
    pub fn fixed(config: FaultConfig) -> Self {
        Self::new(Fixed::new(config))
    }
}

impl<P> FaultLayer<P> {
    /// The faults that `source` finds for each request.
    #[must_use]
    pub fn new(source: P) -> Self {
        Self {
            source,
            rng: Rng::default(),
            stats: FaultStats::detached(),
        }
    }

    /// Draws from `rng`, so that a test knows the outcome.
    #[must_use]
    pub fn with_rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Counts below `scope`, as `fault.<name>`. Layers with the same scope share their active faults.
    #[must_use]
    pub fn with_stats(mut self, scope: &Scope) -> Self {
        self.stats = FaultStats::register(&scope.scope("fault."));
        self
    }

    /// What it counts.
    #[must_use]
    pub const fn stats(&self) -> &FaultStats {
        &self.stats
    }
}

impl<S, P: Clone> Layer<S> for FaultLayer<P> {
    type Service = Fault<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Fault {
            inner,
            source: self.source.clone(),
            rng: self.rng.clone(),
            stats: self.stats.clone(),
        }
    }
}
