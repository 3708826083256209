mesh_core::stats! {
    /// What the control plane counts; scope: `control.`.
    pub struct ControlStats {
        /// Updates of registries that were published.
        counter update_success,
        /// Updates that were refused; what was published stayed.
        counter update_rejected,
        /// Times a registry could not be asked.
        counter update_failure,
        /// Milliseconds from an update to its publication, or refusal.
        histogram update_time,
        /// Clients that were sent everything again, since what they acknowledged differed.
        counter resync,
        /// Load reports of proxies.
        counter load_reports,
        /// Connections that ended before they were of use: bad handshakes, above all.
        counter connection_failure,
    }
}
