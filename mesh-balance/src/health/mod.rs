//! Active health checks: asking endpoints how they are.
//!
//! **Why.** Outlier detection learns from requests that fail; a check learns before any request does, and
//! notices when an endpoint is well again. **When not.** Where a control plane or an orchestrator checks
//! already, a second checker only adds load; and a check that passes says nothing of requests that are
//! harder than it.
//!
//! | | |
//! |---|---|
//! | [`Check`] | one endpoint's state machine: when the next check is due, and what a result means |
//! | [`HealthChecker`] | the checks of one cluster: its config, stats and event log |
//! | [`HealthSession`] | the check of one endpoint, run over a tower service that asks once |
//! | [`Payload`] | what an answer must contain |
//!
//! The rules are Envoy's. A new endpoint counts as failed until its first check; the first one that passes
//! makes it healthy at once. After that `healthy_threshold` checks in a row must pass, or
//! `unhealthy_threshold` must fail; but an answer that says "not well" fails it at once, since thresholds
//! are for networks that lose something now and then.
//!
//! Health is written to the flags of [`EndpointState`](mesh_core::EndpointState), which balancers read.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::{sync::Arc, time::Duration};
//! use mesh_balance::health::{Failure, HealthCheckConfig, HealthChecker, Passed};
//! use mesh_core::{Endpoint, Health, HealthFlag};
//!
//! let endpoint = Arc::new(Endpoint::standalone(([127, 0, 0, 1], 8001).into()));
//! endpoint.state.set_health(HealthFlag::FailedActive, true);
//!
//! let config = HealthCheckConfig::new(Duration::from_secs(1), Duration::from_secs(5));
//! let checker = HealthChecker::builder("users", config).build();
//! let session = checker.watch(&endpoint, false);
//! // Whatever asks the endpoint: here, it is always well.
//! let probe = tower::service_fn(|_: ()| async { Ok::<_, Failure>(Passed::default()) });
//! tokio::spawn(session.run(probe));
//!
//! tokio::time::sleep(Duration::from_millis(1)).await;
//! assert_eq!(endpoint.state.health(), Health::Healthy);
//! # }
//! ```
//!
//! # Envoy
//!
//! `Cluster.health_checks`; stats under `cluster.<name>.health_check.`.

mod checker;
mod config;
mod event;
mod metrics;
mod payload;
mod state;

pub use checker::{HealthChecker, HealthCheckerBuilder, HealthSession};
pub use config::HealthCheckConfig;
pub use event::{HealthEvent, Incident};
pub use metrics::HealthStats;
pub use payload::Payload;
pub use state::{
    Check, CheckContext, Failure, FailureKind, Outcome, Passed, Report, Transition, Turn,
};
