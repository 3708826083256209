//! Ring hash and Maglev, held against numbers from an implementation of its own in another language.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use mesh_balance::{
    BalanceConfig, Balancer, EndpointSet, HashBalanceFactor, HashFunction, HashStats, HashTables,
    LbPolicy, MaglevConfig, PickContext, RING_SIZE_MAX, RingHashConfig, RingSizes, TableSize,
};
use mesh_core::{
    Endpoint, Health, HealthFlag, Rng,
    stats::{Registry, Stat, Value},
};
use proptest::{collection::vec, prelude::*};

use crate::support::{Spec, address, endpoints, set_active};

/// xxHash64 of `request 0` to `request 11`.
const HASHES: [u64; 12] = [
    6868145643888956895,
    3384442932550083324,
    1042579638949182444,
    17741376161065608913,
    18260889308267602161,
    2620363189664099351,
    10245748638042154116,
    9486404567070544119,
    6158400424785189379,
    4438389421973633116,
    14039693101278417324,
    14478405836526473681,
];

fn ring(minimum: u64, maximum: u64, hash_function: HashFunction) -> LbPolicy {
    LbPolicy::RingHash(RingHashConfig {
        sizes: RingSizes::new(minimum, maximum).unwrap(),
        hash_function,
        use_hostname_for_hashing: false,
    })
}

fn maglev(size: u32) -> LbPolicy {
    LbPolicy::Maglev(MaglevConfig {
        table_size: TableSize::new(size).unwrap(),
        use_hostname_for_hashing: false,
    })
}

/// Which endpoint each hash leads to.
fn picks_of(policy: LbPolicy, members: Vec<Endpoint>, hashes: &[u64]) -> Vec<usize> {
    let mut balancer = Balancer::new(policy.into(), EndpointSet::new(members));
    let rng = Rng::seeded(1);
    let pick = |hash: &u64| {
        let mut context = PickContext::new(&rng);
        context.hash = Some(*hash);
        let picked = balancer.pick(&context).unwrap();
        (0..).find(|n| address(*n) == *picked.address()).unwrap()
    };
    hashes.iter().map(pick).collect()
}

fn of_weights(weights: &[u32]) -> Vec<Endpoint> {
    let specs: Vec<Spec> = weights.iter().map(|weight| Spec::weight(*weight)).collect();
    endpoints(&specs)
}

fn equal(n: usize) -> Vec<Endpoint> {
    of_weights(&vec![1; n])
}

#[test]
fn requests_go_where_envoys_ring_sends_them() {
    let picks = picks_of(ring(16, 1024, HashFunction::XxHash), equal(4), &HASHES);
    assert_eq!(picks, [1, 2, 1, 1, 1, 2, 2, 2, 1, 3, 2, 0]);
    let picks = picks_of(ring(16, 1024, HashFunction::MurmurHash2), equal(4), &HASHES);
    assert_eq!(picks, [1, 0, 3, 0, 0, 0, 1, 1, 1, 2, 2, 2]);
}

#[test]
fn requests_go_where_envoys_table_sends_them() {
    assert_eq!(
        picks_of(maglev(17), equal(4), &HASHES),
        [3, 2, 1, 3, 1, 3, 0, 0, 2, 3, 2, 3]
    );
    let slots: Vec<u64> = (0..31).collect();
    assert_eq!(
        picks_of(maglev(31), of_weights(&[1, 2, 3, 4]), &slots),
        [
            1, 3, 0, 3, 2, 3, 3, 2, 3, 0, 3, 1, 3, 2, 2, 1, 2, 3, 3, 2, 1, 1, 2, 2, 3, 2, 1, 3, 0,
            0, 1
        ]
    );
}

#[test]
fn a_request_that_avoids_its_endpoint_goes_to_the_next_on_the_ring() {
    let policy = ring(16, 1024, HashFunction::XxHash);
    let set = EndpointSet::new(equal(4));
    let mut balancer = Balancer::new(policy.into(), set.clone());
    let rng = Rng::seeded(1);
    let mut second = Vec::new();
    for hash in HASHES {
        let mut context = PickContext::new(&rng);
        context.hash = Some(hash);
        let tried = [balancer.pick(&context).unwrap()];
        let next = balancer.pick(&context.avoiding(&tried, 1)).unwrap();
        second.push((0..4).find(|n| address(*n) == *next.address()).unwrap());
    }
    assert_eq!(second, [0, 3, 3, 3, 3, 3, 3, 3, 0, 1, 0, 1]);
}

