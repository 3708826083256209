//! Where the follower stands: stats in Envoy's names, and what `/config_dump` shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use mesh_core::{
    clock,
    stats::{Registry, Stat, Value},
};
use mesh_xds::{ResourceType, version_hash};

use super::sources::SourceKey;

mesh_core::stats! {
    /// What becomes of one subscription. Envoy: `cluster_manager.cds.`, `cluster.<name>.`,
    /// `http.<prefix>.rds.<name>.` and so on.
    pub(super) struct SubscriptionStats {
        /// Times that something came, or could not come.
        counter update_attempt,
        /// Updates that were taken.
        counter update_success,
        /// Times that the control plane could not be reached.
        counter update_failure,
        /// Updates that were rejected.
        counter update_rejected,
        /// First fetches that took too long.
        counter init_fetch_timeout,
        /// When the last one was taken, in milliseconds since 1970.
        gauge update_time,
        /// A hash of its version.
        gauge version,
    }
}

mesh_core::stats! {
    /// Envoy: `control_plane.`; the latter two are our own.
    pub(super) struct ControlPlaneStats {
        /// Whether the control plane answers.
        gauge connected_state,
        /// Where the config in use is from: 0 the bootstrap alone, 1 the cache on disk, 2 the control plane.
        gauge config_source,
    }
}

mesh_core::stats! {
    /// Envoy: `cluster_manager.`.
    pub(super) struct ClusterManagerStats {
        /// Clusters that came.
        counter cluster_added,
        /// Clusters that changed.
        counter cluster_modified,
        /// Clusters that went.
        counter cluster_removed,
    }
}

mesh_core::stats! {
    /// Envoy: `listener_manager.`.
    pub(super) struct ListenerManagerStats {
        /// Listeners that came.
        counter listener_added,
        /// Listeners that changed.
        counter listener_modified,
        /// Listeners that went.
        counter listener_removed,
        /// Listeners that could not be opened.
        counter listener_create_failure,
    }
}

/// Where the config in use is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigOrigin {
    /// The bootstrap alone.
    Bootstrap,
    /// The cache on disk.
    Cache,
    /// The control plane.
    ControlPlane,
}

/// What is counted, by subscription.
pub(super) struct Status {
    registry: Registry,
    /// By type and name; the wildcard has none. Grows with what is subscribed to.
    subscriptions: BTreeMap<(ResourceType, String), Vec<SubscriptionStats>>,
    /// The connection managers that take a route configuration, by stat prefix.
    managers: BTreeMap<String, BTreeSet<String>>,
    pub(super) control_plane: ControlPlaneStats,
    pub(super) clusters: ClusterManagerStats,
    pub(super) listeners: ListenerManagerStats,
    /// The version of the last response of each type that was taken.
    pub(super) versions: BTreeMap<ResourceType, String>,
    connected: BTreeSet<SourceKey>,
    /// When the control plane was there the last time, or the cache was saved.
    confirmed: Option<Confirmed>,
}

#[derive(Clone, Copy)]
enum Confirmed {
    At(Instant),
    Saved(SystemTime),
}

