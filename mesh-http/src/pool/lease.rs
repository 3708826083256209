use std::sync::{Arc, atomic::Ordering};

use mesh_core::{Error, ErrorKind, Permit};

use super::{Inner, Place, Tracked, tracked::Running};
use crate::{
    h1::client::{Connection, Return},
    h2::client::Guard,
};

/// What an exchange holds until it is over: its place among `max_requests`.
pub(super) struct Lease {
    pool: Arc<Inner>,
    /// What runs on its connection, it included.
    running: Arc<Running>,
    /// Taken when the request is over.
    permit: Option<Permit>,
}

impl Lease {
    pub(super) fn new(pool: Arc<Inner>, permit: Permit, running: Arc<Running>) -> Self {
        running.requests.fetch_add(1, Ordering::Relaxed);
        pool.stats.upstream_rq_total().inc();
        pool.stats.upstream_rq_active().inc();
        let stats = &pool.endpoint.state.stats;
        stats.rq_total.fetch_add(1, Ordering::Relaxed);
        stats.rq_active.fetch_add(1, Ordering::Relaxed);
        Self {
            pool,
            running,
            permit: Some(permit),
        }
    }

    /// Ends the request in the books.
    fn settle(&mut self) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        drop(permit);
        self.running.requests.fetch_sub(1, Ordering::Relaxed);
        self.pool.stats.upstream_rq_active().dec();
        self.pool
            .endpoint
            .state
            .stats
            .rq_active
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Return<Tracked> for Lease {
    fn broke_off(&self, error: &Error) {
        if error.kind() == ErrorKind::UpstreamProtocol {
            self.pool.stats.upstream_cx_protocol_error().inc();
        }
    }

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
        self.lease.pool.count_broken(error);
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.lease.pool.http2_stats.streams_active().dec();
        // The connection lives on.
        self.lease.settle();
    }
}
