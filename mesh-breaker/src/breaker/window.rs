use std::time::{Duration, Instant};

use crate::Ratio;

/// What was counted, in a bucket or in all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls.
    pub calls: u32,
    /// Of which failed.
    pub failures: u32,
    /// Of which were slow.
    pub slow: u32,
}

/// Counts of the recent past, in a ring of buckets of equal width.
///
/// Time is cut into ticks of one bucket's width, counted from the first moment. The window holds the
/// tick of now and those before it, as many as there are buckets. Rolling costs at most one step per
/// bucket, however long nothing happened.
#[derive(Debug)]
pub(super) struct Window {
    origin: Instant,
    /// Of one bucket, in nanoseconds; at least a million.
    width_ns: u64,
    /// The newest tick seen.
    tick: u64,
    ring: Box<[Counts]>,
    sum: Counts,
}

impl Window {
    pub(super) fn new(now: Instant, ratio: &Ratio) -> Self {
        Self {
            origin: now,
            width_ns: nanos(ratio.window / ratio.buckets),
            tick: 0,
            ring: vec![Counts::default(); ratio.buckets as usize].into(),
            sum: Counts::default(),
        }
    }

    /// Counts one call and returns what the window holds then. A clock that stepped back counts into the
    /// newest bucket.
    pub(super) fn record(&mut self, now: Instant, failed: bool, slow: bool) -> Counts {
        self.roll(now);
        let slot = self.slot(self.tick);
        for counts in [&mut self.ring[slot], &mut self.sum] {
            counts.calls = counts.calls.saturating_add(1);
            counts.failures = counts.failures.saturating_add(failed.into());
            counts.slow = counts.slow.saturating_add(slow.into());
        }
        self.sum
    }

    pub(super) fn clear(&mut self) {
        self.ring.fill(Counts::default());
        self.sum = Counts::default();
    }

    fn roll(&mut self, now: Instant) {
        let tick = nanos(now.saturating_duration_since(self.origin)) / self.width_ns;
        if tick <= self.tick {
            return;
        }
        let stale = (tick - self.tick).min(self.ring.len() as u64);
        for gone in tick - stale + 1..=tick {
            let slot = self.slot(gone);
            let old = std::mem::take(&mut self.ring[slot]);
            self.sum.calls = self.sum.calls.saturating_sub(old.calls);
            self.sum.failures = self.sum.failures.saturating_sub(old.failures);
            self.sum.slow = self.sum.slow.saturating_sub(old.slow);
        }
        self.tick = tick;
    }

    fn slot(&self, tick: u64) -> usize {
        (tick % self.ring.len() as u64) as usize
    }
}

/// 64 bits hold five centuries.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
