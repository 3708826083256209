//! Refusing before the upstream drowns: thresholds and the closed/open/half-open breaker as tower layers.

mod config;

pub use config::{
    BUCKETS_MAX, BreakerConfig, BreakerConfigBuilder, InvalidBreakerConfig, PROBES_MAX, Ratio,
    SlowCalls,
};
