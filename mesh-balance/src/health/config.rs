use std::time::Duration;

/// How often an endpoint is checked, and how much it takes to change one's mind about it.
///
/// Every value of every field is valid. Intervals count in whole milliseconds, and are at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheckConfig {
    /// How long one check may take. `timeout`.
    pub timeout: Duration,
    /// From the end of a check that passed to the next. `interval`.
    pub interval: Duration,
    /// The same after a check that failed. Default: `interval`. `unhealthy_interval`.
    pub unhealthy_interval: Duration,
    /// The same after a check that failed while the endpoint still counts as healthy. Default:
    /// `unhealthy_interval`. `unhealthy_edge_interval`.
    pub unhealthy_edge_interval: Duration,
    /// The same after a check that passed while the endpoint still counts as failed. Default: `interval`.
    /// `healthy_edge_interval`.
    pub healthy_edge_interval: Duration,
    /// In place of all of these while the cluster has never been used. Default: one minute.
    /// `no_traffic_interval`.
    pub no_traffic_interval: Duration,
    /// The same after a check that passed, unless the endpoint still counts as failed. Default:
    /// `no_traffic_interval`. `no_traffic_healthy_interval`.
    pub no_traffic_healthy_interval: Duration,
    /// The first check comes at a random time below this; at once when zero, the default. `initial_jitter`.
    pub initial_jitter: Duration,
    /// A random time below this is added to each interval. Default: none. `interval_jitter`.
    pub interval_jitter: Duration,
    /// A random time below this share of it is added to each interval. Default: 0. Percent.
    /// `interval_jitter_percent`.
    pub interval_jitter_percent: u32,
    /// How many checks in a row must go wrong before a healthy endpoint counts as failed; an answer that
    /// says so itself fails it at once. 0: never. `unhealthy_threshold`.
    pub unhealthy_threshold: u32,
    /// How many checks in a row must pass before a failed endpoint counts as healthy; the very first one
    /// suffices alone. 0: never. `healthy_threshold`.
    pub healthy_threshold: u32,
    /// Whether each failure is logged, not only those that change something. Default: no.
    /// `always_log_health_check_failures`.
    pub always_log_failures: bool,
    /// The same for checks that pass. Default: no. `always_log_health_check_success`.
    pub always_log_success: bool,
}

impl HealthCheckConfig {
    /// Envoy's defaults, and thresholds of one: Envoy asks for these.
    #[must_use]
    pub const fn new(timeout: Duration, interval: Duration) -> Self {
        const NO_TRAFFIC: Duration = Duration::from_secs(60);
        Self {
            timeout,
            interval,
            unhealthy_interval: interval,
            unhealthy_edge_interval: interval,
            healthy_edge_interval: interval,
            no_traffic_interval: NO_TRAFFIC,
            no_traffic_healthy_interval: NO_TRAFFIC,
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
            unhealthy_threshold: 1,
            healthy_threshold: 1,
            always_log_failures: false,
            always_log_success: false,
        }
    }
}
