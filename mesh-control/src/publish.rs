//! What registries know, made into snapshots; or refused, and then what was published stays.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use mesh_config::language::{ConfigError, Problem, ProblemKind};
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
    /// What each registry said last, if that was refused: it may be good together with what others say next.
    pending: BTreeMap<usize, Knowledge>,
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
            pending: BTreeMap::new(),
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
        meshes(&self.knowledge)
    }

    /// The registry of that number knows this now. Says whose news are published with that: its own, and those
    /// of others that were refused before and are good now.
    ///
    /// # Errors
    /// When the whole would not be good with it. Then what was published stays, and this is tried again when
    /// another registry has news.
    pub fn update(
        &mut self,
        registry: usize,
        news: Knowledge,
    ) -> Result<BTreeSet<usize>, Vec<ConfigError>> {
        self.pending.insert(registry, news);
        // All together first: what moves from one registry to another is then never missing.
        let all = self.waiting();
        if all.len() > 1 && self.attempt(&all).is_ok() {
            return Ok(all);
        }
        let mut taken = BTreeSet::from([registry]);
        if let Err(errors) = self.attempt(&taken) {
            let mut pairs = all.iter().map(|other| BTreeSet::from([registry, *other]));
            let pair = pairs.find(|pair| pair.len() > 1 && self.attempt(pair).is_ok());
            taken = pair.ok_or(errors)?;
        }
        // Each that is taken may be what another waits for.
        loop {
            let waiting = self.waiting();
            let alone = |one: &usize| self.attempt(&[*one].into()).is_ok();
            let Some(more) = waiting.into_iter().find(alone) else {
                return Ok(taken);
            };
            taken.insert(more);
        }
    }

    /// What the registry said last is not what it says now; if it waits to be published, it waits no longer.
    pub fn forget(&mut self, registry: usize) {
        self.pending.remove(&registry);
    }

    fn waiting(&self) -> BTreeSet<usize> {
        self.pending.keys().copied().collect()
    }

    /// Publishes what waits of these registries if it is good, all of it or nothing.
    fn attempt(&mut self, registries: &BTreeSet<usize>) -> Result<(), Vec<ConfigError>> {
        let mut knowledge = self.knowledge.clone();
        let news = self.pending.iter();
        let news = news.filter(|(registry, _)| registries.contains(registry));
        knowledge.extend(news.map(|(registry, news)| (*registry, news.clone())));
        let checker = &mut self.checker;
        let groups = caught(|| {
            let groups = build(&knowledge);
            checker.check(&groups).map(|()| groups)
        })?;
        self.knowledge = knowledge;
        self.pending
            .retain(|registry, _| !registries.contains(registry));
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

    /// These groups have nodes that are connected. Others that nobody knows are forgotten.
    pub fn on_connected(&mut self, groups: &BTreeSet<String>) {
        self.strangers.retain(|group| {
            let stays = groups.contains(group);
            if !stays {
                self.cache.clear_snapshot(group);
            }
            stays
        });
        // Of those that came all at once some may not have been told.
        for group in groups {
            self.on_group(group);
        }
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

fn meshes(
    knowledge: &BTreeMap<usize, Knowledge>,
) -> (Vec<Arc<Mesh>>, BTreeMap<String, Vec<Endpoint>>) {
    let mut meshes = Vec::new();
    let mut endpoints: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
    for knowledge in knowledge.values() {
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

fn build(knowledge: &BTreeMap<usize, Knowledge>) -> Groups {
    let mut groups = Groups::new();
    let (meshes, endpoints) = meshes(knowledge);
    for mesh in meshes {
        for (group, resources) in build::groups(&mesh, &endpoints) {
            groups.entry(group).or_default().extend(resources);
        }
    }
    for knowledge in knowledge.values() {
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

/// What `work` gives. A panic in it is a bug, and refused like anything that is wrong: the control plane goes on.
pub(crate) fn caught<T>(
    work: impl FnOnce() -> Result<T, Vec<ConfigError>>,
) -> Result<T, Vec<ConfigError>> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let reason = format!(
            "a bug of the control plane: {}",
            text.as_deref().unwrap_or("a panic")
        );
        let problem = Problem {
            kind: ProblemKind::Invalid,
            path: String::new(),
            position: None,
            reason,
        };
        Err(vec![ConfigError::new("mesh-control", problem)])
    })
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

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn a_panic_while_building_is_a_refusal() {
        let told = caught::<()>(|| panic!("no {}", "way"));
        let text = told.expect_err("refused")[0].to_string();
        assert!(
            text.ends_with("a bug of the control plane: no way"),
            "{text}"
        );
        assert_eq!(caught(|| Ok(1)).ok(), Some(1));
    }
}
