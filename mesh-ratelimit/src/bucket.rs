use std::time::{Duration, Instant};

use mesh_core::sync::{AtomicU64, Ordering};

use crate::TokenBucketConfig;

/// A token bucket in one atomic word: it fills continuously, starts full, and a request that is denied
/// takes nothing.
///
/// It does not store tokens but the moment since which tokens gather (its *virtual time*): taking one
/// moves that moment forward by what one token takes to come. So nothing ever has to refill it, an idle
/// bucket costs nothing, and taking is one compare-and-swap.
///
/// Times are whole ticks of 1/16 ns (coarser only where a full bucket would span more than nine years).
/// The time of one token is rounded up to a tick: a bucket never lets through more than it should, and at
/// 100,000 per second less by one in 160,000 at most.
///
/// # Envoy
/// `AtomicTokenBucketImpl`, which computes the same in `double` seconds.
#[derive(Debug)]
pub struct TokenBucket {
    config: TokenBucketConfig,
    start: Instant,
    scale: Scale,
    /// The tick since which tokens gather. `start` is tick `scale.window`, so that a bucket that is full
    /// there needs no time before zero.
    gathers_since: AtomicU64,
}

/// There are not enough tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// How many whole tokens there are.
    pub left: u32,
    /// When there will be enough, if nobody else takes any; [`Duration::MAX`] if there never can be.
    pub wait: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Ticks until one token has come.
    token: u64,
    /// Ticks until an empty bucket is full.
    window: u64,
    /// Ticks are `2^shift / 16` ns.
    shift: u32,
}

const TICKS_PER_NANO: u128 = 16;
/// Room for a full bucket below, and for nine years of life above: times saturate there.
const WINDOW_MAX: u128 = 1 << 62;

impl Scale {
    fn new(config: &TokenBucketConfig) -> Self {
        let interval = config.fill_interval().as_nanos() * TICKS_PER_NANO;
        let tokens = u128::from(config.tokens_per_fill().get());
        let max = u128::from(config.max_tokens().get());
        let mut shift = 0;
        loop {
            let token = (interval >> shift).div_ceil(tokens).max(1);
            if token * max <= WINDOW_MAX {
                return Self {
                    token: token as u64,
                    window: (token * max) as u64,
                    shift,
                };
            }
            shift += 1;
        }
    }

    fn ticks(self, duration: Duration) -> u64 {
        let ticks = (duration.as_nanos() * TICKS_PER_NANO) >> self.shift;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Rounded up: after that long, the ticks have passed.
    fn duration(self, ticks: u64) -> Duration {
        let nanos = (u128::from(ticks) << self.shift).div_ceil(TICKS_PER_NANO);
        u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
    }
}

// Relaxed everywhere: the word is all there is, nothing else is published with it, and a single word has
// one order of changes that all threads agree on.
impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(config: TokenBucketConfig, now: Instant) -> Self {
        Self {
            config,
            start: now,
            scale: Scale::new(&config),
            gathers_since: AtomicU64::new(0),
        }
    }

    /// What it was made from.
    #[must_use]
    pub const fn config(&self) -> &TokenBucketConfig {
        &self.config
    }

    /// Takes `tokens`, and says how many whole ones are left.
    ///
    /// # Errors
    /// When there are fewer; nothing is taken then.
    pub fn take(&self, now: Instant, tokens: u32) -> Result<u32, Shortage> {
        let now = self.tick(now);
        let cost = self.scale.token.checked_mul(u64::from(tokens));
        let mut seen = self.gathers_since.load(Ordering::Relaxed);
        loop {
            let since = self.since(seen, now);
            let Some(next) = cost.and_then(|cost| since.checked_add(cost)) else {
                return Err(self.never(now, since));
            };
            if next > now {
                return Err(self.shortage(now, since, next, tokens));
            }
            match self.gathers_since.compare_exchange_weak(
                seen,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(self.whole(now, next)),
                Err(other) => seen = other,
            }
        }
    }

    /// Puts back what was taken and not used; what does not fit is lost.
    pub fn give_back(&self, tokens: u32) {
        let cost = self.scale.token.saturating_mul(u64::from(tokens));
        // Always Ok: the closure never says no.
        let _ = self
            .gathers_since
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |since| {
                Some(since.saturating_sub(cost))
            });
    }

    /// How many whole tokens there are.
    #[must_use]
    pub fn left(&self, now: Instant) -> u32 {
        let now = self.tick(now);
        self.whole(
            now,
            self.since(self.gathers_since.load(Ordering::Relaxed), now),
        )
    }

    /// How long until there is a whole token; zero if there is one.
    #[must_use]
    pub fn next_token(&self, now: Instant) -> Duration {
        let now = self.tick(now);
        let since = self.since(self.gathers_since.load(Ordering::Relaxed), now);
        self.scale
            .duration(since.saturating_add(self.scale.token).saturating_sub(now))
    }

    fn tick(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.start);
        self.scale.window.saturating_add(self.scale.ticks(age))
    }

    /// A bucket that was full long ago is just full.
    fn since(&self, seen: u64, now: u64) -> u64 {
        seen.max(now - self.scale.window)
    }

    fn whole(&self, now: u64, since: u64) -> u32 {
        // At most max_tokens, since `since` is never longer ago than the window.
        (now.saturating_sub(since) / self.scale.token) as u32
    }

    fn shortage(&self, now: u64, since: u64, next: u64, tokens: u32) -> Shortage {
        if tokens > self.config.max_tokens().get() {
            return self.never(now, since);
        }
        Shortage {
            left: self.whole(now, since),
            wait: self.scale.duration(next - now),
        }
    }

    fn never(&self, now: u64, since: u64) -> Shortage {
        Shortage {
            left: self.whole(now, since),
            wait: Duration::MAX,
        }
    }
}
