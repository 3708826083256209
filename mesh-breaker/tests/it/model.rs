//! The machine against a reference that keeps every call it ever saw and counts them anew each time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_breaker::{
    BreakerConfig, Ratio, SlowCalls,
    state::{Admission, CallEnd, Machine, Phase},
};
use mesh_core::{Percent, Rng, clock};
use proptest::{collection::vec, option, prelude::*};

#[derive(Debug, Clone)]
enum Op {
    Wait(u64),
    Admit,
    /// A call that is admitted, ends and is over at once.
    Call(CallEnd),
    /// The n-th call that is out ends.
    End(usize, CallEnd),
    /// The n-th response that is out is over.
    Release(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let wait = prop_oneof![4 => 1..300u64, 2 => 300..5_000u64, 1 => 5_000..10_000_000u64];
    let end = || {
        let often = proptest::bool::weighted(0.6);
        (often, proptest::bool::weighted(0.3)).prop_map(|(failed, slow)| CallEnd { failed, slow })
    };
    let good = CallEnd::default();
    let op = prop_oneof![
        2 => wait.prop_map(Op::Wait),
        4 => Just(Op::Admit),
        6 => end().prop_map(Op::Call),
        4 => Just(Op::Call(good)),
        4 => (0..8usize, end()).prop_map(|(n, end)| Op::End(n, end)),
        1 => (0..8usize).prop_map(Op::Release),
    ];
    vec(op, 1..200)
}

fn percent() -> impl Strategy<Value = Percent> {
    (1..=100u8).prop_map(Percent::whole)
}

fn ratio() -> impl Strategy<Value = Ratio> {
    let slow = option::of(percent().prop_map(|share| SlowCalls {
        duration: Duration::from_secs(1),
        share,
    }));
    (1..500u64, 1..12u32, 1..10u32, percent(), slow).prop_map(
        |(width, buckets, minimum_calls, failures, slow)| Ratio {
            window: Duration::from_millis(width) * buckets,
            buckets,
            minimum_calls,
            failures,
            slow,
        },
    )
}

fn config() -> impl Strategy<Value = BreakerConfig> {
    let opens = prop_oneof![
        (1..5u32).prop_map(|n| (Some(n), None)),
        ratio().prop_map(|ratio| (None, Some(ratio))),
        (1..5u32, ratio()).prop_map(|(n, ratio)| (Some(n), Some(ratio))),
    ];
    let durations = (1..1_000u64, 0..5_000u64, 1..4u32, 0..=100u8);
    (opens, durations, 1..4u32, 1..5u32).prop_map(
        |((row, ratio), (base, more, growth, jitter), at_once, successes)| {
            BreakerConfig::builder()
                .consecutive_failures(row)
                .ratio(ratio)
                .open_duration(
                    Duration::from_millis(base),
                    Duration::from_millis(base + more),
                )
                .open_growth(growth)
                .open_jitter(Percent::whole(jitter))
                .half_open(at_once, successes)
                .build()
                .expect("the strategies stay within the ranges")
        },
    )
}

/// Keeps everything and is clever nowhere.
struct Naive {
    config: BreakerConfig,
    origin: Instant,
    rng: Rng,
    /// When each phase began, and which it was; the last is now.
    phases: Vec<(Instant, Phase)>,
    /// Every end that counted: in which phase, when, how.
    ends: Vec<(usize, Instant, CallEnd)>,
    /// Every call: in which phase it was admitted, and whether it is out as a probe.
    calls: Vec<(usize, bool)>,
    /// Until when it is open.
    until: Instant,
}

impl Naive {
    fn era(&self) -> usize {
        self.phases.len() - 1
    }

    fn phase(&self) -> Phase {
        self.phases[self.era()].1
    }

    fn probes_out(&self) -> usize {
        self.calls
            .iter()
            .filter(|(era, out)| *era == self.era() && *out)
            .count()
    }

    /// Passes, probes or is refused.
    fn admit(&mut self, now: Instant) -> Option<bool> {
        if self.phase() == Phase::Open && now >= self.until {
            self.phases.push((now, Phase::HalfOpen));
        }
        let probe = match self.phase() {
            Phase::Closed => false,
            Phase::Open => return None,
            Phase::HalfOpen => {
                if self.probes_out() >= self.config.half_open_probes_max() as usize {
                    return None;
                }
                true
            }
        };
        self.calls.push((self.era(), probe));
        Some(probe)
    }

    fn end(&mut self, now: Instant, call: usize, end: CallEnd) {
        let era = self.era();
        if self.calls[call].0 != era {
            return;
        }
        self.ends.push((era, now, end));
        match self.phase() {
            Phase::Closed if self.must_open(now, end) => self.open(now),
            Phase::HalfOpen if end.failed || end.slow => self.open(now),
            Phase::HalfOpen => {
                let successes = self.ends.iter().filter(|(e, ..)| *e == era).count();
                if successes == self.config.half_open_successes() as usize {
                    self.phases.push((now, Phase::Closed));
                }
            }
            _ => {}
        }
    }

