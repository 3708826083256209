use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

const DEFERRED: u8 = 1;
const CONNECTED: u8 = 2;
const COMPLETE: u8 = 4;
const TIMED_OUT: u8 = 8;

/// The events of one attempt that its transport reports and a per-try timer waits for.
///
/// A retry puts one into the extensions of each attempt's request. A transport that knows connections
/// calls [`Attempt::defer`] at once, [`Attempt::connected`] when a connection is ready and
/// [`Attempt::request_complete`] when the request is out; timers start when both have happened. A
/// transport that knows nothing of this leaves it alone, and timers start at once.
#[derive(Debug, Clone, Default)]
pub struct Attempt(Arc<AtomicU8>);

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptPhase {
    /// Waiting for a connection, or for the end of the request.
    Starting,
    /// The clock of a per-try timeout runs.
    Running,
}

// Relaxed everywhere: the flags are read by the task that polled the transport which set them.
impl Attempt {
    /// No locked addition: flags are set one after the other, by the task that has the request.
    fn set(&self, flag: u8) {
        let flags = self.0.load(Ordering::Relaxed);
        self.0.store(flags | flag, Ordering::Relaxed);
    }

    /// A new attempt, whose timers start at once unless a transport defers them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport will report connection and completion.
    pub fn defer(&self) {
        self.set(DEFERRED);
    }

    /// A connection is ready.
    pub fn connected(&self) {
        self.set(CONNECTED);
    }

    /// The whole request has been received from the client and handed to the connection.
    pub fn request_complete(&self) {
        self.set(COMPLETE);
    }

    /// Whether a connection was ever ready.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.load(Ordering::Relaxed) & CONNECTED != 0
    }

    /// Whether the whole request has been handed to the connection.
    #[must_use]
    pub fn is_request_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed) & COMPLETE != 0
    }

    /// A timer above gives the attempt up: call it before dropping the attempt's future, so that whoever
    /// watches the endpoint can tell a timeout from a client that went away.
    pub fn time_out(&self) {
        self.set(TIMED_OUT);
    }

    /// Whether a timer gave the attempt up.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.0.load(Ordering::Relaxed) & TIMED_OUT != 0
    }

    /// Whether per-try timers run.
    #[must_use]
    pub fn phase(&self) -> AttemptPhase {
        let flags = self.0.load(Ordering::Relaxed);
        if flags & DEFERRED == 0 || flags & (CONNECTED | COMPLETE) == CONNECTED | COMPLETE {
            AttemptPhase::Running
        } else {
            AttemptPhase::Starting
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Attempt, AttemptPhase};

    #[test]
    fn timers_wait_for_connection_and_completion_only_when_deferred() {
        let attempt = Attempt::new();
        assert_eq!(attempt.phase(), AttemptPhase::Running);
        attempt.defer();
        assert_eq!(attempt.phase(), AttemptPhase::Starting);
        attempt.request_complete();
        assert_eq!(attempt.phase(), AttemptPhase::Starting);
        attempt.connected();
        assert_eq!(attempt.phase(), AttemptPhase::Running);
    }
}
