//! The server against a naive client, which keeps a list of what it was sent and follows only the rules of
//! the wire. Requests are repeated and answers go missing; the stream may break. Whatever happened, once
//! it answers properly it ends up with exactly what is published of what it wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use mesh_xds::{
    ResourceType::{self, Cluster, Endpoints},
    Variant,
    server::{Diff, Peer, Snapshot, TypeSet},
    wire::{DeltaDiscoveryRequest, DiscoveryRequest, Request, Response, Status},
};
use proptest::prelude::*;

use crate::support::{content, entry, epoch, ms, node};

#[derive(Debug, Clone)]
enum Op {
    Publish(Vec<(u8, u8)>),
    Want(BTreeSet<u8>),
    /// Take the next response, and answer it (or not), with an error (or not).
    Take {
        answer: bool,
        error: bool,
    },
    /// The last request arrives a second time.
    Twice,
    Reconnect,
    Wait,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::collection::vec((0u8..4, 0u8..3), 0..4).prop_map(Op::Publish),
        2 => prop::collection::btree_set(0u8..5, 1..4).prop_map(Op::Want),
        6 => (prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(|(answer, error)| Op::Take { answer, error }),
        1 => Just(Op::Twice),
        1 => Just(Op::Reconnect),
        1 => Just(Op::Wait),
    ]
}

fn name(n: u8) -> String {
    format!("n{n}")
}

struct Naive {
    now: Instant,
    variant: Variant,
    ty: ResourceType,
    peer: Peer,
    snapshot: Snapshot,
    /// Empty stands for the wildcard.
    wanted: BTreeSet<String>,
    held: BTreeMap<String, (String, String)>,
    last: Option<Request>,
    version: String,
    nonce: String,
}

impl Naive {
    fn send(&mut self, request: Request) {
        self.peer.on_request(self.now, &request);
        self.last = Some(request);
    }

    fn say(&mut self, nonce: String, add: &BTreeSet<String>, drop: &BTreeSet<String>, error: bool) {
        let first = self.last.is_none();
        let error_detail = error.then(|| Status {
            code: 13,
            message: "no".to_owned(),
        });
        let (node, type_url) = (Some(node("n")), self.ty.type_url().to_owned());
        let request = match self.variant {
            Variant::StateOfTheWorld => Request::Sotw(DiscoveryRequest {
                version_info: self.version.clone(),
                node,
                resource_names: self.wanted.iter().cloned().collect(),
                type_url,
                response_nonce: nonce,
                error_detail,
            }),
            Variant::Delta => {
                let held = self
                    .held
                    .iter()
                    .map(|(name, (version, _))| (name.clone(), version.clone()));
                Request::Delta(DeltaDiscoveryRequest {
                    node,
                    type_url,
                    resource_names_subscribe: add.iter().cloned().collect(),
                    resource_names_unsubscribe: drop.iter().cloned().collect(),
                    initial_resource_versions: if first {
                        held.collect()
                    } else {
                        Default::default()
                    },
                    response_nonce: nonce,
                    error_detail,
                })
            }
        };
        self.send(request);
    }

    fn connect(&mut self) {
        self.peer = Peer::new(self.variant, None);
        self.last = None;
        self.nonce.clear();
        let wanted = self.wanted.clone();
        self.say(String::new(), &wanted, &BTreeSet::new(), false);
    }

    fn want(&mut self, wanted: BTreeSet<String>) {
        if self.wanted.is_empty() {
            return; // the wildcard stays
        }
        let add = wanted.difference(&self.wanted).cloned().collect();
        let drop: BTreeSet<String> = self.wanted.difference(&wanted).cloned().collect();
        self.held.retain(|name, _| !drop.contains(name));
        self.wanted = wanted;
        let nonce = if self.variant == Variant::Delta {
            String::new()
        } else {
            self.nonce.clone()
        };
        self.say(nonce, &add, &drop, false);
    }

