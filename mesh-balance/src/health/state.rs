use std::time::{Duration, Instant};

use mesh_core::{EndpointState, HealthFlag, Rng};
use smallvec::SmallVec;

use super::{HealthCheckConfig, Incident};

/// The check of one endpoint: when the next one is due, and what a result means.
///
/// Whether the endpoint is well is kept in its flags, which outlive this.
#[derive(Debug)]
pub struct Check {
    /// No result yet, ever.
    first: bool,
    /// Checks that passed in a row while the endpoint counts as failed.
    passes: u32,
    /// Checks that failed in a row while the endpoint counts as healthy.
    failures: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The next check begins then.
    Waiting(Instant),
    /// A check is under way, and is given up then.
    Asking(Instant),
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing, until [`Check::next_deadline`].
    Wait,
    /// Ask the endpoint.
    Ask,
    /// Stop asking: this is the result.
    GiveUp(Outcome),
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint says that it is well.
    Passed(Passed),
    /// It says that it is not, or says nothing.
    Failed(Failure),
}

/// The endpoint says that it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Though only to be used when others are not enough. Envoy: `x-envoy-degraded`.
    pub degraded: bool,
}

/// The endpoint says that it is not well, or says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("health check failed: {}", kind.name())]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// One such failure alone means nothing: the threshold counts. Network failures always are so.
    pub retriable: bool,
    /// It wants to be left out altogether. Envoy: `x-envoy-immediate-health-check-fail`.
    pub excludes: bool,
    /// What it answered, if it did.
    pub status: Option<u16>,
}

/// What went wrong. Envoy: `HealthCheckFailureType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The endpoint answered that it is not well.
    Active,
    /// The answer to a request said so.
    Passive,
    /// It could not be reached, or broke off.
    Network,
    /// It did not answer in time.
    NetworkTimeout,
}

impl FailureKind {
    /// As Envoy prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Passive => "PASSIVE",
            Self::Network => "NETWORK",
            Self::NetworkTimeout => "NETWORK_TIMEOUT",
        }
    }

    const fn is_network(self) -> bool {
        matches!(self, Self::Network | Self::NetworkTimeout)
    }
}

impl Failure {
    /// A failure of that kind and no more.
    #[must_use]
    pub const fn new(kind: FailureKind) -> Self {
        Self {
            kind,
            retriable: false,
            excludes: false,
            status: None,
        }
    }
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    Unchanged,
    /// Nothing yet: more of the same would.
    Pending,
    /// The endpoint's flags.
    Changed,
}

/// What came of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it changed.
    pub transition: Transition,
    /// Whether it was the first ever.
    pub first: bool,
    /// What goes into the event log, in order.
    pub incidents: SmallVec<[Incident; 2]>,
}

/// What a judgement goes by beside the result itself.
#[derive(Debug, Clone, Copy)]
pub struct CheckContext<'a> {
    /// The rules.
    pub config: &'a HealthCheckConfig,
    /// Whose flags change.
    pub endpoint: &'a EndpointState,
    /// Whether the cluster was ever used.
    pub has_traffic: bool,
    /// Where jitter comes from.
    pub rng: &'a Rng,
}

impl Check {
    /// The first check is due at once, or somewhere within `initial_jitter`. `checked` says that the
    /// endpoint has had results already, under a config before this one.
    #[must_use]
    pub fn new(now: Instant, config: &HealthCheckConfig, checked: bool, rng: &Rng) -> Self {
        let start = if config.initial_jitter.is_zero() {
            now
        } else {
            now + at_least_one(below(config.initial_jitter, rng))
        };
        Self {
            first: !checked,
            passes: 0,
            failures: 0,
            phase: Phase::Waiting(start),
        }
    }

    /// Whether there was a result.
    #[must_use]
    pub const fn is_checked(&self) -> bool {
        !self.first
    }

    /// When there is something to do, unless a result comes first.
    #[must_use]
    pub const fn next_deadline(&self) -> Instant {
        match self.phase {
            Phase::Waiting(at) | Phase::Asking(at) => at,
        }
    }

    /// What there is to do. Whoever is told to ask or to give up reports the result to
    /// [`Check::on_result`].
    pub fn poll_turn(&mut self, now: Instant, config: &HealthCheckConfig) -> Turn {
        if now < self.next_deadline() {
            return Turn::Wait;
        }
        match self.phase {
            Phase::Waiting(_) => {
                self.phase = Phase::Asking(now + config.timeout);
                Turn::Ask
            }
            Phase::Asking(_) => {
                Turn::GiveUp(Outcome::Failed(Failure::new(FailureKind::NetworkTimeout)))
            }
        }
    }

    /// A check has ended. The next one is due an interval later.
    pub fn on_result(
        &mut self,
        now: Instant,
        outcome: Outcome,
        context: CheckContext<'_>,
    ) -> Report {
        if matches!(outcome, Outcome::Passed(_)) && context.endpoint.has(HealthFlag::FailedActive) {
            // As in Envoy: the last pass before it counts as healthy is where its slow start begins.
            context.endpoint.set_well_since(now);
        }
        let report = self.judge(outcome, context);
        let passed = matches!(outcome, Outcome::Passed(_));
        let interval = interval(passed, report.transition, context);
        self.phase = Phase::Waiting(now + interval);
        report
    }

