use std::{
    cell::{Cell, RefCell},
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, RawWakerVTable, Waker},
    time::Instant,
};

use tokio::time::Sleep;

use crate::clock;

/// A timer that can be armed, moved and disarmed, and costs nothing until it is polled.
///
/// It is *lazy*: moving the deadline later does not touch the runtime's timer. When the runtime wakes it
/// early, it looks at the true deadline and sleeps on. A connection that pushes its idle deadline with
/// each request therefore pays for a wake-up about once per timeout, not once per request.
///
/// A policy owns one timer, sets it to its state machine's `next_deadline()`, and polls it.
///
/// On a thread of [`Timer::keep_sleeps`], what a dropped timer had from the runtime serves the next one,
/// armed as it is: a request whose deadline lies behind those of others pays for no timer at all.
#[derive(Debug, Default)]
pub struct Timer {
    deadline: Option<Instant>,
    sleeping: Option<Sleeping>,
}

/// A timer of the runtime.
#[derive(Debug)]
struct Sleeping {
    /// When the runtime will wake us, if it has not yet: at or before the deadline.
    armed: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

/// So many are kept for one thread. Each may hold on to a task that has ended until it is used again, or
/// fires.
const KEPT_MAX: usize = 64;

thread_local! {
    /// `None` on threads that keep nothing.
    static KEPT: RefCell<Option<Vec<Sleeping>>> = const { RefCell::new(None) };
}

impl Timer {
    /// A timer that is not armed: [`Timer::poll`] stays pending.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            deadline: None,
            sleeping: None,
        }
    }

    /// A timer armed for `at`.
    #[must_use]
    pub const fn at(at: Instant) -> Self {
        Self {
            deadline: Some(at),
            sleeping: None,
        }
    }

    /// From now on this thread keeps what its timers have from the runtime. Only for a thread on which one
    /// runtime lives, and whose tasks stay on it.
    pub fn keep_sleeps() {
        KEPT.set(Some(Vec::new()));
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
        if let Some(watch) = WATCH.get().filter(|watch| watch.task == Task::of(cx)) {
            if deadline <= clock::now() {
                self.deadline = None;
                return Poll::Ready(());
            }
            watch.note(deadline);
            return Poll::Pending;
        }
        let sleeping = self
            .sleeping
            .get_or_insert_with(|| Sleeping::until(deadline));
        loop {
            if sleeping.armed.is_none_or(|armed| armed > deadline) {
                sleeping.rearm(deadline);
            }
            if sleeping.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let fired = sleeping.armed.take();
            if fired.is_some_and(|fired| fired >= deadline) {
                self.deadline = None;
                return Poll::Ready(());
            }
        }
    }
}

impl Sleeping {
    /// One that was kept, or a new one.
    fn until(at: Instant) -> Self {
        let kept = KEPT.with_borrow_mut(|kept| kept.as_mut()?.pop());
        kept.unwrap_or_else(|| Self::new(at))
    }

    fn new(at: Instant) -> Self {
        Self {
            armed: Some(at),
            sleep: Box::pin(tokio::time::sleep_until(at.into())),
        }
    }

    fn rearm(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at.into());
        self.armed = Some(at);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(sleeping) = self.sleeping.take() else {
            return;
        };
        // A thread that ends keeps nothing any more.
        let refused = KEPT.try_with(|kept| match kept.borrow_mut().as_mut() {
            Some(kept) if kept.len() < KEPT_MAX => {
                kept.push(sleeping);
                None
            }
            _ => Some(sleeping),
        });
        // Outside the borrow: with it may go the last of a task, and that task's timers.
        drop(refused);
    }
}

/// One timer of the runtime for all timers of a task.
///
/// The task of a connection looks at several timers in each turn: its own, a request's deadline, a retry's.
/// Each of them would have to tell the runtime whom to wake. While an [`Alarm::watch`] lasts, a timer that the
/// same task polls only says when it has to be looked at again, and the alarm is set for the first of them.
/// So whatever is polled under a watch has to be polled again in the next turn, as long as it waits.
///
/// It is as lazy as a [`Timer`]: one that is set early enough is not touched.
#[derive(Debug, Default)]
pub struct Alarm {
    sleeping: Option<Sleeping>,
    /// Who is woken.
    waker: Option<Waker>,
}

thread_local! {
    static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
}

/// Who polls, without holding on to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task(*const (), *const RawWakerVTable);

impl Task {
    fn of(cx: &Context<'_>) -> Self {
        Self(cx.waker().data(), cx.waker().vtable())
    }
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    task: Task,
    first: Option<Instant>,
}

