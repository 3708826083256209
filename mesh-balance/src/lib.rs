//! Endpoint sets and picking one of them, as Envoy does it.
//!
//! | | |
//! |---|---|
//! | [`Balance`] | a tower service over `(Endpoint, Service)` pairs: most library users want this |
//! | [`Balancer`] | picks an [`Endpoint`](mesh_core::Endpoint) and no more, for whoever keeps connections himself: one per worker, no lock, no allocation |
//! | [`HashTables`] | the tables of ring hash and Maglev, built once for the balancers of all workers |
//! | [`EndpointSet`] | the endpoints of a cluster at one moment |
//! | [`priority_loads`] | how traffic splits over priorities, as a pure function |
//! | [`health`] | active health checks |
//!
//! A pick goes through three choices. First a **priority**: traffic stays at the highest one until fewer
//! than 100/140 of its endpoints are healthy, then spills over to the next by shares. Then whether to
//! **panic**: when less than half of the endpoints are usable and all priorities together cannot take the
//! traffic, health is ignored, since a few errors are better than a stampede that kills the rest. Then
//! the **algorithm** of [`LbPolicy`] takes one of the endpoints that are left.
//!
//! | policy | good at | mind |
//! |---|---|---|
//! | [`RoundRobin`](LbPolicy::RoundRobin) | exact shares by weight, evenly spread | knows nothing of load: a slow endpoint gets as much |
//! | [`LeastRequest`](LbPolicy::LeastRequest) | requests that differ in cost, endpoints that differ in speed | an endpoint that fails fast looks idle: eject such ones |
//! | [`Random`](LbPolicy::Random) | nothing to keep in step | ignores weights; uneven when requests are few |
//! | [`RingHash`](LbPolicy::RingHash) | the same endpoint for the same hash, and few changes when endpoints come and go | a popular hash makes a hot endpoint, which [`hash_balance_factor`](BalanceConfig::hash_balance_factor) bounds; give [`PickContext::hash`] |
//! | [`Maglev`](LbPolicy::Maglev) | the same, more even and quicker to pick | a change moves more requests than a ring would |
//!
//! Health belongs to the endpoint: outlier detection, active checks and the assignment write the flags of
//! [`EndpointState`](mesh_core::EndpointState), and every balancer that holds the endpoint notices at its next
//! pick.
//!
//! **When not.** One endpoint, or a name that something else balances, needs none of this. And balancing
//! does not repeat: put a retry above, so that a second attempt comes here again.
//!
//! # With the defaults
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use http::{Request, Response};
//! use mesh_balance::{Balance, LbPolicy};
//! use mesh_core::{Body, Endpoint, Error};
//! use tower::ServiceExt;
//!
//! let member = |port: u16| {
//!     let service = tower::service_fn(move |_: Request<Body>| async move {
//!         Ok::<_, Error>(Response::new(Body::from(port.to_string())))
//!     });
//!     (Endpoint::standalone(([127, 0, 0, 1], port).into()), service)
//! };
//! let balance: Balance<_> = Balance::new(LbPolicy::RoundRobin, vec![member(8001), member(8002)]);
//! let response = balance.oneshot(Request::new(Body::empty())).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(()) }
//! ```
//!
//! # Customised
//!
//! A large endpoint and a small one, a second priority that stands by, and no panic: rather refuse than
//! ask an endpoint that is known to be ill.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use mesh_balance::{Balance, BalanceConfig, ChoiceCount, LbPolicy, LeastRequestConfig};
//! use mesh_core::{Endpoint, Generic, HealthFlag, Percent};
//! use tower::ServiceExt;
//!
//! let config = BalanceConfig {
//!     policy: LbPolicy::LeastRequest(LeastRequestConfig {
//!         choice_count: ChoiceCount::new(3)?,
//!         ..LeastRequestConfig::default()
//!     }),
//!     healthy_panic_threshold: Percent::ZERO,
//!     ..BalanceConfig::default()
//! };
//! let member = |port: u16, weight, priority| {
//!     let endpoint = Endpoint::standalone(([127, 0, 0, 1], port).into());
//!     let service = tower::service_fn(move |_: ()| async move { Ok::<_, std::io::Error>(port) });
//!     (Endpoint { weight, priority, ..endpoint }, service)
//! };
//! let (large, small, standby) = (member(1, 4, 0), member(2, 1, 0), member(3, 1, 1));
//! let health = [large.0.state.clone(), small.0.state.clone()];
//! // Any request and response: `Generic`. With `Http`, a request counts until its body ends.
//! let balance: Balance<_, Generic> = Balance::new(config, vec![large, small, standby]);
//!
//! assert!(balance.clone().oneshot(()).await? < 3);
//! for state in &health {
//!     state.set_health(HealthFlag::FailedActive, true);
//! }
//! assert_eq!(balance.oneshot(()).await?, 3);
//! # Ok(()) }
//! ```
//!
//! # Envoy
//!
//! `Cluster.lb_policy`, `common_lb_config.healthy_panic_threshold`, `ClusterLoadAssignment.policy`; stats
//! under `cluster.<name>.`: `ring_hash_lb.*`, `maglev_lb.*`, `lb_healthy_panic`, `membership_change`, `membership_total`,
//! `membership_healthy`, `membership_degraded`, `membership_excluded`. Localities do not weigh in yet: no
//! locality weights, no zone-aware routing, no subsets.

mod algorithm;
mod balancer;
mod config;
mod error;
mod future;
pub mod health;
mod level;
mod load;
mod metrics;
mod service;
mod set;
mod tables;

pub use balancer::{Balancer, Panic, PickContext};
pub use config::{
    ActiveRequestBias, Aggression, BalanceConfig, ChoiceCount, HashBalanceFactor, HashFunction,
    InvalidChoiceCount, InvalidHashBalanceFactor, InvalidRingSizes, InvalidTableSize, LbPolicy,
    LeastRequestConfig, MaglevConfig, RING_SIZE_MAX, RingHashConfig, RingSizes, SelectionMethod,
    SlowStartConfig, TABLE_SIZE_MAX, TableSize,
};
pub use error::NoHealthy;
pub use future::ResponseFuture;
pub use load::{PriorityCounts, PriorityLoad, priority_loads};
pub use metrics::{BalanceStats, LbStats};
pub use service::{ActiveRequest, Balance};
pub use set::{EndpointSet, Membership, PRIORITY_MAX};
pub use tables::{HashStats, HashTables, MaglevStats, RingHashStats};
