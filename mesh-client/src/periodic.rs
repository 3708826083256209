//! Log lines about requests that go on.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use mesh_core::{Timer, clock};

/// Is due again and again.
pub(crate) struct Periodic {
    timer: Timer,
    interval: Duration,
}

impl Periodic {
    /// For the first time one interval from now.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            timer: Timer::at(now + interval),
            interval,
        }
    }

    /// Whether it is due; then, or else when it will be, the task is woken again. Times that were missed are
    /// not made up for.
    pub(crate) fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        if self.timer.poll(cx).is_pending() {
            return false;
        }
        self.timer.arm(clock::now() + self.interval);
        // Registers for the next time.
        if let Poll::Ready(()) = self.timer.poll(cx) {
            cx.waker().wake_by_ref();
        }
        true
    }
}
