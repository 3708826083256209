use mesh_balance::{BalanceConfig, PriorityCounts, PriorityLoad, priority_loads};
use mesh_core::{Health, Percent};
use proptest::prelude::*;

use crate::support::{Picker, Spec, set};

fn counts(hosts: u64, healthy: u64, degraded: u64, excluded: u64) -> PriorityCounts {
    PriorityCounts {
        hosts,
        counted: hosts - excluded,
        usable: healthy + degraded,
        total: hosts - excluded,
        healthy,
        degraded,
    }
}

fn panic_below(threshold: u8) -> BalanceConfig {
    BalanceConfig {
        healthy_panic_threshold: Percent::whole(threshold),
        ..BalanceConfig::default()
    }
}

fn healthy_loads(counts: &[PriorityCounts], config: &BalanceConfig) -> Vec<u32> {
    priority_loads(counts, config)
        .iter()
        .map(|l| l.healthy)
        .collect()
}

/// A whole number of a hundredth and its fraction: `numerator / denominator`, compared by cross
/// multiplication; floors are found by counting up.
fn floor(numerator: u128, denominator: u128) -> u128 {
    (0..)
        .take_while(|n| n * denominator <= numerator)
        .last()
        .unwrap_or(0)
}

/// The pages' words, one after the other, without any cleverness.
fn naive(counts: &[PriorityCounts], config: &BalanceConfig) -> Vec<PriorityLoad> {
    let share = |part: u64, total: u64| -> u128 {
        if total == 0 {
            return 0;
        }
        let capped = u128::from(part) * u128::from(config.overprovisioning_factor)
            >= 100 * u128::from(total);
        if capped {
            return 100;
        }
        let part = u128::from(part) * u128::from(config.overprovisioning_factor);
        floor(part, u128::from(total))
    };
    let health: Vec<u128> = counts.iter().map(|c| share(c.healthy, c.total)).collect();
    let degraded: Vec<u128> = counts.iter().map(|c| share(c.degraded, c.total)).collect();
    let sum: u128 = health.iter().sum::<u128>() + degraded.iter().sum::<u128>();
    let available = if sum > 100 { 100 } else { sum };
    let threshold = config.healthy_panic_threshold.get().floor() as u128;

    let mut loads = vec![PriorityLoad::default(); counts.len()];
    if available > 0 {
        let mut left = 100u128;
        for p in 0..counts.len() {
            let load = floor(health[p] * 100, available).min(left);
            loads[p].healthy = load as u32;
            left -= load;
        }
        for p in 0..counts.len() {
            let load = floor(degraded[p] * 100, available).min(left);
            loads[p].degraded = load as u32;
            left -= load;
        }
        if let Some(p) = (0..counts.len()).find(|&p| health[p] > 0) {
            loads[p].healthy += left as u32;
        } else if let Some(p) = (0..counts.len()).find(|&p| degraded[p] > 0) {
            loads[p].degraded += left as u32;
        }
    } else if threshold == 0 {
        loads[0].healthy = 100;
        return loads;
    }
    for p in 0..counts.len() {
        // usable / counted < threshold / 100, as fractions; nothing of nothing is 0.
        let below = if counts[p].counted == 0 {
            threshold > 0
        } else {
            u128::from(counts[p].usable) * 100 < threshold * u128::from(counts[p].counted)
        };
        loads[p].panic = available < 100 && below;
    }
    if loads.iter().all(|load| load.panic) {
        let hosts: u64 = counts.iter().map(|c| c.hosts).sum();
        let mut left = 100;
        for p in 0..counts.len() {
            let load = if hosts == 0 {
                0
            } else {
                floor(u128::from(100 * counts[p].hosts), u128::from(hosts))
            };
            (loads[p].healthy, loads[p].degraded) = (load as u32, 0);
            left -= load as u32;
        }
        let first = (0..counts.len())
            .find(|&p| counts[p].hosts > 0)
            .unwrap_or(0);
        loads[first].healthy += left;
    }
    loads
}

fn any_counts() -> impl Strategy<Value = PriorityCounts> {
    (0u64..30)
        .prop_flat_map(|hosts| (Just(hosts), 0..=hosts, 0..=hosts))
        .prop_flat_map(|(hosts, healthy, excluded)| {
            let usable = hosts - excluded;
            let healthy = healthy.min(usable);
            (Just((hosts, healthy, excluded)), 0..=usable - healthy)
        })
        .prop_map(|((hosts, healthy, excluded), degraded)| {
            counts(hosts, healthy, degraded, excluded)
        })
}

