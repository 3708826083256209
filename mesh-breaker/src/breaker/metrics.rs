mesh_core::stats! {
    /// What a breaker counts.
    pub struct BreakerStats {
        /// Times it opened, from closed or half open.
        counter opened,
        /// Times it began to probe.
        counter half_opened,
        /// Times it closed again.
        counter closed,
        /// Calls refused.
        counter refused,
        /// Calls let through in shadow mode that would have been refused.
        counter shadow_refused,
        /// Calls let through as probes.
        counter probes,
        /// Calls that counted as successes.
        counter successes,
        /// Calls that counted as failures.
        counter failures,
        /// Calls that were slow, if slow calls matter.
        counter slow,
        /// 1 while open.
        gauge open,
        /// 1 while half open.
        gauge half_open,
    }
}
