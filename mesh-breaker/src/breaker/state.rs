//! The pure machine of the breaker: no clock, no lock, no randomness of its own.
//!
//! ```text
//!            a row or a share of failures            open duration over
//!   Closed ------------------------------> Open <---------------------- HalfOpen
//!     ^                                      \-------------------------->  |  ^
//!     |                                         a probe fails: opens again, |  |
//!     +---------------------------------------- longer ---------------------+
//!                  enough probes succeed
//! ```
//!
//! Every change of phase starts a new *generation*. A call remembers the generation that admitted it, and
//! what comes back under an older one is forgotten: an answer from before the breaker opened says nothing
//! about the upstream of now.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{Reason, Rng};

pub use super::window::Counts;
use super::window::Window;
use crate::{BreakerConfig, Refusal, Trip};

/// What the breaker does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Lets it pass.
    Closed,
    /// Refuses it.
    Open,
    /// Lets a few pass, to see.
    HalfOpen,
}

/// What the machine decided about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Let it pass.
    Pass,
    /// Let it pass as a probe; [`Machine::on_release`] gives its place back.
    Probe,
    /// Refuse it.
    Refuse(Refusal),
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallEnd {
    /// It failed.
    pub failed: bool,
    /// It took as long as a slow call, or longer. Only with a config that looks at slow calls.
    pub slow: bool,
}

#[derive(Debug)]
enum State {
    Closed { in_a_row: u32 },
    Open { until: Instant },
    HalfOpen { running: u32, successes: u32 },
}

/// Closed, open, half open.
#[derive(Debug)]
pub struct Machine {
    config: Arc<BreakerConfig>,
    state: State,
    generation: u64,
    window: Option<Window>,
    /// How often it opened since it was last closed.
    opened: u32,
    /// What opened it last.
    trip: Trip,
}

impl Machine {
    /// A closed breaker.
    #[must_use]
    pub fn new(now: Instant, config: Arc<BreakerConfig>) -> Self {
        Self {
            state: State::Closed { in_a_row: 0 },
            generation: 0,
            window: config.ratio().map(|ratio| Window::new(now, ratio)),
            opened: 0,
            trip: Trip::default(),
            config,
        }
    }

    /// Changes the config. The phase stays; the window is emptied when its shape changes.
    pub fn update(&mut self, now: Instant, config: Arc<BreakerConfig>) {
        let shape = |config: &BreakerConfig| config.ratio().map(|r| (r.window, r.buckets));
        if shape(&config) != shape(&self.config) {
            self.window = config.ratio().map(|ratio| Window::new(now, ratio));
        }
        self.config = config;
    }

    /// The phase; an open breaker stays `Open` until a call comes after its time.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Closed { .. } => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// Counts the changes of phase.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The config in use.
    #[must_use]
    pub const fn config(&self) -> &Arc<BreakerConfig> {
        &self.config
    }

    /// What opened the breaker last.
    #[must_use]
    pub const fn trip(&self) -> Trip {
        self.trip
    }

