//! What registries know, made into snapshots; or refused, and then what was published stays.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mesh_config::language::ConfigError;
use mesh_xds::{
    ResourceType,
    server::{Entry, Snapshot, SnapshotCache},
};

use crate::{
    build::{self, Built, Groups},
    check::Checker,
    mesh::{Endpoint, Mesh},
    registry::{EVERYBODY, Knowledge},
};

/// The most groups of connected nodes that nobody knows; nodes of more get nothing.
const STRANGERS_MAX: usize = 10_000;

/// What is published, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// Counts up with each publication that changed something; 0 before the first.
    pub version: u64,
    /// Groups of nodes that have resources of their own.
    pub groups: usize,
    /// Resources of all groups together.
    pub resources: usize,
}

/// Publishes what it is told, if it is good.
#[derive(Debug)]
pub struct Publisher {
    cache: SnapshotCache,
    checker: Checker,
    /// What was accepted last of each registry.
    knowledge: BTreeMap<usize, Knowledge>,
    /// The resources of each published group, as they are told apart.
    groups: HashMap<String, Vec<(ResourceType, Entry)>>,
    /// For groups that nobody knows.
    everybody: Vec<Built>,
    /// Groups of connected nodes that nobody knows.
    strangers: BTreeSet<String>,
    published: Published,
}

impl Publisher {
    /// Publishes to `cache`.
    #[must_use]
    pub fn new(cache: SnapshotCache, checker: Checker) -> Self {
        Self {
            cache,
            checker,
            knowledge: BTreeMap::new(),
            groups: HashMap::new(),
            everybody: Vec::new(),
            strangers: BTreeSet::new(),
            published: Published::default(),
        }
    }

    /// What is published.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The meshes that are published, and the endpoints that came to them.
    #[must_use]
    pub fn meshes(&self) -> (Vec<Arc<Mesh>>, BTreeMap<String, Vec<Endpoint>>) {
        let mut meshes = Vec::new();
        let mut endpoints: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
        for knowledge in self.knowledge.values() {
            match knowledge {
                Knowledge::Mesh(mesh) => meshes.push(Arc::clone(mesh)),
                Knowledge::Resources(_) => {}
                Knowledge::Endpoints(more) => {
                    for (service, more) in more.iter() {
                        let all = endpoints.entry(service.clone()).or_default();
                        all.extend(more.iter().cloned());
                    }
                }
            }
        }
        (meshes, endpoints)
    }

    /// The registry of that number knows this now.
    ///
    /// # Errors
    /// When the whole would not be good with it. Then it is as if it had not been said.
    pub fn update(&mut self, registry: usize, news: Knowledge) -> Result<(), Vec<ConfigError>> {
        let before = self.knowledge.insert(registry, news);
        let groups = self.build();
        if let Err(errors) = self.checker.check(&groups) {
            match before {
                Some(before) => self.knowledge.insert(registry, before),
                None => self.knowledge.remove(&registry),
            };
            return Err(errors);
        }
        self.publish(groups);
        Ok(())
    }

    /// A node has connected: if nobody knows its group, it gets what everybody gets. Says whether it is known.
    pub fn on_group(&mut self, group: &str) -> bool {
        if self.groups.contains_key(group) {
            return true;
        }
        let room = self.strangers.len() < STRANGERS_MAX;
        if room && self.strangers.insert(group.to_owned()) && !self.everybody.is_empty() {
            self.cache.set_snapshot(group, snapshot(&self.everybody));
        }
        false
    }

    /// These groups have nodes that are connected; others that nobody knows are forgotten.
    pub fn on_connected(&mut self, groups: &BTreeSet<String>) {
        self.strangers.retain(|group| {
            let stays = groups.contains(group);
            if !stays {
                self.cache.clear_snapshot(group);
            }
            stays
        });
    }

    fn build(&self) -> Groups {
        let mut groups = Groups::new();
        let (meshes, endpoints) = self.meshes();
        for mesh in meshes {
            for (group, resources) in build::groups(&mesh, &endpoints) {
                groups.entry(group).or_default().extend(resources);
            }
        }
        for knowledge in self.knowledge.values() {
            if let Knowledge::Resources(resources) = knowledge {
                for (group, resources) in resources.iter() {
                    let all = groups.entry(group.clone()).or_default();
                    all.extend(resources.iter().cloned());
                }
            }
        }
        if let Some(everybody) = groups.get(EVERYBODY).cloned() {
            for (group, resources) in &mut groups {
                if group != EVERYBODY {
                    resources.extend(everybody.iter().cloned());
                }
            }
        }
        groups
    }

    fn publish(&mut self, mut groups: Groups) {
        self.everybody = groups.remove(EVERYBODY).unwrap_or_default();
        self.published.resources = groups.values().map(Vec::len).sum();
        let mut changed = false;
        for (group, resources) in &groups {
            self.strangers.remove(group);
            let entries: Vec<_> = resources.iter().map(|b| (b.ty, b.entry.clone())).collect();
            if self.groups.get(group) != Some(&entries) {
                self.cache.set_snapshot(group, snapshot(resources));
                self.groups.insert(group.clone(), entries);
                changed = true;
            }
        }
        let gone = self
            .groups
            .keys()
            .filter(|group| !groups.contains_key(*group));
        let gone: Vec<String> = gone.cloned().collect();
        for group in gone {
            // Its nodes keep what they have until they are told something else.
            self.groups.remove(&group);
            self.strangers.insert(group);
            changed = true;
        }
        for group in &self.strangers {
            if !self.everybody.is_empty() {
                self.cache.set_snapshot(group, snapshot(&self.everybody));
            }
        }
        self.published.groups = groups.len();
        if changed || self.published.version == 0 {
            self.published.version += 1;
        }
    }
}

fn snapshot(resources: &[Built]) -> Snapshot {
    let mut types: BTreeMap<ResourceType, Vec<Entry>> = BTreeMap::new();
    for built in resources {
        types.entry(built.ty).or_default().push(built.entry.clone());
    }
    types
        .into_iter()
        .fold(Snapshot::new(), |snapshot, (ty, entries)| {
            snapshot.with(ty, entries)
        })
}
