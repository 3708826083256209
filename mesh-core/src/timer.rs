use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::Sleep;

/// A timer that can be armed, moved and disarmed, and costs nothing until it is polled.
///
/// It is *lazy*: moving the deadline later does not touch the runtime's timer. When the runtime wakes it
/// early, it looks at the true deadline and sleeps on. A connection that pushes its idle deadline with
/// each request therefore pays for a wake-up about once per timeout, not once per request.
///
/// A policy owns one timer, sets it to its state machine's `next_deadline()`, and polls it.
#[derive(Debug, Default)]
pub struct Timer {
    deadline: Option<Instant>,
    /// When the runtime will wake us; at or before `deadline` while that is set.
    armed: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// A timer that is not armed: [`Timer::poll`] stays pending.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            deadline: None,
            armed: None,
            sleep: None,
        }
    }

    /// A timer armed for `at`.
    #[must_use]
    pub const fn at(at: Instant) -> Self {
        Self {
            deadline: Some(at),
            armed: None,
            sleep: None,
        }
    }

    /// Arms the timer for `at`, or moves it there.
    pub fn arm(&mut self, at: Instant) {
        self.deadline = Some(at);
    }

    /// Arms the timer for `at`, or disarms it on `None`.
    pub fn set(&mut self, at: Option<Instant>) {
        self.deadline = at;
    }

    /// Disarms the timer; the next [`Timer::poll`] is pending until it is armed again.
    pub fn disarm(&mut self) {
        self.deadline = None;
    }

    /// When the timer fires, if it is armed.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ready once the deadline has passed; fires once and disarms itself.
    ///
    /// The caller's task is woken at the deadline. A disarmed timer is pending and registers no wake-up.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        loop {
            if self.armed.is_none_or(|armed| armed > deadline) {
                self.arm_sleep(deadline);
            }
            let Some(sleep) = self.sleep.as_mut() else {
                return Poll::Pending;
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let fired = self.armed.take();
            if fired.is_some_and(|fired| fired >= deadline) {
                self.deadline = None;
                return Poll::Ready(());
            }
        }
    }

    fn arm_sleep(&mut self, at: Instant) {
        let deadline = tokio::time::Instant::from_std(at);
        match self.sleep.as_mut() {
            Some(sleep) => sleep.as_mut().reset(deadline),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
        self.armed = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::Timer;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn fires_at_its_deadline_and_only_once() {
        let start = clock::now();
        let mut timer = Timer::at(start + Duration::from_millis(50));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(clock::now() - start, Duration::from_millis(50));
        assert_eq!(timer.deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn moved_later_fires_at_the_later_deadline() {
        let start = clock::now();
        let mut timer = Timer::at(start + Duration::from_millis(50));
        poll_fn(|cx| {
            assert!(timer.poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        timer.arm(start + Duration::from_millis(80));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(clock::now() - start, Duration::from_millis(80));
    }

    #[tokio::test(start_paused = true)]
    async fn moved_earlier_fires_at_the_earlier_deadline() {
        let start = clock::now();
        let mut timer = Timer::at(start + Duration::from_secs(50));
        poll_fn(|cx| {
            assert!(timer.poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        timer.arm(start + Duration::from_millis(10));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(clock::now() - start, Duration::from_millis(10));
    }
}
