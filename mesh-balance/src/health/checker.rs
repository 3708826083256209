use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use mesh_core::{Endpoint, HealthFlag, Rng, Timer, clock};
use tower_service::Service;

use super::{
    Check, CheckContext, Failure, FailureKind, HealthCheckConfig, HealthEvent, HealthStats,
    Outcome, Passed, Report, Turn,
};

type OnEvent = Box<dyn Fn(&HealthEvent) + Send + Sync>;
type OnChecked = Box<dyn Fn(&Arc<Endpoint>, &Outcome, &Report) + Send + Sync>;
type HasTraffic = Box<dyn Fn() -> bool + Send + Sync>;

/// The checks of one cluster, as one config has them.
pub struct HealthChecker {
    cluster: Arc<str>,
    kind: &'static str,
    config: HealthCheckConfig,
    stats: HealthStats,
    rng: Rng,
    has_traffic: HasTraffic,
    on_event: Option<OnEvent>,
    on_checked: Option<OnChecked>,
}

/// Collects what a [`HealthChecker`] needs.
pub struct HealthCheckerBuilder(HealthChecker);

impl HealthCheckerBuilder {
    /// Where to count; by default the counts are not exported.
    #[must_use]
    pub fn stats(mut self, stats: HealthStats) -> Self {
        self.0.stats = stats;
        self
    }

    /// The generator for jitter; by default seeded by the system.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.0.rng = rng;
        self
    }

    /// How endpoints are asked, for the event log: `HTTP`, `TCP` or `GRPC`; by default `HTTP`.
    #[must_use]
    pub const fn kind(mut self, kind: &'static str) -> Self {
        self.0.kind = kind;
        self
    }

    /// Tells whether the cluster was ever used; by default it was. While it was not, the
    /// `no_traffic` intervals hold.
    #[must_use]
    pub fn has_traffic(mut self, has_traffic: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.0.has_traffic = Box::new(has_traffic);
        self
    }

    /// Who hears of what belongs into the event log.
    #[must_use]
    pub fn on_event(mut self, on_event: impl Fn(&HealthEvent) + Send + Sync + 'static) -> Self {
        self.0.on_event = Some(Box::new(on_event));
        self
    }

    /// Who hears of each result, after the flags have changed.
    #[must_use]
    pub fn on_checked(
        mut self,
        on_checked: impl Fn(&Arc<Endpoint>, &Outcome, &Report) + Send + Sync + 'static,
    ) -> Self {
        self.0.on_checked = Some(Box::new(on_checked));
        self
    }

    /// The checker, which checks nobody yet.
    #[must_use]
    pub fn build(self) -> Arc<HealthChecker> {
        Arc::new(self.0)
    }
}

impl fmt::Debug for HealthCheckerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HealthCheckerBuilder")
            .field(&self.0)
            .finish()
    }
}

impl HealthChecker {
    /// Starts a checker for `cluster`.
    #[must_use]
    pub fn builder(
        cluster: impl Into<Arc<str>>,
        config: HealthCheckConfig,
    ) -> HealthCheckerBuilder {
        HealthCheckerBuilder(Self {
            cluster: cluster.into(),
            kind: "HTTP",
            config,
            stats: HealthStats::detached(),
            rng: Rng::default(),
            has_traffic: Box::new(|| true),
            on_event: None,
            on_checked: None,
        })
    }

    /// The rules.
    #[must_use]
    pub const fn config(&self) -> &HealthCheckConfig {
        &self.config
    }

    /// The check of one endpoint, which begins with [`HealthSession::run`]. `checked` says that the
    /// endpoint has had results already, so that its first result here is not its first ever.
    ///
    /// Whoever adds an endpoint sets its [`HealthFlag::FailedActive`] before, unless it was checked.
    #[must_use]
    pub fn watch(self: &Arc<Self>, endpoint: &Arc<Endpoint>, checked: bool) -> Arc<HealthSession> {
        let check = Check::new(clock::now(), &self.config, checked, &self.rng);
        let session = Arc::new(HealthSession {
            checker: Arc::clone(self),
            endpoint: Arc::clone(endpoint),
            state: Mutex::new(State {
                check,
                counted: Counted::default(),
                ended: false,
            }),
        });
        session.recount(&mut session.lock());
        session
    }

    /// What it counts.
    #[must_use]
    pub const fn stats(&self) -> &HealthStats {
        &self.stats
    }

    fn announce(&self, endpoint: &Arc<Endpoint>, outcome: &Outcome, report: &Report) {
        self.stats.count(outcome);
        if let Some(on_event) = &self.on_event {
            for &incident in &report.incidents {
                on_event(&HealthEvent {
                    checker: self.kind,
                    cluster: Arc::clone(&self.cluster),
                    endpoint: Arc::clone(endpoint),
                    at: clock::wall(),
                    incident,
                });
            }
        }
        if let Some(on_checked) = &self.on_checked {
            on_checked(endpoint, outcome, report);
        }
    }
}

impl fmt::Debug for HealthChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthChecker")
            .field("cluster", &self.cluster)
            .field("kind", &self.kind)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The check of one endpoint.
#[derive(Debug)]
pub struct HealthSession {
    checker: Arc<HealthChecker>,
    endpoint: Arc<Endpoint>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    check: Check,
    counted: Counted,
    /// Results no longer count.
    ended: bool,
}

