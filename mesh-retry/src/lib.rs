//! Retries as a tower layer: conditions, back-off, budgets, replay, hedging, deadlines.
//!
//! A retry hides one bad answer. The same retry, made by every client of an upstream that is in trouble,
//! finishes it off. This crate is about having the first without the second.
//!
//! # Why a budget and not just a maximum
//! With `num_retries: 3`, an upstream that fails every request gets four times its load, at the moment
//! when it can bear least. A maximum bounds what *one request* costs; it says nothing about all of them.
//! A budget does: retries may be at most a share of the requests in flight (a fifth by default, and three
//! always), so that an upstream in trouble sees 1.2 times its load, however many retries each policy
//! allows. The slot is taken when the retry is *decided*, not when it is sent, so that a crowd that waits
//! for its back-off is counted too; and the answer that found no slot is passed on at once, flagged `UO`.
//! In front of the budget stands full jitter: each wait is drawn from the whole interval, so that clients
//! that failed together do not come back together.
//!
//! # When not to retry
//! * When the request may have been executed and may not be executed twice. Only what you name in
//!   [`RetryOn`] is repeated; [`RetryOn::PROVEN_SAFE`], the default of [`RetryLayer`], names only what the
//!   upstream provably did not see. `gateway-error` or `reset` on a `POST` is a promise that a second
//!   execution does no harm; [`RequestPredicate::idempotent`] keeps it to methods that say so themselves.
//! * At every level of a call tree. Three levels with three attempts each make 27 attempts of one. Retry
//!   where the request is cheapest to repeat, usually next to the upstream.
//! * When the upstream asks you not to: `x-envoy-ratelimited` is obeyed.
//! * When nobody waits any more: put [`DeadlineLayer`] above, and it ends all attempts.
//!
//! A pooled connection that died while it was idle is the pool's affair, below this layer.
//!
//! # Default
//! ```
//! use http::{Request, Response};
//! use mesh_core::{Body, Error, ErrorKind, Sent};
//! use mesh_retry::{ReplayBody, RetryLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # let down = std::sync::atomic::AtomicBool::new(true);
//! # let down = &down;
//! let upstream = service_fn(|_: Request<ReplayBody<Body>>| async move {
//!     // The first connection is refused.
//!     if down.swap(false, std::sync::atomic::Ordering::Relaxed) {
//!         return Err(Error::new(ErrorKind::ConnectFailure).with_sent(Sent::Nothing));
//!     }
//!     Ok(Response::new(Body::from("hello")))
//! });
//! let client = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .service(upstream);
//! let response = client.oneshot(Request::new(Body::empty())).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! # Customised
//! ```
//! use std::time::Duration;
//! use mesh_core::{ExponentialBackoff, Percent, RetryLimit, Thresholds, stats::Registry};
//! use mesh_retry::{
//!     DeadlineConfig, DeadlineLayer, OwnBudget, RequestPredicate, RetryConfig, RetryLayer, RetryOn,
//! };
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = Registry::new();
//! let config = RetryConfig::builder()
//!     .retry_on("gateway-error,reset".parse::<RetryOn>()?)
//!     .retriable_request_headers([RequestPredicate::idempotent()])
//!     .num_retries(2)
//!     .per_try_timeout(Duration::from_millis(400))
//!     .retry_back_off(ExponentialBackoff::new(Duration::from_millis(10), None)?)
//!     .request_body_buffer_limit(64 * 1024)
//!     .build();
//! let budget = OwnBudget::new(&Thresholds {
//!     retries: RetryLimit::Budget { percent: Percent::whole(10), min: 1 },
//!     ..Thresholds::default()
//! });
//! let stack = tower::ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(DeadlineConfig::new(Duration::from_secs(1))))
//!     .layer(
//!         RetryLayer::new(config)
//!             .with_budget(budget.with_stats(&registry.scope("cluster.users."))),
//!     );
//! # let _ = stack;
//! # Ok(())
//! # }
//! ```
//!
//! # Many routes, many clusters
//! One layer serves them all: it asks a [`PolicySource`](mesh_core::PolicySource) for the policy of a
//! request, and a [`RetrySource`] for the budget and the stats of the cluster that it goes to. A request
//! without a policy passes through, untouched and without a further allocation.
//!
//! # What an attempt is told
//! Where a per-try timeout applies, each attempt's request carries a fresh
//! [`Attempt`](mesh_core::Attempt), on which a transport may report that a connection is ready. The timers
//! start then, and not before the last byte of the request has come from the client.
//!
//! # Differences to Envoy
//! * A client that uploads while a retry waits for its back-off is held back, where Envoy reads on and
//!   answers 507 when its buffer overflows. The replay buffer can overflow only while an attempt is in
//!   flight, and then the attempt goes on.
//! * A request that no `retriable_request_headers` matches is not hedged either.
//! * When a retry is due already, the failure of a further hedged attempt does not ask for another one.
//! * At most [`HEDGES_MAX`] attempts of one request run at once.
//!
//! # Envoy
//! `config.route.v3.RetryPolicy`, `HedgePolicy`, `RouteAction.timeout`,
//! `CircuitBreakers.Thresholds.retry_budget` and the `x-envoy-*` headers of the router filter.

mod backoff;
mod body;
mod call;
mod config;
mod deadline;
mod env;
mod future;
mod head;
mod headers;
mod layer;
mod metrics;
mod plan;
mod record;
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
