mesh_core::stats! {
    /// The same for one worker, as `listener.<address>.worker_<number>.<stat>`.
    pub(crate) struct WorkerStats {
        /// Connections that a filter chain took.
        counter downstream_cx_total,
        /// Those of them that are open.
        gauge downstream_cx_active,
    }
}

mesh_core::stats! {
    /// What a listener counts, as `listener.<address>.<stat>`.
    pub(crate) struct ListenerStats {
        /// Connections that a filter chain took.
        counter downstream_cx_total,
        /// Connections open that a filter chain took.
        gauge downstream_cx_active,
        /// Connections closed.
        counter downstream_cx_destroy,
        /// Times that accepting paused for want of file descriptors.
        counter downstream_cx_overflow,
        /// Connections accepted for which no filter chain has been chosen yet.
        gauge downstream_pre_cx_active,
        /// Connections whose listener filters took too long.
        counter downstream_pre_cx_timeout,
        /// Connections that no filter chain takes.
        counter no_filter_chain_match,
        /// Milliseconds a connection was open.
        histogram downstream_cx_length_ms,
    }
}
