//! Local rate limiting as tower layers: token buckets that need no peer and no lock.
//!
//! A client that sends more than its share takes the service from all others. A *local* rate limit
//! refuses the excess in this process, on what this process alone has seen: it answers in a hundred
//! nanoseconds, cannot fail, and cannot be slow.
//!
//! | | when there is no token | decides in | use it |
//! |---|---|---|---|
//! | [`RateLimitLayer`] | refuses with `429` | `call`, by request | in front of a service, to protect it |
//! | [`ThrottleLayer`] | waits for one | `poll_ready`, blindly | in front of a client, to be polite |
//!
//! **When not.** Ten replicas with 100 per second let 1,000 through; for one limit over all of them a
//! rate limit service is needed. A rate limit does not know whether the service is well: for that, bound
//! what runs at once. And who is refused may be the wrong one: give clients buckets of their own by
//! [descriptors](Descriptor).
//!
//! A [`TokenBucket`] starts full and fills continuously, as Envoy's does: at 60 per minute one token
//! comes each second, not sixty at the full minute. A request that is refused takes nothing.
//!
//! # With the defaults
//!
//! A hundred requests a second, a hundred at once:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use http::{Request, Response};
//! use mesh_core::{Body, Error, ErrorKind};
//! use mesh_ratelimit::{LocalRateLimitConfig, RateLimitLayer};
//! use tower::{Layer, ServiceExt};
//!
//! let layer = RateLimitLayer::fixed(LocalRateLimitConfig::per_second(100)?);
//! let service = layer.layer(tower::service_fn(|_: Request<Body>| async {
//!     Ok::<_, Error>(Response::new(Body::from("hello")))
//! }));
//!
//! let call = || service.clone().oneshot(Request::new(Body::empty()));
//! for _ in 0..100 {
//!     assert_eq!(call().await?.status(), 200);
//! }
//! let mut error = call().await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::RateLimited);
//! assert_eq!(error.take_reply().unwrap().status, 429);
//! # Ok(()) }
//! ```
//!
//! The refusal is an error that carries the answer to give; it becomes a response at the edge of the
//! stack.
//!
//! # Customised
//!
//! Each user has ten requests a minute, and `x-ratelimit-*` headers tell what is left of them. To see first
//! whom that would hit, set `mode` to [`Shadow`](mesh_core::Mode::Shadow): it counts and changes nothing.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//!
//! use mesh_core::{Fixed, clock, stats::Registry};
//! use mesh_ratelimit::{
//!     Action, Descriptor, Descriptors, LocalRateLimit, LocalRateLimitConfig, RateLimitLayer,
//!     RateLimitRule, TokenBucketConfig, XRateLimitHeaders,
//! };
//!
//! let per_user = TokenBucketConfig::new(10, 10, Duration::from_secs(60))?;
//! let config = LocalRateLimitConfig {
//!     stat_prefix: Arc::from("api"),
//!     // An empty value stands for any, and gives each its own bucket.
//!     descriptors: Descriptors::new(vec![Descriptor::new([("user", "")], per_user)])?,
//!     rate_limits: vec![RateLimitRule::new(vec![Action::RequestHeaders {
//!         header_name: "x-user".parse()?,
//!         descriptor_key: Arc::from("user"),
//!         skip_if_absent: false,
//!     }])]
//!     .into(),
//!     max_dynamic_descriptors: 10_000.try_into()?,
//!     enable_x_ratelimit_headers: XRateLimitHeaders::DraftVersion03,
//!     // Requests without a user share these.
//!     ..LocalRateLimitConfig::per_second(50)?
//! };
//! let registry = Registry::new();
//! let limit = LocalRateLimit::new(config, clock::now()).with_stats(&registry.scope(""));
//! let layer = RateLimitLayer::new(Fixed::new(limit));
//! # let _ = layer;
//! # Ok(()) }
//! ```
//!
//! Instead of [`Fixed`](mesh_core::Fixed), any [`PolicySource`](mesh_core::PolicySource) can find the
//! limit, for one layer that serves many routes.
//!
//! # A throttle
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use mesh_ratelimit::{ThrottleLayer, TokenBucketConfig};
//! use tower::{Layer, Service, ServiceExt};
//!
//! let five_a_second = TokenBucketConfig::per_second(5)?.burst(1)?;
//! let mut service = ThrottleLayer::new(five_a_second)
//!     .layer(tower::service_fn(|n: u32| async move { Ok::<_, std::io::Error>(n) }));
//! let start = tokio::time::Instant::now();
//! for n in 0..6 {
//!     service.ready().await?.call(n).await?;
//! }
//! assert_eq!(start.elapsed().as_millis(), 1_000);
//! # Ok(()) }
//! ```
//!
//! # Config pushes
//!
//! Buckets belong to what their config is written at, not to a version of it. A [`RateLimitStore`]
//! finds those of the last version by the owner's path, and hands on every bucket whose parameters
//! stayed the same: a push refills none.
//!
//! # Envoy
//!
//! `envoy.filters.http.local_ratelimit`; [`LocalRateLimitConfig`] has its fields and defaults. Two
//! differences: a `limit` override, `disable_key` and `stage` are settled by whoever builds the list of
//! rules, and `local_cluster_rate_limit` is not known.

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
mod values;
mod view;

pub use action::{Action, Entries, Matches, RateLimitRule, RateLimits, RulesOf, ValueOf};
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
pub use values::{HeaderKey, InvalidHeaderKey};
pub use view::RequestView;
