use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_core::{EndpointState, ErrorKind, Health, HealthFlag, Mode, Resource, Rng, clock};
use mesh_outlier::{
    Detector, Event, Monitor, OutlierConfig, OutlierConfigBuilder,
    state::{Action, Detection, Evidence, Verdict},
};
use mesh_testkit::{advance, settle};

use crate::{address, endpoints, is_ejected};

const SECOND: Duration = Duration::from_secs(1);

struct Cluster {
    detector: Arc<Detector>,
    endpoints: Vec<Arc<EndpointState>>,
    monitors: Vec<Monitor>,
    events: Arc<Mutex<Vec<Event>>>,
}

/// A cluster of `n` endpoints.
fn cluster(n: u16, config: OutlierConfigBuilder) -> Cluster {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let detector = Detector::builder("c", config.build().unwrap())
        .rng(Rng::seeded(7))
        .on_event(move |event| log.lock().unwrap().push(event.clone()))
        .build();
    let endpoints = endpoints(n);
    detector.set_endpoints(&endpoints);
    let monitors = endpoints.iter().map(|e| detector.monitor(e)).collect();
    Cluster {
        detector,
        endpoints,
        monitors,
        events,
    }
}

/// Ejects freely.
fn config() -> OutlierConfigBuilder {
    OutlierConfig::builder().max_ejection_percent(100)
}

impl Cluster {
    fn fail(&self, endpoint: usize, times: usize) {
        (0..times).for_each(|_| self.monitors[endpoint].on_response(500));
    }

    fn ejected(&self) -> Vec<usize> {
        let ejected: Vec<usize> = (0..self.endpoints.len())
            .filter(|&n| is_ejected(&self.endpoints[n]))
            .collect();
        assert_eq!(
            self.detector.stats().ejections_active().value(),
            ejected.len() as u64
        );
        ejected
    }

    /// What the log heard since the last time.
    fn heard(&self) -> Vec<(Option<Detection>, Option<Verdict>)> {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        events
            .into_iter()
            .map(|event| match event.change.action {
                Action::Detected {
                    detection, verdict, ..
                } => (Some(detection), Some(verdict)),
                Action::Uneject => (None, None),
            })
            .collect()
    }

    fn sweep(&self) {
        self.detector.on_interval(clock::now());
    }

    async fn sweep_after(&self, wait: Duration) {
        advance(wait).await;
        self.sweep();
    }
}

