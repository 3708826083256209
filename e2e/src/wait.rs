//! Conditions with deadlines, instead of sleeps.

use std::time::{Duration, Instant};

/// How long a condition may take before the wait is given up: generous, since a loaded machine
/// must not turn a pass into a failure, and only failures ever wait this long.
pub const WAIT_MAX: Duration = Duration::from_secs(10);

/// How often a condition that cannot wake us is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// A moment after which waiting ends.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this far away.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(now() + duration)
    }

    /// What is left, or `None` once it has passed.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        self.0
            .checked_duration_since(now())
            .filter(|d| !d.is_zero())
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Self::after(WAIT_MAX)
    }
}

/// The wall-independent time of a test: end-to-end tests live in real time.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "other processes do not share a paused clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Asks `condition` until it yields a value, or until the deadline.
pub fn until<T>(deadline: Deadline, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        let left = deadline.left()?;
        std::thread::park_timeout(left.min(POLL));
    }
}
