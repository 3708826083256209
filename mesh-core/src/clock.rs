//! The one clock.
//!
//! Monotonic time goes through tokio, so that a test with paused time sees the same clock everywhere;
//! state machines take `now` as an argument and never call this.

use std::time::{Instant, SystemTime};

/// The monotonic time now: tokio's, hence paused when a test pauses it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, for time stamps in logs and headers only; never for a deadline.
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
