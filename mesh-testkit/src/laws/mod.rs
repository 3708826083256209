//! What every layer owes to its neighbours, as a kit that runs on any of them.

mod bodies;
mod leaks;
mod readiness;

use std::fmt;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_core::{Body, BoxError, ErrorKind};
use tower_service::Service;

use crate::{Upstream, UpstreamService};

/// One law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Law {
    /// The inner service is called only after its `poll_ready` was ready, once for each call.
    CallsOnlyAfterReady,
    /// A clone of a ready service is not ready and holds nothing of it.
    ClonesCarryNothing,
    /// Dropping a ready service, a future or a body at any moment gives back all that was taken.
    DroppingLeaksNothing,
    /// What waits for the inner service waits, and goes on when that does.
    PendingWakes,
    /// Errors of the inner service arrive, from `poll_ready` and from `call`.
    ErrorsPass,
    /// A body keeps its `is_end_stream`, `size_hint`, data, trailers and failure.
    BodiesAreForwarded,
}

impl Law {
    /// Every law.
    pub const ALL: &[Self] = &[
        Self::CallsOnlyAfterReady,
        Self::ClonesCarryNothing,
        Self::DroppingLeaksNothing,
        Self::PendingWakes,
        Self::ErrorsPass,
        Self::BodiesAreForwarded,
    ];
}

/// A law that a layer broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub law: Law,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.law, self.what)
    }
}

/// Breaks a law unless a condition holds.
fn demand(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

type Probe = Box<dyn Fn() -> u64>;
type MakeRequest = Box<dyn Fn() -> Request<Body>>;

/// The kit: give it a function that puts the layer under test over an upstream, and `check` it.
///
/// The layer must let a plain `GET` through, again and again: give it limits that it does not reach. The
/// function is called for each experiment; state that the layer shares between its services should be
/// shared here too.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// // A layer that does nothing keeps every law.
/// mesh_testkit::Laws::new(|upstream| upstream).check().await;
/// # }
/// ```
///
/// A layer that counts what is running shows the number, so that leaks come to light:
///
/// ```no_run
/// # use mesh_core::{Resource, Resources, Thresholds};
/// # async fn check() {
/// let resources = Resources::new(&Thresholds::default());
/// let seen = resources.clone();
/// mesh_testkit::Laws::new(move |upstream| /* ThresholdsLayer::new(..).layer(upstream) */ upstream)
///     .in_use(move || seen.in_use(Resource::Requests).into())
///     .check()
///     .await;
/// # }
/// ```
pub struct Laws<F> {
    make: F,
    in_use: Probe,
    request: MakeRequest,
    error: ErrorKind,
    without: Vec<Law>,
}

impl<F> fmt::Debug for Laws<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Laws")
            .field("error", &self.error)
            .field("without", &self.without)
            .finish_non_exhaustive()
    }
}

impl<F, S, C> Laws<F>
where
    F: Fn(UpstreamService) -> S,
    S: Service<Request<Body>, Response = Response<C>, Error: Into<BoxError>> + Clone,
    C: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    /// `make` puts the layer under test over an upstream.
    pub fn new(make: F) -> Self {
        Self {
            make,
            in_use: Box::new(|| 0),
            request: Box::new(|| crate::request("http://laws.test/")),
            error: ErrorKind::ConnectionTermination,
            without: Vec::new(),
        }
    }

    /// Shows how much the layer holds at this moment: permits, reservations, active requests.
    #[must_use]
    pub fn in_use(mut self, probe: impl Fn() -> u64 + 'static) -> Self {
        self.in_use = Box::new(probe);
        self
    }

    /// Sends these requests instead of plain ones.
    #[must_use]
    pub fn request(mut self, make: impl Fn() -> Request<Body> + 'static) -> Self {
        self.request = Box::new(make);
        self
    }

    /// Lets the upstream fail with this kind instead of a broken connection.
    #[must_use]
    pub fn error(mut self, kind: ErrorKind) -> Self {
        self.error = kind;
        self
    }

    /// Leaves out a law that cannot apply: say why in a comment.
    #[must_use]
    pub fn without(mut self, law: Law) -> Self {
        self.without.push(law);
        self
    }

    /// Checks every law.
    ///
    /// # Panics
    /// When one is broken; the message names it.
    pub async fn check(&self) {
        let broken = self.violations().await;
        let lines: Vec<String> = broken.iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "broken laws:\n{}", lines.join("\n"));
    }

    /// The laws that are broken, each with the first thing that showed it.
    pub async fn violations(&self) -> Vec<Violation> {
        let mut broken = Vec::new();
        for &law in Law::ALL.iter().filter(|law| !self.without.contains(law)) {
            let result = match law {
                Law::CallsOnlyAfterReady => self.calls_only_after_ready().await,
                Law::ClonesCarryNothing => self.clones_carry_nothing(),
                Law::DroppingLeaksNothing => self.dropping_leaks_nothing(),
                Law::PendingWakes => self.pending_wakes(),
                Law::ErrorsPass => self.errors_pass().await,
                Law::BodiesAreForwarded => self.bodies_are_forwarded().await,
            };
            if let Err(what) = result {
                broken.push(Violation { law, what });
            }
        }
        broken
    }

    fn fresh(&self) -> (Upstream, S) {
        let upstream = Upstream::lenient();
        let service = (self.make)(upstream.service());
        (upstream, service)
    }
}
