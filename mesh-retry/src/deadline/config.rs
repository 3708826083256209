use std::time::Duration;

use mesh_core::Mode;

/// Envoy's default route timeout: 15 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a request may take, all attempts and the response body included. Every value is valid.
///
/// # Envoy
/// `RouteAction.timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadlineConfig {
    /// The time from the end of the request to the end of the response; default 15 s, zero is off.
    /// `x-envoy-upstream-rq-timeout-ms` replaces it.
    ///
    /// Envoy: `RouteAction.timeout`.
    pub timeout: Duration,
    /// Whether the timeout fires or is only traced.
    pub mode: Mode,
}

impl DeadlineConfig {
    /// A timeout of `timeout`; zero is off.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            mode: Mode::Enforce,
        }
    }
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        Self::new(DEFAULT_TIMEOUT)
    }
}
