use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::Instant,
};

use mesh_core::{
    EndGuard, Mode, Rng, StreamEnd, clock,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};

use super::{
    BreakerStats,
    state::{Admission, CallEnd, Machine, Phase},
};
use crate::{BreakerConfig, Refusal};

/// The lasting state of one breaker, shared by all services that look at the same upstream.
///
/// It outlives configs: [`Circuit::update`] changes the rules and keeps the phase. While closed, a call is
/// admitted by one atomic load; each end takes a lock for a few dozen nanoseconds.
///
/// A [`Breaker`](crate::Breaker) does all of this; a circuit by itself is for what is no tower service:
///
/// ```
/// use std::sync::Arc;
///
/// use mesh_breaker::{BreakerConfig, Circuit};
/// use mesh_core::clock;
///
/// # fn query() -> Result<(), ()> { Ok(()) }
/// let circuit = Arc::new(Circuit::new(BreakerConfig::default()));
/// match circuit.admit(clock::now) {
///     Ok(ticket) => {
///         let result = query();
///         ticket.settle(clock::now(), result.is_err());
///     }
///     Err(refusal) => println!("not now: {refusal}"),
/// }
/// ```
pub struct Circuit {
    /// The machine's generation, whether calls are timed, and whether it is closed; see [`word`]. Written
    /// under the lock.
    word: AtomicU64,
    machine: Mutex<Machine>,
    stats: BreakerStats,
    rng: Rng,
}

const CLOSED: u64 = 1;
const TIMED: u64 = 2;
const GENERATION_SHIFT: u32 = 2;

fn word(machine: &Machine) -> u64 {
    let closed = u64::from(machine.phase() == Phase::Closed) * CLOSED;
    let timed = u64::from(machine.config().slow_duration().is_some()) * TIMED;
    (machine.generation() << GENERATION_SHIFT) | timed | closed
}

