//! The client against a naive reference, over arbitrary operations: responses that no server should send,
//! repeated and out of order, streams that break. The reference keeps the whole history, and works
//! everything out from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use mesh_xds::{
    ResourceType::{self, Cluster, Endpoints},
    Subscriber, Variant,
    wire::{Request, Response},
};
use proptest::prelude::*;

use crate::support::{accept, content, delta, epoch, requests, subscriber, world};

#[derive(Debug, Clone)]
enum Op {
    Subscribe(u8),
    Unsubscribe(u8),
    SubscribeAll,
    UnsubscribeAll,
    Respond(Vec<(u8, u8)>, Vec<u8>),
    /// One of the responses before, again, on whatever stream there is now.
    Repeat(usize),
    Reconnect,
    Send,
}

fn op() -> impl Strategy<Value = Op> {
    let resources = prop::collection::vec((0u8..4, 0u8..5), 0..4);
    let removed = prop::collection::vec(0u8..4, 0..2);
    prop_oneof![
        3 => (0u8..4).prop_map(Op::Subscribe),
        2 => (0u8..4).prop_map(Op::Unsubscribe),
        1 => Just(Op::SubscribeAll),
        1 => Just(Op::UnsubscribeAll),
        6 => (resources, removed).prop_map(|(a, b)| Op::Respond(a, b)),
        2 => (0usize..8).prop_map(Op::Repeat),
        1 => Just(Op::Reconnect),
        5 => Just(Op::Send),
    ]
}

fn name(n: u8) -> String {
    format!("n{n}")
}

fn text(v: u8) -> String {
    // One in five is bad.
    if v == 4 {
        "bad".to_owned()
    } else {
        format!("v{v}")
    }
}

/// A response as the test thinks of it.
#[derive(Debug, Clone)]
struct Sent {
    version: String,
    nonce: String,
    resources: Vec<(String, String)>,
    removed: Vec<String>,
}

impl Sent {
    fn message(&self, variant: Variant, ty: ResourceType) -> Response {
        let removed: Vec<&str> = self.removed.iter().map(String::as_str).collect();
        match variant {
            Variant::StateOfTheWorld => {
                let all: Vec<_> = self
                    .resources
                    .iter()
                    .map(|(n, t)| (n.as_str(), t.as_str()))
                    .collect();
                world(ty, &self.version, &self.nonce, &all)
            }
            Variant::Delta => {
                let all: Vec<_> = self
                    .resources
                    .iter()
                    .map(|(n, t)| (n.as_str(), t.as_str(), t.as_str()))
                    .collect();
                delta(ty, &self.nonce, &all, &removed)
            }
        }
    }

    fn has_twice(&self, variant: Variant) -> bool {
        let names = self.resources.iter().map(|(name, _)| name);
        let removed: &[String] = if variant == Variant::Delta {
            &self.removed
        } else {
            &[]
        };
        let all: Vec<_> = names.chain(removed).collect();
        all.iter().collect::<BTreeSet<_>>().len() < all.len()
    }
}

/// What a client must hold and say.
struct Reference {
    variant: Variant,
    ty: ResourceType,
    wildcard: bool,
    names: BTreeSet<String>,
    held: BTreeMap<String, String>,
    version: String,
    mixed: bool,
    /// Of this stream.
    nonce: String,
    nacked: bool,
    unanswered: Vec<(String, bool)>,
    told: BTreeSet<String>,
    told_wildcard: bool,
    ever_named: bool,
    started: bool,
}

impl Reference {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn on_response(&mut self, sent: &Sent) {
        let mut bad = sent.has_twice(self.variant);
        let whole = !bad;
        if whole {
            for (name, text) in &sent.resources {
                // What the server was told stays expected until it is told otherwise.
                if !self.wants(name) && !self.told_wildcard && !self.told.contains(name) {
                    continue;
                }
                if text == "bad" {
                    bad = true;
                } else {
                    self.held.insert(name.clone(), text.clone());
                }
            }
            let there = |name: &String| sent.resources.iter().any(|(n, _)| n == name);
            match self.variant {
                Variant::StateOfTheWorld if self.ty == Cluster => {
                    self.held.retain(|name, _| there(name))
                }
                Variant::StateOfTheWorld => {}
                Variant::Delta => {
                    let goes = self.ty == Cluster || self.wildcard;
                    self.held
                        .retain(|name, _| !(goes && sent.removed.contains(name)));
                }
            }
        }
        self.nonce.clone_from(&sent.nonce);
        self.nacked = bad;
        self.unanswered.push((sent.nonce.clone(), bad));
        if bad {
            self.mixed |= whole;
        } else {
            self.version.clone_from(&sent.version);
            self.mixed = false;
        }
    }

    fn on_reconnect(&mut self) {
        self.nonce.clear();
        self.nacked = false;
        self.unanswered.clear();
        self.told.clear();
        self.told_wildcard = false;
        self.ever_named = false;
        self.started = false;
        if self.mixed {
            self.version.clear();
            self.mixed = false;
        }
    }

    /// Everything that the client may say at this moment, and what it must have said by then.
    fn on_requests(&mut self, said: &[Request]) {
        for request in said {
            match request {
                Request::Sotw(r) => {
                    let mut names: Vec<_> = self.names.iter().cloned().collect();
                    if self.wildcard && (self.ever_named || !names.is_empty()) {
                        names.insert(0, "*".to_owned());
                    }
                    self.ever_named |= !names.is_empty();
                    assert_eq!(r.resource_names, names);
                    assert_eq!(r.response_nonce, self.nonce);
                    assert_eq!(r.version_info, self.version);
                    assert_eq!(r.error_detail.is_some(), std::mem::take(&mut self.nacked));
                    self.told.clone_from(&self.names);
                    self.told_wildcard = self.wildcard;
                    self.unanswered.clear();
                }
                Request::Delta(r) => self.on_delta_request(r),
            }
            self.started = true;
        }
        if !said.is_empty() {
            let (wildcard, names) = (self.wildcard, &self.names);
            self.held.retain(|name, _| wildcard || names.contains(name));
        }
        self.all_was_said();
    }

