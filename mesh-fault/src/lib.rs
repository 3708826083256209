//! Faults on purpose, as a tower layer: what a service does when another is slow, fails, or trickles.
//!
//! A time-out that nobody has ever seen fire is a guess. [`FaultLayer`] delays a share of requests, answers
//! a share of them with an error, or hands out answers slowly, so that one can see, in a test or in a
//! running system, what the callers make of it.
//!
//! | fault | what happens | config |
//! |---|---|---|
//! | delay | the request goes on only after a while | [`FaultDelay`] |
//! | abort | the request goes nowhere; the answer is an error | [`FaultAbort`] |
//! | rate limit | the answer's body arrives at so many KiB per second | [`FaultRateLimit`] |
//!
//! One request may meet all three: it is delayed first. How many requests may be disturbed at once is
//! bounded by [`FaultConfig::max_active_faults`].
//!
//! **When not.** It disturbs requests, not connections: a peer that hangs in its handshake, or half a
//! packet, is for tools that sit on the socket. And a fault at the server says nothing about a network.
//!
//! # With the defaults
//!
//! Nothing happens until something is asked for. One request in ten waits for two seconds:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use http::{Request, Response};
//! use mesh_core::{Body, Error, FractionalPercent, Rng};
//! use mesh_fault::{FaultConfig, FaultDelay, FaultLayer};
//! use tower::{Layer, ServiceExt};
//!
//! let config = FaultConfig {
//!     delay: Some(FaultDelay::fixed(Duration::from_secs(2), FractionalPercent::percent(10))),
//!     ..FaultConfig::default()
//! };
//! let layer = FaultLayer::fixed(config).with_rng(Rng::seeded(1));
//! let service = layer.layer(tower::service_fn(|_: Request<Body>| async {
//!     Ok::<_, Error>(Response::new(Body::from("hello")))
//! }));
//!
//! let start = tokio::time::Instant::now();
//! for _ in 0..100 {
//!     service.clone().oneshot(Request::new(Body::empty())).await?;
//! }
//! let delayed = layer.stats().delays_injected().value();
//! assert_eq!(start.elapsed().as_secs(), 2 * delayed);
//! assert!((5..20).contains(&delayed));
//! # Ok(()) }
//! ```
//!
//! # Customised
//!
//! Whoever asks for it by a header gets a 503, but never more than ten at a time; the error becomes a
//! response at the edge of the stack. With `mode` set to [`Shadow`](mesh_core::Mode::Shadow) it would only
//! be counted.
//!
//! ```
//! use http::StatusCode;
//! use mesh_core::{FractionalPercent, stats::Registry};
//! use mesh_fault::{Abort, FaultAbort, FaultConfig, FaultLayer, Matches};
//!
//! let registry = Registry::new();
//! let config = FaultConfig {
//!     abort: Some(FaultAbort::new(
//!         Abort::Http(StatusCode::SERVICE_UNAVAILABLE),
//!         FractionalPercent::HUNDRED,
//!     )),
//!     headers: Some(Matches::new(|request| request.headers.contains_key("x-chaos"))),
//!     max_active_faults: Some(10),
//!     ..FaultConfig::default()
//! };
//! let layer = FaultLayer::fixed(config).with_stats(&registry.scope("http.ingress."));
//! # let _ = layer;
//! ```
//!
//! Instead of [`Fixed`](mesh_core::Fixed), any [`PolicySource`](mesh_core::PolicySource) can find the
//! config, for one layer that serves many routes.
//!
//! # Envoy
//!
//! `envoy.filters.http.fault`; [`FaultConfig`] has its fields and defaults. There are no stats by downstream
//! cluster, since their names would come from traffic.

mod active;
mod body;
mod config;
mod error;
mod future;
mod layer;
mod metrics;
mod pace;
mod service;
mod state;

pub use body::FaultBody;
pub use config::{
    Abort, Delay, FaultAbort, FaultConfig, FaultDelay, FaultRateLimit, Matches, RateLimit,
};
pub use future::ResponseFuture;
pub use layer::FaultLayer;
pub use metrics::FaultStats;
pub use pace::{Pace, SLICES_PER_SECOND, Take};
pub use service::Fault;
pub use state::{AbortWith, Faults, decide};
