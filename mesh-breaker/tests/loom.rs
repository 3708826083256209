//! Interleavings of the shared atomics:
//! `RUSTFLAGS="--cfg mesh_loom" cargo test -p mesh-breaker --test loom --release`.
#![cfg(mesh_loom)]

use std::{sync::Arc, time::Duration};

use loom::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
};
use mesh_breaker::{BreakerConfig, BreakerStats, Circuit, state::Phase};
use mesh_core::{Percent, Resource, Resources, Rng, Thresholds, clock};

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

fn resources(max_requests: u32) -> Arc<Resources> {
    Resources::new(&Thresholds {
        max_requests,
        ..Thresholds::default()
    })
}

#[test]
fn loom_a_permit_excludes_and_hands_over_what_its_holder_did() {
    model(|| {
        let resources = resources(1);
        // Plain reads and writes: only the permit orders them.
        let guarded = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (resources, guarded) = (Arc::clone(&resources), Arc::clone(&guarded));
                thread::spawn(move || {
                    let Ok(_permit) = resources.try_acquire(Resource::Requests) else {
                        return 0;
                    };
                    let seen = guarded.load(Ordering::Relaxed);
                    guarded.store(seen + 1, Ordering::Relaxed);
                    1
                })
            })
            .collect();
        let entered: u32 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert!(entered >= 1);
        assert_eq!(guarded.load(Ordering::Relaxed), entered);
        assert_eq!(resources.in_use(Resource::Requests), 0);
    });
}

#[test]
fn loom_permits_never_exceed_the_bound_while_it_changes() {
    model(|| {
        let resources = resources(1);
        let other = {
            let resources = Arc::clone(&resources);
            thread::spawn(move || {
                resources.update(&Thresholds {
                    max_requests: 2,
                    ..Thresholds::default()
                });
                resources.try_acquire(Resource::Requests).ok()
            })
        };
        let mine = resources.try_acquire(Resource::Requests).ok();
        let theirs = other.join().unwrap();
        assert!(resources.in_use(Resource::Requests) <= 2);
        assert_eq!(
            resources.in_use(Resource::Requests),
            u32::from(mine.is_some()) + u32::from(theirs.is_some())
        );
        drop((mine, theirs));
        assert_eq!(resources.in_use(Resource::Requests), 0);
    });
}

fn circuit(at_once: u32, successes: u32) -> Arc<Circuit> {
    let config = BreakerConfig::builder()
        .consecutive_failures(Some(1))
        .ratio(None)
        .open_jitter(Percent::ZERO)
        .half_open(at_once, successes)
        .build()
        .unwrap();
    Arc::new(Circuit::with(
        config,
        BreakerStats::detached(),
        Rng::seeded(1),
        clock::now(),
    ))
}

#[test]
fn loom_never_more_probes_than_allowed_and_every_place_comes_back() {
    model(|| {
        let circuit = circuit(1, 9);
        let start = clock::now();
        circuit.admit(|| start).unwrap().settle(start, true);
        let later = start + Duration::from_secs(60);
        let out = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = [false, true]
            .map(|settles| {
                let (circuit, out) = (Arc::clone(&circuit), Arc::clone(&out));
                thread::spawn(move || {
                    let Ok(ticket) = circuit.admit(|| later) else {
                        return;
                    };
                    assert!(ticket.is_probe());
                    assert_eq!(out.fetch_add(1, Ordering::AcqRel), 0);
                    // One probe has an outcome, one is abandoned.
                    let (probe, abandoned) = if settles {
                        (ticket.settle(later, false), None)
                    } else {
                        (None, Some(ticket))
                    };
                    out.fetch_sub(1, Ordering::AcqRel);
                    drop((probe, abandoned));
                })
            })
            .into();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(circuit.phase(), Phase::HalfOpen);
        assert!(circuit.admit(|| later).is_ok());
    });
}

#[test]
fn loom_a_late_success_never_closes_and_an_opened_circuit_refuses() {
    model(|| {
        let circuit = circuit(1, 1);
        let now = clock::now();
        let late = circuit.admit(|| now).unwrap();
        let success = thread::spawn(move || drop(late.settle(now, false)));
        let failure = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || {
                if let Ok(ticket) = circuit.admit(|| now) {
                    ticket.settle(now, true);
                }
                // Whoever saw it open is refused from then on.
                assert!(circuit.admit(|| now).is_err());
            })
        };
        success.join().unwrap();
        failure.join().unwrap();
        assert_eq!(circuit.phase(), Phase::Open);
        assert!(circuit.admit(|| now).is_err());
    });
}