    fn on_delta_request(&mut self, r: &mesh_xds::wire::DeltaDiscoveryRequest) {
        if self.started {
            assert!(r.initial_resource_versions.is_empty());
        } else {
            let held = self.held.iter().filter(|(name, _)| self.wants(name));
            let held: BTreeMap<_, _> = held.map(|(n, v)| (n.clone(), v.clone())).collect();
            assert_eq!(
                r.initial_resource_versions
                    .clone()
                    .into_iter()
                    .collect::<BTreeMap<_, _>>(),
                held
            );
            if r.resource_names_subscribe.is_empty() {
                self.told_wildcard = true;
            }
        }
        if r.response_nonce.is_empty() {
            assert!(r.error_detail.is_none());
        } else {
            let (nonce, bad) = self.unanswered.remove(0);
            assert_eq!((&r.response_nonce, r.error_detail.is_some()), (&nonce, bad));
        }
        for name in &r.resource_names_unsubscribe {
            let knew = if name == "*" {
                std::mem::take(&mut self.told_wildcard)
            } else {
                self.told.remove(name)
            };
            assert!(knew, "{name} was not subscribed to");
        }
        for name in &r.resource_names_subscribe {
            match name.as_str() {
                "*" => self.told_wildcard = true,
                name => assert!(self.told.insert(name.to_owned()), "{name} twice"),
            }
        }
    }

    fn all_was_said(&self) {
        // A state-of-the-world client cannot take a wildcard back that it never named.
        let stuck = self.variant == Variant::StateOfTheWorld
            && self.names.is_empty()
            && !self.wildcard
            && !self.ever_named;
        let silent = !self.started && self.names.is_empty() && !self.wildcard;
        if stuck || silent {
            return;
        }
        assert!(self.unanswered.is_empty(), "{:?}", self.unanswered);
        assert_eq!(
            (&self.told, self.told_wildcard),
            (&self.names, self.wildcard)
        );
    }
}

fn compare(client: &Subscriber, reference: &Reference) {
    let held: BTreeMap<_, _> = client
        .all_held(reference.ty)
        .into_iter()
        .map(|r| (r.name, content(&r.body)))
        .collect();
    assert_eq!(held, reference.held);
}

fn run(variant: Variant, ty: ResourceType, ops: Vec<Op>) {
    let now: Instant = epoch();
    let mut client = subscriber(variant);
    let mut reference = Reference {
        variant,
        ty,
        wildcard: false,
        names: BTreeSet::new(),
        held: BTreeMap::new(),
        version: String::new(),
        mixed: false,
        nonce: String::new(),
        nacked: false,
        unanswered: Vec::new(),
        told: BTreeSet::new(),
        told_wildcard: false,
        ever_named: false,
        started: false,
    };
    client.on_connected();
    let mut log: Vec<Sent> = Vec::new();
    // A type that nobody ever wanted is not spoken of; the reference starts with the first wish.
    let mut spoken = false;
    for (n, op) in ops.into_iter().enumerate() {
        match op {
            Op::Subscribe(i) => {
                spoken = true;
                client.subscribe(now, ty, &name(i));
                reference.names.insert(name(i));
            }
            Op::Unsubscribe(i) if spoken => {
                client.unsubscribe(ty, &name(i));
                reference.names.remove(&name(i));
            }
            Op::SubscribeAll => {
                spoken = true;
                client.subscribe_all(now, ty);
                reference.wildcard = true;
            }
            Op::UnsubscribeAll if spoken => {
                client.unsubscribe_all(ty);
                reference.wildcard = false;
            }
            Op::Respond(resources, removed) if spoken && reference.started => {
                let sent = Sent {
                    version: format!("version {n}"),
                    nonce: format!("nonce {n}"),
                    resources: resources
                        .into_iter()
                        .map(|(i, v)| (name(i), text(v)))
                        .collect(),
                    removed: removed.into_iter().map(name).collect(),
                };
                client.on_response(now, sent.message(variant, ty), &mut accept);
                reference.on_response(&sent);
                log.push(sent);
            }
            Op::Repeat(i) if !log.is_empty() && reference.started => {
                let sent = log[i % log.len()].clone();
                client.on_response(now, sent.message(variant, ty), &mut accept);
                reference.on_response(&sent);
            }
            Op::Reconnect => {
                client.on_connected();
                reference.on_reconnect();
            }
            Op::Send => {
                let said = requests(now, &mut client);
                reference.on_requests(&said);
            }
            _ => {}
        }
        compare(&client, &reference);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn model_sotw_clusters(ops in prop::collection::vec(op(), 1..50)) {
        run(Variant::StateOfTheWorld, Cluster, ops);
    }

    #[test]
    fn model_sotw_endpoints(ops in prop::collection::vec(op(), 1..50)) {
        run(Variant::StateOfTheWorld, Endpoints, ops);
    }

    #[test]
    fn model_delta_clusters(ops in prop::collection::vec(op(), 1..50)) {
        run(Variant::Delta, Cluster, ops);
    }

    #[test]
    fn model_delta_endpoints(ops in prop::collection::vec(op(), 1..50)) {
        run(Variant::Delta, Endpoints, ops);
    }
}
