use mesh_core::stats::Scope;

use crate::h2::Http2Stats;

mesh_core::stats! {
    /// What is counted about a cluster's connections and requests; Envoy's names, under `cluster.<name>.`.
    pub struct UpstreamStats {
        /// Connections opened.
        counter upstream_cx_total,
        /// Connections open.
        gauge upstream_cx_active,
        /// HTTP/1.1 connections opened.
        counter upstream_cx_http1_total,
        /// HTTP/2 connections opened.
        counter upstream_cx_http2_total,
        /// Connections that could not be opened.
        counter upstream_cx_connect_fail,
        /// Connections that were not open in time.
        counter upstream_cx_connect_timeout,
        /// Times that `max_connections` stood in the way.
        counter upstream_cx_overflow,
        /// Connections closed because they were idle.
        counter upstream_cx_idle_timeout,
        /// Connections closed after `max_requests_per_connection`.
        counter upstream_cx_max_requests,
        /// Connections closed.
        counter upstream_cx_destroy,
        /// Connections that this side closed.
        counter upstream_cx_destroy_local,
        /// Connections that the upstream closed.
        counter upstream_cx_destroy_remote,
        /// Connections closed under a request.
        counter upstream_cx_destroy_with_active_rq,
        /// Connections that this side closed under a request.
        counter upstream_cx_destroy_local_with_active_rq,
        /// Connections that the upstream closed under a request.
        counter upstream_cx_destroy_remote_with_active_rq,
        /// Answers that broke the protocol.
        counter upstream_cx_protocol_error,
        /// Bytes received.
        counter upstream_cx_rx_bytes_total,
        /// Bytes sent.
        counter upstream_cx_tx_bytes_total,
        /// Milliseconds to open a connection.
        histogram upstream_cx_connect_ms,
        /// Milliseconds a connection was open.
        histogram upstream_cx_length_ms,
        /// Requests that got a connection.
        counter upstream_rq_total,
        /// Requests that have a connection.
        gauge upstream_rq_active,
        /// Requests refused by `max_requests`.
        counter upstream_rq_active_overflow,
        /// Requests that waited for a connection.
        counter upstream_rq_pending_total,
        /// Requests that wait for a connection.
        gauge upstream_rq_pending_active,
        /// Requests refused by `max_pending_requests`.
        counter upstream_rq_pending_overflow,
        /// Waiting requests that failed with the connection, and streams that ended with theirs.
        counter upstream_rq_pending_failure_eject,
        /// Requests given up while they waited for a connection.
        counter upstream_rq_cancelled,
        /// Streams reset by this side; HTTP/1 has none.
        counter upstream_rq_tx_reset,
        /// Streams reset by the upstream; HTTP/1 has none.
        counter upstream_rq_rx_reset,
        /// Requests sent again because an idle connection had died; ours, not Envoy's.
        counter upstream_rq_idle_replay,
    }
}

impl UpstreamStats {
    /// Counts the end of a connection: who closed it, and whether a request was on it.
    pub fn count_end(&self, by_peer: bool, active: bool) {
        self.upstream_cx_destroy().inc();
        let (ended, with_active) = if by_peer {
            (
                self.upstream_cx_destroy_remote(),
                self.upstream_cx_destroy_remote_with_active_rq(),
            )
        } else {
            (
                self.upstream_cx_destroy_local(),
                self.upstream_cx_destroy_local_with_active_rq(),
            )
        };
        ended.inc();
        if active {
            self.upstream_cx_destroy_with_active_rq().inc();
            with_active.inc();
        }
    }
}

/// All that is counted about a cluster's connections.
#[derive(Debug, Clone)]
pub struct PoolStats {
    /// Whatever they speak.
    pub upstream: UpstreamStats,
    /// What is particular to HTTP/2.
    pub http2: Http2Stats,
}

impl PoolStats {
    /// Registers under `cluster.<name>.`.
    #[must_use]
    pub fn register(scope: &Scope) -> Self {
        Self {
            upstream: UpstreamStats::register(scope),
            http2: Http2Stats::register(&scope.scope("http2.")),
        }
    }
}
