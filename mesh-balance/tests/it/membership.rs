use std::sync::Arc;

use mesh_balance::{
    BalanceConfig, BalanceStats, Balancer, EndpointSet, LbPolicy, LeastRequestConfig, PickContext,
    PriorityCounts, priority_loads,
};
use mesh_core::{Endpoint, Health, HealthFlag, Percent, Rng, stats::Registry};
use proptest::prelude::*;

use crate::support::{Picker, Spec, endpoints, set, set_active, set_health};

#[derive(Debug, Clone)]
enum Event {
    /// Other endpoints, by their numbers, of these weights and priorities.
    Members(Vec<(usize, u32, u32)>),
    Health(usize, Health),
    Exclude(usize, bool),
    Load(usize, u64),
    Picks(usize),
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![
        Just(Health::Healthy),
        Just(Health::Degraded),
        Just(Health::Unhealthy)
    ]
}

const NUMBERS: usize = 12;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let members = prop::collection::btree_map(0..NUMBERS, (0u32..5, 0u32..3), 0..NUMBERS);
    let event = prop_oneof![
        2 => members.prop_map(|m| Event::Members(m.into_iter().map(|(n, (w, p))| (n, w, p)).collect())),
        4 => (0..NUMBERS, health()).prop_map(|(n, h)| Event::Health(n, h)),
        1 => (0..NUMBERS, any::<bool>()).prop_map(|(n, on)| Event::Exclude(n, on)),
        1 => (0..NUMBERS, 0u64..20).prop_map(|(n, load)| Event::Load(n, load)),
        5 => (1usize..20).prop_map(Event::Picks),
    ];
    prop::collection::vec(event, 1..80)
}

fn policy() -> impl Strategy<Value = LbPolicy> {
    prop_oneof![
        Just(LbPolicy::RoundRobin),
        Just(LbPolicy::LeastRequest(LeastRequestConfig::default())),
        Just(LbPolicy::Random),
    ]
}

/// Whether `picked` may be picked from `set` at all, by the loads of this moment.
fn is_eligible(picked: &Endpoint, set: &EndpointSet, config: &BalanceConfig) -> bool {
    let loads = priority_loads(&PriorityCounts::of(set, config), config);
    let load = loads[picked.priority as usize];
    match picked.state.health() {
        _ if load.panic => load.healthy > 0,
        Health::Healthy => load.healthy > 0,
        Health::Degraded => load.degraded > 0,
        Health::Unhealthy => false,
    }
}

