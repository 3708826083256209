use std::sync::Arc;

use mesh_core::stats::{Scope, StatusCounters};

mesh_core::stats! {
    /// What a connection manager counts, as `http.<stat_prefix>.<stat>`.
    pub struct ManagerStats {
        /// Connections accepted.
        counter downstream_cx_total,
        /// Connections open.
        gauge downstream_cx_active,
        /// HTTP/1 connections accepted.
        counter downstream_cx_http1_total,
        /// HTTP/1 connections open.
        gauge downstream_cx_http1_active,
        /// HTTP/2 connections accepted.
        counter downstream_cx_http2_total,
        /// HTTP/2 connections open.
        gauge downstream_cx_http2_active,
        /// Connections closed.
        counter downstream_cx_destroy,
        /// Connections closed by the client.
        counter downstream_cx_destroy_remote,
        /// Connections closed by us.
        counter downstream_cx_destroy_local,
        /// Connections closed while a request was active.
        counter downstream_cx_destroy_active_rq,
        /// Connections closed by the client while a request was active.
        counter downstream_cx_destroy_remote_active_rq,
        /// Connections closed because they were idle.
        counter downstream_cx_idle_timeout,
        /// Connections whose clients were told to go for their age.
        counter downstream_cx_max_duration_reached,
        /// Connections that broke the protocol.
        counter downstream_cx_protocol_error,
        /// Connections closed while draining.
        counter downstream_cx_drain_close,
        /// Milliseconds a connection was open.
        histogram downstream_cx_length_ms,
        /// Requests.
        counter downstream_rq_total,
        /// HTTP/1.1 requests.
        counter downstream_rq_http1_total,
        /// HTTP/2 requests.
        counter downstream_rq_http2_total,
        /// Connections closed because most of their streams were reset before they were answered.
        counter downstream_rq_too_many_premature_resets,
        /// Requests running.
        gauge downstream_rq_active,
        /// Requests answered.
        counter downstream_rq_completed,
        /// Answers 100 to 199.
        counter downstream_rq_1xx,
        /// Answers 200 to 299.
        counter downstream_rq_2xx,
        /// Answers 300 to 399.
        counter downstream_rq_3xx,
        /// Answers 400 to 499.
        counter downstream_rq_4xx,
        /// Answers 500 to 599.
        counter downstream_rq_5xx,
        /// Milliseconds per request.
        histogram downstream_rq_time,
        /// Requests that did not arrive in time.
        counter downstream_rq_timeout,
        /// Heads that did not arrive in time.
        counter downstream_rq_header_timeout,
        /// Streams that lasted for too long.
        counter downstream_rq_max_duration_reached,
        /// Streams that were silent for too long.
        counter downstream_rq_idle_timeout,
        /// Requests that the client gave up.
        counter downstream_rq_rx_reset,
        /// Answers that broke off.
        counter downstream_rq_tx_reset,
        /// Tunnels that were asked for and allowed.
        counter downstream_cx_upgrades_total,
        /// Those that are there.
        gauge downstream_cx_upgrades_active,
        /// Connections that carried as many requests as they may.
        counter downstream_cx_max_requests_reached,
        /// Upgrades that no route allowed.
        counter downstream_rq_ws_on_non_ws_route,
        /// Requests that were too large.
        counter downstream_rq_too_large,
        /// Targets that do not start with a slash.
        counter downstream_rq_non_relative_path,
        /// Paths that could not be normalised.
        counter downstream_rq_failed_path_normalization,
        /// Clients sent to the normalised path.
        counter downstream_rq_redirected_with_normalized_path,
        /// Answers given before the request was complete.
        counter downstream_rq_response_before_rq_complete,
        /// Requests without a route.
        counter no_route,
        /// Requests whose cluster does not exist.
        counter no_cluster,
        /// Answers that a route gave itself.
        counter rq_direct_response,
        /// Requests that reached the router.
        counter rq_total,
        /// Redirects not followed, since they name no target or none of http.
        counter passthrough_internal_redirect_bad_location,
        /// Redirects not followed, since the target has another scheme.
        counter passthrough_internal_redirect_unsafe_scheme,
        /// Redirects not followed, since enough were.
        counter passthrough_internal_redirect_too_many_redirects,
        /// Redirects not followed, since no route matches.
        counter passthrough_internal_redirect_no_route,
        /// Redirects not followed, since a predicate refused.
        counter passthrough_internal_redirect_predicate,
    }
}

impl ManagerStats {
    /// Counts an answer in its class.
    pub fn count_status(&self, status: u16) {
        self.downstream_rq_completed().inc();
        match status {
            100..200 => self.downstream_rq_1xx().inc(),
            200..300 => self.downstream_rq_2xx().inc(),
            300..400 => self.downstream_rq_3xx().inc(),
            400..500 => self.downstream_rq_4xx().inc(),
            500..600 => self.downstream_rq_5xx().inc(),
            _ => {}
        }
    }
}

mesh_core::stats! {
    /// What the router counts of a cluster, as `cluster.<name>.<stat>`, beside what pools and retries count.
    pub struct RouterStats {
        /// Milliseconds until the answer was complete.
        histogram upstream_rq_time,
        /// Requests that exceeded the route timeout.
        counter upstream_rq_timeout,
        /// Requests for which there was no endpoint.
        counter upstream_cx_none_healthy,
        /// Request headers that named no address to go to.
        counter original_dst_host_invalid,
        /// Proxied TCP connections that no attempt could connect.
        counter upstream_cx_connect_attempts_exceeded,
        /// Redirects that were followed.
        counter upstream_internal_redirect_succeeded_total,
        /// Redirects that might have been followed, and were passed on.
        counter upstream_internal_redirect_failed_total,
    }
}

/// All that the router counts of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterStats {
    /// Times and timeouts.
    pub router: RouterStats,
    /// `upstream_rq_<code>` and its classes.
    pub statuses: Arc<StatusCounters>,
    /// The same for internal and external clients.
    pub internal: Arc<StatusCounters>,
    /// See `internal`.
    pub external: Arc<StatusCounters>,
    /// `retry.upstream_rq_<code>`: answers that were retried.
    pub retried: Arc<StatusCounters>,
}

impl ClusterStats {
    /// Registers under `cluster.<name>.`.
    #[must_use]
    pub fn register(scope: &Scope) -> Self {
        let statuses = |sub: &str| scope.scope(sub).statuses("upstream_rq");
        Self {
            router: RouterStats::register(scope),
            statuses: statuses(""),
            internal: statuses("internal."),
            external: statuses("external."),
            retried: statuses("retry."),
        }
    }

    /// Counts an answer that went to the client.
    pub fn count(&self, status: u16, internal: bool) {
        self.statuses.count(status);
        if internal {
            &self.internal
        } else {
            &self.external
        }
        .count(status);
    }
}
