//! Retries as a tower layer: conditions, back-off, budgets, replay, hedging, deadlines.

mod backoff;
mod config;
mod deadline;
mod retry_on;

pub use backoff::{
    DEFAULT_RATE_LIMITED_MAX_INTERVAL, InvalidRateLimitedBackoff, RateLimitedBackoff, ResetFormat,
    ResetHeader,
};
pub use config::{
    DEFAULT_BASE_INTERVAL, DEFAULT_NUM_RETRIES, DEFAULT_REQUEST_BODY_BUFFER_LIMIT, RequestHead,
    RequestPredicate, ResponsePredicate, RetryConfig, RetryConfigBuilder,
};
pub use deadline::{DEFAULT_TIMEOUT, DeadlineConfig};
pub use retry_on::{RetryOn, UnknownCondition};