    fn must_open(&self, now: Instant, end: CallEnd) -> bool {
        let ends: Vec<_> = self
            .ends
            .iter()
            .filter(|(e, ..)| *e == self.era())
            .collect();
        let row = ends.iter().rev().take_while(|(.., e)| e.failed).count();
        if self
            .config
            .consecutive_failures()
            .is_some_and(|limit| row >= limit as usize)
        {
            return true;
        }
        let Some(ratio) = self.config.ratio() else {
            return false;
        };
        let width = (ratio.window / ratio.buckets).as_nanos();
        let tick = |at: Instant| (at - self.origin).as_nanos() / width;
        let recent: Vec<_> = ends
            .iter()
            .filter(|(_, at, _)| tick(*at) + u128::from(ratio.buckets) > tick(now))
            .collect();
        if recent.len() < ratio.minimum_calls as usize {
            return false;
        }
        let share = |n: usize| n as f64 * 100.0 / recent.len() as f64;
        let failures = recent.iter().filter(|(.., e)| e.failed).count();
        let slow = recent.iter().filter(|(.., e)| e.slow).count();
        // A hair of tolerance: the machine multiplies where this divides.
        let reached = |n: usize, limit: Percent| share(n) >= limit.get() - 1e-9;
        end.failed && reached(failures, ratio.failures)
            || end.slow && ratio.slow.is_some_and(|s| reached(slow, s.share))
    }

    fn open(&mut self, now: Instant) {
        // How often it opened since it was last closed, this time included.
        let opened = 1 + self
            .phases
            .iter()
            .rev()
            .take_while(|(_, phase)| *phase != Phase::Closed)
            .filter(|(_, phase)| *phase == Phase::Open)
            .count();
        let mut duration = self.config.open_duration();
        for _ in 1..opened {
            duration = (duration * self.config.open_growth()).min(self.config.open_duration_max());
        }
        let most = duration.mul_f64(self.config.open_jitter().fraction());
        let jitter = self.rng.below(most.as_nanos() as u64);
        self.until = now + duration + Duration::from_nanos(jitter);
        self.phases.push((now, Phase::Open));
    }
}

/// The n-th, or the last for a number beyond.
fn take<T>(list: &mut Vec<T>, n: usize) -> T {
    list.remove(n.min(list.len() - 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn model_machine_decides_as_the_reference(config in config(), ops in ops(), seed in any::<u64>()) {
        let origin = clock::now();
        let mut now = origin;
        let mut machine = Machine::new(now, Arc::new(config.clone()));
        let rng = Rng::seeded(seed);
        let mut naive = Naive {
            config,
            origin,
            rng: Rng::seeded(seed),
            phases: vec![(now, Phase::Closed)],
            ends: Vec::new(),
            calls: Vec::new(),
            until: now,
        };
        // Calls that are out: generation and number. Then responses that are out.
        let mut running: Vec<(u64, usize)> = Vec::new();
        let mut responses: Vec<(u64, usize)> = Vec::new();
        // A whole call in three steps, each the latest of its kind.
        let last = usize::MAX;
        let steps = ops.into_iter().flat_map(|op| match op {
            Op::Call(end) => vec![Op::Admit, Op::End(last, end), Op::Release(last)],
            other => vec![other],
        });
        for op in steps {
            match op {
                Op::Call(_) => unreachable!("taken apart above"),
                Op::Wait(ms) => now += Duration::from_millis(ms),
                Op::Admit => {
                    let admission = machine.poll_admission(now);
                    let expected = naive.admit(now);
                    let got = match admission {
                        Admission::Pass => Some(false),
                        Admission::Probe => Some(true),
                        Admission::Refuse(refusal) => {
                            prop_assert_eq!(machine.refusal(now), Some(refusal));
                            prop_assert_eq!(
                                refusal.retry_after,
                                (naive.phase() == Phase::Open).then(|| naive.until - now)
                            );
                            None
                        }
                    };
                    prop_assert_eq!(got, expected);
                    if got.is_some() {
                        running.push((machine.generation(), naive.calls.len() - 1));
                    }
                }
                Op::End(n, end) if !running.is_empty() => {
                    let call = take(&mut running, n);
                    let counted = machine.on_end(now, call.0, end, &rng);
                    let before = naive.ends.len();
                    naive.end(now, call.1, end);
                    prop_assert_eq!(counted, naive.ends.len() > before);
                    if naive.calls[call.1].1 {
                        responses.push(call);
                    }
                }
                Op::Release(n) if !responses.is_empty() => {
                    let call = take(&mut responses, n);
                    machine.on_release(call.0);
                    naive.calls[call.1].1 = false;
                }
                // An abandoned call.
                Op::Release(n) if !running.is_empty() => {
                    let call = take(&mut running, n);
                    if naive.calls[call.1].1 {
                        machine.on_release(call.0);
                        naive.calls[call.1].1 = false;
                    }
                }
                Op::End(..) | Op::Release(_) => {}
            }
            prop_assert_eq!(machine.phase(), naive.phase());
            prop_assert_eq!(machine.generation() as usize, naive.era());
            prop_assert!(naive.probes_out() <= naive.config.half_open_probes_max() as usize);
        }
    }
}