#[tokio::test(start_paused = true)]
async fn five_bad_answers_in_a_row_eject() {
    let c = cluster(2, config());
    c.fail(0, 4);
    c.monitors[0].on_response(499);
    c.fail(0, 4);
    assert_eq!(c.ejected(), [] as [usize; 0]);
    c.fail(0, 1);
    assert_eq!(c.ejected(), [0]);
    assert_eq!(c.endpoints[0].health(), Health::Unhealthy);
    assert_eq!(
        c.heard(),
        [(Some(Detection::Consecutive5xx), Some(Verdict::Ejected))]
    );
    let stats = c.detector.stats();
    assert_eq!(stats.ejections_enforced_total().value(), 1);
    assert_eq!(stats.ejections_enforced_consecutive_5xx().value(), 1);
    assert_eq!(stats.ejections_detected_consecutive_5xx().value(), 1);
    assert_eq!(stats.ejections_total().value(), 1);
    assert_eq!(stats.ejections_consecutive_5xx().value(), 1);
    // More of them change nothing while it is ejected.
    c.fail(0, 20);
    assert_eq!(stats.ejections_detected_consecutive_5xx().value(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_fewer_than_ten_endpoints_the_default_ejects_nobody_and_tries_again_each_row() {
    let c = cluster(9, OutlierConfig::builder());
    c.fail(0, 10);
    assert_eq!(c.ejected(), [] as [usize; 0]);
    let overflow = (Some(Detection::Consecutive5xx), Some(Verdict::Overflow));
    assert_eq!(
        c.events.lock().unwrap()[0]
            .change
            .decision()
            .unwrap()
            .to_string(),
        "outlier:ejection_overflow 11/10"
    );
    assert_eq!(c.heard(), [overflow, overflow]);
    assert_eq!(c.detector.stats().ejections_overflow().value(), 2);
    assert_eq!(c.detector.stats().ejections_total().value(), 0);
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_allowed_share_is_ejected() {
    let c = cluster(20, OutlierConfig::builder());
    for endpoint in [3, 5, 7] {
        c.fail(endpoint, 5);
    }
    assert_eq!(c.ejected(), [3, 5]);
    assert_eq!(c.detector.stats().ejections_overflow().value(), 1);
    // When some leave, no more may be ejected than of those who stay.
    c.detector.set_endpoints(&c.endpoints[..8]);
    c.fail(1, 5);
    assert_eq!(c.ejected(), [3, 5]);
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_may_always_be_ejected_if_so_configured() {
    let c = cluster(2, OutlierConfig::builder().always_eject_one_host(true));
    c.fail(0, 5);
    c.fail(1, 5);
    assert_eq!(c.ejected(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_failure_is_detected_but_by_default_only_the_row_of_5xx_ejects() {
    let c = cluster(1, config());
    for status in [503, 502, 504, 503, 502] {
        c.monitors[0].on_response(status);
    }
    assert_eq!(
        c.heard(),
        [
            (
                Some(Detection::ConsecutiveGatewayFailure),
                Some(Verdict::NotEnforced)
            ),
            (Some(Detection::Consecutive5xx), Some(Verdict::Ejected)),
        ]
    );
    let c = cluster(
        1,
        config()
            .consecutive_5xx(0)
            .enforcing_consecutive_gateway_failure(100),
    );
    // A plain 500 is no gateway failure: it breaks the row.
    for status in [503, 503, 503, 503, 500, 503, 503, 503, 503] {
        c.monitors[0].on_response(status);
    }
    assert_eq!(c.ejected(), [] as [usize; 0]);
    c.monitors[0].on_response(503);
    assert_eq!(c.ejected(), [0]);
}

#[tokio::test(start_paused = true)]
async fn failures_of_this_side_count_as_statuses_unless_split() {
    let c = cluster(1, config().enforcing_consecutive_gateway_failure(100));
    for kind in [
        ErrorKind::ConnectFailure,
        ErrorKind::PerTryTimeout,
        ErrorKind::RemoteReset,
        ErrorKind::RequestTimeout,
        ErrorKind::ConnectTimeout,
    ] {
        assert_eq!(c.ejected(), [] as [usize; 0]);
        // A connection alone is no success.
        c.monitors[0].on_connected();
        c.monitors[0].on_failure(kind);
    }
    assert_eq!(c.ejected(), [0]);
}

#[tokio::test(start_paused = true)]
async fn split_failures_have_a_row_of_their_own() {
    let c = cluster(2, config().split_external_local_origin_errors(true));
    for _ in 0..4 {
        c.monitors[0].on_failure(ErrorKind::ConnectFailure);
        // Does not touch the other row.
        c.monitors[0].on_response(500);
    }
    assert_eq!(c.ejected(), [] as [usize; 0]);
    c.monitors[0].on_failure(ErrorKind::RequestTimeout);
    assert_eq!(
        c.heard(),
        [(
            Some(Detection::ConsecutiveLocalOriginFailure),
            Some(Verdict::Ejected)
        )]
    );
    // A connection breaks the local row, a good answer both.
    for _ in 0..4 {
        c.monitors[1].on_failure(ErrorKind::ConnectFailure);
    }
    c.monitors[1].on_connected();
    for _ in 0..4 {
        c.monitors[1].on_failure(ErrorKind::ConnectFailure);
    }
    c.monitors[1].on_response(200);
    for _ in 0..4 {
        c.monitors[1].on_failure(ErrorKind::ConnectFailure);
    }
    assert_eq!(c.ejected(), [0]);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_this_process_are_not_the_endpoints_failures() {
    let c = cluster(1, config());
    for kind in [
        ErrorKind::Overflow(Resource::Requests),
        ErrorKind::BreakerOpen,
        ErrorKind::RateLimited,
        ErrorKind::DownstreamGone,
        ErrorKind::FaultInjected,
        ErrorKind::NoHealthyUpstream,
    ] {
        (0..5).for_each(|_| c.monitors[0].on_failure(kind));
    }
    assert_eq!(c.ejected(), [] as [usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_ejection_ends_at_the_first_interval_after_its_time() {
    let c = cluster(1, config().base_ejection_time(15 * SECOND));
    c.fail(0, 5);
    c.sweep_after(10 * SECOND).await;
    assert_eq!(c.ejected(), [0]);
    c.sweep_after(10 * SECOND).await;
    assert_eq!(c.ejected(), [] as [usize; 0]);
    let events = c.events.lock().unwrap();
    assert_eq!(events[1].change.action, Action::Uneject);
    assert_eq!(events[1].change.since_last_action, Some(20 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn rows_start_over_when_an_ejection_ends() {
    let c = cluster(1, config().consecutive_gateway_failure(8));
    (0..5).for_each(|_| c.monitors[0].on_response(503));
    // In panic it may get traffic all the same.
    (0..2).for_each(|_| c.monitors[0].on_response(503));
    c.sweep_after(30 * SECOND).await;
    c.monitors[0].on_response(503);
    assert_eq!(
        c.detector
            .stats()
            .ejections_detected_consecutive_gateway_failure()
            .value(),
        0
    );
    c.fail(0, 3);
    assert_eq!(c.ejected(), [] as [usize; 0]);
    c.fail(0, 1);
    assert_eq!(c.ejected(), [0]);
}

#[tokio::test(start_paused = true)]
async fn ejections_grow_up_to_the_cap_and_shrink_in_peace() {
    let c = cluster(
        1,
        config()
            .interval(SECOND)
            .base_ejection_time(3 * SECOND)
            .max_ejection_time(8 * SECOND),
    );
    let lasts = async |c: &Cluster| {
        c.fail(0, 5);
        for second in 1.. {
            c.sweep_after(SECOND).await;
            if c.ejected().is_empty() {
                return second;
            }
        }
        unreachable!()
    };
    for expected in [3, 6, 8, 8, 8] {
        assert_eq!(lasts(&c).await, expected);
    }
    // The multiplier had stopped growing at the first that is past the cap: four bases; two whole
    // intervals of peace leave two, and one more ejection makes three.
    c.sweep_after(SECOND).await;
    c.sweep_after(SECOND).await;
    assert_eq!(lasts(&c).await, 8);
    for _ in 0..4 {
        c.sweep_after(SECOND).await;
    }
    assert_eq!(lasts(&c).await, 3);
    assert_eq!(c.detector.report().endpoints[0].num_ejections, 7);
}

#[tokio::test(start_paused = true)]
async fn jitter_lengthens_ejections_by_different_amounts() {
    let c = cluster(
        40,
        config()
            .interval(SECOND)
            .base_ejection_time(10 * SECOND)
            .max_ejection_time_jitter(10 * SECOND),
    );
    (0..40).for_each(|endpoint| c.fail(endpoint, 5));
    c.sweep_after(9 * SECOND).await;
    assert_eq!(c.ejected().len(), 40);
    c.sweep_after(6 * SECOND).await;
    let halfway = c.ejected().len();
    assert!((8..=32).contains(&halfway), "{halfway} still ejected");
    c.sweep_after(5 * SECOND).await;
    assert_eq!(c.ejected(), [] as [usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_far_less_successful_than_the_others_is_ejected() {
    // The example of Envoy's documentation: 50 among four times 100.
    let c = cluster(5, config().consecutive_5xx(0));
    for (n, monitor) in c.monitors.iter().enumerate() {
        for request in 0..100 {
            monitor.on_response(if n == 2 && request % 2 == 0 { 500 } else { 200 });
        }
    }
    c.sweep();
    assert_eq!(c.ejected(), [2]);
    let first = c.events.lock().unwrap()[0].clone();
    let Action::Detected {
        detection,
        evidence,
        ..
    } = first.change.action
    else {
        panic!("{first:?}");
    };
    assert_eq!(detection, Detection::SuccessRate);
    assert_eq!(
        evidence,
        Evidence::SuccessRate {
            host: 50.0,
            average: 90.0,
            threshold: 52.0
        }
    );
    let rates = c.detector.report().success_rates.unwrap();
    assert_eq!((rates.average, rates.threshold), (90.0, 52.0));
    assert_eq!(c.detector.report().endpoints[2].success_rate, Some(50.0));
    // The next interval starts from nothing.
    c.sweep_after(10 * SECOND).await;
    assert_eq!(c.detector.report().success_rates, None);
    assert_eq!(c.detector.report().endpoints[2].success_rate, None);
}

#[tokio::test(start_paused = true)]
async fn success_rates_are_compared_only_with_enough_endpoints_and_requests() {
    for (hosts, requests) in [(4, 100), (5, 99)] {
        let c = cluster(hosts, config().consecutive_5xx(0));
        for (n, monitor) in c.monitors.iter().enumerate() {
            (0..requests).for_each(|_| monitor.on_response(if n == 0 { 500 } else { 200 }));
        }
        c.sweep();
        assert_eq!(c.ejected(), [] as [usize; 0]);
        // With 99 requests it is shown, since failure percentages are looked at.
        let shown = c.detector.report().endpoints[0].success_rate;
        assert_eq!(shown, (hosts == 5).then_some(0.0));
    }
}

#[tokio::test(start_paused = true)]
async fn too_large_a_share_of_failures_ejects_when_enforced() {
    let local = Detection::LocalOriginFailurePercentage;
    for (split, detection) in [(false, Detection::FailurePercentage), (true, local)] {
        let c = cluster(
            5,
            config()
                .split_external_local_origin_errors(split)
                .consecutive_5xx(0)
                .consecutive_local_origin_failure(0)
                .enforcing_success_rate(0)
                .enforcing_local_origin_success_rate(0)
                .enforcing_failure_percentage(100)
                .enforcing_failure_percentage_local_origin(100),
        );
        for (n, monitor) in c.monitors.iter().enumerate() {
            for request in 0..100 {
                // 84, 85 and 86 failures of 100.
                if request < 83 + n {
                    monitor.on_failure(ErrorKind::ConnectFailure);
                } else {
                    monitor.on_connected();
                    if !split {
                        monitor.on_response(200);
                    }
                }
            }
        }
        c.sweep();
        assert_eq!(c.ejected(), [2, 3, 4]);
        let ejected = (Some(detection), Some(Verdict::Ejected));
        let heard = c.heard();
        assert_eq!(heard.iter().filter(|event| **event == ejected).count(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn two_detectors_in_one_sweep_eject_once() {
    let c = cluster(
        5,
        config()
            .consecutive_5xx(0)
            .enforcing_failure_percentage(100),
    );
    for (n, monitor) in c.monitors.iter().enumerate() {
        (0..100).for_each(|_| monitor.on_response(if n == 0 { 500 } else { 200 }));
    }
    c.sweep();
    assert_eq!(
        c.heard(),
        [
            (Some(Detection::SuccessRate), Some(Verdict::Ejected)),
            (
                Some(Detection::FailurePercentage),
                Some(Verdict::AlreadyEjected)
            ),
        ]
    );
    assert_eq!(c.ejected(), [0]);
    assert_eq!(c.detector.stats().ejections_enforced_total().value(), 1);
}

#[tokio::test(start_paused = true)]
async fn enforcement_lets_off_its_share() {
    let c = cluster(400, config().enforcing_consecutive_5xx(25));
    (0..400).for_each(|endpoint| c.fail(endpoint, 5));
    let ejected = c.ejected().len();
    assert!((70..=130).contains(&ejected), "{ejected} of 400");
    let enforced = |e: &Event| e.to_json().unwrap().contains(r#""enforced":true"#);
    let events = c.events.lock().unwrap();
    assert_eq!(events.iter().filter(|e| enforced(e)).count(), ejected);
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_detects_and_ejects_nobody() {
    let c = cluster(1, config().mode(Mode::Shadow));
    c.fail(0, 5);
    assert_eq!(c.ejected(), [] as [usize; 0]);
    assert_eq!(
        c.heard(),
        [(Some(Detection::Consecutive5xx), Some(Verdict::NotEnforced))]
    );
}

#[tokio::test(start_paused = true)]
async fn a_config_push_keeps_ejections_and_rows_and_changes_the_rules() {
    let c = cluster(2, config());
    c.fail(0, 5);
    c.fail(1, 3);
    c.detector.update(
        config()
            .consecutive_5xx(4)
            .interval(SECOND)
            .build()
            .unwrap(),
    );
    c.detector.set_endpoints(&c.endpoints);
    assert_eq!(c.detector.interval(), SECOND);
    assert_eq!(c.ejected(), [0]);
    c.fail(1, 1);
    assert_eq!(c.ejected(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_row_longer_than_a_lowered_limit_does_not_run_past_it_for_ever() {
    let c = cluster(1, config());
    c.fail(0, 4);
    c.detector
        .update(config().consecutive_5xx(2).build().unwrap());
    c.fail(0, 2);
    assert_eq!(c.ejected(), [0]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_leaves_is_forgotten_and_its_monitor_heard_by_nobody() {
    let c = cluster(2, config());
    c.fail(0, 5);
    c.detector.remove(&address(1));
    assert_eq!(c.ejected(), [] as [usize; 0]);
    c.fail(0, 10);
    // It comes back as a stranger.
    let back = c.detector.monitor(&c.endpoints[0]);
    c.monitors[0].on_response(200);
    c.fail(0, 5);
    assert_eq!(c.ejected(), [] as [usize; 0]);
    (0..5).for_each(|_| back.on_response(500));
    assert_eq!(c.ejected(), [0]);
    assert_eq!(c.detector.report().endpoints[0].num_ejections, 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_under_a_new_state_stays_ejected() {
    let c = cluster(2, config());
    c.fail(0, 5);
    let again = endpoints(2);
    c.detector.set_endpoints(&again);
    assert!(is_ejected(&again[0]) && !is_ejected(&again[1]));
    c.sweep_after(30 * SECOND).await;
    assert!(!is_ejected(&again[0]));
}

#[tokio::test(start_paused = true)]
async fn ejections_end_with_the_detector() {
    let c = cluster(1, config());
    c.fail(0, 5);
    let stats = c.detector.stats().clone();
    let Cluster {
        detector,
        endpoints,
        monitors,
        ..
    } = c;
    assert!(is_ejected(&endpoints[0]));
    drop(detector);
    assert!(!is_ejected(&endpoints[0]));
    assert_eq!(stats.ejections_active().value(), 0);
    (0..5).for_each(|_| monitors[0].on_response(500));
    assert!(!is_ejected(&endpoints[0]));
}

#[tokio::test(start_paused = true)]
async fn a_passed_health_check_ends_an_ejection_unless_forbidden() {
    let c = cluster(1, config());
    assert_eq!(
        c.detector.on_health_check_passed(clock::now(), &address(1)),
        None
    );
    c.fail(0, 5);
    let event = c.detector.on_health_check_passed(clock::now(), &address(1));
    assert_eq!(event.unwrap().change.action, Action::Uneject);
    assert_eq!(c.ejected(), [] as [usize; 0]);

    let c = cluster(
        1,
        config().successful_active_health_check_uneject_host(false),
    );
    c.fail(0, 5);
    assert_eq!(
        c.detector.on_health_check_passed(clock::now(), &address(1)),
        None
    );
    assert_eq!(c.ejected(), [0]);
}

#[tokio::test(start_paused = true)]
async fn other_reasons_to_think_ill_of_an_endpoint_are_left_alone() {
    let c = cluster(1, config());
    c.endpoints[0].set_health(HealthFlag::FailedActive, true);
    c.fail(0, 5);
    c.sweep_after(30 * SECOND).await;
    assert_eq!(c.endpoints[0].health_flags(), "/failed_active_hc");
}

#[tokio::test(start_paused = true)]
async fn the_driver_sweeps_each_interval_until_told_to_stop() {
    let c = cluster(1, config());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let driver = tokio::spawn(c.detector.run(async move {
        let _ = stopped.await;
    }));
    c.fail(0, 5);
    for second in 1..=30 {
        assert_eq!(c.ejected(), [0], "second {second}");
        advance(SECOND).await;
    }
    assert_eq!(c.ejected(), [] as [usize; 0]);
    stop.send(()).unwrap();
    settle().await;
    assert!(driver.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_driver_ends_with_its_detector() {
    let c = cluster(1, config());
    let driver = tokio::spawn(c.detector.run(std::future::pending()));
    settle().await;
    drop(c);
    advance(10 * SECOND).await;
    assert!(driver.is_finished());
}

#[test]
fn a_row_counted_by_many_threads_fires_once() {
    let c = cluster(1, config().consecutive_5xx(100).mode(Mode::Shadow));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| c.fail(0, 25));
        }
    });
    assert_eq!(
        c.detector
            .stats()
            .ejections_detected_consecutive_5xx()
            .value(),
        1
    );
}
