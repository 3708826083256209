use std::time::Instant;

use mesh_core::{EndpointState, Health};

use crate::SlowStartConfig;

/// How far endpoints have grown at one moment.
///
/// # Envoy
/// `EdfLoadBalancerBase::applySlowStartFactor`
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlowStart {
    config: SlowStartConfig,
    now: Instant,
}

impl SlowStart {
    pub(crate) const fn new(config: SlowStartConfig, now: Instant) -> Self {
        Self { config, now }
    }

    /// An endpoint that is well has become so now, unless somebody said so before.
    pub(super) fn note(&self, endpoint: &EndpointState) {
        if endpoint.health() == Health::Healthy && endpoint.well_since().is_none() {
            endpoint.set_well_since(self.now);
        }
    }

    /// The share of its weight; `None` is all of it.
    pub(super) fn grown(&self, endpoint: &EndpointState) -> Option<f64> {
        if endpoint.health() != Health::Healthy {
            return None;
        }
        let age = self.now.saturating_duration_since(endpoint.well_since()?);
        let (age, window) = (age.as_millis(), self.config.window.as_millis());
        if age >= window {
            return None;
        }
        let time = age.max(1) as f64 / window as f64;
        let aggression = self.config.aggression.get();
        let factor = if aggression == 1.0 {
            time
        } else {
            time.powf(1.0 / aggression)
        };
        let least = self.config.min_weight_percent.get() / 100.0;
        Some(factor.max(least))
    }
}
