use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use envoy_types::pb::envoy::config::{core::v3::Node, route::v3::RouteConfiguration};
use mesh_balance::BalanceConfig;
use mesh_core::runtime::RuntimeValue;
use prost::Message;

use super::{
    Checked, Key, Kind, Needs,
    part::{self, Part, RoutesPart},
};
use crate::{
    LoadOptions,
    convert::resource::{Assignment, Frame},
    language::{ConfigError, Language, Loaded, Source, load_bootstrap},
    model::{Cluster, Config, ConnectionManager, Discovery, Listener, NetworkFilter, Secret},
};

/// A part that is right on its own and could not be put together with the rest. What was there before stays.
#[derive(Debug)]
pub struct Misfit {
    /// The listener's name.
    pub listener: String,
    /// Why.
    pub error: ConfigError,
}

/// What another config differs in from the one before.
#[derive(Debug)]
pub enum Change {
    /// In the endpoints of these clusters alone.
    Endpoints(Vec<Arc<Cluster>>),
    /// Anything: this is the whole, and what could not be put together with it.
    Whole(Box<Config>, Vec<Misfit>),
}

/// The static bootstrap, and what came to it.
#[derive(Debug)]
pub struct Assembly {
    /// The bootstrap's own.
    base: Config,
    node: Node,
    frame: Frame,
    language: Language,
    /// Of whole conversions of parts that were checked.
    known: Loaded,
    strict: bool,
    clusters: BTreeMap<String, ClusterPart>,
    assignments: BTreeMap<String, Arc<Assignment>>,
    listeners: BTreeMap<String, Live>,
    routes: BTreeMap<String, Arc<RoutesPart>>,
    secrets: BTreeMap<Arc<str>, Arc<Secret>>,
    /// For what came on its own: the names of the clusters or listeners that it is a part of.
    users: BTreeMap<Key, BTreeSet<String>>,
    /// Clusters and listeners to be put together again.
    changed: BTreeSet<Key>,
    /// Something else than endpoints is not what it was.
    reshaped: bool,
    hashes: BTreeMap<Key, u64>,
    /// What all hashes come to.
    came: u64,
    own: Vec<Checked>,
}

#[derive(Debug)]
struct ClusterPart {
    whole: Arc<Cluster>,
    /// Without what comes with its endpoints.
    balance: BalanceConfig,
}

#[derive(Debug)]
struct Live {
    /// Without its routes, if they come on their own.
    first: Arc<Listener>,
    needs: Arc<Needs>,
    whole: Arc<Listener>,
    /// What each connection manager is with its routes, and with which.
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    first: Arc<ConnectionManager>,
    routes: Arc<RoutesPart>,
    whole: Arc<ConnectionManager>,
}

impl Assembly {
    /// Nothing has come yet to `config`, which is what `loaded` was converted to. With `strict`, a resource that
    /// sets a field which is not enforced is refused; without, only when security depends on it.
    #[must_use]
    pub fn new(loaded: &Loaded, config: &Config, options: &LoadOptions, strict: bool) -> Self {
        // Anything may come.
        let language = Language::full();
        let known = Loaded::resource("the control plane's config", BOOTSTRAP, &[], &language);
        Self {
            node: node(loaded, options),
            frame: Frame::new(loaded, options, &config.node),
            #[expect(clippy::expect_used, reason = "an empty bootstrap breaks no rule")]
            known: known.expect("a bootstrap may be empty"),
            base: config.clone(),
            language,
            strict,
            clusters: BTreeMap::new(),
            assignments: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            secrets: BTreeMap::new(),
            users: BTreeMap::new(),
            changed: BTreeSet::new(),
            reshaped: true,
            hashes: BTreeMap::new(),
            came: 0,
            own: own(config),
        }
    }

    /// Only to check resources, for somebody whose bootstrap is not known: it has an aggregated stream, and the
    /// clusters that control planes are reached through.
    ///
    /// # Errors
    /// Never, unless the conversion does not even take an empty bootstrap.
    pub fn for_checking(strict: bool) -> Result<Self, ConfigError> {
        let loaded = load_bootstrap(&Source::text("an empty bootstrap", "{}"))?;
        let options = LoadOptions::default();
        let config = crate::convert(&loaded, &options)?;
        let mut this = Self::new(&loaded, &config, &options, strict);
        this.frame.assume_all();
        Ok(this)
    }