    /// The answer to a request said that the endpoint is not well. The next check comes when it would
    /// have come anyway.
    pub fn on_passive_failure(&mut self, failure: Failure, context: CheckContext<'_>) -> Report {
        self.judge(Outcome::Failed(failure), context)
    }

    fn judge(&mut self, outcome: Outcome, context: CheckContext<'_>) -> Report {
        let mut report = Report {
            transition: Transition::Unchanged,
            first: self.first,
            incidents: SmallVec::new(),
        };
        match outcome {
            Outcome::Passed(passed) => self.passed(passed, context, &mut report),
            Outcome::Failed(failure) => self.failed(failure, context, &mut report),
        }
        self.first = false;
        report
    }

    fn passed(&mut self, passed: Passed, context: CheckContext<'_>, report: &mut Report) {
        let CheckContext {
            config, endpoint, ..
        } = context;
        self.failures = 0;
        if endpoint.has(HealthFlag::FailedActive) {
            self.passes = self.passes.saturating_add(1);
            if self.first || reached(self.passes, config.healthy_threshold) {
                endpoint.set_health(HealthFlag::ActiveTimeout, false);
                endpoint.set_health(HealthFlag::Excluded, false);
                endpoint.set_health(HealthFlag::FailedActive, false);
                report.transition = Transition::Changed;
                report.incidents.push(Incident::AddHealthy {
                    first_check: self.first,
                });
            } else {
                report.transition = Transition::Pending;
            }
        }
        if config.always_log_success && report.transition != Transition::Changed {
            report.incidents.push(Incident::Successful);
        }
        clear_pending(endpoint, report);
        if endpoint.set_health(HealthFlag::DegradedActive, passed.degraded) {
            report.incidents.push(if passed.degraded {
                Incident::Degraded
            } else {
                Incident::NoLongerDegraded
            });
            if report.transition == Transition::Unchanged {
                report.transition = Transition::Changed;
            }
        }
    }

    fn failed(&mut self, failure: Failure, context: CheckContext<'_>, report: &mut Report) {
        let CheckContext {
            config, endpoint, ..
        } = context;
        let Failure { kind, status, .. } = failure;
        self.passes = 0;
        if failure.excludes {
            endpoint.set_health(HealthFlag::Excluded, true);
        }
        if !endpoint.has(HealthFlag::FailedActive) {
            let at_once = !kind.is_network() && !failure.retriable;
            if !at_once {
                self.failures = self.failures.saturating_add(1);
            }
            if at_once || reached(self.failures, config.unhealthy_threshold) {
                endpoint.set_health(HealthFlag::FailedActive, true);
                report.transition = Transition::Changed;
                report
                    .incidents
                    .push(Incident::EjectUnhealthy { kind, status });
            } else {
                report.transition = Transition::Pending;
            }
        }
        let timed_out =
            kind == FailureKind::NetworkTimeout && endpoint.has(HealthFlag::FailedActive);
        endpoint.set_health(HealthFlag::ActiveTimeout, timed_out);
        clear_pending(endpoint, report);
        if self.first || config.always_log_failures {
            report.incidents.push(Incident::Failure {
                kind,
                first_check: self.first,
                status,
            });
        }
    }
}

/// Whether a row is long enough. A push may have lowered the threshold below the row that is there.
const fn reached(row: u32, threshold: u32) -> bool {
    threshold > 0 && row >= threshold
}

/// It has been checked now, whatever came of it.
fn clear_pending(endpoint: &EndpointState, report: &mut Report) {
    if endpoint.set_health(HealthFlag::PendingActive, false) {
        report.transition = Transition::Changed;
    }
}

/// How long until the next check.
fn interval(passed: bool, transition: Transition, context: CheckContext<'_>) -> Duration {
    let CheckContext { config, rng, .. } = context;
    let pending = transition == Transition::Pending;
    let base = match (context.has_traffic, passed, pending) {
        (true, false, true) => config.unhealthy_edge_interval,
        (true, false, false) => config.unhealthy_interval,
        (true, true, true) => config.healthy_edge_interval,
        (true, true, false) => config.interval,
        (false, true, false) => config.no_traffic_healthy_interval,
        (false, ..) => config.no_traffic_interval,
    };
    let share = base.saturating_mul(config.interval_jitter_percent) / 100;
    let jitter = below(share, rng) + below(config.interval_jitter, rng);
    at_least_one(base.saturating_add(jitter))
}

/// A random time below `bound`, in whole milliseconds.
fn below(bound: Duration, rng: &Rng) -> Duration {
    match millis(bound) {
        0 => Duration::ZERO,
        bound => Duration::from_millis(rng.below(bound)),
    }
}

/// Whole milliseconds, and never none: checks must not follow each other without a pause.
fn at_least_one(duration: Duration) -> Duration {
    Duration::from_millis(millis(duration).clamp(1, INTERVAL_MILLIS_MAX))
}

/// Longer intervals are cut to this: a thousand years fit into any clock.
const INTERVAL_MILLIS_MAX: u64 = 1_000 * 365 * 86_400 * 1_000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
