//! The state machine against a reference that keeps the whole past and counts it anew each time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_balance::health::{
    Check, CheckContext, Failure, FailureKind, HealthCheckConfig, Incident, Outcome, Passed,
    Transition, Turn,
};
use mesh_core::{EndpointState, HealthFlag, Rng, clock, sync::AtomicU64};
use proptest::{collection::vec, prelude::*};

use crate::support::address;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// The next check ends so, after so many milliseconds.
    Result(Outcome, u64),
    /// The next check is not answered.
    Silence,
    Passive,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let kind = prop_oneof![Just(FailureKind::Active), Just(FailureKind::Network)];
    let failure = (kind, any::<bool>(), proptest::bool::weighted(0.2));
    prop_oneof![
        3 => proptest::bool::weighted(0.2)
            .prop_map(|degraded| Outcome::Passed(Passed { degraded })),
        2 => failure.prop_map(|(kind, retriable, excludes)| {
            Outcome::Failed(Failure {
                retriable,
                excludes,
                status: (kind == FailureKind::Active).then_some(503),
                ..Failure::new(kind)
            })
        }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (outcome(), 0..40u64).prop_map(|(outcome, after)| Op::Result(outcome, after)),
        1 => Just(Op::Silence),
        1 => Just(Op::Passive),
    ]
}

fn config() -> impl Strategy<Value = HealthCheckConfig> {
    let ms = || (0..200u64).prop_map(Duration::from_millis);
    let intervals = proptest::array::uniform7(ms());
    let jitter = (ms(), 0..150u32, ms());
    (intervals, jitter, 0..4u32, 0..4u32, any::<[bool; 2]>()).prop_map(
        |(intervals, (jitter, percent, initial), unhealthy, healthy, log)| HealthCheckConfig {
            timeout: Duration::from_millis(50),
            interval: intervals[0],
            unhealthy_interval: intervals[1],
            unhealthy_edge_interval: intervals[2],
            healthy_edge_interval: intervals[3],
            no_traffic_interval: intervals[4],
            no_traffic_healthy_interval: intervals[5],
            initial_jitter: if jitter.is_zero() {
                initial
            } else {
                Duration::ZERO
            },
            interval_jitter: jitter,
            interval_jitter_percent: percent,
            unhealthy_threshold: unhealthy,
            healthy_threshold: healthy,
            always_log_failures: log[0],
            always_log_success: log[1],
        },
    )
}

/// Keeps every outcome, and replays them from the start whenever it is asked.
struct Naive {
    config: HealthCheckConfig,
    /// Whether the endpoint counted as failed, pending and checked at the start.
    start: (bool, bool, bool),
    past: Vec<Outcome>,
}

#[derive(Debug, PartialEq, Eq, Clone)]
struct View {
    failed: bool,
    degraded: bool,
    pending: bool,
    excluded: bool,
    timed_out: bool,
}

fn passed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Passed(_))
}

fn fails_at_once(failure: &Failure) -> bool {
    let network = [FailureKind::Network, FailureKind::NetworkTimeout].contains(&failure.kind);
    !network && !failure.retriable
}

/// How many at the end are alike.
fn row(past: &[Outcome], alike: impl Fn(&Outcome) -> bool) -> u32 {
    past.iter().rev().take_while(|o| alike(o)).count() as u32
}

impl Naive {
    fn failed(&self, len: usize) -> bool {
        let Some(last) = len.checked_sub(1) else {
            return self.start.0;
        };
        let (before, past) = (self.failed(last), &self.past[..len]);
        match &past[last] {
            Outcome::Passed(_) if before => {
                let first_ever = last == 0 && !self.start.2;
                let enough = self.config.healthy_threshold;
                !(first_ever || enough > 0 && row(past, passed) >= enough)
            }
            Outcome::Passed(_) => false,
            Outcome::Failed(_) if before => true,
            Outcome::Failed(failure) => {
                let enough = self.config.unhealthy_threshold;
                fails_at_once(failure) || enough > 0 && row(past, |o| !passed(o)) >= enough
            }
        }
    }

    fn view(&self) -> View {
        let len = self.past.len();
        let failed = self.failed(len);
        // Excluded from the latest such failure on, until it became healthy again after that.
        let became_healthy = |i: usize| self.failed(i) && !self.failed(i + 1);
        let excluded = (0..len).rev().find_map(|i| match &self.past[i] {
            Outcome::Failed(failure) if failure.excludes => Some(true),
            _ if became_healthy(i) => Some(false),
            _ => None,
        });
        let timed_out = (0..len).rev().find_map(|i| match &self.past[i] {
            Outcome::Failed(failure) => {
                Some(failure.kind == FailureKind::NetworkTimeout && self.failed(i + 1))
            }
            _ if became_healthy(i) => Some(false),
            Outcome::Passed(_) => None,
        });
        let degraded = self.past.iter().rev().find_map(|o| match o {
            Outcome::Passed(passed) => Some(passed.degraded),
            Outcome::Failed(_) => None,
        });
        View {
            failed,
            degraded: degraded.unwrap_or(false),
            pending: self.start.1 && len == 0,
            excluded: excluded.unwrap_or(false),
            timed_out: timed_out.unwrap_or(false),
        }
    }

    /// What the latest outcome changed.
    fn transition(&self, before: &View) -> Transition {
        let now = self.view();
        let last = self.past.last().unwrap();
        if before.failed != now.failed || before.pending != now.pending {
            Transition::Changed
        } else if passed(last) == now.failed {
            Transition::Pending
        } else if before.degraded != now.degraded {
            Transition::Changed
        } else {
            Transition::Unchanged
        }
    }

