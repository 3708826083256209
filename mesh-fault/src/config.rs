use std::{collections::HashSet, fmt, num::NonZeroU64, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use mesh_core::{FractionalPercent, Mode, RequestInfo, format::RequestView};

/// Which requests are disturbed, and how.
///
/// Every value of every field is valid. [`Default`] disturbs nothing.
///
/// # Envoy
/// `envoy.extensions.filters.http.fault.v3.HTTPFault`
#[derive(Debug, Clone, Default)]
pub struct FaultConfig {
    /// Requests wait. Default: none. `delay`.
    pub delay: Option<FaultDelay>,
    /// Requests fail. Default: none. `abort`.
    pub abort: Option<FaultAbort>,
    /// Answers trickle. Default: none. `response_rate_limit`.
    pub response_rate_limit: Option<FaultRateLimit>,
    /// Only requests whose route leads to this cluster; a request without a
    /// [`RequestInfo`] has none. Default: any. `upstream_cluster`.
    pub upstream_cluster: Option<Arc<str>>,
    /// Only requests that pass. Default: any. `headers`.
    pub headers: Option<Matches>,
    /// Only requests whose `x-envoy-downstream-service-node` is one of these. Default: any.
    /// `downstream_nodes`.
    pub downstream_nodes: HashSet<Arc<str>>,
    /// How many requests may be disturbed at a time, by all threads; one that would be the next is left
    /// alone, and counted in `faults_overflow`. Default: no bound. `max_active_faults`.
    pub max_active_faults: Option<u32>,
    /// Whether faults happen, or are only counted (`shadow_mode`). Default:
    /// [`Enforce`](Mode::Enforce). No Envoy field.
    pub mode: Mode,
}

/// Envoy: `FaultDelay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultDelay {
    /// For how long.
    pub delay: Delay,
    /// The share of requests that wait.
    pub percentage: FractionalPercent,
}

/// How long a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// So long; zero is not at all. `fixed_delay`.
    Fixed(Duration),
    /// As many milliseconds as `x-envoy-fault-delay-request` says; without it not at all.
    /// `x-envoy-fault-delay-request-percentage` lowers the share. `header_delay`.
    Header,
}

impl FaultDelay {
    /// A delay that is always the same.
    #[must_use]
    pub const fn fixed(delay: Duration, percentage: FractionalPercent) -> Self {
        Self {
            delay: Delay::Fixed(delay),
            percentage,
        }
    }
}

/// Envoy: `FaultAbort`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultAbort {
    /// With what.
    pub abort: Abort,
    /// The share of requests that fail.
    pub percentage: FractionalPercent,
    /// The text of the answer. Default `fault filter abort`. `response_body`.
    pub response_body: Bytes,
}

/// What a request fails with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// A status. `http_status`.
    Http(StatusCode),
    /// A gRPC status; to a client that does not speak gRPC, 200. `grpc_status`.
    Grpc(u32),
    /// The status that `x-envoy-fault-abort-request` says (200 to 599), or else the gRPC status of
    /// `x-envoy-fault-abort-grpc-request`; without them, the request does not fail.
    /// `x-envoy-fault-abort-request-percentage` lowers the share. `header_abort`.
    Header,
}

impl FaultAbort {
    /// An abort with the usual text.
    #[must_use]
    pub const fn new(abort: Abort, percentage: FractionalPercent) -> Self {
        Self {
            abort,
            percentage,
            response_body: Bytes::from_static(b"fault filter abort"),
        }
    }
}

/// Envoy: `FaultRateLimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRateLimit {
    /// How fast.
    pub limit: RateLimit,
    /// The share of answers that trickle.
    pub percentage: FractionalPercent,
}

/// How fast an answer's body arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimit {
    /// So many KiB per second. `fixed_limit.limit_kbps`.
    Fixed(NonZeroU64),
    /// As many as `x-envoy-fault-throughput-response` says; without it unhindered.
    /// `x-envoy-fault-throughput-response-percentage` lowers the share. `header_limit`.
    Header,
}

/// A test that a request must pass.
#[derive(Clone)]
pub struct Matches(Arc<Test>);

type Test = dyn Fn(&RequestView<'_>) -> bool + Send + Sync;

impl Matches {
    /// What `test` says.
    pub fn new(test: impl Fn(&RequestView<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(test))
    }
}

impl fmt::Debug for Matches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Matches")
    }
}

impl FaultConfig {
    /// Whether `request` may be disturbed at all.
    #[must_use]
    pub fn applies_to<B>(&self, request: &Request<B>) -> bool {
        self.leads_to_cluster(request)
            && self.is_from_node(request)
            && (self.headers.as_ref()).is_none_or(|test| (test.0)(&RequestView::of(request)))
    }

    fn leads_to_cluster<B>(&self, request: &Request<B>) -> bool {
        let Some(wanted) = &self.upstream_cluster else {
            return true;
        };
        let cluster = RequestInfo::of(request).map(|info| info.with(|f| f.cluster.clone()));
        cluster.flatten().is_some_and(|cluster| cluster == *wanted)
    }

    fn is_from_node<B>(&self, request: &Request<B>) -> bool {
        let node = request.headers().get("x-envoy-downstream-service-node");
        let known = |node: &str| self.downstream_nodes.contains(node);
        self.downstream_nodes.is_empty()
            || node.and_then(|node| node.to_str().ok()).is_some_and(known)
    }
}
