mesh_core::stats! {
    /// What a TCP proxy counts, as `tcp.<stat_prefix>.<stat>`.
    pub struct TcpProxyStats {
        /// Connections.
        counter downstream_cx_total,
        /// Connections whose cluster does not exist.
        counter downstream_cx_no_route,
        /// Bytes sent to clients.
        counter downstream_cx_tx_bytes_total,
        /// Bytes received from clients.
        counter downstream_cx_rx_bytes_total,
        /// Connections closed because they were idle.
        counter idle_timeout,
        /// Connections closed because they lasted too long.
        counter max_downstream_connection_duration,
    }
}
