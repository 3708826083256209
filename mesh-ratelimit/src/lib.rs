//! Local rate limiting as a tower layer.

mod action;
mod config;
mod headers;
mod view;

pub use action::{
    Action, Entries, HeaderKey, InvalidHeaderKey, Matches, RateLimitRule, RateLimits, RulesOf,
    ValueOf,
};
pub use config::{
    Descriptor, DescriptorEntry, Descriptors, FILL_INTERVAL_MIN, InvalidDescriptors,
    InvalidTokenBucket, LocalRateLimitConfig, TokenBucketConfig, XRateLimitHeaders,
};
pub use headers::{AddHeaders, HeadersToAdd};
pub use view::RequestView;