impl Circuit {
    /// A closed breaker, whose counts are not exported.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self::with(
            config,
            BreakerStats::detached(),
            Rng::from_entropy(),
            clock::now(),
        )
    }

    /// A closed breaker with everything given.
    #[must_use]
    pub fn with(config: BreakerConfig, stats: BreakerStats, rng: Rng, now: Instant) -> Self {
        let machine = Machine::new(now, Arc::new(config));
        Self {
            word: AtomicU64::new(word(&machine)),
            machine: Mutex::new(machine),
            stats,
            rng,
        }
    }

    /// Changes the config and keeps the phase.
    pub fn update(&self, now: Instant, config: BreakerConfig) {
        let mut machine = self.lock();
        machine.update(now, Arc::new(config));
        self.publish(&machine);
    }

    /// The phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lock().phase()
    }

    /// What it counts.
    #[must_use]
    pub const fn stats(&self) -> &BreakerStats {
        &self.stats
    }

    /// Asks to make a call; `now` is read only if it matters. Settle the ticket with the outcome; to drop
    /// it says that the call had none.
    ///
    /// # Errors
    /// When the call must not be made. In shadow mode it never is refused.
    pub fn admit(self: &Arc<Self>, now: impl FnOnce() -> Instant) -> Result<Ticket, Refusal> {
        // Acquire pairs with the Release of `publish`: who sees the new generation sees what led to it.
        let word = self.word.load(Ordering::Acquire);
        if word & CLOSED != 0 {
            let started = (word & TIMED != 0).then(now);
            return Ok(self.ticket(word >> GENERATION_SHIFT, false, started));
        }
        self.admit_slowly(now())
    }

    fn admit_slowly(self: &Arc<Self>, now: Instant) -> Result<Ticket, Refusal> {
        let mut machine = self.lock();
        let before = machine.phase();
        let admission = machine.poll_admission(now);
        let generation = machine.generation();
        let started = machine.config().slow_duration().map(|_| now);
        let shadow = machine.config().mode() == Mode::Shadow;
        self.settle_phase(before, &machine);
        drop(machine);
        match admission {
            Admission::Pass => Ok(self.ticket(generation, false, started)),
            Admission::Probe => {
                self.stats.probes().inc();
                Ok(self.ticket(generation, true, started))
            }
            Admission::Refuse(_) if shadow => {
                self.stats.shadow_refused().inc();
                // No generation is that high: its outcome never counts, as if it had been refused.
                Ok(self.ticket(u64::MAX, false, None))
            }
            Admission::Refuse(refusal) => {
                self.stats.refused().inc();
                Err(refusal)
            }
        }
    }

    /// Why a call would be refused now, if it would. Changes nothing.
    #[must_use]
    pub fn refusal(&self, now: impl FnOnce() -> Instant) -> Option<Refusal> {
        if self.word.load(Ordering::Acquire) & CLOSED != 0 {
            return None;
        }
        let machine = self.lock();
        if machine.config().mode() == Mode::Shadow {
            return None;
        }
        machine.refusal(now())
    }

    fn ticket(self: &Arc<Self>, generation: u64, probe: bool, started: Option<Instant>) -> Ticket {
        Ticket {
            place: Probe {
                circuit: Arc::clone(self),
                generation,
                holds: probe,
            },
            started,
        }
    }

    fn on_end(&self, now: Instant, generation: u64, failed: bool, started: Option<Instant>) {
        let mut machine = self.lock();
        let before = machine.phase();
        let slow = machine
            .config()
            .slow_duration()
            .zip(started)
            .is_some_and(|(limit, started)| now.saturating_duration_since(started) >= limit);
        let counted = machine.on_end(now, generation, CallEnd { failed, slow }, &self.rng);
        self.settle_phase(before, &machine);
        drop(machine);
        if counted {
            self.count(failed, slow);
        }
    }

    fn count(&self, failed: bool, slow: bool) {
        if failed {
            self.stats.failures().inc();
        } else {
            self.stats.successes().inc();
        }
        if slow {
            self.stats.slow().inc();
        }
    }

    fn on_release(&self, generation: u64) {
        self.lock().on_release(generation);
    }

    /// Tells everybody about a change of phase, if there was one. Called under the lock.
    fn settle_phase(&self, before: Phase, machine: &Machine) {
        let after = machine.phase();
        if before == after {
            return;
        }
        self.publish(machine);
        match after {
            Phase::Closed => self.stats.closed().inc(),
            Phase::Open => self.stats.opened().inc(),
            Phase::HalfOpen => self.stats.half_opened().inc(),
        }
        self.stats.open().set(u64::from(after == Phase::Open));
        self.stats
            .half_open()
            .set(u64::from(after == Phase::HalfOpen));
    }

    fn publish(&self, machine: &Machine) {
        self.word.store(word(machine), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // A panic while it was held left counts behind, at worst off by one: go on with them.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

/// The right to make one call.
///
/// Dropped without [`Ticket::settle`], the call counts as never made; a probe gives its place to another.
#[derive(Debug)]
#[must_use = "settle it with the outcome of the call"]
pub struct Ticket {
    place: Probe,
    started: Option<Instant>,
}

impl Ticket {
    /// Reports how the call went. What comes back is the place of a probe, if this was one: keep it for
    /// as long as the response uses the upstream.
    pub fn settle(self, now: Instant, failed: bool) -> Option<Probe> {
        let Self { place, started } = self;
        place.circuit.on_end(now, place.generation, failed, started);
        place.holds.then_some(place)
    }

    /// Whether the call is a probe of a half-open breaker.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.place.holds
    }
}

/// The place of a running probe; another may run when it is dropped.
pub struct Probe {
    circuit: Arc<Circuit>,
    generation: u64,
    holds: bool,
}

impl EndGuard for Probe {
    fn on_end(&mut self, _: StreamEnd) {}
}

impl Drop for Probe {
    fn drop(&mut self) {
        if self.holds {
            self.circuit.on_release(self.generation);
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe")
            .field("generation", &self.generation)
            .field("holds", &self.holds)
            .finish_non_exhaustive()
    }
}