/// What the endpoint adds to the gauges.
#[derive(Debug, Default)]
struct Counted {
    healthy: bool,
    degraded: bool,
}

impl HealthSession {
    /// The endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether the endpoint has had a result, here or before.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.lock().check.is_checked()
    }

    /// The answer to a request said that the endpoint is not well: it counts as failed at once, and is left
    /// out of what shares are reckoned from, until a check passes.
    ///
    /// # Envoy
    /// `x-envoy-immediate-health-check-fail` in an answer.
    pub fn on_passive_failure(&self) {
        let failure = Failure {
            excludes: true,
            ..Failure::new(FailureKind::Passive)
        };
        self.settle(Outcome::Failed(failure), |check, context| {
            check.on_passive_failure(failure, context)
        });
    }

    /// Results no longer count, and the endpoint leaves the gauges. Its flags stay.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        self.recount(&mut state);
    }

    /// Asks the endpoint again and again, until [ended](Self::end). Whoever owns the session spawns this,
    /// on a runtime with a timer.
    ///
    /// `probe` asks once. What takes longer than the timeout is dropped.
    ///
    /// # Cancel safety
    /// Dropping it ends the checks; the endpoint stays as it was last seen.
    pub fn run<S>(self: &Arc<Self>, mut probe: S) -> impl Future<Output = ()> + use<S>
    where
        S: Service<(), Response = Passed, Error = Failure>,
    {
        let session = Arc::clone(self);
        async move {
            let mut timer = Timer::new();
            while let Some(outcome) = session.next_outcome(&mut timer, &mut probe).await {
                session.settle(outcome, |check, context| {
                    check.on_result(clock::now(), outcome, context)
                });
            }
        }
    }

    /// Waits for the next check and for its end; `None` when the session is over.
    async fn next_outcome<S>(&self, timer: &mut Timer, probe: &mut S) -> Option<Outcome>
    where
        S: Service<(), Response = Passed, Error = Failure>,
    {
        poll_fn(|cx| match self.poll_turn(timer, cx) {
            Some(Poll::Ready(Turn::Ask)) => Poll::Ready(Some(())),
            Some(_) => Poll::Pending,
            None => Poll::Ready(None),
        })
        .await?;
        let mut asking = pin!(ask(probe));
        poll_fn(|cx| {
            let over = match self.poll_turn(timer, cx) {
                None => return Poll::Ready(None),
                Some(Poll::Ready(Turn::GiveUp(outcome))) => Some(outcome),
                Some(_) => None,
            };
            match asking.as_mut().poll(cx) {
                Poll::Ready(Ok(passed)) => Poll::Ready(Some(Outcome::Passed(passed))),
                Poll::Ready(Err(failure)) => Poll::Ready(Some(Outcome::Failed(failure))),
                Poll::Pending if over.is_some() => Poll::Ready(over),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// `None` when the session is over.
    fn poll_turn(&self, timer: &mut Timer, cx: &mut Context<'_>) -> Option<Poll<Turn>> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        loop {
            let turn = state.check.poll_turn(clock::now(), &self.checker.config);
            if turn == Turn::Ask {
                self.checker.stats.attempt().inc();
            }
            if turn != Turn::Wait {
                return Some(Poll::Ready(turn));
            }
            timer.arm(state.check.next_deadline());
            if timer.poll(cx).is_pending() {
                return Some(Poll::Pending);
            }
        }
    }

    fn settle(&self, outcome: Outcome, judge: impl FnOnce(&mut Check, CheckContext<'_>) -> Report) {
        // Not under the lock: it is foreign code, and may hold the last of what ends this session.
        let has_traffic = (self.checker.has_traffic)();
        let mut state = self.lock();
        if state.ended {
            return;
        }
        let context = CheckContext {
            config: &self.checker.config,
            endpoint: &self.endpoint.state,
            has_traffic,
            rng: &self.checker.rng,
        };
        let report = judge(&mut state.check, context);
        self.recount(&mut state);
        // Whoever hears of it may end this session.
        drop(state);
        self.checker.announce(&self.endpoint, &outcome, &report);
    }

    /// Brings the gauges up to the flags.
    fn recount(&self, state: &mut State) {
        let flags = &self.endpoint.state;
        let stats = &self.checker.stats;
        let healthy = !state.ended && !flags.has(HealthFlag::FailedActive);
        let degraded = !state.ended && flags.has(HealthFlag::DegradedActive);
        let changes = [
            (stats.healthy(), &mut state.counted.healthy, healthy),
            (stats.degraded(), &mut state.counted.degraded, degraded),
        ];
        for (gauge, counted, now) in changes {
            match (std::mem::replace(counted, now), now) {
                (false, true) => gauge.inc(),
                (true, false) => gauge.dec(),
                _ => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left at worst a gauge off by one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It leaves the gauges with its owner.
impl Drop for HealthSession {
    fn drop(&mut self) {
        self.end();
    }
}

async fn ask<S>(probe: &mut S) -> Result<Passed, Failure>
where
    S: Service<(), Response = Passed, Error = Failure>,
{
    poll_fn(|cx| probe.poll_ready(cx)).await?;
    probe.call(()).await
}
