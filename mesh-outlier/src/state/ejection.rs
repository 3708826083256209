use std::time::{Duration, Instant};

use mesh_core::Rng;

use crate::OutlierConfig;

/// How often and for how long one endpoint was ejected.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    active: bool,
    /// Ejections so far; never goes down.
    count: u32,
    /// How many times the base time the next ejection lasts; grows with ejections, decays with peace.
    backoff: u32,
    jitter: Duration,
    last_ejected: Option<Instant>,
    last_unejected: Option<Instant>,
}

impl Ejection {
    pub(super) const fn is_active(&self) -> bool {
        self.active
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// How long ago the opposite of what happens now happened.
    pub(super) fn since_last_action(&self, now: Instant, ejecting: bool) -> Option<Duration> {
        let last = if ejecting {
            self.last_unejected
        } else {
            self.last_ejected
        };
        Some(now.saturating_duration_since(last?))
    }

    pub(super) fn begin(&mut self, now: Instant, config: &OutlierConfig, rng: &Rng) {
        self.active = true;
        self.count = self.count.saturating_add(1);
        self.last_ejected = Some(now);
        self.jitter = jitter(config.max_ejection_time_jitter(), rng);
        let (base, max) = (config.base_ejection_time(), config.max_ejection_time());
        if base.saturating_mul(self.backoff) < max.saturating_add(base) {
            self.backoff += 1;
        }
    }

    /// Whether it has lasted long enough.
    pub(super) fn is_due(&self, now: Instant, config: &OutlierConfig) -> bool {
        let Some(since) = self.last_ejected.filter(|_| self.active) else {
            return false;
        };
        let base = config.base_ejection_time().saturating_mul(self.backoff);
        let lasts = base
            .min(config.max_ejection_time())
            .saturating_add(self.jitter);
        now.saturating_duration_since(since) >= lasts
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.active = false;
        self.last_unejected = Some(now);
    }

    /// One more interval is over: an endpoint that was back for all of it is forgiven one ejection.
    pub(super) fn decay(&mut self, now: Instant, config: &OutlierConfig) {
        let back_for = self
            .last_unejected
            .map(|back| now.saturating_duration_since(back));
        if !self.active && back_for.is_some_and(|back_for| back_for >= config.interval()) {
            self.backoff = self.backoff.saturating_sub(1);
        }
    }
}

/// Whole milliseconds from 0 to `max`, both included.
fn jitter(max: Duration, rng: &Rng) -> Duration {
    let max_ms = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rng.below(max_ms.saturating_add(1)))
}
