//! Local rate limiting as a tower layer.

mod action;
mod bucket;
mod buckets;
mod config;
mod connections;
mod error;
mod future;
mod headers;
mod layer;
mod lru;
mod metrics;
mod service;
mod state;
mod store;
mod throttle;
mod view;

pub use action::{
    Action, Entries, HeaderKey, InvalidHeaderKey, Matches, RateLimitRule, RateLimits, RulesOf,
    ValueOf,
};
pub use bucket::{Shortage, TokenBucket};
pub use config::{
    Descriptor, DescriptorEntry, Descriptors, FILL_INTERVAL_MIN, InvalidDescriptors,
    InvalidTokenBucket, LocalRateLimitConfig, TokenBucketConfig, XRateLimitHeaders,
};
pub use future::ResponseFuture;
pub use headers::{AddHeaders, HeadersToAdd};
pub use layer::RateLimitLayer;
pub use metrics::RateLimitStats;
pub use service::RateLimit;
pub use state::{LocalRateLimit, Quota, Verdict};
pub use store::RateLimitStore;
pub use throttle::{Throttle, ThrottleLayer};
pub use view::RequestView;
