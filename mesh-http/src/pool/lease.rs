use std::sync::{Arc, atomic::Ordering};

use mesh_core::{Error, ErrorKind, Permit};

use super::{Inner, Place, Tracked};
use crate::{
    h1::client::{Connection, Return},
    h2::client::Guard,
};

/// What an exchange holds until it is over: its place among `max_requests`.
pub(super) struct Lease {
    pool: Arc<Inner>,
    /// Taken when the request is over.
    permit: Option<Permit>,
}

impl Lease {
    pub(super) fn new(pool: Arc<Inner>, permit: Permit) -> Self {
        pool.stats.upstream_rq_total().inc();
        pool.stats.upstream_rq_active().inc();
        let stats = &pool.endpoint.state.stats;
        stats.rq_total.fetch_add(1, Ordering::Relaxed);
        stats.rq_active.fetch_add(1, Ordering::Relaxed);
        Self {
            pool,
            permit: Some(permit),
        }
    }

    /// Ends the request in the books; `false` if it had ended before.
    fn settle(&mut self) -> bool {
        let Some(permit) = self.permit.take() else {
            return false;
        };
        drop(permit);
        self.pool.stats.upstream_rq_active().dec();
        self.pool
            .endpoint
            .state
            .stats
            .rq_active
            .fetch_sub(1, Ordering::Relaxed);
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.settle() {
            self.pool.stats.upstream_cx_destroy_with_active_rq().inc();
        }
    }
}

impl Return<Tracked> for Lease {
    fn give_back(mut self, connection: Option<Connection<Tracked>>) {
        // The request is over before its connection serves the next.
        self.settle();
        if let Some(connection) = connection {
            self.pool.put_back(connection);
        }
    }
}

/// What a stream holds until it is over: its request's place among `max_requests`, and its own among the
/// connection's streams.
pub(super) struct StreamLease {
    lease: Lease,
    pub(super) place: Place,
}

impl StreamLease {
    pub(super) fn new(lease: Lease, place: Place) -> Self {
        lease.pool.http2_stats.streams_active().inc();
        Self { lease, place }
    }
}

impl Guard for StreamLease {
    fn broke_off(&self, error: Option<&Error>) {
        let stats = &self.lease.pool.stats;
        match error.map(Error::kind) {
            Some(ErrorKind::RemoteReset | ErrorKind::ConnectionTermination) => {
                stats.upstream_rq_rx_reset().inc();
            }
            _ => stats.upstream_rq_tx_reset().inc(),
        }
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.lease.pool.http2_stats.streams_active().dec();
        // The connection lives on.
        self.lease.settle();
    }
}
