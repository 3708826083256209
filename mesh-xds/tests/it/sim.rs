//! The client against the server, in one thread: a schedule drawn from a seed cuts streams, holds messages
//! up, publishes, and changes what is wanted. When the faults stop, both agree.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use mesh_core::Rng;
use mesh_xds::{
    Event, Rejection,
    ResourceType::{self, Cluster, Endpoints, Listener, RouteConfiguration},
    Subscriber, Variant,
    server::{ConfigStatus, Diff, Peer, Snapshot, TypeSet},
    wire::{Request, Response},
};

use crate::support::{accept, body, content, entry, epoch, ms, subscriber};

const TYPES: [ResourceType; 4] = [Cluster, Endpoints, Listener, RouteConfiguration];

/// Two state machines and the messages between them.
pub(crate) struct World {
    pub(crate) now: Instant,
    variant: Variant,
    rng: Rng,
    pub(crate) client: Subscriber,
    pub(crate) snapshot: Snapshot,
    peer: Option<Peer>,
    up: VecDeque<Request>,
    down: VecDeque<Response>,
    /// What the events said.
    pub(crate) applied: BTreeMap<(ResourceType, String), String>,
    /// Clusters whose endpoints are wanted.
    eds: bool,
    pub(crate) pushes: Vec<ResourceType>,
}

impl World {
    pub(crate) fn new(variant: Variant, seed: u64) -> Self {
        Self {
            now: epoch(),
            variant,
            rng: Rng::seeded(seed),
            client: subscriber(variant),
            snapshot: Snapshot::new(),
            peer: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            applied: BTreeMap::new(),
            eds: true,
            pushes: Vec::new(),
        }
    }

    pub(crate) fn cut(&mut self) {
        self.peer = None;
        self.up.clear();
        self.down.clear();
        self.client.on_disconnected();
    }

    pub(crate) fn connect(&mut self) {
        self.cut();
        self.client.on_connected();
        self.peer = Some(Peer::new(self.variant, None));
    }

    /// Follows the references of what arrived, as a proxy does.
    fn apply(&mut self, mut events: Vec<Event>) {
        while !events.is_empty() {
            let mut more = Vec::new();
            for event in events {
                match event {
                    Event::Updated { ty, resource } => {
                        if ty == Cluster && self.eds {
                            more.extend(self.client.subscribe(self.now, Endpoints, &resource.name));
                        }
                        let content = content(&resource.body);
                        self.applied.insert((ty, resource.name), content);
                    }
                    Event::Removed { ty, name, .. } => {
                        if ty == Cluster && self.eds {
                            self.client.unsubscribe(Endpoints, &name);
                            self.applied.remove(&(Endpoints, name.clone()));
                        }
                        self.applied.remove(&(ty, name));
                    }
                    _ => {}
                }
            }
            events = more;
        }
    }

    /// One message moves, somewhere; false when nothing can.
    pub(crate) fn step(&mut self) -> bool {
        let first = self.rng.below(4);
        (0..4).any(|n| match (first + n) % 4 {
            0 => match self.client.poll_request(self.now) {
                Some(request) => {
                    self.up.push_back(request);
                    true
                }
                None => false,
            },
            1 => match (self.up.pop_front(), &mut self.peer) {
                (Some(request), Some(peer)) => {
                    peer.on_request(self.now, &request);
                    true
                }
                _ => false,
            },
            2 => self.push(),
            _ => match self.down.pop_front() {
                Some(response) => {
                    let events = self.client.on_response(self.now, response, &mut accept);
                    self.apply(events);
                    true
                }
                None => false,
            },
        })
    }

    fn push(&mut self) -> bool {
        let Some(peer) = &mut self.peer else {
            return false;
        };
        let mut differ = |from: &Arc<TypeSet>, to: &Arc<TypeSet>| Arc::new(Diff::between(from, to));
        let Some(push) = peer.poll_push(self.now, &self.snapshot, &mut differ) else {
            return false;
        };
        self.pushes.push(push.ty());
        let bytes = push.encode("sim").to_bytes();
        self.down
            .push_back(Response::decode(self.variant, bytes).unwrap());
        true
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("they talk for ever");
    }

    /// What the client should have in the end. Rejected resources keep what was there, so none is bad then.
    fn expected(&self) -> BTreeMap<(ResourceType, String), String> {
        let mut all = BTreeMap::new();
        for ty in TYPES {
            for entry in self.snapshot.set(ty).entries() {
                let name = entry.name.to_string();
                let wanted = match ty {
                    Cluster | Listener => true,
                    Endpoints => self.snapshot.set(Cluster).get(&name).is_some(),
                    _ => ["r0", "r1"].contains(&name.as_str()),
                };
                if wanted {
                    all.insert((ty, name), content(&entry.body));
                }
            }
        }
        all
    }