    fn take(&mut self, answer: bool, error: bool) -> bool {
        // Who rejects says so.
        let error = error && answer;
        let mut differ = |from: &Arc<TypeSet>, to: &Arc<TypeSet>| Arc::new(Diff::between(from, to));
        let Some(push) = self.peer.poll_push(self.now, &self.snapshot, &mut differ) else {
            return false;
        };
        let bytes = push.encode("").to_bytes();
        let (mut came, mut gone) = (Vec::new(), Vec::new());
        let (nonce, version) = match Response::decode(self.variant, bytes).unwrap() {
            Response::Sotw(r) => {
                for any in r.resources {
                    let name = mesh_xds::name_of(&any.value).unwrap();
                    came.push((name, r.version_info.clone(), content(&any.value)));
                }
                if self.ty == Cluster {
                    gone = self.held.keys().cloned().collect();
                }
                (r.nonce, r.version_info)
            }
            Response::Delta(r) => {
                for resource in r.resources {
                    let text = content(&resource.resource.unwrap().value);
                    came.push((resource.name, resource.version, text));
                }
                gone = r.removed_resources;
                (r.nonce, String::new())
            }
        };
        let names: BTreeSet<_> = came.iter().map(|(name, ..)| name.clone()).collect();
        assert_eq!(names.len(), came.len(), "a name came twice");
        // An error means that nothing of it was taken.
        if !error {
            gone.iter().for_each(|name| drop(self.held.remove(name)));
            for (name, version, text) in came {
                assert!(
                    self.wanted.is_empty() || self.wanted.contains(&name),
                    "{name} unasked for"
                );
                self.held.insert(name, (version, text));
            }
            self.version = version;
        }
        self.nonce.clone_from(&nonce);
        if answer {
            self.say(nonce, &BTreeSet::new(), &BTreeSet::new(), error);
        }
        true
    }

    fn expected(&self) -> BTreeMap<String, String> {
        let set = self.snapshot.set(self.ty);
        let entries = set
            .entries()
            .filter(|e| self.wanted.is_empty() || self.wanted.contains(&*e.name));
        entries
            .map(|e| (e.name.to_string(), content(&e.body)))
            .collect()
    }
}

fn run(variant: Variant, ty: ResourceType, wildcard: bool, ops: Vec<Op>) {
    let wanted = if wildcard {
        BTreeSet::new()
    } else {
        BTreeSet::from([name(0), name(1)])
    };
    let mut naive = Naive {
        now: epoch(),
        variant,
        ty,
        peer: Peer::new(variant, None),
        snapshot: Snapshot::new(),
        wanted,
        held: BTreeMap::new(),
        last: None,
        version: String::new(),
        nonce: String::new(),
    };
    naive.connect();
    for op in ops {
        match op {
            Op::Publish(pairs) => {
                let pairs: BTreeMap<u8, u8> = pairs.into_iter().collect();
                let entries = pairs
                    .iter()
                    .map(|(n, v)| entry(&name(*n), &v.to_string()))
                    .collect();
                naive.snapshot = std::mem::take(&mut naive.snapshot).with(ty, entries);
            }
            Op::Want(names) => naive.want(names.into_iter().map(name).collect()),
            Op::Take { answer, error } => drop(naive.take(answer, error)),
            Op::Twice => {
                let last = naive.last.clone().unwrap();
                naive.peer.on_request(naive.now, &last);
            }
            Op::Reconnect => naive.connect(),
            Op::Wait => naive.now += ms(10_000),
        }
    }
    // From now on it answers as it should. What it had rejected comes with the next version only.
    let entries = (0..3).map(|n| entry(&name(n), "healed")).collect();
    naive.snapshot = std::mem::take(&mut naive.snapshot).with(ty, entries);
    naive.now += ms(10_000);
    let mut left = 100;
    while naive.take(true, false) {
        left -= 1;
        assert!(left > 0, "it talks for ever");
    }
    let held: BTreeMap<String, String> = naive
        .held
        .iter()
        .map(|(name, (_, text))| (name.clone(), text.clone()))
        .collect();
    let mut expected = naive.expected();
    if ty == Endpoints && variant == Variant::StateOfTheWorld {
        // It cannot be told that endpoints are gone; it may hold more.
        expected.extend(
            held.clone()
                .into_iter()
                .filter(|(name, _)| naive.snapshot.set(ty).get(name).is_none()),
        );
    }
    assert_eq!(held, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn model_sotw_all_clusters(ops in prop::collection::vec(op(), 1..40)) {
        run(Variant::StateOfTheWorld, Cluster, true, ops);
    }

    #[test]
    fn model_sotw_named_clusters(ops in prop::collection::vec(op(), 1..40)) {
        run(Variant::StateOfTheWorld, Cluster, false, ops);
    }

    #[test]
    fn model_sotw_named_endpoints(ops in prop::collection::vec(op(), 1..40)) {
        run(Variant::StateOfTheWorld, Endpoints, false, ops);
    }

    #[test]
    fn model_delta_all_clusters(ops in prop::collection::vec(op(), 1..40)) {
        run(Variant::Delta, Cluster, true, ops);
    }

    #[test]
    fn model_delta_named_endpoints(ops in prop::collection::vec(op(), 1..40)) {
        run(Variant::Delta, Endpoints, false, ops);
    }
}
