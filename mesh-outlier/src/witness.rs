use std::sync::Arc;

use mesh_core::{
    Attempt, EndGuard, ErrorKind, Outcome, RequestInfo, ResponseFlag, StreamEnd, clock,
};

use crate::Monitor;

/// What one call tells the monitor, at most once for its head and once for its body.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) monitor: Monitor,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) info: Option<Arc<RequestInfo>>,
}

impl Witness {
    /// There is an outcome, or a result that says nothing. What is returned watches the body.
    pub(crate) fn on_head(self, outcome: Option<Outcome>) -> BodyWatch {
        let timed_out = self.is_timed_out();
        if let Some(outcome) = outcome {
            if self.was_connected(Some(outcome)) {
                self.monitor.on_connected();
            }
            if timed_out {
                // A timer gave the attempt up and let it go on, beside another one.
                self.monitor.on_failure(ErrorKind::PerTryTimeout);
            }
            self.monitor.on_outcome(outcome);
        }
        BodyWatch {
            monitor: self.monitor,
            attempt: self.attempt.filter(|_| !timed_out),
        }
    }

    /// The call was dropped before there was an outcome: the client went away, or a timer fired.
    pub(crate) fn on_drop(&self) {
        if self.is_timed_out() || self.is_past_deadline() {
            if self.was_connected(None) {
                self.monitor.on_connected();
            }
            self.monitor.on_failure(ErrorKind::PerTryTimeout);
        }
    }

    fn is_timed_out(&self) -> bool {
        self.attempt.as_ref().is_some_and(Attempt::is_timed_out)
    }

    /// The time of the whole request is up, and not only in shadow mode.
    fn is_past_deadline(&self) -> bool {
        self.info.as_ref().is_some_and(|info| {
            info.flags.has(ResponseFlag::UpstreamRequestTimeout)
                && info
                    .with(|facts| facts.deadline)
                    .is_some_and(|deadline| deadline <= clock::now())
        })
    }

    /// Whether there had been a connection, as far as that can be known.
    fn was_connected(&self, outcome: Option<Outcome>) -> bool {
        match outcome {
            Some(
                Outcome::Status(_)
                | Outcome::Failure(
                    ErrorKind::ConnectionTermination
                    | ErrorKind::RemoteReset
                    | ErrorKind::RemoteRefused
                    | ErrorKind::UpstreamProtocol,
                ),
            ) => true,
            _ => self.attempt.as_ref().is_some_and(Attempt::is_connected),
        }
    }
}

/// Reports a response body that breaks off, or stays silent until a timer gives it up.
#[derive(Debug)]
pub struct BodyWatch {
    monitor: Monitor,
    /// Unless it was known to have timed out before there was a body.
    attempt: Option<Attempt>,
}

impl EndGuard for BodyWatch {
    fn on_end(&mut self, end: StreamEnd) {
        let timed_out = || self.attempt.as_ref().is_some_and(Attempt::is_timed_out);
        match end {
            StreamEnd::Failed => self.monitor.on_failure(ErrorKind::ConnectionTermination),
            StreamEnd::Dropped if timed_out() => {
                self.monitor.on_failure(ErrorKind::PerTryIdleTimeout);
            }
            StreamEnd::Dropped | StreamEnd::Complete => {}
        }
    }
}
