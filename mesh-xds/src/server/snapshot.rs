use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{ResourceType, version_of};

/// One resource of a snapshot. Cloning it is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in its type.
    pub name: Arc<str>,
    /// Its version: by default the hash of its bytes.
    pub version: Arc<str>,
    /// The serialised message, without an `Any` around it.
    pub body: Bytes,
    /// A client drops it after this time unless it is renewed, which the server does three times as often.
    pub ttl: Option<Duration>,
}

impl Entry {
    /// A resource whose version is the hash of its bytes.
    pub fn new(name: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            name: name.into(),
            version: version_of(&body).into(),
            body,
            ttl: None,
        }
    }

    /// The same with a time to live.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// All resources of one type in one snapshot. Immutable, and shared by every client of its group.
pub struct TypeSet {
    ty: ResourceType,
    version: Arc<str>,
    entries: BTreeMap<Arc<str>, Entry>,
    /// Tells sets apart in the memory of differences.
    id: u64,
    pub(super) full: [OnceLock<Bytes>; 2],
}

impl TypeSet {
    fn new(ty: ResourceType, version: Option<Arc<str>>, entries: Vec<Entry>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let entries: BTreeMap<_, _> = entries.into_iter().map(|e| (e.name.clone(), e)).collect();
        Self {
            ty,
            version: version.unwrap_or_else(|| hash_of(&entries)),
            entries,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            full: [OnceLock::new(), OnceLock::new()],
        }
    }

    /// The type of all of them.
    #[must_use]
    pub const fn ty(&self) -> ResourceType {
        self.ty
    }

    /// The version of the whole set.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The resource of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All of them, by name.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) const fn id(&self) -> u64 {
        self.id
    }
}

