//! The time of a request that goes on: lines in between, and its end.

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

/// What happens to a stream by time alone.
pub(crate) struct Watch {
    lines: Option<Periodic>,
    end: Timer,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// A line of the log.
    Line,
    /// The stream has lasted for as long as it may.
    End,
}

impl Watch {
    /// `None` when nothing ever happens to a stream that began at `start`; a longest time of zero is none.
    pub(crate) fn new(
        start: Instant,
        lines: Option<Duration>,
        longest: Option<Duration>,
    ) -> Option<Box<Self>> {
        let longest = longest.filter(|longest| !longest.is_zero());
        // One too long to be reached is none either.
        let end = longest.and_then(|longest| start.checked_add(longest));
        (lines.is_some() || end.is_some()).then(|| {
            Box::new(Self {
                lines: lines.map(|every| Periodic::new(every, start)),
                end: end.map_or_else(Timer::new, Timer::at),
            })
        })
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Due {
        if self.end.poll(cx).is_ready() {
            return Due::End;
        }
        if self.lines.as_mut().is_some_and(|lines| lines.is_due(cx)) {
            Due::Line
        } else {
            Due::Nothing
        }
    }
}
