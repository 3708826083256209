mesh_core::stats! {
    /// What a fault layer counts, as `http.<stat_prefix>.fault.<name>`.
    pub struct FaultStats {
        /// Requests that waited.
        counter delays_injected,
        /// Requests that failed.
        counter aborts_injected,
        /// Answers that trickled.
        counter response_rl_injected,
        /// Faults that did not happen, because `max_active_faults` were happening.
        counter faults_overflow,
        /// Requests that are being disturbed.
        gauge active_faults,
        /// Requests that shadow mode let through.
        counter shadow_mode,
    }
}