#[test]
fn what_an_endpoint_is_known_by_decides_its_place() {
    let named = |name: &str, key: Option<&str>| {
        let mut members = equal(4);
        for (n, member) in members.iter_mut().enumerate() {
            member.hostname = format!("{name}{n}").into();
            let key = key.map(|key| ("hash_key".to_owned(), format!("{key}{n}")));
            member.metadata = BTreeMap::from_iter(key).into();
        }
        members
    };
    let by_address = ring(64, 64, HashFunction::XxHash);
    let LbPolicy::RingHash(config) = by_address else {
        panic!("a ring")
    };
    let by_name = LbPolicy::RingHash(RingHashConfig {
        use_hostname_for_hashing: true,
        ..config
    });
    let hashes: Vec<u64> = (0..64).map(|n| n << 58).collect();
    let plain = picks_of(by_address, named("a", None), &hashes);
    assert_eq!(plain, picks_of(by_address, named("b", None), &hashes));
    let a = picks_of(by_name, named("a", None), &hashes);
    assert_ne!(a, picks_of(by_name, named("b", None), &hashes));
    assert_ne!(a, plain);
    // A key of its own wins over both.
    assert_eq!(picks_of(by_name, named("b", Some("a")), &hashes), a);
    assert_eq!(picks_of(by_address, named("b", Some("a")), &hashes), a);
}

#[test]
fn endpoints_that_are_ill_are_not_on_the_ring() {
    let specs: Vec<Spec> = (0..4)
        .map(|n| match n {
            1 => Spec::at(0, Health::Unhealthy),
            _ => Spec::weight(1),
        })
        .collect();
    for policy in [ring(16, 1024, HashFunction::XxHash), maglev(17)] {
        let picks = picks_of(policy, endpoints(&specs), &HASHES);
        assert!(!picks.contains(&1), "{picks:?}");
        let before = picks_of(policy, equal(4), &HASHES);
        assert!(before.contains(&1));
    }
}

#[test]
fn the_degraded_are_on_the_ring_only_when_nobody_is_well() {
    let of = |health: [Health; 3]| -> Vec<Endpoint> {
        endpoints(&health.map(|health| Spec::at(0, health)))
    };
    let (well, weak, ill) = (Health::Healthy, Health::Degraded, Health::Unhealthy);
    for policy in [ring(16, 1024, HashFunction::XxHash), maglev(17)] {
        // A third is well: less than half of the traffic is theirs, and they get all of it.
        let picks = picks_of(policy, of([well, weak, weak]), &HASHES);
        assert_eq!(picks, [0; HASHES.len()]);
        let picks = picks_of(policy, of([ill, weak, weak]), &HASHES);
        assert!(picks.contains(&1) && picks.contains(&2) && !picks.contains(&0));
    }
}

#[test]
fn requests_without_a_hash_go_anywhere() {
    for policy in [ring(1024, 1024, HashFunction::XxHash), maglev(65_537)] {
        let mut balancer = Balancer::new(policy.into(), EndpointSet::new(equal(4)));
        let rng = Rng::seeded(1);
        let mut seen = [0; 4];
        for _ in 0..400 {
            let picked = balancer.pick(&PickContext::new(&rng)).unwrap();
            seen[(0..4).find(|n| address(*n) == *picked.address()).unwrap()] += 1;
        }
        assert!(
            seen.iter().all(|count| (40..200).contains(count)),
            "{seen:?}"
        );
    }
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    assert!(RingSizes::new(0, 1).is_err());
    assert!(RingSizes::new(2, 1).is_err());
    assert!(RingSizes::new(1, RING_SIZE_MAX + 1).is_err());
    for (size, prime) in [
        (0, false),
        (1, false),
        (2, true),
        (4, false),
        (65_536, false),
    ] {
        assert_eq!(TableSize::new(size).is_ok(), prime, "{size}");
    }
    assert!(TableSize::new(5_000_011).is_ok());
    assert!(TableSize::new(5_000_077).is_err(), "prime, and too large");
}

proptest! {
    /// Where each has one place, only requests of an endpoint that leaves change theirs.
    #[test]
    fn a_ring_moves_only_requests_of_the_one_that_left(
        n in 3..12usize,
        gone in 0..12usize,
        hashes in vec(any::<u64>(), 1..50),
    ) {
        let gone = gone % n;
        let policy = ring(1, RING_SIZE_MAX, HashFunction::XxHash);
        let before = picks_of(policy, equal(n), &hashes);
        let mut members = equal(n);
        members.remove(gone);
        let after = picks_of(policy, members, &hashes);
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(before == after || *before == gone);
            prop_assert!(*after != gone);
        }
    }

    /// Every endpoint has its share of the table's slots, give or take one for each of them.
    #[test]
    fn model_of_a_tables_shares(weights in vec(1..30u32, 2..8)) {
        let size = 1_009u32;
        let slots: Vec<u64> = (0..u64::from(size)).collect();
        let picks = picks_of(maglev(size), of_weights(&weights), &slots);
        let sum: u32 = weights.iter().sum();
        for (n, weight) in weights.iter().enumerate() {
            let count = picks.iter().filter(|pick| **pick == n).count() as f64;
            let share = f64::from(size) * f64::from(*weight) / f64::from(sum);
            prop_assert!((count - share).abs() <= weights.len() as f64, "{} of {}", count, share);
        }
    }

    /// The order of the config decides nothing.
    #[test]
    fn a_table_does_not_depend_on_the_order(rotate in 0..6usize, hashes in vec(any::<u64>(), 1..30)) {
        let mut members = equal(6);
        members.rotate_left(rotate);
        prop_assert_eq!(
            picks_of(maglev(251), equal(6), &hashes),
            picks_of(maglev(251), members, &hashes)
        );
    }
}