proptest! {
    #[test]
    fn model_whatever_changes_only_the_eligible_are_picked_and_nothing_panics(
        events in events(),
        policy in policy(),
        threshold in 0u8..=100,
        seed in any::<u64>(),
    ) {
        let all = endpoints(&[Spec::weight(1); NUMBERS]);
        let config = BalanceConfig {
            healthy_panic_threshold: Percent::whole(threshold),
            ..policy.into()
        };
        let rng = Rng::seeded(seed);
        let mut balancer = Balancer::new(config, EndpointSet::empty());
        for event in events {
            match event {
                Event::Members(members) => {
                    let chosen = members.into_iter().map(|(n, weight, priority)| Endpoint {
                        weight,
                        priority,
                        ..all[n].clone()
                    });
                    balancer.update(&EndpointSet::new(chosen));
                }
                Event::Health(n, health) => set_health(&all[n].state, health),
                Event::Exclude(n, on) => {
                    all[n].state.set_health(HealthFlag::Excluded, on);
                }
                Event::Load(n, load) => {
                    all[n].state.stats.rq_active.store(load, std::sync::atomic::Ordering::Relaxed);
                }
                Event::Picks(picks) => for _ in 0..picks {
                    let set = Arc::clone(balancer.set());
                    match balancer.pick(&PickContext::new(&rng)) {
                        Ok(picked) => {
                            prop_assert!(set.endpoints().iter().any(|e| Arc::ptr_eq(e, &picked)));
                            prop_assert!(is_eligible(&picked, &set, &config));
                        }
                        Err(none) => {
                            prop_assert_eq!(none.total, set.endpoints().len());
                            let anybody = set.endpoints().iter().any(|e| is_eligible(e, &set, &config));
                            prop_assert!(!anybody);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn an_ejected_endpoint_gets_nothing_from_the_next_pick_on() {
    let set = set(&[Spec::weight(1); 4]);
    let mut picker = Picker::new(LbPolicy::RoundRobin, Arc::clone(&set), 1);
    picker.count(10);
    set_health(&set.endpoints()[2].state, Health::Unhealthy);
    assert_eq!(picker.count(30), [10, 10, 0, 10]);
    set_health(&set.endpoints()[2].state, Health::Healthy);
    assert_eq!(picker.count(40), [10; 4]);
}

#[test]
fn endpoints_of_no_cluster_are_watched_each() {
    let standalone = |port: u16| Endpoint::standalone(([127, 0, 0, 1], port).into());
    let set = EndpointSet::new((1..=3).map(standalone));
    let mut picker = Picker::new(LbPolicy::RoundRobin, Arc::clone(&set), 1);
    picker.count(3);
    set_health(&set.endpoints()[1].state, Health::Unhealthy);
    assert_eq!(picker.count(10), [5, 0, 5]);
}

#[test]
fn of_equal_addresses_the_first_is_kept() {
    let mut list = endpoints(&[Spec::weight(1), Spec::weight(2)]);
    let twin = Endpoint {
        weight: 9,
        ..list[0].clone()
    };
    list.push(twin);
    let set = EndpointSet::new(list);
    let weights: Vec<_> = set.endpoints().iter().map(|e| e.weight).collect();
    assert_eq!(weights, [1, 2]);
}

#[test]
fn an_empty_set_has_nobody_and_a_priority_beyond_the_last_is_the_last() {
    let mut picker = Picker::new(LbPolicy::RoundRobin, EndpointSet::empty(), 1);
    assert_eq!(picker.pick().unwrap_err().total, 0);
    let mut picker = Picker::new(
        LbPolicy::RoundRobin,
        set(&[Spec::at(u32::MAX, Health::Healthy)]),
        1,
    );
    assert!(picker.pick().is_ok());
    assert_eq!(
        picker.balancer.set().priorities(),
        mesh_balance::PRIORITY_MAX + 1
    );
}

#[test]
fn stats_have_envoys_names_and_follow_health() {
    let registry = Registry::new();
    let stats = BalanceStats::register(&registry.scope("cluster.web."));
    let set = set(&[Spec::weight(1); 5]);
    // Two workers, one cluster.
    let mut workers: Vec<_> = (0..2)
        .map(|_| {
            Balancer::with_stats(
                BalanceConfig::default(),
                Arc::clone(&set),
                Arc::clone(&stats),
            )
        })
        .collect();
    let rng = Rng::seeded(1);
    let mut pick = || {
        for worker in &mut workers {
            worker.pick(&PickContext::new(&rng)).unwrap();
        }
    };
    let read = || -> Vec<String> {
        registry
            .snapshot()
            .into_iter()
            .map(|stat| {
                format!(
                    "{}={:?}",
                    stat.name.trim_start_matches("cluster.web."),
                    stat.value
                )
            })
            .collect()
    };
    pick();
    assert_eq!(
        read(),
        [
            "lb_healthy_panic=Counter(0)",
            "membership_change=Counter(1)",
            "membership_degraded=Gauge(0)",
            "membership_excluded=Gauge(0)",
            "membership_healthy=Gauge(5)",
            "membership_total=Gauge(5)",
        ]
    );
    (0..3).for_each(|n| set_health(&set.endpoints()[n].state, Health::Unhealthy));
    set_health(&set.endpoints()[3].state, Health::Degraded);
    set.endpoints()[4]
        .state
        .set_health(HealthFlag::FailedActive, true);
    pick();
    assert_eq!(
        read(),
        [
            "lb_healthy_panic=Counter(2)",
            "membership_change=Counter(1)",
            "membership_degraded=Gauge(1)",
            "membership_excluded=Gauge(0)",
            "membership_healthy=Gauge(0)",
            "membership_total=Gauge(5)",
        ]
    );
    // The same members once more are no change; fewer are.
    stats.refresh(&EndpointSet::new(set.endpoints().iter().cloned()));
    assert_eq!(stats.stats().membership_change().value(), 1);
    stats.refresh(&EndpointSet::new(set.endpoints()[1..].iter().cloned()));
    assert_eq!(stats.stats().membership_change().value(), 2);
    assert_eq!(stats.stats().membership_total().value(), 4);
    // A worker that still has the old set does not turn the gauges back.
    stats.refresh(&set);
    assert_eq!(stats.stats().membership_total().value(), 4);
    set_active(&set, 0, 0);
}