proptest! {
    #[test]
    fn model_loads_are_those_of_the_definition(
        counts in prop::collection::vec(any_counts(), 1..5),
        threshold in 0u8..=100,
        factor in prop_oneof![3 => Just(140u32), 1 => 100u32..300],
    ) {
        let config = BalanceConfig {
            overprovisioning_factor: factor,
            ..panic_below(threshold)
        };
        let loads = priority_loads(&counts, &config);
        let expected = naive(&counts, &config);
        // Where every share rounds to nothing, the definition leaves traffic without a place.
        if expected.iter().any(|load| load.healthy + load.degraded > 0) {
            prop_assert_eq!(&loads, &expected);
        }
        prop_assert_eq!(loads.iter().map(|l| l.healthy + l.degraded).sum::<u32>(), 100);
    }

    #[test]
    fn model_any_config_and_counts_place_all_traffic(
        counts in prop::collection::vec(any_counts(), 1..5),
        threshold in 0.0f64..=100.0,
        factor in any::<u32>(),
    ) {
        let config = BalanceConfig {
            overprovisioning_factor: factor,
            healthy_panic_threshold: Percent::new(threshold).unwrap(),
            ..BalanceConfig::default()
        };
        let sum: u32 = priority_loads(&counts, &config).iter().map(|l| l.healthy + l.degraded).sum();
        prop_assert!(sum == 100 || counts.iter().all(|c| c.usable == 0), "{sum}");
    }
}

#[test]
fn seven_of_ten_stand_in_for_all_and_fewer_spill_over() {
    let config = BalanceConfig::default();
    let p1 = counts(10, 10, 0, 0);
    assert_eq!(
        healthy_loads(&[counts(100, 72, 0, 0), p1], &config),
        [100, 0]
    );
    assert_eq!(
        healthy_loads(&[counts(100, 71, 0, 0), p1], &config),
        [99, 1]
    );
    assert_eq!(healthy_loads(&[counts(10, 5, 0, 0), p1], &config), [70, 30]);
    assert_eq!(healthy_loads(&[counts(10, 0, 0, 0), p1], &config), [0, 100]);
}

#[test]
fn degraded_endpoints_get_only_what_healthy_ones_cannot_take() {
    let config = BalanceConfig::default();
    let loads = priority_loads(&[counts(10, 5, 5, 0)], &config);
    assert_eq!((loads[0].healthy, loads[0].degraded), (70, 30));
    // A healthy lower priority comes before the degraded of a higher one.
    let loads = priority_loads(&[counts(10, 5, 5, 0), counts(10, 10, 0, 0)], &config);
    assert_eq!(
        (loads[0].healthy, loads[0].degraded, loads[1].healthy),
        (70, 0, 30)
    );
}

#[test]
fn what_rounding_leaves_goes_to_the_first_that_is_healthy() {
    let config = BalanceConfig::default();
    // Each has 20: 20 * 100 / 60 = 33.
    let third = counts(7, 1, 0, 0);
    let loads = priority_loads(&[third, third, third], &panic_below(0));
    assert_eq!(
        loads.iter().map(|l| l.healthy).collect::<Vec<_>>(),
        [34, 33, 33]
    );
    let degraded = counts(7, 0, 1, 0);
    let loads = priority_loads(&[degraded, degraded, degraded], &panic_below(0));
    assert_eq!(
        loads.iter().map(|l| l.degraded).collect::<Vec<_>>(),
        [34, 33, 33]
    );
    assert!(priority_loads(&[third; 3], &config).iter().all(|l| l.panic));
}

#[test]
fn nobody_panics_while_all_priorities_together_suffice() {
    let config = BalanceConfig::default();
    // 2 of 10 are far below the threshold, yet the second priority makes up for it.
    let loads = priority_loads(&[counts(10, 2, 0, 0), counts(10, 8, 0, 0)], &config);
    assert!(loads.iter().all(|load| !load.panic));
    assert_eq!(loads[0].healthy, 28);
}

#[test]
fn a_single_priority_panics_below_the_threshold_and_not_at_it() {
    let config = BalanceConfig::default();
    assert!(!priority_loads(&[counts(10, 5, 0, 0)], &config)[0].panic);
    let load = priority_loads(&[counts(10, 4, 0, 0)], &config)[0];
    assert_eq!((load.panic, load.healthy, load.degraded), (true, 100, 0));
    assert!(!priority_loads(&[counts(10, 1, 4, 0)], &config)[0].panic);
    // A threshold of 49.9 is cut to 49.
    let config = BalanceConfig {
        healthy_panic_threshold: Percent::new(40.9).unwrap(),
        ..BalanceConfig::default()
    };
    assert!(!priority_loads(&[counts(10, 4, 0, 0)], &config)[0].panic);
}

#[test]
fn excluded_endpoints_count_neither_way() {
    let config = BalanceConfig::default();
    let load = priority_loads(&[counts(10, 2, 0, 7)], &config)[0];
    assert!(!load.panic);
    assert_eq!(load.healthy, 100);
}

#[test]
fn excluded_endpoints_are_left_out_when_a_set_is_counted() {
    let mut specs = [Spec::at(0, Health::Unhealthy); 5];
    specs[0].health = Health::Healthy;
    (2..5).for_each(|n| specs[n].excluded = true);
    let mut picker = Picker::new(BalanceConfig::default(), set(&specs), 1);
    // One of two is usable: no panic.
    assert_eq!(picker.count(10), [10, 0, 0, 0, 0]);
    assert_eq!(picker.balancer.set().membership().excluded, 3);
}