    /// When an open breaker begins to probe.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            _ => None,
        }
    }

    /// Why a call would be refused now, if it would. Changes nothing.
    #[must_use]
    pub fn refusal(&self, now: Instant) -> Option<Refusal> {
        match self.state {
            State::Open { until } if now < until => Some(Refusal {
                reason: Reason::BreakerOpen,
                trip: self.trip,
                observed: self.trip.observed,
                limit: self.trip.limit,
                retry_after: Some(until - now),
            }),
            State::HalfOpen { running, .. } if running >= self.config.half_open_probes_max() => {
                Some(Refusal {
                    reason: Reason::BreakerProbing,
                    trip: self.trip,
                    observed: running.into(),
                    limit: self.config.half_open_probes_max().into(),
                    retry_after: None,
                })
            }
            _ => None,
        }
    }

    /// Decides about a call; the first call after the open duration is the first probe.
    pub fn poll_admission(&mut self, now: Instant) -> Admission {
        if let Some(refusal) = self.refusal(now) {
            return Admission::Refuse(refusal);
        }
        if let State::Open { .. } = self.state {
            // Open => HalfOpen: its time is over.
            self.enter(State::HalfOpen {
                running: 0,
                successes: 0,
            });
        }
        match &mut self.state {
            State::HalfOpen { running, .. } => {
                *running += 1;
                Admission::Probe
            }
            _ => Admission::Pass,
        }
    }

    /// A call that was admitted under `generation` ended. Returns whether that counted.
    pub fn on_end(&mut self, now: Instant, generation: u64, end: CallEnd, rng: &Rng) -> bool {
        if generation != self.generation {
            return false;
        }
        match &mut self.state {
            State::Closed { in_a_row } => {
                *in_a_row = if end.failed { *in_a_row + 1 } else { 0 };
                let in_a_row = *in_a_row;
                if let Some(trip) = self.judge(now, end, in_a_row) {
                    // Closed => Open.
                    self.open(now, trip, rng);
                }
                true
            }
            State::HalfOpen { successes, .. } => {
                if end.failed || end.slow {
                    // HalfOpen => Open: not well yet.
                    let trip = Trip::probe(u64::from(*successes));
                    self.open(now, trip, rng);
                    return true;
                }
                *successes += 1;
                if *successes >= self.config.half_open_successes() {
                    // HalfOpen => Closed: well again, and the past is forgotten.
                    self.close();
                }
                true
            }
            // Nothing is admitted under a generation that is open.
            State::Open { .. } => false,
        }
    }

    /// A probe that was admitted under `generation` is over: its response ended, or it was abandoned.
    pub fn on_release(&mut self, generation: u64) {
        if let State::HalfOpen { running, .. } = &mut self.state
            && generation == self.generation
        {
            *running -= 1;
        }
    }

    /// Whether to open, after a call ended while closed.
    fn judge(&mut self, now: Instant, end: CallEnd, in_a_row: u32) -> Option<Trip> {
        let counts = self
            .window
            .as_mut()
            .map(|window| window.record(now, end.failed, end.slow));
        if let Some(limit) = self.config.consecutive_failures()
            && in_a_row >= limit
        {
            return Some(Trip::in_a_row(in_a_row, limit));
        }
        let (ratio, counts) = (self.config.ratio()?, counts?);
        if counts.calls < ratio.minimum_calls {
            return None;
        }
        // A good call never opens the breaker, even if the share rose because better ones grew old.
        if end.failed && reaches(counts.failures, counts.calls, ratio.failures) {
            return Some(Trip::failures(
                counts.failures,
                counts.calls,
                ratio.failures,
            ));
        }
        let slow = ratio.slow.as_ref()?;
        (end.slow && reaches(counts.slow, counts.calls, slow.share))
            .then(|| Trip::slow(counts.slow, counts.calls, slow.share))
    }

    fn open(&mut self, now: Instant, trip: Trip, rng: &Rng) {
        self.trip = trip;
        let duration = open_duration(&self.config, self.opened);
        self.opened = self.opened.saturating_add(1);
        let until = now + jittered(&self.config, duration, rng);
        self.enter(State::Open { until });
    }

    fn close(&mut self) {
        self.opened = 0;
        if let Some(window) = &mut self.window {
            window.clear();
        }
        self.enter(State::Closed { in_a_row: 0 });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

/// In percent, so that whole percentages compare exactly.
fn reaches(part: u32, all: u32, share: mesh_core::Percent) -> bool {
    f64::from(part) * 100.0 >= share.get() * f64::from(all)
}

/// The open duration after it had opened `opened` times already.
fn open_duration(config: &BreakerConfig, opened: u32) -> Duration {
    let max = config.open_duration_max();
    config
        .open_growth()
        .checked_pow(opened)
        .and_then(|factor| config.open_duration().checked_mul(factor))
        .map_or(max, |duration| duration.min(max))
}

/// `duration` and up to the jitter's share of it.
fn jittered(config: &BreakerConfig, duration: Duration, rng: &Rng) -> Duration {
    let most = duration.mul_f64(config.open_jitter().fraction());
    let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    duration.saturating_add(Duration::from_nanos(rng.below(most)))
}
