//! What waits for what.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use mesh_xds::{
    ResourceType::{self, Cluster, Endpoints, Listener, RouteConfiguration},
    warming::{Key, Step, Warming},
};
use proptest::prelude::*;

use crate::support::{epoch, ms};

fn key(ty: ResourceType, name: &str) -> Key {
    (ty, name.to_owned())
}

fn told(steps: &[Step<u32>]) -> Vec<String> {
    let one = |step: &Step<u32>| match step {
        Step::Activate {
            key,
            value,
            without,
        } => {
            let lacks: Vec<_> = without
                .iter()
                .map(|k| format!(" without {} {}", k.0, k.1))
                .collect();
            format!("{} {} {value}{}", key.0, key.1, lacks.concat())
        }
        Step::Retire { key } => format!("retire {} {}", key.0, key.1),
    };
    steps.iter().map(one).collect()
}

#[test]
fn a_listener_waits_for_its_routes_they_for_clusters_and_those_for_endpoints() {
    let now = epoch();
    let mut warming = Warming::new();
    let (c, e, r) = (
        key(Cluster, "c"),
        key(Endpoints, "c"),
        key(RouteConfiguration, "r"),
    );
    assert!(
        warming
            .update(now, key(Listener, "l"), 1, [r.clone()], None)
            .is_empty()
    );
    assert!(
        warming
            .update(now, c.clone(), 1, [e.clone()], None)
            .is_empty()
    );
    assert!(
        warming
            .update(now, r.clone(), 1, [c.clone()], None)
            .is_empty()
    );
    let missing: Vec<_> = warming
        .waiting()
        .into_iter()
        .map(|w| (w.key.0, w.missing))
        .collect();
    assert_eq!(
        missing,
        [
            (Cluster, vec![e.clone()]),
            (Listener, vec![r]),
            (RouteConfiguration, vec![c])
        ]
    );
    let steps = warming.update(now, e, 1, [], None);
    assert_eq!(told(&steps), ["eds c 1", "cds c 1", "rds r 1", "lds l 1"]);
    assert!(warming.waiting().is_empty());
}

#[test]
fn a_new_version_warms_beside_the_one_in_use() {
    let now = epoch();
    let mut warming = Warming::new();
    let listener = key(Listener, "l");
    warming.update(now, listener.clone(), 1, [], None);
    let deadline = now + ms(15_000);
    let needs = [key(Cluster, "new")];
    assert!(
        warming
            .update(now, listener.clone(), 2, needs, Some(deadline))
            .is_empty()
    );
    assert!(warming.is_active(&listener) && warming.waiting()[0].has_active);
    // Another listener is not held up by it.
    assert_eq!(
        told(&warming.update(now, key(Listener, "m"), 1, [], None)),
        ["lds m 1"]
    );
    assert_eq!(warming.next_deadline(), Some(deadline));
    assert!(warming.on_deadline(now + ms(14_999)).is_empty());
    assert_eq!(
        told(&warming.on_deadline(deadline)),
        ["lds l 2 without cds new"]
    );
}

#[test]
fn what_does_not_exist_is_not_waited_for() {
    let now = epoch();
    let mut warming = Warming::new();
    warming.update(
        now,
        key(RouteConfiguration, "r"),
        1,
        [key(Endpoints, "e")],
        None,
    );
    assert_eq!(
        told(&warming.on_absent(now, key(Endpoints, "e"))),
        ["rds r 1"]
    );
    // It is forgotten again: the next one waits.
    assert!(
        warming
            .update(
                now,
                key(RouteConfiguration, "s"),
                1,
                [key(Endpoints, "e")],
                None
            )
            .is_empty()
    );
}

#[test]
fn a_removed_cluster_stays_until_no_route_needs_it() {
    let now = epoch();
    let mut warming = Warming::new();
    let (old, new, routes) = (
        key(Cluster, "old"),
        key(Cluster, "new"),
        key(RouteConfiguration, "r"),
    );
    warming.update(now, old.clone(), 1, [], None);
    warming.update(now, routes.clone(), 1, [old.clone()], None);
    assert!(warming.remove(now, &old, Some(now + ms(5_000))).is_empty());
    warming.update(now, new.clone(), 1, [], None);
    let steps = warming.update(now, routes, 2, [new.clone()], None);
    assert_eq!(told(&steps), ["rds r 2", "retire cds old"]);
    // And not for ever, if the control plane leaves a route behind.
    assert!(warming.remove(now, &new, Some(now + ms(5_000))).is_empty());
    assert_eq!(
        told(&warming.on_deadline(now + ms(5_000))),
        ["retire cds new"]
    );
}

