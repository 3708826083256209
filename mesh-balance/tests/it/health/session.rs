//! A session over a scripted endpoint, with paused time.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_balance::health::{
    Failure, FailureKind, HealthCheckConfig, HealthChecker, HealthSession, Incident, Passed,
};
use mesh_core::{Endpoint, Health, HealthFlag};
use tower::util::BoxService;

const SECOND: Duration = Duration::from_secs(1);

/// What the endpoint answers, in order; then the last answer again. `None` is silence.
type Script = Arc<Mutex<VecDeque<Option<Result<Passed, Failure>>>>>;

struct Rig {
    session: Arc<HealthSession>,
    checker: Arc<HealthChecker>,
    endpoint: Arc<Endpoint>,
    asked: Arc<AtomicUsize>,
    script: Script,
    incidents: Arc<Mutex<Vec<Incident>>>,
}

const PASSED: Option<Result<Passed, Failure>> = Some(Ok(Passed { degraded: false }));

const fn failed(kind: FailureKind) -> Option<Result<Passed, Failure>> {
    Some(Err(Failure::new(kind)))
}

fn config() -> HealthCheckConfig {
    HealthCheckConfig {
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        ..HealthCheckConfig::new(SECOND, 10 * SECOND)
    }
}

fn rig(
    config: HealthCheckConfig,
    answers: impl IntoIterator<Item = Option<Result<Passed, Failure>>>,
) -> Rig {
    let endpoint = Arc::new(Endpoint::standalone(([127, 0, 0, 1], 80).into()));
    endpoint.state.set_health(HealthFlag::FailedActive, true);
    let incidents: Arc<Mutex<Vec<Incident>>> = Arc::default();
    let heard = Arc::clone(&incidents);
    let checker = HealthChecker::builder("a", config)
        .on_event(move |event| heard.lock().unwrap().push(event.incident))
        .build();
    let session = checker.watch(&endpoint, false);
    let script: Script = Arc::new(Mutex::new(answers.into_iter().collect()));
    let asked = Arc::new(AtomicUsize::new(0));
    let (next, count) = (Arc::clone(&script), Arc::clone(&asked));
    let probe = tower::service_fn(move |()| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut script = next.lock().unwrap();
        let answer = match script.len() {
            1 => script[0],
            _ => script.pop_front().expect("a script has an answer"),
        };
        async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    });
    tokio::spawn(session.run(BoxService::new(probe)));
    Rig {
        session,
        checker,
        endpoint,
        asked,
        script,
        incidents,
    }
}

impl Rig {
    async fn after(&self, time: Duration) -> (Health, usize) {
        tokio::time::sleep(time).await;
        (
            self.endpoint.state.health(),
            self.asked.load(Ordering::Relaxed),
        )
    }

    fn incidents(&self) -> Vec<Incident> {
        std::mem::take(&mut *self.incidents.lock().unwrap())
    }

    fn answer(&self, answer: Option<Result<Passed, Failure>>) {
        *self.script.lock().unwrap() = [answer].into();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_check_comes_at_once_and_decides_alone() {
    let rig = rig(config(), [PASSED]);
    assert_eq!(rig.endpoint.state.health(), Health::Unhealthy);
    assert!(!rig.session.is_checked());
    assert_eq!(rig.after(SECOND / 10).await, (Health::Healthy, 1));
    assert_eq!(
        rig.incidents(),
        [Incident::AddHealthy { first_check: true }]
    );
    assert_eq!(rig.after(10 * SECOND).await, (Health::Healthy, 2));
    let stats = rig.checker.stats();
    assert_eq!(
        (
            stats.attempt().value(),
            stats.success().value(),
            stats.healthy().value()
        ),
        (2, 2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_given_up_and_counts_towards_the_threshold() {
    let rig = rig(config(), [PASSED, None]);
    // Checks at 0 and 10; the latter is given up at 11, the next is due at 21 and given up at 22.
    assert_eq!(
        rig.after(21 * SECOND + SECOND / 2).await,
        (Health::Healthy, 3)
    );
    assert_eq!(rig.after(SECOND).await, (Health::Unhealthy, 3));
    assert_eq!(
        rig.endpoint.state.health_flags(),
        "/failed_active_hc/active_hc_timeout"
    );
    let stats = rig.checker.stats();
    assert_eq!(
        (
            stats.failure().value(),
            stats.network_failure().value(),
            stats.healthy().value()
        ),
        (2, 2, 0)
    );
    rig.answer(PASSED);
    assert_eq!(rig.after(11 * SECOND).await.0, Health::Unhealthy);
    assert_eq!(rig.after(10 * SECOND).await.0, Health::Healthy);
    assert_eq!(rig.endpoint.state.health_flags(), "healthy");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_so_fails_at_once() {
    let rig = rig(config(), [PASSED, failed(FailureKind::Active)]);
    assert_eq!(rig.after(11 * SECOND).await, (Health::Unhealthy, 2));
    assert_eq!(
        rig.incidents(),
        [
            Incident::AddHealthy { first_check: true },
            Incident::EjectUnhealthy {
                kind: FailureKind::Active,
                status: None
            }
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_request_fails_it_without_another_check() {
    let rig = rig(config(), [PASSED]);
    rig.after(SECOND).await;
    rig.session.on_passive_failure();
    assert_eq!(
        rig.endpoint.state.health_flags(),
        "/failed_active_hc/excluded_via_immediate_hc_fail"
    );
    assert_eq!(rig.checker.stats().passive_failure().value(), 1);
    // The check that was due anyway is the first of two that it takes.
    assert_eq!(rig.after(10 * SECOND).await, (Health::Unhealthy, 2));
    assert_eq!(rig.after(10 * SECOND).await, (Health::Healthy, 3));
    assert!(!rig.endpoint.state.is_excluded());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_ended_changes_nothing() {
    let rig = rig(config(), [PASSED]);
    rig.after(SECOND).await;
    rig.session.end();
    assert_eq!(rig.checker.stats().healthy().value(), 0);
    rig.session.on_passive_failure();
    assert_eq!(rig.after(100 * SECOND).await, (Health::Healthy, 1));
    assert_eq!(rig.checker.stats().failure().value(), 0);
}

#[tokio::test(start_paused = true)]
async fn degraded_endpoints_are_counted_and_logged() {
    let rig = rig(config(), [Some(Ok(Passed { degraded: true }))]);
    assert_eq!(rig.after(SECOND).await.0, Health::Degraded);
    assert_eq!(rig.checker.stats().degraded().value(), 1);
    rig.answer(PASSED);
    assert_eq!(rig.after(10 * SECOND).await.0, Health::Healthy);
    assert_eq!(rig.checker.stats().degraded().value(), 0);
    assert_eq!(
        rig.incidents(),
        [
            Incident::AddHealthy { first_check: true },
            Incident::Degraded,
            Incident::NoLongerDegraded
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unused_cluster_is_checked_once_a_minute() {
    let endpoint = Arc::new(Endpoint::standalone(([127, 0, 0, 1], 80).into()));
    let used = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let traffic = Arc::clone(&used);
    let checker = HealthChecker::builder("a", config())
        .has_traffic(move || traffic.load(Ordering::Relaxed))
        .build();
    let session = checker.watch(&endpoint, false);
    let probe = tower::service_fn(|()| async { Ok(Passed::default()) });
    tokio::spawn(session.run(probe));
    tokio::time::sleep(59 * SECOND).await;
    assert_eq!(checker.stats().attempt().value(), 1);
    used.store(true, Ordering::Relaxed);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(checker.stats().attempt().value(), 2);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(checker.stats().attempt().value(), 3);
}
