//! Interleavings of the shared atomics:
//! `RUSTFLAGS="--cfg mesh_loom" cargo test -p mesh-outlier --test loom --release`.
#![cfg(mesh_loom)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use loom::thread;
use mesh_core::{EndpointState, HealthFlag, Mode, Rng, clock, sync::AtomicU64};
use mesh_outlier::{Detector, OutlierConfig, OutlierConfigBuilder};

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

fn config() -> OutlierConfigBuilder {
    OutlierConfig::builder()
        .max_ejection_percent(100)
        .consecutive_gateway_failure(0)
}

fn detector(config: OutlierConfigBuilder) -> (Arc<Detector>, Arc<EndpointState>) {
    let detector = Detector::builder("c", config.build().unwrap())
        .rng(Rng::seeded(1))
        .build();
    let address = SocketAddr::from(([10, 0, 0, 1], 1)).into();
    let endpoint = Arc::new(EndpointState::new(address, Arc::new(AtomicU64::new(0))));
    (detector, endpoint)
}

#[test]
fn loom_a_row_counted_by_two_workers_fires_once() {
    model(|| {
        let (detector, endpoint) = detector(config().consecutive_5xx(2).mode(Mode::Shadow));
        let monitor = detector.monitor(&endpoint);
        let other = {
            let monitor = monitor.clone();
            thread::spawn(move || monitor.on_response(500))
        };
        monitor.on_response(500);
        other.join().unwrap();
        let detected = detector.stats().ejections_detected_consecutive_5xx();
        assert_eq!(detected.value(), 1);
    });
}

#[test]
fn loom_a_good_answer_in_between_never_makes_a_row_longer() {
    model(|| {
        let (detector, endpoint) = detector(config().consecutive_5xx(3).mode(Mode::Shadow));
        let monitor = detector.monitor(&endpoint);
        let good = {
            let monitor = monitor.clone();
            thread::spawn(move || monitor.on_response(200))
        };
        monitor.on_response(500);
        monitor.on_response(500);
        good.join().unwrap();
        let detected = || {
            detector
                .stats()
                .ejections_detected_consecutive_5xx()
                .value()
        };
        assert_eq!(detected(), 0);
        // Whatever is left of the row, three more complete it.
        (0..3).for_each(|_| monitor.on_response(500));
        assert_eq!(detected(), 1);
    });
}

#[test]
fn loom_a_sweep_never_sees_a_request_without_its_success() {
    model(|| {
        let (detector, endpoint) = detector(
            config()
                .success_rate_minimum_hosts(1)
                .success_rate_request_volume(1),
        );
        let monitor = detector.monitor(&endpoint);
        let worker = thread::spawn(move || {
            monitor.on_response(200);
            monitor.on_response(200);
        });
        let now = clock::now();
        let rate = || detector.report().endpoints[0].success_rate;
        detector.on_interval(now);
        let first = rate();
        worker.join().unwrap();
        detector.on_interval(now);
        let seen: Vec<f64> = [first, rate()].into_iter().flatten().collect();
        assert!(!seen.is_empty() && seen.iter().all(|rate| *rate == 100.0));
    });
}

#[test]
fn loom_flag_and_count_agree_when_ejection_and_its_end_race() {
    model(|| {
        let (detector, endpoint) = detector(config().consecutive_5xx(1));
        let monitor = detector.monitor(&endpoint);
        let worker = thread::spawn(move || {
            monitor.on_response(500);
            monitor.on_response(500);
        });
        detector.on_interval(clock::now() + Duration::from_secs(3600));
        worker.join().unwrap();
        let ejected = detector.report().endpoints[0].ejected;
        assert_eq!(endpoint.has(HealthFlag::FailedOutlier), ejected);
        let active = detector.stats().ejections_active().value();
        assert_eq!(active, u64::from(ejected));
    });
}
