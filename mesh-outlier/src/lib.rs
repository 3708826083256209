//! Outlier detection: ejecting bad endpoints.
//!
//! Of many endpoints one may be ill while the others are well. A [`Detector`] per cluster hears how requests
//! to each endpoint went, and *ejects* an endpoint that stands out: for a while, it is marked unhealthy, and
//! the balancer picks others. Then it is *un-ejected* and gets its share of traffic again; if it is still
//! ill, the next ejection lasts longer.
//!
//! | part | is |
//! |---|---|
//! | [`OutlierConfig`] | when to eject, and for how long; Envoy's names and defaults |
//! | [`Detector`] | the endpoints of one cluster; decides, and writes [`FailedOutlier`](mesh_core::HealthFlag::FailedOutlier) on their [`EndpointState`](mesh_core::EndpointState) |
//! | [`Monitor`] | hears the outcomes at one endpoint, for a few atomics each |
//! | [`OutlierLayer`] | reports what the service of one endpoint answers to its monitor |
//! | [`Event`] | a line of the event log |
//!
//! # What stands out
//!
//! | detector | notices | when | enforced by default |
//! |---|---|---|---|
//! | consecutive 5xx | so many answers of 500 to 599 in a row | at once | yes |
//! | consecutive gateway failure | so many of 502, 503, 504 in a row | at once | no |
//! | consecutive local-origin failure | so many failures of this side in a row, if split | at once | yes |
//! | success rate | a rate far below the mean of all | each interval | yes |
//! | failure percentage | too large a share of failures | each interval | no |
//!
//! The last two exist for local-origin failures as well. A failure of this side is a refused or broken
//! connection or a timeout; unless `split_external_local_origin_errors` is set, it counts as an answer of 503
//! or 504.
//!
//! # When not
//!
//! With one endpoint there is nobody else to ask: use a breaker. **And beware of the default**
//! `max_ejection_percent` of 10: a cluster of fewer than ten endpoints never ejects, as in Envoy. An
//! endpoint that gets no traffic is not noticed: that takes active health checks. When too many are
//! ejected, a balancer's panic threshold uses all of them again.
//!
//! # By default
//!
//! ```
//! use std::net::SocketAddr;
//!
//! use http::{Request, Response};
//! use mesh_core::{Body, Endpoint, Error};
//! use mesh_outlier::{Detector, OutlierConfig, OutlierLayer};
//! use tower_layer::Layer;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let detector = Detector::new("users", OutlierConfig::default());
//! // Ends ejections and compares rates; without it, only rows of failures eject, and for ever.
//! tokio::spawn(detector.run(std::future::pending()));
//!
//! let endpoint = Endpoint::standalone(SocketAddr::from(([10, 0, 0, 1], 80)));
//! # let client = tower::service_fn(|_: Request<Body>| async { Ok::<_, Error>(Response::new(Body::empty())) });
//! let client = OutlierLayer::http(detector.monitor(&endpoint.state)).layer(client);
//! # let _ = client;
//! # }
//! ```
//!
//! # Customised
//!
//! ```
//! use std::{net::SocketAddr, time::Duration};
//!
//! use mesh_core::{Endpoint, Health, stats::Registry};
//! use mesh_outlier::{Detector, OutlierConfig, OutlierStats};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = OutlierConfig::builder()
//!     .consecutive_5xx(2)
//!     .base_ejection_time(Duration::from_secs(5))
//!     .max_ejection_percent(50)
//!     .build()?;
//! let registry = Registry::new();
//! let detector = Detector::builder("users", config)
//!     .stats(OutlierStats::register(&registry.scope("cluster.users.outlier_detection.")))
//!     .on_event(|event| {
//!         if let Some(line) = event.to_json() {
//!             println!("{line}");
//!         }
//!     })
//!     .build();
//!
//! let endpoints: Vec<Endpoint> =
//!     (1..=2).map(|n| Endpoint::standalone(SocketAddr::from(([10, 0, 0, n], 80)))).collect();
//! detector.set_endpoints(endpoints.iter().map(|endpoint| &endpoint.state));
//! // Whatever protocol it is: tell the monitor.
//! let monitor = detector.monitor(&endpoints[0].state);
//! monitor.on_response(500);
//! monitor.on_response(503);
//! assert_eq!(endpoints[0].state.health(), Health::Unhealthy);
//! # Ok(()) }
//! ```
//!
//! # Envoy
//! `Cluster.outlier_detection`. The decisions are Envoy's but for one: when two detectors notice an endpoint
//! in the same interval, it is ejected once.

mod config;
mod detector;
mod event;
mod future;
mod layer;
mod metrics;
mod monitor;
mod service;
pub mod state;
mod witness;

pub use config::{InvalidOutlierConfig, OutlierConfig, OutlierConfigBuilder};
pub use detector::{Detector, DetectorBuilder};
pub use event::Event;
pub use future::OutlierFuture;
pub use layer::OutlierLayer;
pub use metrics::OutlierStats;
pub use monitor::Monitor;
pub use service::Outlier;
pub use witness::BodyWatch;
