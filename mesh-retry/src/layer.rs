use std::{fmt, sync::Arc};

use mesh_core::{Fixed, Rng};
use tower_layer::Layer;

use crate::{OwnBudget, Retry, RetryConfig};

/// Puts [`Retry`] in front of a service.
///
/// The policy comes from a [`PolicySource`](mesh_core::PolicySource), the budget and the stats from a
/// [`RetrySource`](crate::RetrySource). See the [crate documentation](crate) for examples.
#[derive(Clone)]
pub struct RetryLayer<P = Fixed<RetryConfig>, C = OwnBudget> {
    policy: P,
    source: C,
    rng: Rng,
}

impl RetryLayer {
    /// One policy, one budget, for every request.
    #[must_use]
    pub fn new(config: RetryConfig) -> Self {
        Self::from_source(Fixed(Arc::new(config)))
    }
}

/// [`RetryConfig::proven_safe`].
impl Default for RetryLayer {
    fn default() -> Self {
        Self::new(RetryConfig::proven_safe())
    }
}

impl<P> RetryLayer<P> {
    /// A policy of its own for each request; one budget for all.
    #[must_use]
    pub fn from_source(policy: P) -> Self {
        Self {
            policy,
            source: OwnBudget::default(),
            rng: Rng::from_entropy(),
        }
    }
}

impl<P, C> RetryLayer<P, C> {
    /// Budgets and stats from `source`: an [`OwnBudget`] with other numbers, or each cluster's own.
    #[must_use]
    pub fn with_budget<D>(self, source: D) -> RetryLayer<P, D> {
        RetryLayer {
            policy: self.policy,
            source,
            rng: self.rng,
        }
    }

    /// Draws back-offs from `rng`.
    #[must_use]
    pub fn with_rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }
}

impl<P, C> fmt::Debug for RetryLayer<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").finish_non_exhaustive()
    }
}

impl<S, P: Clone, C: Clone> Layer<S> for RetryLayer<P, C> {
    type Service = Retry<S, P, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(
            inner,
            self.policy.clone(),
            self.source.clone(),
            self.rng.clone(),
        )
    }
}