    fn publish(&mut self, bad: bool) {
        let ty = TYPES[self.rng.below(4) as usize];
        let prefix = if ty == RouteConfiguration { "r" } else { "c" };
        let mut entries = BTreeMap::new();
        for entry in self.snapshot.set(ty).entries() {
            entries.insert(entry.name.to_string(), entry.clone());
        }
        for _ in 0..=self.rng.below(3) {
            let name = format!("{prefix}{}", self.rng.below(4));
            let text = match self.rng.below(if bad { 4 } else { 3 }) {
                0 => None,
                3 => Some(format!("bad {}", self.rng.below(3))),
                _ => Some(format!("good {}", self.rng.below(3))),
            };
            match text {
                // Endpoints and routes go only with what refers to them: on the wire they cannot.
                None if matches!(ty, Endpoints | RouteConfiguration) => continue,
                None => entries.remove(&name),
                Some(text) => entries.insert(name.clone(), entry(&name, &text)),
            };
        }
        let entries = entries.into_values().collect();
        self.snapshot = std::mem::take(&mut self.snapshot).with(ty, entries);
    }
}

fn converges(variant: Variant, seed: u64) {
    let mut world = World::new(variant, seed);
    world.client.subscribe_all(world.now, Cluster);
    world.client.subscribe_all(world.now, Listener);
    for name in ["r0", "r1"] {
        world.client.subscribe(world.now, RouteConfiguration, name);
    }
    for _ in 0..150 {
        match world.rng.below(20) {
            0 => world.cut(),
            1 | 2 => world.connect(),
            3..=6 => world.publish(true),
            7 => world.now += ms(world.rng.below(12_000)),
            8 => {
                let events = world.client.on_timer(world.now);
                world.apply(events);
            }
            _ => {
                world.step();
            }
        }
    }
    // No more faults, and nothing bad any more.
    for ty in TYPES {
        let entries = world.snapshot.set(ty).entries();
        let healed: Vec<_> = entries
            .map(|e| entry(&e.name, &content(&e.body).replace("bad", "good")))
            .collect();
        world.snapshot = std::mem::take(&mut world.snapshot).with(ty, healed);
    }
    if world.peer.is_none() {
        world.connect();
    }
    world.run();
    // A client that did not acknowledge in time is given up on, but not for ever.
    world.now += ms(11_000);
    world.run();
    assert_eq!(world.applied, world.expected(), "{variant:?}, seed {seed}");
    let unsynced = |world: &World| {
        let mut rows = world.peer.as_ref().unwrap().rows(&world.snapshot);
        rows.retain(|row| row.status != ConfigStatus::Synced);
        rows
    };
    // What came in one response with something bad was not acknowledged; sent once more, it is.
    if !unsynced(&world).is_empty() {
        world.peer.as_mut().unwrap().resync();
        world.run();
    }
    let rows = unsynced(&world);
    assert!(rows.is_empty(), "{variant:?}, seed {seed}: {rows:?}");
    assert_eq!(world.applied, world.expected(), "{variant:?}, seed {seed}");
}

#[test]
fn both_agree_when_the_faults_stop() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        for seed in 0..600 {
            converges(variant, seed);
        }
    }
}

/// No route ever names a cluster that is not there, though the control plane swaps one for
/// another in a single snapshot.
#[test]
fn a_swap_of_clusters_never_leaves_a_route_without_one() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        for seed in 0..200 {
            let mut world = World::new(variant, seed);
            world.client.subscribe_all(world.now, Cluster);
            world.client.subscribe(world.now, RouteConfiguration, "r0");
            let state = |cluster: &str| {
                Snapshot::new()
                    .with(Cluster, vec![entry(cluster, "")])
                    .with(Endpoints, vec![entry(cluster, "")])
                    .with(RouteConfiguration, vec![entry("r0", cluster)])
            };
            world.snapshot = state("old");
            world.connect();
            world.run();
            world.snapshot = state("new");
            while world.step() {
                let route = &world.applied[&(RouteConfiguration, "r0".to_owned())];
                let cluster = (Cluster, route.clone());
                assert!(
                    world.applied.contains_key(&cluster),
                    "{variant:?}, seed {seed}"
                );
            }
            let clusters: BTreeSet<_> = world.applied.keys().filter(|k| k.0 == Cluster).collect();
            assert_eq!(
                clusters.len(),
                1,
                "{variant:?}, seed {seed}: the old one has gone"
            );
            assert_eq!(world.applied[&(RouteConfiguration, "r0".to_owned())], "new");
        }
    }
}

#[test]
fn a_resync_sends_all_again_and_forgets_no_removal() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let mut world = World::new(variant, 1);
        world.client.subscribe_all(world.now, Cluster);
        world.snapshot = Snapshot::new().with(Cluster, vec![entry("a", ""), entry("b", "")]);
        world.connect();
        world.run();
        world.snapshot = Snapshot::new().with(Cluster, vec![entry("a", "")]);
        world.peer.as_mut().unwrap().resync();
        let mut looked = Vec::new();
        world.push();
        let Some(response) = world.down.pop_front() else {
            panic!("nothing was sent");
        };
        // As if it had been lost within the client.
        let mut fresh = subscriber(variant);
        fresh.subscribe_all(world.now, Cluster);
        fresh.on_connected();
        fresh.on_response(
            world.now,
            response.clone(),
            &mut |_: ResourceType, name: &str, body_: &bytes::Bytes| {
                assert_eq!(body_, &body(name, ""));
                looked.push(name.to_owned());
                Ok::<(), Rejection>(())
            },
        );
        assert_eq!(looked, ["a"], "{variant:?}");
        let events = world.client.on_response(world.now, response, &mut accept);
        world.apply(events);
        world.run();
        assert_eq!(world.applied.len(), 1, "{variant:?}");
    }
}
