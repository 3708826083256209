//! Endpoints that have become well get their share bit by bit.

use std::time::{Duration, Instant};

use mesh_balance::{
    Aggression, BalanceConfig, Balancer, EndpointSet, LbPolicy, PickContext, SlowStartConfig,
};
use mesh_core::{Percent, Rng, clock};
use proptest::{collection::vec, prelude::*};

use crate::support::{Spec, endpoints};

const SECOND: Duration = Duration::from_secs(1);

/// How often each endpoint comes up in `picks` picks at `now`; each has its weight and its age, if it is
/// known.
fn counts(
    policy: LbPolicy,
    slow_start: SlowStartConfig,
    now: Instant,
    members: &[(u32, Option<Duration>)],
    picks: usize,
) -> Vec<usize> {
    let specs: Vec<Spec> = members
        .iter()
        .map(|(weight, _)| Spec::weight(*weight))
        .collect();
    let endpoints = endpoints(&specs);
    for (endpoint, (_, age)) in endpoints.iter().zip(members) {
        if let Some(age) = age {
            endpoint.state.set_well_since(now - *age);
        }
    }
    let config = BalanceConfig {
        slow_start: Some(slow_start),
        ..policy.into()
    };
    let mut balancer = Balancer::new(config, EndpointSet::new(endpoints));
    assert!(balancer.needs_time());
    let rng = Rng::seeded(1);
    let mut counts = vec![0; members.len()];
    for _ in 0..picks {
        let context = PickContext::new(&rng).at(Some(now));
        let picked = balancer.pick(&context).unwrap();
        let set = balancer.set().endpoints();
        counts[set
            .iter()
            .position(|e| e.address() == picked.address())
            .unwrap()] += 1;
    }
    counts
}

fn later() -> Instant {
    clock::now() + 1000 * SECOND
}

/// Worked out by hand from Envoy's formula, `weight * max((age / window)^(1 / aggression), least)`.
#[test]
fn shares_are_envoys() {
    let even = SlowStartConfig::new(10 * SECOND);
    let fast = SlowStartConfig {
        aggression: Aggression::new(2.0),
        ..even
    };
    let careful = SlowStartConfig {
        min_weight_percent: Percent::whole(50),
        ..even
    };
    let old = Some(100 * SECOND);
    for (config, age, picks, expected) in [
        // Half of the window: 1 to 0.5.
        (even, 5 * SECOND, 300, [200, 100]),
        // A quarter of it, with a root of two: 1 to 0.5.
        (fast, 5 * SECOND / 2, 300, [200, 100]),
        // Nearly nothing, but a tenth at least: 1 to 0.1.
        (even, SECOND / 100, 330, [300, 30]),
        (careful, SECOND / 100, 300, [200, 100]),
        // The window is over.
        (even, 10 * SECOND, 300, [150, 150]),
    ] {
        for policy in [
            LbPolicy::RoundRobin,
            LbPolicy::LeastRequest(Default::default()),
        ] {
            if age == 10 * SECOND && policy != LbPolicy::RoundRobin {
                // Drawn at random.
                continue;
            }
            let counts = counts(policy, config, later(), &[(1, old), (1, Some(age))], picks);
            for (count, expected) in counts.iter().zip(expected) {
                assert!(
                    count.abs_diff(expected) <= 1,
                    "{counts:?} at {age:?} of {config:?}"
                );
            }
        }
    }
}

#[test]
fn those_that_are_seen_for_the_first_time_begin_then() {
    let config = SlowStartConfig::new(10 * SECOND);
    let members = [(1, Some(100 * SECOND)), (1, None)];
    // A millisecond old: the least share.
    let counts = counts(LbPolicy::RoundRobin, config, later(), &members, 330);
    assert!(counts[1].abs_diff(30) <= 1, "{counts:?}");
}

#[test]
fn a_share_grows_while_time_goes_by() {
    let specs = [Spec::weight(1), Spec::weight(1)];
    let endpoints = endpoints(&specs);
    let begin = later();
    endpoints[0].state.set_well_since(begin - 100 * SECOND);
    let config = BalanceConfig {
        slow_start: Some(SlowStartConfig::new(10 * SECOND)),
        ..BalanceConfig::default()
    };
    let new = endpoints[1].address().clone();
    let mut balancer = Balancer::new(config, EndpointSet::new(endpoints));
    let rng = Rng::seeded(1);
    let mut share = |seconds: u32, picks: usize| {
        let context = PickContext::new(&rng).at(Some(begin + seconds * SECOND));
        let picked = (0..picks).map(|_| balancer.pick(&context).unwrap());
        picked.filter(|endpoint| *endpoint.address() == new).count()
    };
    for (seconds, picks, expected) in [(0, 110, 10), (5, 90, 30), (8, 90, 40), (10, 100, 50)] {
        let count = share(seconds, picks);
        assert!(
            count.abs_diff(expected) <= 2,
            "{count} after {seconds} s, not {expected}"
        );
    }
}

proptest! {
    /// Over any number of picks, nobody is further from his share than a few picks.
    #[test]
    fn model_of_the_shares(
        members in vec((1..20u32, 0..15_000u64), 2..6),
        window in 1..12_000u64,
        aggression in 0.2..4.0f64,
        least in 5..60u32,
    ) {
        let config = SlowStartConfig {
            window: Duration::from_millis(window),
            aggression: Aggression::new(aggression),
            min_weight_percent: Percent::whole(least as u8),
        };
        let aged: Vec<_> = members
            .iter()
            .map(|(weight, age)| (*weight, Some(Duration::from_millis(*age))))
            .collect();
        let picks = 2_000;
        let counts = counts(LbPolicy::RoundRobin, config, later(), &aged, picks);
        let weights: Vec<f64> = members
            .iter()
            .map(|(weight, age)| {
                let factor = if *age >= window {
                    1.0
                } else {
                    let time = (*age).max(1) as f64 / window as f64;
                    time.powf(1.0 / aggression).max(f64::from(least) / 100.0)
                };
                f64::from(*weight) * factor
            })
            .collect();
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let expected = picks as f64 * weight / total;
            // A millisecond is lost when a time is kept.
            let slack = members.len() as f64 + expected * 0.01 + picks as f64 * 0.002;
            prop_assert!(
                (*count as f64 - expected).abs() <= slack,
                "{:?} for {:?}", counts, weights
            );
        }
    }
}