#[test]
fn in_total_panic_traffic_goes_by_the_number_of_endpoints() {
    let config = BalanceConfig::default();
    let loads = priority_loads(&[counts(2, 0, 0, 0), counts(1, 0, 0, 0)], &config);
    assert_eq!(
        loads
            .iter()
            .map(|l| (l.healthy, l.panic))
            .collect::<Vec<_>>(),
        [(67, true), (33, true)]
    );
    let loads = priority_loads(&[counts(0, 0, 0, 0), counts(3, 0, 0, 0)], &config);
    assert_eq!(
        loads.iter().map(|l| l.healthy).collect::<Vec<_>>(),
        [0, 100]
    );
}

#[test]
fn panic_uses_everybody_and_is_counted() {
    let mut specs = [Spec::at(0, Health::Unhealthy); 5];
    specs[0].health = Health::Healthy;
    let mut picker = Picker::new(BalanceConfig::default(), set(&specs), 1);
    assert_eq!(picker.count(50), [10; 5]);
    let panic = picker.balancer.panic().unwrap();
    assert_eq!((panic.usable, panic.total), (1, 5));
}

#[test]
fn without_panic_only_the_healthy_are_used() {
    let mut specs = [Spec::at(0, Health::Unhealthy); 5];
    specs[0].health = Health::Healthy;
    let mut picker = Picker::new(panic_below(0), set(&specs), 1);
    assert_eq!(picker.count(50), [50, 0, 0, 0, 0]);
    assert_eq!(picker.balancer.panic(), None);
}

#[test]
fn with_panic_off_and_nobody_healthy_there_is_nobody_to_pick() {
    let specs = [Spec::at(0, Health::Unhealthy); 3];
    let mut picker = Picker::new(panic_below(0), set(&specs), 1);
    let none = picker.pick().unwrap_err();
    assert_eq!(none.to_string(), "none of 3 endpoints can be used");
    let error = mesh_core::Error::from(none);
    assert_eq!(error.kind(), mesh_core::ErrorKind::NoHealthyUpstream);
    assert_eq!(error.sent(), mesh_core::Sent::Nothing);
}

#[test]
fn panic_can_refuse_instead() {
    let specs = [Spec::at(0, Health::Unhealthy); 3];
    let config = BalanceConfig {
        fail_traffic_on_panic: true,
        ..BalanceConfig::default()
    };
    let mut picker = Picker::new(config, set(&specs), 1);
    assert!(picker.pick().is_err());
    assert!(picker.balancer.panic().is_some());
}

#[test]
fn traffic_follows_the_loads() {
    let healthy = |p| Spec::at(p, Health::Healthy);
    let specs = [
        healthy(0),
        Spec::at(0, Health::Unhealthy),
        Spec::at(0, Health::Degraded),
        healthy(1),
        healthy(1),
        Spec::at(2, Health::Degraded),
    ];
    let mut picker = Picker::new(BalanceConfig::default(), set(&specs), 1);
    // P0: floor(140/3) = 46 healthy, 46 degraded. P1: 100. So 46 and 54.
    let counts = picker.count(10_000);
    assert_eq!((counts[1], counts[2], counts[5]), (0, 0, 0));
    assert!((4_450..4_750).contains(&counts[0]), "{counts:?}");
    assert!(counts[3].abs_diff(counts[4]) <= 1, "{counts:?}");
    let loads: Vec<_> = picker.balancer.loads().map(|load| load.healthy).collect();
    assert_eq!(loads, [46, 54, 0]);
}

#[test]
fn a_hash_chooses_its_priority_for_good() {
    let specs = [
        Spec::at(0, Health::Healthy),
        Spec::at(0, Health::Unhealthy),
        Spec::at(1, Health::Healthy),
    ];
    let mut picker = Picker::new(BalanceConfig::default(), set(&specs), 1);
    // 70 percent to the first: hashes that end in 00 to 69.
    for (hash, priority) in [(0, 0), (69, 0), (70, 1), (99, 1), (12_345_670, 1), (100, 0)] {
        let mut context = mesh_balance::PickContext::new(&picker.rng);
        context.hash = Some(hash);
        let picked = picker.balancer.pick(&context).unwrap();
        assert_eq!(picked.priority, priority, "{hash}");
    }
}

#[test]
fn weights_can_stand_for_health() {
    let mut specs = [
        Spec::weight(1),
        Spec::weight(9),
        Spec::at(1, Health::Healthy),
    ];
    specs[1].health = Health::Unhealthy;
    let load = |weighted_priority_health| {
        let config = BalanceConfig {
            weighted_priority_health,
            ..BalanceConfig::default()
        };
        let counts = PriorityCounts::of(&set(&specs), &config);
        priority_loads(&counts, &config)[0].healthy
    };
    assert_eq!((load(false), load(true)), (70, 14));
}