    /// What the bootstrap has that needs more: it is to be [put](Self::put) in once that has come. Its clusters
    /// are there from the start, without endpoints.
    pub fn own(&mut self) -> Vec<Checked> {
        std::mem::take(&mut self.own)
    }

    pub(super) const fn frame(&self) -> &Frame {
        &self.frame
    }

    pub(super) const fn is_strict(&self) -> bool {
        self.strict
    }

    /// The messages that may come.
    #[must_use]
    pub const fn language(&self) -> &Language {
        &self.language
    }

    /// Who we are, as the control plane is told.
    #[must_use]
    pub fn node(&self) -> Node {
        self.node.clone()
    }

    /// Whether the bootstrap itself has it, so that nobody may replace it.
    #[must_use]
    pub fn is_static(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Cluster => self.base.clusters.iter().any(|c| *c.name == *name),
            Kind::Listener => self.base.listeners.iter().any(|l| *l.name == *name),
            _ => false,
        }
    }

    /// Takes a resource in that was checked, in place of the one of its name. What is static is never
    /// replaced by what came: a name that is taken stays taken.
    pub fn put(&mut self, checked: Checked) {
        let key = checked.key();
        if self.is_static(key.0, &key.1) && !checked.is_own {
            return;
        }
        let before = self.hashes.insert(key.clone(), checked.hash);
        self.came ^= before.unwrap_or(0) ^ checked.hash;
        self.reshaped |= key.0 != Kind::Endpoints;
        let (_, name) = key.clone();
        match checked.part {
            Part::Cluster(template) => {
                self.forget_user(&key);
                if let Discovery::Eds(eds) = &template.discovery {
                    let assignment = (Kind::Endpoints, eds.service_name.to_string());
                    self.users
                        .entry(assignment)
                        .or_default()
                        .insert(name.clone());
                }
                let part = ClusterPart {
                    balance: template.balance,
                    whole: template,
                };
                self.clusters.insert(name, part);
                self.changed.insert(key);
            }
            Part::Listener(first) => {
                self.forget_user(&key);
                for need in checked.needs.keys() {
                    self.users
                        .entry(need.clone())
                        .or_default()
                        .insert(name.clone());
                }
                let before = self.listeners.remove(&name);
                let whole = before.map_or_else(|| Arc::clone(&first), |live| live.whole);
                let live = Live {
                    first,
                    needs: checked.needs,
                    whole,
                    made: Vec::new(),
                };
                self.listeners.insert(name, live);
                self.changed.insert(key);
            }
            Part::Endpoints(assignment) => {
                self.assignments.insert(name, assignment);
                self.users_changed(&key);
            }
            Part::Routes(routes) => {
                self.routes.insert(name, routes);
                self.users_changed(&key);
            }
            Part::Secret(secret) => drop(self.secrets.insert(name.into(), secret)),
            Part::Runtime(values) => self.set_layer(&name, (*values).clone()),
        }
    }

    /// Takes a resource out.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        let key = (kind, name.to_owned());
        if self.is_static(kind, name) {
            return;
        }
        self.came ^= self.hashes.remove(&key).unwrap_or(0);
        self.reshaped |= kind != Kind::Endpoints;
        match kind {
            Kind::Cluster => {
                self.forget_user(&key);
                self.clusters.remove(name);
            }
            Kind::Listener => {
                self.forget_user(&key);
                self.listeners.remove(name);
            }
            Kind::Endpoints => {
                self.assignments.remove(name);
                self.users_changed(&key);
            }
            Kind::Routes => {
                self.routes.remove(name);
                self.users_changed(&key);
            }
            Kind::Secret => drop(self.secrets.remove(name)),
            Kind::Runtime => self.set_layer(name, BTreeMap::new()),
        }
        self.changed.remove(&key);
    }

    /// Whoever holds a key of the layer sees its new value at once.
    fn set_layer(&self, name: &str, values: BTreeMap<Arc<str>, RuntimeValue>) {
        let sources = &self.base.dynamic.runtime;
        if let Some(source) = sources.iter().find(|source| source.name == name) {
            self.base.runtime.set_layer(&source.layer, values);
        }
    }

    /// Whoever is made of `key` has to be made again.
    fn users_changed(&mut self, key: &Key) {
        let kind = match key.0 {
            Kind::Endpoints => Kind::Cluster,
            _ => Kind::Listener,
        };
        let users = self.users.get(key).into_iter().flatten();
        let users = users.map(|name| (kind, name.clone()));
        self.changed.extend(users);
    }

    /// What a cluster or listener was made of before does not matter to it any more.
    fn forget_user(&mut self, key: &Key) {
        let parts: Vec<Key> = match key.0 {
            Kind::Cluster => {
                let before = self.clusters.get(&key.1);
                let eds = before.and_then(|part| match &part.whole.discovery {
                    Discovery::Eds(eds) => Some(eds.service_name.to_string()),
                    _ => None,
                });
                eds.map(|name| (Kind::Endpoints, name))
                    .into_iter()
                    .collect()
            }
            _ => {
                let before = self.listeners.get(&key.1);
                before.map_or_else(Vec::new, |live| live.needs.keys().cloned().collect())
            }
        };
        for part in parts {
            if let Some(users) = self.users.get_mut(&part) {
                users.remove(&key.1);
                if users.is_empty() {
                    self.users.remove(&part);
                }
            }
        }
    }

    /// What has changed since this, or [`config`](Self::config), was asked last.
    pub fn change(&mut self) -> Change {
        if !self.reshaped
            && let Some(clusters) = self.other_endpoints()
        {
            return Change::Endpoints(clusters);
        }
        let (config, misfits) = self.config();
        Change::Whole(Box::new(config), misfits)
    }

    /// The clusters that differ from what they were in their endpoints, if that is all.
    fn other_endpoints(&mut self) -> Option<Vec<Arc<Cluster>>> {
        let mut clusters = Vec::new();
        let mut all = true;
        for (_, name) in std::mem::take(&mut self.changed) {
            let before = self.clusters.get(&name).map(|part| part.whole.balance);
            self.assemble_cluster(&name);
            let after = self.clusters.get(&name).map(|part| &part.whole);
            all &= after.map(|cluster| cluster.balance) == before;
            clusters.extend(after.cloned());
        }
        self.reshaped = !all;
        all.then_some(clusters)
    }

    /// The whole, and what could not be put together with it.
    pub fn config(&mut self) -> (Config, Vec<Misfit>) {
        let mut misfits = Vec::new();
        self.reshaped = false;
        for (kind, name) in std::mem::take(&mut self.changed) {
            if kind == Kind::Cluster {
                self.assemble_cluster(&name);
            } else if let Err(error) = self.assemble_listener(&name) {
                misfits.push(Misfit {
                    listener: name,
                    error,
                });
            }
        }
        let mut config = self.base.clone();
        config.version = self.version().into();
        config.clusters = self.all_clusters();
        config.listeners = self.all_listeners();
        config.secrets.clone_from(&self.secrets);
        (config, misfits)
    }

    /// Differs when anything differs, whatever came first.
    fn version(&self) -> String {
        format!("{:016x}", part::hash((&*self.base.version, self.came)))
    }

    fn all_clusters(&self) -> Vec<Arc<Cluster>> {
        let own = self.base.clusters.iter().map(|cluster| {
            let whole = self.clusters.get(&*cluster.name).map(|part| &part.whole);
            Arc::clone(whole.unwrap_or(cluster))
        });
        let taken: HashSet<&str> = self.base.clusters.iter().map(|c| &*c.name).collect();
        let came = self.clusters.iter();
        let came = came.filter(|(name, _)| !taken.contains(name.as_str()));
        own.chain(came.map(|(_, part)| Arc::clone(&part.whole)))
            .collect()
    }

    fn all_listeners(&self) -> Vec<Arc<Listener>> {
        let own = self.base.listeners.iter().filter_map(|listener| {
            let live = self.listeners.get(&*listener.name);
            let whole = live.map(|live| &live.whole);
            whole
                .or_else(|| Some(listener).filter(|own| own.is_complete()))
                .cloned()
        });
        let taken: HashSet<&str> = self.base.listeners.iter().map(|l| &*l.name).collect();
        let came = self.listeners.iter();
        let came = came.filter(|(name, _)| !taken.contains(name.as_str()));
        own.chain(came.map(|(_, live)| Arc::clone(&live.whole)))
            .collect()
    }

    fn assemble_cluster(&mut self, name: &str) {
        let Some(part) = self.clusters.get_mut(name) else {
            return;
        };
        let Discovery::Eds(eds) = &part.whole.discovery else {
            return;
        };
        let assignment = self.assignments.get(&*eds.service_name);
        let none = Assignment::default();
        let assignment = assignment.map_or(&none, |assignment| assignment);
        // In place where nobody else has it yet.
        assignment.give_to(Arc::make_mut(&mut part.whole), part.balance);
    }

    fn assemble_listener(&mut self, name: &str) -> Result<(), ConfigError> {
        let Some(live) = self.listeners.get(name) else {
            return Ok(());
        };
        let mut made = Vec::new();
        let mut whole = (*live.first).clone();
        for chain in &mut whole.chains {
            for filter in &mut chain.filters {
                let NetworkFilter::Http(first) = filter else {
                    continue;
                };
                if let Some(with) = self.with_routes(live, first)? {
                    *filter = NetworkFilter::Http(Arc::clone(&with.whole));
                    made.push(with);
                }
            }
        }
        if let Some(live) = self.listeners.get_mut(name) {
            live.whole = match made.is_empty() {
                true => Arc::clone(&live.first),
                false => Arc::new(whole),
            };
            live.made = made;
        }
        Ok(())
    }

    /// A connection manager with its routes, if they come on their own and have come; the very same as before
    /// when they are.
    fn with_routes(
        &self,
        live: &Live,
        first: &Arc<ConnectionManager>,
    ) -> Result<Option<Made>, ConfigError> {
        let routes = self.routes.get(&*first.route_config_name);
        let Some(routes) = routes.filter(|_| first.rds) else {
            return Ok(None);
        };
        let same =
            |made: &&Made| Arc::ptr_eq(&made.first, first) && Arc::ptr_eq(&made.routes, routes);
        let whole = match live.made.iter().find(same) {
            Some(made) => Arc::clone(&made.whole),
            None => {
                // What was checked can be decoded.
                let message = RouteConfiguration::decode(routes.body.clone()).unwrap_or_default();
                let files = &routes.files;
                let with = self
                    .frame
                    .manager_with(&self.known, first, message, files)?;
                with.map_or_else(|| Arc::clone(first), Arc::new)
            }
        };
        Ok(Some(Made {
            first: Arc::clone(first),
            routes: Arc::clone(routes),
            whole,
        }))
    }
}

/// The listeners and clusters of a bootstrap that need more than it has.
fn own(config: &Config) -> Vec<Checked> {
    let one = |kind, name: &str, needs: &Needs, part| Checked {
        kind,
        name: name.to_owned(),
        needs: Arc::new(needs.clone()),
        part,
        hash: 0,
        is_own: true,
    };
    let clusters = config.clusters.iter().filter(|c| !c.needs.is_empty());
    let clusters = clusters.map(|cluster| {
        let part = Part::Cluster(Arc::clone(cluster));
        one(Kind::Cluster, &cluster.name, &cluster.needs, part)
    });
    let listeners = config.listeners.iter();
    let listeners = listeners.filter(|listener| !listener.is_complete());
    let listeners = listeners.map(|listener| {
        let part = Part::Listener(Arc::clone(listener));
        one(Kind::Listener, &listener.name, &listener.needs, part)
    });
    clusters.chain(listeners).collect()
}

/// The message that the bootstrap is.
const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

fn node(loaded: &Loaded, options: &LoadOptions) -> Node {
    let mut node = loaded.bootstrap.node.clone().unwrap_or_default();
    if let Some(id) = &options.service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &options.service_cluster {
        node.cluster.clone_from(cluster);
    }
    node
}