    fn incidents(&self, before: &View) -> Vec<Incident> {
        let (now, first_check) = (self.view(), self.past.len() == 1 && !self.start.2);
        let mut incidents = Vec::new();
        match *self.past.last().unwrap() {
            Outcome::Passed(passed) => {
                if before.failed && !now.failed {
                    incidents.push(Incident::AddHealthy { first_check });
                } else if self.config.always_log_success {
                    incidents.push(Incident::Successful);
                }
                if passed.degraded != before.degraded {
                    incidents.push(match passed.degraded {
                        true => Incident::Degraded,
                        false => Incident::NoLongerDegraded,
                    });
                }
            }
            Outcome::Failed(Failure { kind, status, .. }) => {
                if !before.failed && now.failed {
                    incidents.push(Incident::EjectUnhealthy { kind, status });
                }
                if first_check || self.config.always_log_failures {
                    incidents.push(Incident::Failure {
                        kind,
                        first_check,
                        status,
                    });
                }
            }
        }
        incidents
    }

    /// The shortest and the longest time to the next check, the latter left out.
    fn interval(&self, transition: Transition, traffic: bool) -> (u128, u128) {
        let config = &self.config;
        let ok = passed(self.past.last().unwrap());
        let base = if !traffic {
            if ok && transition != Transition::Pending {
                config.no_traffic_healthy_interval
            } else {
                config.no_traffic_interval
            }
        } else {
            match (ok, transition == Transition::Pending) {
                (true, false) => config.interval,
                (true, true) => config.healthy_edge_interval,
                (false, false) => config.unhealthy_interval,
                (false, true) => config.unhealthy_edge_interval,
            }
        };
        let base = base.as_millis();
        let share = base * u128::from(config.interval_jitter_percent) / 100;
        let most = share.saturating_sub(1) + config.interval_jitter.as_millis().saturating_sub(1);
        (base.max(1), (base + most).max(1))
    }
}

fn view(state: &EndpointState) -> View {
    View {
        failed: state.has(HealthFlag::FailedActive),
        degraded: state.has(HealthFlag::DegradedActive),
        pending: state.has(HealthFlag::PendingActive),
        excluded: state.has(HealthFlag::Excluded),
        timed_out: state.has(HealthFlag::ActiveTimeout),
    }
}

/// Moves the clock to the next check, which must be due exactly when it said.
fn begin(check: &mut Check, now: &mut Instant, config: &HealthCheckConfig) {
    let due = check.next_deadline();
    let early = due - Duration::from_millis(1);
    if early > *now {
        assert_eq!(check.poll_turn(early, config), Turn::Wait);
    }
    *now = due.max(*now);
    assert_eq!(check.poll_turn(*now, config), Turn::Ask);
    assert_eq!(check.next_deadline(), *now + config.timeout);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn model_of_a_check(
        config in config(),
        start in any::<(bool, bool, bool)>(),
        traffic in any::<bool>(),
        ops in vec(op(), 1..40),
    ) {
        let state = EndpointState::new(address(1), Arc::new(AtomicU64::new(0)));
        state.set_health(HealthFlag::FailedActive, start.0);
        state.set_health(HealthFlag::PendingActive, start.1);
        let rng = Rng::seeded(1);
        let mut now = clock::now();
        let begun = now;
        let mut check = Check::new(now, &config, start.2, &rng);
        let first = check.next_deadline() - begun;
        prop_assert!(first <= config.initial_jitter.max(Duration::from_millis(1)));
        prop_assert!(!config.initial_jitter.is_zero() || first.is_zero());
        let mut naive = Naive { config: config.clone(), start, past: Vec::new() };
        let context = CheckContext { config: &config, endpoint: &state, has_traffic: traffic, rng: &rng };
        for op in ops {
            let before = naive.view();
            let due = check.next_deadline();
            let report = match op {
                Op::Passive => {
                    let failure = Failure { excludes: true, ..Failure::new(FailureKind::Passive) };
                    naive.past.push(Outcome::Failed(failure));
                    let report = check.on_passive_failure(failure, context);
                    prop_assert_eq!(check.next_deadline(), due);
                    report
                }
                Op::Silence => {
                    begin(&mut check, &mut now, &config);
                    now += config.timeout;
                    let expected = Outcome::Failed(Failure::new(FailureKind::NetworkTimeout));
                    prop_assert_eq!(check.poll_turn(now, &config), Turn::GiveUp(expected));
                    naive.past.push(expected);
                    check.on_result(now, expected, context)
                }
                Op::Result(outcome, after) => {
                    begin(&mut check, &mut now, &config);
                    now += Duration::from_millis(after);
                    naive.past.push(outcome);
                    check.on_result(now, outcome, context)
                }
            };
            prop_assert_eq!(view(&state), naive.view());
            prop_assert_eq!(report.transition, naive.transition(&before));
            prop_assert_eq!(report.incidents.as_slice(), naive.incidents(&before));
            prop_assert_eq!(report.first, naive.past.len() == 1 && !start.2);
            prop_assert!(check.is_checked());
            if !matches!(op, Op::Passive) {
                let waits = (check.next_deadline() - now).as_millis();
                let (least, most) = naive.interval(report.transition, traffic);
                prop_assert!((least..=most).contains(&waits), "{} not in {}..={}", waits, least, most);
            }
        }
    }
}
