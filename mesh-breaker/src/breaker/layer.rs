use std::{fmt, marker::PhantomData, sync::Arc};

use mesh_core::{Generic, Http, HttpClassify};
use tower_layer::Layer;

use super::{Breaker, Circuit};
use crate::BreakerConfig;

/// Stops calling what keeps failing; see the [crate documentation](crate).
///
/// All services that one layer value wraps share one [`Circuit`]: wrap what belongs together, typically
/// the client of one upstream.
pub struct BreakerLayer<C = HttpClassify, K = Generic> {
    circuit: Arc<Circuit>,
    classify: C,
    protocol: PhantomData<fn() -> K>,
}

impl BreakerLayer<HttpClassify, Http> {
    /// Around HTTP services: 500 and above, for gRPC also as `grpc-status` in the headers, and errors of
    /// the upstream are failures. A probe lasts until its response body ends.
    #[must_use]
    pub fn http(config: BreakerConfig) -> Self {
        Self::with(Arc::new(Circuit::new(config)), HttpClassify)
    }
}

impl<C> BreakerLayer<C> {
    /// Around any service, whose results `classify` reads. A probe lasts until its response is there.
    #[must_use]
    pub fn new(config: BreakerConfig, classify: C) -> Self {
        Self::with(Arc::new(Circuit::new(config)), classify)
    }
}

impl<C, K> BreakerLayer<C, K> {
    /// Around services of the protocol `K`, with a circuit that others use as well.
    #[must_use]
    pub fn with(circuit: Arc<Circuit>, classify: C) -> Self {
        Self {
            circuit,
            classify,
            protocol: PhantomData,
        }
    }

    /// The state that the services share.
    #[must_use]
    pub const fn circuit(&self) -> &Arc<Circuit> {
        &self.circuit
    }
}

impl<C: Clone, K> Clone for BreakerLayer<C, K> {
    fn clone(&self) -> Self {
        Self::with(Arc::clone(&self.circuit), self.classify.clone())
    }
}

impl<C, K> fmt::Debug for BreakerLayer<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer")
            .field("circuit", &self.circuit)
            .finish_non_exhaustive()
    }
}

impl<S, C: Clone, K> Layer<S> for BreakerLayer<C, K> {
    type Service = Breaker<S, C, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Breaker::new(inner, Arc::clone(&self.circuit), self.classify.clone())
    }
}
