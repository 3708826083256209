use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// A second is cut into so many slices, each of which lets its part of the bytes through.
pub const SLICES_PER_SECOND: u32 = 16;

const SLICE: Duration = Duration::from_nanos(1_000_000_000 / SLICES_PER_SECOND as u64);

/// How many bytes of a body may go, and when: a token bucket of slices that starts with one.
///
/// After a pause, the slices of at most one second go at once.
///
/// # Envoy
/// `StreamRateLimiter`
#[derive(Debug, Clone)]
pub struct Pace {
    bytes_per_slice: u64,
    slices: u32,
    /// When the last slice came.
    filled: Instant,
}

/// An answer of [`Pace::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// So many bytes may go now, at least one.
    Bytes(u64),
    /// None may go before.
    NotBefore(Instant),
}

impl Pace {
    /// A body that begins now.
    #[must_use]
    pub fn new(limit_kbps: NonZeroU64, now: Instant) -> Self {
        Self {
            // 1024 is a multiple of 16: nothing is lost.
            bytes_per_slice: limit_kbps.get().saturating_mul(1024) / u64::from(SLICES_PER_SECOND),
            slices: 1,
            filled: now,
        }
    }

    /// Takes up to `wanted` bytes, which are more than none.
    pub fn take(&mut self, now: Instant, wanted: u64) -> Take {
        self.fill(now);
        if self.slices == 0 {
            return Take::NotBefore(self.filled + SLICE);
        }
        let needed = wanted.div_ceil(self.bytes_per_slice).max(1);
        let taken = self.slices.min(u32::try_from(needed).unwrap_or(u32::MAX));
        self.slices -= taken;
        let bytes = self.bytes_per_slice.saturating_mul(u64::from(taken));
        Take::Bytes(bytes.min(wanted))
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_nanos();
        let slices = passed / SLICE.as_nanos();
        let full = u128::from(SLICES_PER_SECOND - self.slices);
        if slices > full {
            // What would not fit is lost, and the next one comes a slice from now.
            self.slices = SLICES_PER_SECOND;
            self.filled = now;
        } else if let Ok(slices) = u32::try_from(slices) {
            self.slices += slices;
            self.filled += SLICE * slices;
        }
    }
}