impl fmt::Debug for TypeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypeSet")
            .field("ty", &self.ty)
            .field("version", &self.version)
            .field("len", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// The version of a set that was given none: it changes exactly when a name, a version or a TTL does.
fn hash_of(entries: &BTreeMap<Arc<str>, Entry>) -> Arc<str> {
    let mut text = Vec::new();
    for entry in entries.values() {
        for part in [&entry.name, &entry.version] {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        text.extend_from_slice(&entry.ttl.unwrap_or_default().as_nanos().to_le_bytes());
    }
    version_of(&text).into()
}

/// What one version of a set has that another has not.
#[derive(Debug, Default)]
pub struct Diff {
    /// New, or with another version.
    pub changed: Vec<Entry>,
    /// Gone.
    pub removed: Vec<Arc<str>>,
    pub(super) encoded: OnceLock<Bytes>,
}

impl Diff {
    /// What has to be told to one who knows `from`, so that he knows `to`.
    #[must_use]
    pub fn between(from: &TypeSet, to: &TypeSet) -> Self {
        let changed = to.entries.values().filter(|entry| {
            let old = from.entries.get(&entry.name);
            old.is_none_or(|old| old.version != entry.version || old.ttl != entry.ttl)
        });
        let gone = |name: &&Arc<str>| !to.entries.contains_key(*name);
        Self {
            changed: changed.cloned().collect(),
            removed: from.entries.keys().filter(gone).cloned().collect(),
            encoded: OnceLock::new(),
        }
    }
}

/// What the nodes of a group shall have: one set of resources for each type, to be seen together.
#[derive(Debug, Clone)]
pub struct Snapshot {
    sets: BTreeMap<ResourceType, Arc<TypeSet>>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl Snapshot {
    /// A snapshot with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let empty = |ty| (ty, Arc::new(TypeSet::new(ty, None, Vec::new())));
        Self {
            sets: ResourceType::ALL.into_iter().map(empty).collect(),
        }
    }

    /// The same with these resources of one type instead of those it had. The set's version is a hash;
    /// if it is that of the set before, that one stays, and with it all that was computed from it. Of two
    /// resources with the same name the last counts.
    #[must_use]
    pub fn with(self, ty: ResourceType, entries: Vec<Entry>) -> Self {
        self.put(TypeSet::new(ty, None, entries))
    }

    /// As [`Snapshot::with`], under a version of the caller's. It must change whenever the set does.
    #[must_use]
    pub fn with_version(
        self,
        ty: ResourceType,
        version: impl Into<Arc<str>>,
        entries: Vec<Entry>,
    ) -> Self {
        self.put(TypeSet::new(ty, Some(version.into()), entries))
    }

    fn put(mut self, set: TypeSet) -> Self {
        let same = |old: &Arc<TypeSet>| old.version == set.version && old.entries == set.entries;
        if !self.sets.get(&set.ty).is_some_and(same) {
            self.sets.insert(set.ty, Arc::new(set));
        }
        self
    }

    /// Takes over from `before` every set that did not change, so that clients which have it are known
    /// to have it.
    #[must_use]
    pub(super) fn keeping(mut self, before: &Self) -> Self {
        for (ty, set) in &mut self.sets {
            let old = &before.sets[ty];
            if old.version == set.version && old.entries == set.entries {
                *set = old.clone();
            }
        }
        self
    }

    /// The resources of a type.
    #[must_use]
    pub fn set(&self, ty: ResourceType) -> &Arc<TypeSet> {
        &self.sets[&ty]
    }

    /// What a resource refers to by name that is not in the snapshot: endpoints of clusters, route
    /// configurations of listeners. A client would wait for it in vain. What cannot be decoded is named
    /// as well.
    #[must_use]
    pub fn dangling(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for cluster in self.set(ResourceType::Cluster).entries() {
            self.look_up(
                cluster,
                ResourceType::Endpoints,
                refers::endpoints,
                &mut faults,
            );
        }
        for listener in self.set(ResourceType::Listener).entries() {
            self.look_up(
                listener,
                ResourceType::RouteConfiguration,
                refers::routes,
                &mut faults,
            );
        }
        faults
    }

    fn look_up(
        &self,
        entry: &Entry,
        ty: ResourceType,
        names: fn(&[u8]) -> Result<BTreeSet<String>, prost::DecodeError>,
        faults: &mut Vec<String>,
    ) {
        match names(&entry.body) {
            Ok(names) => {
                let absent = names.iter().filter(|name| self.set(ty).get(name).is_none());
                let fault = |name| {
                    format!(
                        "{:?} refers to {ty} {name:?}, which is not there",
                        entry.name
                    )
                };
                faults.extend(absent.map(fault));
            }
            Err(error) => faults.push(format!("{:?} cannot be decoded: {error}", entry.name)),
        }
    }
}

/// Which names a resource refers to.
mod refers {
    use std::collections::BTreeSet;

    use envoy_types::pb::envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType},
            },
            listener::v3::{FilterChain, Listener, filter::ConfigType},
        },
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
    };
    use prost::{DecodeError, Message};

    pub(super) fn endpoints(body: &[u8]) -> Result<BTreeSet<String>, DecodeError> {
        let cluster = Cluster::decode(body)?;
        let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
        if cluster.cluster_discovery_type != Some(eds) {
            return Ok(BTreeSet::new());
        }
        let service = cluster.eds_cluster_config.map(|eds| eds.service_name);
        let service = service.filter(|service| !service.is_empty());
        Ok(BTreeSet::from([service.unwrap_or(cluster.name)]))
    }

    pub(super) fn routes(body: &[u8]) -> Result<BTreeSet<String>, DecodeError> {
        let listener = Listener::decode(body)?;
        let mut names = BTreeSet::new();
        for chain in listener
            .filter_chains
            .iter()
            .chain(&listener.default_filter_chain)
        {
            routes_of_chain(chain, &mut names)?;
        }
        if let Some(any) = listener.api_listener.and_then(|api| api.api_listener) {
            routes_of_manager(&any.value, &mut names)?;
        }
        Ok(names)
    }

    fn routes_of_chain(
        chain: &FilterChain,
        names: &mut BTreeSet<String>,
    ) -> Result<(), DecodeError> {
        for filter in &chain.filters {
            if let Some(ConfigType::TypedConfig(any)) = &filter.config_type
                && any
                    .type_url
                    .ends_with("http_connection_manager.v3.HttpConnectionManager")
            {
                routes_of_manager(&any.value, names)?;
            }
        }
        Ok(())
    }

    fn routes_of_manager(body: &[u8], names: &mut BTreeSet<String>) -> Result<(), DecodeError> {
        let manager = HttpConnectionManager::decode(body)?;
        if let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier {
            names.insert(rds.route_config_name);
        }
        Ok(())
    }
}
