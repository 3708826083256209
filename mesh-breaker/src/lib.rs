//! Refusing before the upstream drowns: thresholds and the closed/open/half-open breaker as tower layers.

mod breaker;
mod config;
mod error;
mod thresholds;

pub use breaker::{
    Breaker, BreakerFuture, BreakerLayer, BreakerStats, Circuit, Probe, Ticket, state,
};
pub use config::{
    BUCKETS_MAX, BreakerConfig, BreakerConfigBuilder, InvalidBreakerConfig, OPEN_DURATION_MAX,
    PROBES_MAX, Ratio, SlowCalls,
};
pub use error::{Refusal, Trip, TripCause};
pub use thresholds::{
    ThresholdsFuture, ThresholdsLayer, ThresholdsService, ThresholdsStats, export_gauges,
};
