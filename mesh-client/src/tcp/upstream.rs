use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use mesh_core::{Endpoint, Permit, clock};
use mesh_http::pool::UpstreamStats;

/// What a connection to an endpoint holds and counts for as long as it lives: the place that
/// `max_connections` left for it, its cluster's numbers and its endpoint's.
pub(super) struct Upstream {
    stats: UpstreamStats,
    endpoint: Arc<Endpoint>,
    opened: Instant,
    /// How much may be kept for a slow receiver.
    pub(super) buffer_limit: u64,
    /// The endpoint has closed it, or reset it.
    peer_ended: bool,
    _permit: Permit,
}

impl Upstream {
    pub(super) fn new(
        stats: UpstreamStats,
        endpoint: Arc<Endpoint>,
        permit: Permit,
        buffer_limit: u64,
    ) -> Self {
        stats.upstream_cx_active().inc();
        stats.upstream_rq_total().inc();
        stats.upstream_rq_active().inc();
        let own = &endpoint.state.stats;
        for total in [&own.cx_total, &own.cx_active, &own.rq_total, &own.rq_active] {
            total.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            stats,
            endpoint,
            opened: clock::now(),
            buffer_limit,
            peer_ended: false,
            _permit: permit,
        }
    }

    /// The endpoint ended it, not we.
    pub(super) fn ended_by_peer(&mut self) {
        self.peer_ended = true;
    }

    pub(super) fn count_bytes(&self, received: u64, sent: u64) {
        self.stats.upstream_cx_rx_bytes_total().add(received);
        self.stats.upstream_cx_tx_bytes_total().add(sent);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stats.upstream_cx_active().dec();
        self.stats.upstream_rq_active().dec();
        // Its one request lives as long as it does.
        self.stats.count_end(self.peer_ended, true);
        let lived = (clock::now() - self.opened).as_millis();
        let lived = u64::try_from(lived).unwrap_or(u64::MAX);
        self.stats.upstream_cx_length_ms().record(lived);
        let own = &self.endpoint.state.stats;
        for active in [&own.cx_active, &own.rq_active] {
            active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