impl Watch {
    fn note(mut self, deadline: Instant) {
        if self.first.is_none_or(|first| deadline < first) {
            self.first = Some(deadline);
            WATCH.set(Some(self));
        }
    }
}

/// Sees the timers that a task polls. See [`Alarm`].
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Watching {
    outer: Option<Watch>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        WATCH.set(self.outer);
    }
}

impl Alarm {
    /// An alarm that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sleeping: None,
            waker: None,
        }
    }

    /// From now on, timers that this task polls are seen: until [`Alarm::set`], or the end of what is returned.
    pub fn watch(cx: &Context<'_>) -> Watching {
        let task = Task::of(cx);
        let outer = WATCH.replace(Some(Watch { task, first: None }));
        Watching { outer }
    }

    /// The task waits: it is woken for the first of the timers that were seen.
    pub fn set(&mut self, watching: Watching, cx: &mut Context<'_>) {
        let first = WATCH.get().and_then(|watch| watch.first);
        drop(watching);
        let Some(first) = first else {
            return;
        };
        let known = self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        let sleeping = self.sleeping.get_or_insert_with(|| Sleeping::new(first));
        let now = clock::now();
        let early = sleeping.armed.is_some_and(|at| now < at && at <= first);
        if known && early {
            return;
        }
        if !early {
            sleeping.rearm(first);
        }
        if !known {
            self.waker = Some(cx.waker().clone());
        }
        if sleeping.sleep.as_mut().poll(cx).is_ready() {
            sleeping.armed = None;
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll, time::Duration};

    use super::{Alarm, Timer};
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
            Poll::Ready(())
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
            Poll::Ready(())
        })
        .await;
        timer.arm(start + Duration::from_millis(10));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(clock::now() - start, Duration::from_millis(10));
    }

    #[test]
    fn a_kept_sleep_serves_earlier_and_later_deadlines() {
        // On a thread of its own: what it keeps goes with it.
        let kept = std::thread::spawn(|| {
            Timer::keep_sleeps();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let pend = async |secs| {
                    let mut timer = Timer::at(clock::now() + Duration::from_secs(secs));
                    poll_fn(|cx| {
                        assert!(timer.poll(cx).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                };
                for (left_behind, wanted) in [(10, 50), (50, 10), (10, 10)] {
                    pend(left_behind).await;
                    let start = clock::now();
                    let wanted = Duration::from_secs(wanted);
                    let mut timer = Timer::at(start + wanted);
                    poll_fn(|cx| timer.poll(cx)).await;
                    assert_eq!(clock::now() - start, wanted);
                }
                super::KEPT.with_borrow(|kept| kept.as_ref().unwrap().len())
            })
        });
        assert_eq!(kept.join().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_wakes_for_the_first_timer_of_its_task_whichever_it_is() {
        let start = clock::now();
        let mut alarm = Alarm::new();
        let millis = Duration::from_millis;
        let mut timers = [50, 20, 90].map(|n| Timer::at(start + millis(n)));
        let mut turns = 0;
        let mut fired = Vec::new();
        poll_fn(|cx| {
            turns += 1;
            let watching = Alarm::watch(cx);
            for timer in &mut timers {
                if timer.poll(cx).is_ready() {
                    fired.push((clock::now() - start).as_millis());
                    if fired.len() == 2 {
                        // Moved, as with each request of a connection.
                        timer.arm(clock::now() + millis(10));
                        assert!(timer.poll(cx).is_pending());
                    }
                }
            }
            if fired.len() == 4 {
                return Poll::Ready(());
            }
            alarm.set(watching, cx);
            Poll::Pending
        })
        .await;
        assert_eq!(fired, [20, 50, 60, 90]);
        assert!(timers.iter().all(|timer| timer.sleeping.is_none()));
        assert!(turns <= 6, "{turns}");
    }

    #[tokio::test(start_paused = true)]
    async fn timers_of_others_and_behind_the_watch_wake_by_themselves() {
        let start = clock::now();
        let mut timer = Timer::at(start + Duration::from_millis(5));
        let mut alarm = Alarm::new();
        // Polled under a watch of this task, by another: it has its own.
        let mut other = tokio_test::task::spawn(poll_fn(|cx| timer.poll(cx)));
        poll_fn(|cx| {
            let watching = Alarm::watch(cx);
            assert!(other.poll().is_pending());
            alarm.set(watching, cx);
            Poll::Ready(())
        })
        .await;
        assert!(alarm.sleeping.is_none());
        tokio::time::sleep(Duration::from_millis(6)).await;
        assert!(other.is_woken());
        let mut timer = Timer::at(start + Duration::from_millis(9));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(clock::now() - start, Duration::from_millis(9));
    }
}
