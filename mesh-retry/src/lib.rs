//! Retries as a tower layer: conditions, back-off, budgets, replay, hedging, deadlines.

mod backoff;
mod body;
mod call;
mod config;
mod deadline;
mod future;
mod head;
mod headers;
mod layer;
mod metrics;
mod plan;
mod replay;
mod retry_on;
mod service;
mod source;
mod state;
mod time;

pub use backoff::{
    DEFAULT_RATE_LIMITED_MAX_INTERVAL, InvalidRateLimitedBackoff, RateLimitedBackoff, ResetFormat,
    ResetHeader,
};
pub use body::RetryBody;
pub use config::{
    DEFAULT_BASE_INTERVAL, DEFAULT_NUM_RETRIES, DEFAULT_REQUEST_BODY_BUFFER_LIMIT, RequestHead,
    RequestPredicate, ResponsePredicate, RetryConfig, RetryConfigBuilder,
};
pub use deadline::{
    DEFAULT_TIMEOUT, Deadline, DeadlineBody, DeadlineConfig, DeadlineFuture, DeadlineLayer,
    EXPECTED_TIMEOUT, WatchedBody, effective_per_try_timeout, expected_rq_timeout,
};
pub use future::{HEDGES_MAX, ResponseFuture};
pub use headers::RetryOverrides;
pub use layer::RetryLayer;
pub use metrics::RetryStats;
pub use replay::{FRAMES_MAX, ReplayBody};
pub use retry_on::{RetryOn, UnknownCondition};
pub use service::Retry;
pub use source::{OwnBudget, RetryContext, RetrySource};
pub use state::{Judgement, RetryEnv, RetryState, Verdict};