/// A picker that shares `tables` with others.
fn sharing(policy: LbPolicy, set: &Arc<EndpointSet>, tables: &Arc<HashTables>) -> Balancer {
    Balancer::new(policy.into(), Arc::clone(set)).with_tables(Some(Arc::clone(tables)))
}

fn place(balancer: &mut Balancer, hash: u64) -> usize {
    let rng = Rng::seeded(1);
    let context = PickContext::new(&rng).hashed(Some(hash));
    let picked = balancer.pick(&context).unwrap();
    (0..).find(|n| address(*n) == *picked.address()).unwrap()
}

#[test]
fn tables_are_built_once_for_all_and_never_by_a_pick() {
    let policy = maglev(251);
    let set = EndpointSet::new(equal(4));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let tables = HashTables::new(policy.into(), &set, None, move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let tables = tables.unwrap();
    let mut workers = [(); 2].map(|()| sharing(policy, &set, &tables));
    let alone = picks_of(policy, equal(4), &HASHES);
    for worker in &mut workers {
        let picks: Vec<usize> = HASHES.iter().map(|hash| place(worker, *hash)).collect();
        assert_eq!(picks, alone);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);

    // Somebody falls ill: that is noticed once, and the old table goes on.
    let ill = &set.endpoints()[alone[0]].state;
    ill.set_health(HealthFlag::FailedActive, true);
    for worker in &mut workers {
        assert_eq!(place(worker, HASHES[0]), alone[0]);
        assert_eq!(place(worker, HASHES[0]), alone[0]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    tables.rebuild();
    for worker in &mut workers {
        assert_ne!(place(worker, HASHES[0]), alone[0]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    // A new set comes with its tables; an older one never comes back.
    let smaller = EndpointSet::new(equal(1));
    tables.build(&smaller);
    tables.build(&set);
    for worker in &mut workers {
        worker.update(&set);
        assert_eq!(place(worker, HASHES[3]), 0);
        assert_eq!(worker.set().version(), smaller.version());
    }
}

#[test]
fn how_even_tables_are_can_be_seen() {
    let set = EndpointSet::new(of_weights(&[1, 3]));
    let stats = |policy: LbPolicy| -> Vec<(String, u64)> {
        let registry = Registry::new();
        let scope = registry.scope("cluster.a.");
        let stats = HashStats::register(&policy, &scope);
        let tables = HashTables::new(policy.into(), &set, stats, || {});
        let value = |stat: Stat| match stat.value {
            Value::Gauge(value) => (stat.name, value),
            other => panic!("{other:?}"),
        };
        let stats = registry.snapshot().into_iter().map(value).collect();
        drop(tables);
        stats
    };
    let named = |name: &str, value| (format!("cluster.a.{name}"), value);
    assert_eq!(
        stats(ring(8, 8, HashFunction::XxHash)),
        [
            named("ring_hash_lb.max_hashes_per_host", 6),
            named("ring_hash_lb.min_hashes_per_host", 2),
            named("ring_hash_lb.size", 8),
        ]
    );
    assert_eq!(
        stats(maglev(11)),
        [
            named("maglev_lb.max_entries_per_host", 8),
            named("maglev_lb.min_entries_per_host", 3),
        ]
    );
    assert_eq!(stats(LbPolicy::Random), []);
}

#[test]
fn an_endpoint_that_has_its_share_leaves_the_rest_to_others() {
    let set = EndpointSet::new(equal(4));
    let config = BalanceConfig {
        hash_balance_factor: Some(HashBalanceFactor::new(150).unwrap()),
        ..maglev(251).into()
    };
    let mut balancer = Balancer::new(config, Arc::clone(&set));
    assert!(balancer.needs_active());
    let home = place(&mut balancer, HASHES[0]);
    // 9 run, this is the tenth: 15 slots, 4 for each.
    let others = [(); 3].map(|()| 2);
    set_active(&set, home, 3);
    let rest: Vec<usize> = (0..4).filter(|n| *n != home).collect();
    for (place, active) in rest.iter().zip(others) {
        set_active(&set, *place, active);
    }
    assert_eq!(place(&mut balancer, HASHES[0]), home);
    set_active(&set, home, 30);
    let other = place(&mut balancer, HASHES[0]);
    assert_ne!(other, home);
    assert_eq!(place(&mut balancer, HASHES[0]), other, "always the same");
    // The other is full too: the next one of the hash's own order.
    set_active(&set, other, 30);
    let third = place(&mut balancer, HASHES[0]);
    assert!(third != home && third != other);
    // Whoever knows the number need not have it counted: with 100, there is room.
    let rng = Rng::seeded(1);
    let context = PickContext::new(&rng).hashed(Some(HASHES[0]));
    let picked = balancer.pick(&context.while_active(Some(100))).unwrap();
    assert_eq!(*picked.address(), address(home));
    assert!(HashBalanceFactor::new(99).is_err());
}
