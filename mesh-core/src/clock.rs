//! The one clock.
//!
//! Monotonic time goes through tokio, so that a test with paused time sees the same clock everywhere;
//! state machines take `now` as an argument and never call this.

use std::{
    cell::Cell,
    time::{Instant, SystemTime},
};

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::NOT) };
}

/// What the clocks said when they were first looked at, while they are held.
#[derive(Clone, Copy)]
struct Held {
    /// How many guards there are.
    guards: u32,
    now: Option<Instant>,
    wall: Option<SystemTime>,
}

impl Held {
    const NOT: Self = Self {
        guards: 0,
        now: None,
        wall: None,
    };
}

/// The monotonic time now: tokio's, hence paused when a test pauses it.
#[must_use]
pub fn now() -> Instant {
    let mut held = HELD.get();
    if let Some(now) = held.now {
        return now;
    }
    let now = read();
    if held.guards > 0 {
        held.now = Some(now);
        HELD.set(held);
    }
    now
}

/// The monotonic time now, even while the clocks are held: for loops that time must end.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn read() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, for time stamps in logs and headers only; never for a deadline.
#[must_use]
pub fn wall() -> SystemTime {
    let mut held = HELD.get();
    if let Some(wall) = held.wall {
        return wall;
    }
    let wall = SystemTime::now();
    if held.guards > 0 {
        held.wall = Some(wall);
        HELD.set(held);
    }
    wall
}

/// Holds both clocks of this thread until the guard goes: each is looked at once, and stands still from
/// then on. For one poll of a task, which takes microseconds and would look at them a dozen times.
pub fn hold() -> Hold {
    let mut held = HELD.get();
    held.guards += 1;
    HELD.set(held);
    Hold(std::marker::PhantomData)
}

/// See [`hold`]. It belongs to its thread.
#[derive(Debug)]
#[must_use = "the clocks go on when it is dropped"]
pub struct Hold(std::marker::PhantomData<*const ()>);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = HELD.get();
        held.guards -= 1;
        HELD.set(if held.guards == 0 { Held::NOT } else { held });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{hold, now, read};

    #[tokio::test(start_paused = true)]
    async fn the_clock_stands_still_while_it_is_held_and_goes_on_behind() {
        let second = Duration::from_secs(1);
        let start = now();
        let outer = hold();
        // What is not looked at is not held.
        tokio::time::advance(second).await;
        assert_eq!(now(), start + second);
        drop(hold());
        tokio::time::advance(second).await;
        assert_eq!((now(), read()), (start + second, start + 2 * second));
        drop(outer);
        assert_eq!(now(), start + 2 * second);
    }
}