impl Status {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            subscriptions: BTreeMap::new(),
            managers: BTreeMap::new(),
            control_plane: ControlPlaneStats::register(&registry.scope("control_plane.")),
            clusters: ClusterManagerStats::register(&registry.scope("cluster_manager.")),
            listeners: ListenerManagerStats::register(&registry.scope("listener_manager.")),
            versions: BTreeMap::new(),
            connected: BTreeSet::new(),
            confirmed: None,
        }
    }

    /// The stats of a subscription, under each of its names.
    fn of(&mut self, ty: ResourceType, name: &str) -> &[SubscriptionStats] {
        let (registry, managers) = (&self.registry, &self.managers);
        let key = (ty, name.to_owned());
        self.subscriptions.entry(key).or_insert_with(|| {
            let prefixes = match ty {
                ResourceType::Cluster => vec!["cluster_manager.cds.".to_owned()],
                ResourceType::Listener => vec!["listener_manager.lds.".to_owned()],
                ResourceType::Endpoints => vec![format!("cluster.{}.", name.replace(':', "_"))],
                ResourceType::RouteConfiguration => managers
                    .get(name)
                    .into_iter()
                    .flatten()
                    .map(|manager| format!("http.{manager}.rds.{name}."))
                    .collect(),
                ResourceType::Secret => vec![format!("sds.{name}.")],
                _ => Vec::new(),
            };
            let scopes = prefixes.iter().map(|prefix| registry.scope(prefix));
            scopes
                .map(|scope| SubscriptionStats::register(&scope))
                .collect()
        })
    }

    /// A connection manager takes its routes from elsewhere.
    pub(super) fn on_manager(&mut self, routes: &str, stat_prefix: &str) {
        let managers = self.managers.entry(routes.to_owned()).or_default();
        if managers.insert(stat_prefix.to_owned()) {
            let key = (ResourceType::RouteConfiguration, routes.to_owned());
            self.subscriptions.remove(&key);
        }
    }

    /// Somebody subscribes. Wildcards have no name.
    pub(super) fn on_subscribe(&mut self, ty: ResourceType, name: &str) {
        for stats in self.of(ty, name) {
            stats.update_attempt().inc();
        }
    }

    /// Nobody subscribes any more.
    pub(super) fn on_unsubscribe(&mut self, ty: ResourceType, name: &str) {
        self.subscriptions.remove(&(ty, name.to_owned()));
    }

    pub(super) fn on_success(&mut self, ty: ResourceType, name: &str, version: &str) {
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        for stats in self.of(ty, name) {
            stats.update_attempt().inc();
            stats.update_success().inc();
            stats.update_time().set(millis);
            stats.version().set(version_hash(version));
        }
    }

    pub(super) fn on_rejected(&mut self, ty: ResourceType, name: &str) {
        for stats in self.of(ty, name) {
            stats.update_attempt().inc();
            stats.update_rejected().inc();
        }
    }

    pub(super) fn on_timeout(&mut self, ty: ResourceType, name: &str) {
        for stats in self.of(ty, name) {
            stats.update_attempt().inc();
            stats.init_fetch_timeout().inc();
        }
    }

    /// A stream broke, or answers.
    pub(super) fn on_connection(&mut self, source: &SourceKey, connected: bool) {
        if connected {
            self.connected.insert(source.clone());
        } else {
            if self.connected.remove(source) {
                self.confirmed = Some(Confirmed::At(clock::now()));
            }
            for stats in self.subscriptions.values().flatten() {
                stats.update_attempt().inc();
                stats.update_failure().inc();
            }
        }
        let any = !self.connected.is_empty();
        self.control_plane.connected_state().set(u64::from(any));
    }

    /// Config that is in use came from there.
    pub(super) fn on_origin(&mut self, origin: ConfigOrigin, saved: Option<SystemTime>) {
        let number = match origin {
            ConfigOrigin::Bootstrap => 0,
            ConfigOrigin::Cache => 1,
            ConfigOrigin::ControlPlane => 2,
        };
        self.control_plane.config_source().set(number);
        self.confirmed = saved.map(Confirmed::Saved);
    }

    /// What is worked out when somebody looks.
    pub(super) fn export(&self, out: &mut Vec<Stat>) {
        let age = match self.confirmed {
            _ if !self.connected.is_empty() => Some(std::time::Duration::ZERO),
            None => None,
            Some(Confirmed::At(at)) => Some(clock::now().saturating_duration_since(at)),
            Some(Confirmed::Saved(at)) => clock::wall().duration_since(at).ok(),
        };
        if let Some(age) = age {
            out.push(Stat {
                name: "control_plane.config_age_s".to_owned(),
                value: Value::Gauge(age.as_secs()),
            });
        }
        for (ty, prefix) in [
            (ResourceType::Cluster, "cluster_manager.cds"),
            (ResourceType::Listener, "listener_manager.lds"),
        ] {
            if let Some(version) = self.versions.get(&ty) {
                out.push(Stat {
                    name: format!("{prefix}.version_text"),
                    value: Value::Text(version.clone()),
                });
            }
        }
    }
}
