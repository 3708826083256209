use std::{
    fmt,
    sync::{Arc, Weak},
};

use mesh_core::{Address, ErrorKind, Outcome, clock};

use crate::{
    Detector,
    state::{Counters, Detection, Limits},
};

/// Hears how requests to one endpoint went. Cloning shares it.
///
/// What it hears costs a few relaxed atomics; a lock is taken, and the clock read, only when a row of
/// failures is complete. A monitor outlives its endpoint's membership and its detector: then it is heard
/// by nobody.
#[derive(Clone)]
pub struct Monitor(Arc<Inner>);

struct Inner {
    detector: Weak<Detector>,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
    address: Address,
}

/// What a failure without an answer means.
enum Local {
    /// Not the endpoint's fault.
    Ignored,
    /// It could not be reached, or broke off.
    Failed,
    /// It was too slow.
    TimedOut,
}

const fn local(kind: ErrorKind) -> Local {
    use ErrorKind as Kind;
    match kind {
        Kind::ConnectFailure
        | Kind::ConnectTimeout
        | Kind::ConnectionTermination
        | Kind::RemoteReset
        | Kind::RemoteRefused
        | Kind::LocalReset
        | Kind::UpstreamProtocol
        | Kind::Unknown => Local::Failed,
        Kind::RequestTimeout | Kind::PerTryTimeout | Kind::PerTryIdleTimeout => Local::TimedOut,
        // Limits, refusals and faults of this process or of the client.
        _ => Local::Ignored,
    }
}

impl Monitor {
    pub(crate) fn new(
        detector: Weak<Detector>,
        limits: Arc<Limits>,
        counters: Arc<Counters>,
        address: Address,
    ) -> Self {
        Self(Arc::new(Inner {
            detector,
            limits,
            counters,
            address,
        }))
    }

    /// The endpoint's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// A connection is ready for a request. Counts only when local-origin failures are split.
    pub fn on_connected(&self) {
        if self.0.limits.split() {
            self.local_success();
        }
    }

    /// A connection is open, and nothing more will be known of what it carries: a success of its own.
    pub fn on_connected_finally(&self) {
        if self.0.limits.split() {
            self.local_success();
        } else {
            self.external(200);
        }
    }

    /// The head of an answer, with its status; for gRPC, the HTTP equivalent.
    pub fn on_response(&self, status: u16) {
        self.external(status);
        if status < 500 && self.0.limits.split() {
            self.local_success();
        }
    }

    /// No answer, or a broken one. What is not the endpoint's fault is ignored.
    ///
    /// Timeouts count as status 504 and broken or refused connections as 503, or both as local-origin
    /// failures when these are split.
    pub fn on_failure(&self, kind: ErrorKind) {
        let status = match local(kind) {
            Local::Ignored => return,
            Local::Failed => 503,
            Local::TimedOut => 504,
        };
        if self.0.limits.split() {
            self.local_failure();
        } else {
            self.external(status);
        }
    }

    /// Any outcome.
    pub fn on_outcome(&self, outcome: Outcome) {
        match outcome {
            Outcome::Status(status) => self.on_response(status),
            Outcome::Failure(kind) => self.on_failure(kind),
        }
    }

    fn external(&self, status: u16) {
        let Inner {
            counters, limits, ..
        } = &*self.0;
        counters.external.count(!(500..600).contains(&status));
        let fired = counters.streaks.on_status(status, limits);
        if fired.gateway {
            self.fire(Detection::ConsecutiveGatewayFailure);
        }
        if fired.five_xx {
            self.fire(Detection::Consecutive5xx);
        }
    }

    fn local_success(&self) {
        self.0.counters.local.count(true);
        self.0.counters.streaks.clear_local();
    }

    fn local_failure(&self) {
        self.0.counters.local.count(false);
        if self.0.counters.streaks.on_local_failure(&self.0.limits) {
            self.fire(Detection::ConsecutiveLocalOriginFailure);
        }
    }

    #[cold]
    fn fire(&self, detection: Detection) {
        let inner = &*self.0;
        if let Some(detector) = inner.detector.upgrade() {
            detector.on_consecutive(clock::now(), &inner.address, &inner.counters, detection);
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Monitor").field(&self.0.address).finish()
    }
}
