//! How many connections a filter chain lets in at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_config::model::ConnectionLimitConfig;
use mesh_core::stats::Registry;

mesh_core::stats! {
    /// What a limit counts, as `connection_limit.<stat_prefix>.<stat>`.
    pub(super) struct ConnectionLimitStats {
        /// Connections that were refused.
        counter limited_connections,
        /// Connections let in that are open.
        gauge active_connections,
    }
}

/// A bound on the connections of one filter chain, on all workers together.
///
/// # Envoy
/// `envoy.filters.network.connection_limit`.
pub(super) struct ConnectionLimit {
    max: u64,
    delay: Option<Duration>,
    active: AtomicU64,
    stats: ConnectionLimitStats,
}

/// A place among the connections, until it is dropped.
pub(super) struct Place(Arc<ConnectionLimit>);

impl ConnectionLimit {
    pub(super) fn new(config: &ConnectionLimitConfig, registry: &Registry) -> Arc<Self> {
        let scope = registry.scope(&format!("connection_limit.{}.", config.stat_prefix));
        Arc::new(Self {
            max: config.max_connections,
            delay: config.delay,
            active: AtomicU64::new(0),
            stats: ConnectionLimitStats::register(&scope),
        })
    }

    /// A place, or how long to keep the connection before it is closed.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Place, Option<Duration>> {
        // Relaxed: only the number counts, nothing is published with it.
        let taken = self
            .active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |active| {
                (active < self.max).then_some(active + 1)
            });
        if taken.is_err() {
            self.stats.limited_connections().inc();
            return Err(self.delay);
        }
        self.stats.active_connections().inc();
        Ok(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.0.stats.active_connections().dec();
    }
}