#[test]
fn a_cluster_that_comes_back_is_not_retired() {
    let now = epoch();
    let mut warming = Warming::new();
    let c = key(Cluster, "c");
    warming.update(now, c.clone(), 1, [], None);
    warming.update(now, key(RouteConfiguration, "r"), 1, [c.clone()], None);
    warming.remove(now, &c, Some(now + ms(10)));
    assert_eq!(
        told(&warming.update(now, c.clone(), 2, [], None)),
        ["cds c 2"]
    );
    assert!(warming.on_deadline(now + ms(20)).is_empty() && warming.is_active(&c));
}

/// In the order of who needs whom.
const TYPES: [ResourceType; 4] = [Endpoints, Cluster, RouteConfiguration, Listener];

#[derive(Debug, Clone)]
enum Op {
    Update(usize, u8, Vec<(usize, u8)>, Option<u64>),
    Remove(usize, u8, Option<u64>),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let needs = prop::collection::vec((0usize..4, 0u8..3), 0..3);
    let deadline = || prop::option::of(1u64..50);
    prop_oneof![
        4 => (0usize..4, 0u8..3, needs, deadline()).prop_map(|(t, n, d, w)| Op::Update(t, n, d, w)),
        2 => (0usize..4, 0u8..3, deadline()).prop_map(|(t, n, w)| Op::Remove(t, n, w)),
        1 => (1u64..60).prop_map(Op::Wait),
    ]
}

fn name(n: u8) -> String {
    char::from(b'a' + n).to_string()
}

/// What the owner does with the steps, and what must hold of it: the version in use is always one that was
/// given, in order, and nothing is used before what it needs, unless it says so.
#[derive(Default)]
struct Owner {
    used: BTreeMap<Key, (u32, BTreeSet<Key>)>,
}

impl Owner {
    fn apply(&mut self, steps: Vec<Step<u32>>, needs: &BTreeMap<(Key, u32), BTreeSet<Key>>) {
        for step in steps {
            match step {
                Step::Activate {
                    key,
                    value,
                    without,
                } => {
                    let needs = &needs[&(key.clone(), value)];
                    for need in needs {
                        let lacks = without.contains(need);
                        assert_ne!(
                            lacks,
                            self.used.contains_key(need),
                            "{key:?} needs {need:?}"
                        );
                    }
                    let before = self.used.insert(key, (value, needs.clone()));
                    assert!(before.is_none_or(|(old, _)| old < value));
                }
                Step::Retire { key } => assert!(self.used.remove(&key).is_some(), "{key:?}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn model_warming(ops in prop::collection::vec(op(), 1..60)) {
        let start = epoch();
        let mut now: Instant = start;
        let mut warming = Warming::new();
        let mut owner = Owner::default();
        let mut needs = BTreeMap::new();
        let mut wanted: BTreeMap<Key, u32> = BTreeMap::new();
        for (version, op) in (0u32..).zip(ops) {
            let steps = match op {
                Op::Update(t, n, d, wait) => {
                    let key = key(TYPES[t], &name(n));
                    let of: BTreeSet<Key> = d
                        .into_iter()
                        .filter(|(below, _)| *below < t)
                        .map(|(t, n)| (TYPES[t], name(n)))
                        .collect();
                    needs.insert((key.clone(), version), of.clone());
                    wanted.insert(key.clone(), version);
                    let deadline = wait.map(|wait| now + ms(wait));
                    warming.update(now, key, version, of, deadline)
                }
                Op::Remove(t, n, wait) => {
                    let key = key(TYPES[t], &name(n));
                    wanted.remove(&key);
                    warming.remove(now, &key, wait.map(|wait| now + ms(wait)))
                }
                Op::Wait(n) => {
                    now += ms(n);
                    warming.on_deadline(now)
                }
            };
            owner.apply(steps, &needs);
            for waiting in warming.waiting() {
                prop_assert!(!waiting.missing.is_empty(), "{waiting:?} waits for nothing");
                prop_assert!(waiting.deadline.is_none_or(|at| at > now));
            }
        }
        // Give everything that is waited for, and let all deadlines pass: what is wanted is in use.
        for ty in TYPES {
            for n in 0..3 {
                let key = key(ty, &name(n));
                if let std::collections::btree_map::Entry::Vacant(vacant) = wanted.entry(key.clone()) {
                    vacant.insert(u32::MAX);
                    needs.insert((key.clone(), u32::MAX), BTreeSet::new());
                    owner.apply(warming.update(now, key, u32::MAX, [], None), &needs);
                }
            }
        }
        owner.apply(warming.on_deadline(now + ms(100)), &needs);
        prop_assert!(warming.waiting().is_empty());
        let used: BTreeMap<Key, u32> = owner.used.into_iter().map(|(k, (v, _))| (k, v)).collect();
        prop_assert_eq!(used, wanted);
    }
}
