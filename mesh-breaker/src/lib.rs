//! Refusing before the upstream drowns: thresholds and the closed/open/half-open breaker as tower layers.
//!
//! An upstream in trouble gets slow before it fails. Its callers pile up, and what began as one slow
//! service ends as many that wait for it. This crate holds two ways to refuse in time, which differ in what
//! they look at:
//!
//! | | looks at | refuses | use it |
//! |---|---|---|---|
//! | [`ThresholdsLayer`] | how many requests run and wait now | what exceeds a bound | always: it costs nothing while the upstream is well |
//! | [`BreakerLayer`] | how calls ended | everything, for a while, then probes | when calls to a dead upstream are expensive, or keep it dead |
//!
//! **A word trap.** What Envoy calls "circuit breakers" are bounds, here [`Thresholds`](mesh_core::Thresholds).
//! The [`Breaker`] is the machine of three phases; *closed* lets traffic pass, as in a circuit.
//!
//! **When not.** Neither balances nor repeats. A breaker in front of many endpoints lets the bad ones speak
//! for all: eject single endpoints by outlier detection instead. And a breaker does not replace timeouts:
//! a call that never ends has no outcome.
//!
//! Both refuse with a [`mesh_core::Error`], kind [`Overflow`](mesh_core::ErrorKind::Overflow) or
//! [`BreakerOpen`](mesh_core::ErrorKind::BreakerOpen), nothing sent, flag `UO`; its source holds the numbers
//! that were compared. At the edge of a mesh stack that becomes `503` with `x-envoy-overloaded: true`.
//!
//! # Thresholds
//!
//! With the defaults, Envoy's 1024 requests at once and 1024 that wait:
//!
//! ```
//! use http::{Request, Response};
//! use mesh_breaker::ThresholdsLayer;
//! use mesh_core::{Body, Error, Thresholds};
//! use tower_layer::Layer;
//!
//! # fn main() {
//! # let client = tower::service_fn(|_: Request<Body>| async { Ok::<_, Error>(Response::new(Body::empty())) });
//! let client = ThresholdsLayer::new(&Thresholds::default()).http().layer(client);
//! # let _ = client;
//! # }
//! ```
//!
//! Customised: around any service, with bounds that others share, found for each request:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use mesh_breaker::{ThresholdsLayer, ThresholdsStats};
//! use mesh_core::{ErrorKind, FromRequest, Resource, Resources, Thresholds, stats::Registry};
//! use tower::{Layer, ServiceExt};
//!
//! let registry = Registry::new();
//! let few = Resources::new(&Thresholds { max_requests: 0, ..Thresholds::default() });
//! let large_ones = few.clone();
//! let layer = ThresholdsLayer::from_source(FromRequest(move |query: &String| {
//!     // Only long queries are bounded.
//!     (query.len() > 10).then(|| large_ones.clone())
//! }))
//! .stats(ThresholdsStats::register(&registry.scope("cluster.search.")));
//!
//! let search = tower::service_fn(|query: String| async move { Ok::<_, std::io::Error>(query.len()) });
//! let search = layer.layer(search);
//! assert_eq!(search.clone().oneshot("short".to_owned()).await.unwrap(), 5);
//! let refused = search.oneshot("a long query".to_owned()).await.unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::Overflow(Resource::Requests));
//! # }
//! ```
//!
//! # Breaker
//!
//! With the defaults (see [`BreakerConfig`]), around an HTTP client:
//!
//! ```
//! use http::{Request, Response};
//! use mesh_breaker::{BreakerConfig, BreakerLayer};
//! use mesh_core::{Body, Error};
//! use tower_layer::Layer;
//!
//! # fn main() {
//! # let client = tower::service_fn(|_: Request<Body>| async { Ok::<_, Error>(Response::new(Body::empty())) });
//! let client = BreakerLayer::http(BreakerConfig::default()).layer(client);
//! # let _ = client;
//! # }
//! ```
//!
//! Customised: around any service, with a classifier that says what a failure is:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! use std::time::Duration;
//!
//! use mesh_breaker::{BreakerConfig, BreakerLayer, Ratio, SlowCalls, state::Phase};
//! use mesh_core::{Error, Outcome, Percent};
//! use tower::{Layer, Service, ServiceExt};
//!
//! let config = BreakerConfig::builder()
//!     .consecutive_failures(Some(3))
//!     .ratio(Some(Ratio {
//!         failures: Percent::whole(20),
//!         slow: Some(SlowCalls { duration: Duration::from_secs(1), share: Percent::whole(50) }),
//!         ..Ratio::default()
//!     }))
//!     .open_duration(Duration::from_secs(1), Duration::from_secs(30))
//!     .build()?;
//! let classify = |result: Result<&u32, &Error>| {
//!     Some(match result {
//!         Ok(_) => Outcome::Status(200),
//!         Err(error) => Outcome::Failure(error.kind()),
//!     })
//! };
//! let layer = BreakerLayer::new(config, classify);
//! let mut query = layer.layer(tower::service_fn(|_: ()| async {
//!     Err::<u32, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
//! }));
//! for _ in 0..3 {
//!     let _ = query.ready().await?.call(()).await;
//! }
//! assert_eq!(layer.circuit().phase(), Phase::Open);
//! # Ok(()) }
//! ```

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
