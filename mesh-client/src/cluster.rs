use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use mesh_balance::{BalanceStats, EndpointSet, HashStats, HashTables};
use mesh_breaker::export_gauges;
use mesh_config::model::{
    self, Discovery, EndpointCheck, EndpointHealth, EndpointTarget, TransportSocketMatch,
};
use mesh_core::{
    Address, Endpoint, EndpointState, HealthFlag, Priority, Resources, stats::ComputedGuard,
    sync::AtomicU64,
};
use mesh_http::pool::PoolStats;
use mesh_outlier::{Detector, OutlierStats};
use mesh_retry::RetryStats;
use mesh_telemetry::LogSink;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use crate::{
    health::{Checks, Member},
    mesh::Env,
    original_dst::Originals,
    stats::ClusterStats,
    tls::{SocketSecrets, Sockets},
};

/// What outlives config pushes: all that was learnt about a cluster, keyed by its name.
pub(crate) struct ClusterState {
    pub(crate) resources: [Arc<Resources>; 2],
    pub(crate) pool_stats: PoolStats,
    pub(crate) stats: ClusterStats,
    pub(crate) retry_stats: RetryStats,
    pub(crate) balance_stats: Arc<BalanceStats>,
    hash_stats: Mutex<Option<HashStats>>,
    detector: Mutex<Option<Watch>>,
    pub(crate) checks: Checks,
    env: Env,
    /// The version that requests go through.
    current: Mutex<Weak<Cluster>>,
    generation: Arc<AtomicU64>,
    /// The endpoints' lasting state, by address; bounded by the endpoints of the latest assignment.
    endpoints: Mutex<HashMap<Address, Arc<EndpointState>>>,
    /// Of clusters whose endpoints are where clients mean to go.
    pub(crate) originals: Originals,
    _gauges: [ComputedGuard; 2],
}

/// A detector, and the task that ticks it.
struct Watch {
    detector: Arc<Detector>,
    ticking: AbortHandle,
}

/// What a name resolved to; `None` before its first answer.
pub(crate) type Addresses = Option<Arc<[IpAddr]>>;

/// One cluster as one config version describes it.
pub struct Cluster {
    /// As it was when it was made: its endpoints may be others by now.
    pub(crate) config: Arc<model::Cluster>,
    /// The same, with the endpoints of now.
    described: Mutex<Arc<model::Cluster>>,
    pub(crate) state: Arc<ClusterState>,
    pub(crate) set: ArcSwap<EndpointSet>,
    /// The tables of a policy that goes by hash; never older than `set`.
    pub(crate) tables: Option<Arc<HashTables>>,
    pub(crate) detector: Option<Arc<Detector>>,
    /// For each endpoint of the config, if it is a name. What the previous version knew of a name is known
    /// here from the start.
    pub(crate) answers: Mutex<Vec<Addresses>>,
    /// Whether `set` is the previous version's until all names have an answer.
    pub(crate) warms: bool,
    /// Whether `set` is this version's own.
    assigned: AtomicBool,
    /// There is a later version: this one changes nothing any more.
    retired: AtomicBool,
    /// Names that have not been asked for yet.
    unsettled: watch::Sender<usize>,
    /// Its TLS, with its secrets; the same as before when its config is.
    pub(crate) sockets: Arc<Sockets>,
    /// Name resolution; it ends with the cluster, or when another takes its place.
    tasks: Mutex<Vec<AbortHandle>>,
}

impl ClusterState {
    pub(crate) fn new(config: &model::Cluster, env: &Env) -> Arc<Self> {
        let registry = &env.registry;
        let prefix = format!("cluster.{}.", config.stat_name);
        let scope = registry.scope(&prefix);
        let resources = [
            Resources::new(&config.thresholds),
            Resources::new(&config.thresholds_high),
        ];
        let gauges = |name: &str, resources: &Arc<Resources>, remaining| {
            export_gauges(
                registry,
                &format!("{prefix}circuit_breakers.{name}."),
                resources,
                remaining,
            )
        };
        Arc::new(Self {
            _gauges: [
                gauges("default", &resources[0], config.track_remaining.0),
                gauges("high", &resources[1], config.track_remaining.1),
            ],
            resources,
            pool_stats: PoolStats::register(&scope),
            stats: ClusterStats::register(&scope),
            retry_stats: RetryStats::register(&scope),
            balance_stats: BalanceStats::register(&scope),
            hash_stats: Mutex::default(),
            detector: Mutex::default(),
            checks: Checks::default(),
            env: env.clone(),
            current: Mutex::default(),
            generation: Arc::new(AtomicU64::new(0)),
            endpoints: Mutex::default(),
            originals: Originals::default(),
        })
    }

    pub(crate) fn resources(&self, priority: Priority) -> &Arc<Resources> {
        match priority {
            Priority::Default => &self.resources[0],
            Priority::High => &self.resources[1],
        }
    }

    /// A check of an endpoint that does not count as failed has passed: that ends an ejection.
    pub(crate) fn on_health_check_passed(&self, now: Instant, address: &Address) {
        if let Some(watch) = &*lock(&self.detector) {
            watch.detector.on_health_check_passed(now, address);
        }
    }

    /// An endpoint that had left the assignment and stayed for its health has lost it.
    pub(crate) fn remove(&self, address: &Address) {
        let current = lock(&self.current).upgrade();
        if let Some(cluster) = current {
            cluster.remove(address);
        }
    }

    /// The tables of `set`, if the policy has any. They are built again in the background when the health of an
    /// endpoint changes, for as long as anybody has them.
    fn tables(&self, config: &model::Cluster, set: &Arc<EndpointSet>) -> Option<Arc<HashTables>> {
        let mut stats = lock(&self.hash_stats);
        let policy = &config.balance.policy;
        if !stats.as_ref().is_some_and(|stats| stats.are_of(policy)) {
            let prefix = format!("cluster.{}.", config.stat_name);
            *stats = HashStats::register(policy, &self.env.registry.scope(&prefix));
        }
        // One wish may wait while another is granted.
        let (wish, mut wishes) = mpsc::channel(1);
        let ask = move || {
            let _ = wish.try_send(());
        };
        let tables = HashTables::new(config.balance, set, stats.clone(), ask)?;
        let weak = Arc::downgrade(&tables);
        self.env.runtime.spawn(async move {
            while let Some(()) = wishes.recv().await {
                let Some(tables) = weak.upgrade() else { return };
                // Large ones take a while.
                let building = tokio::task::spawn_blocking(move || tables.rebuild());
                if let Err(error) = building.await {
                    tracing::error!("hash tables stay as they were: {error}");
                }
            }
        });
        Some(tables)
    }

    fn detector(&self, config: &model::Cluster) -> Option<Arc<Detector>> {
        let Env {
            registry,
            rng,
            runtime,
            ..
        } = &self.env;
        let mut watch = lock(&self.detector);
        match (&config.outlier, watch.as_ref()) {
            (None, _) => *watch = None,
            (Some(outlier), Some(live)) => live.detector.update(outlier.clone()),
            (Some(outlier), None) => {
                let scope =
                    registry.scope(&format!("cluster.{}.outlier_detection.", config.stat_name));
                let detector = Detector::builder(Arc::clone(&config.name), outlier.clone())
                    .stats(OutlierStats::register(&scope))
                    .rng(rng.clone())
                    .on_event(|event| tracing::info!(target: "outlier", "{event:?}"))
                    .build();
                let ticking = runtime.spawn(detector.run(std::future::pending::<()>()));
                *watch = Some(Watch {
                    detector,
                    ticking: ticking.abort_handle(),
                });
            }
        }
        watch.as_ref().map(|watch| Arc::clone(&watch.detector))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ticking.abort();
        // Older versions of the cluster may hold the detector for as long as their requests run.
        self.detector.set_endpoints([]);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// With what the previous version has learnt; that one has been retired.
    pub(crate) fn new(
        config: Arc<model::Cluster>,
        previous: Option<&Self>,
        env: &Env,
        event_logs: Vec<LogSink>,
    ) -> Arc<Self> {
        let state = previous.map_or_else(
            || ClusterState::new(&config, env),
            |previous| Arc::clone(&previous.state),
        );
        let original =
            |config: &model::Cluster| matches!(config.discovery, Discovery::OriginalDst(_));
        if !previous.is_some_and(|previous| original(&previous.config)) {
            state.originals.clear();
        }
        state.resources[0].update(&config.thresholds);
        state.resources[1].update(&config.thresholds_high);
        let detector = state.detector(&config);
        let scope = env
            .registry
            .scope(&format!("cluster.{}.", config.stat_name));
        let before = previous.map(|previous| &previous.sockets);
        let sockets = Sockets::new(&config, before, &scope, &env.secrets, &env.runtime);
        let checks = &state.checks;
        checks.configure(&state, &config, &sockets, env, event_logs);
        let set = previous.map_or_else(EndpointSet::empty, Self::endpoints);
        if let Some(detector) = &detector {
            detector.set_endpoints(set.endpoints().iter().map(|endpoint| &endpoint.state));
        }
        let known = previous.map_or_else(HashMap::new, Self::known_names);
        let answer = |endpoint: &model::EndpointConfig| match &endpoint.target {
            EndpointTarget::Name(host, _) => known.get(host).cloned(),
            EndpointTarget::Address(_) => None,
        };
        let answers = config.endpoints.iter().map(answer).collect();
        let names = config
            .endpoints
            .iter()
            .filter(|e| matches!(e.target, EndpointTarget::Name(..)));
        let unsettled = watch::Sender::new(names.count());
        let cluster = Arc::new(Self {
            described: Mutex::new(Arc::clone(&config)),
            sockets,
            unsettled,
            tables: state.tables(&config, &set),
            config,
            state,
            set: ArcSwap::new(set),
            detector,
            answers: Mutex::new(answers),
            warms: previous.is_some(),
            assigned: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        *lock(&cluster.state.current) = Arc::downgrade(&cluster);
        cluster
    }

    fn known_names(&self) -> HashMap<String, Arc<[IpAddr]>> {
        let answers = lock(&self.answers);
        let names = self.config.endpoints.iter().zip(&*answers);
        names
            .filter_map(|(endpoint, answer)| match (&endpoint.target, answer) {
                (EndpointTarget::Name(host, _), Some(known)) if !known.is_empty() => {
                    Some((host.clone(), Arc::clone(known)))
                }
                _ => None,
            })
            .collect()
    }

    /// Another version takes its place, or none: it looks nothing up and changes nothing any more, though
    /// requests may still run through it.
    pub(crate) fn retire(&self) {
        // Behind the lock of `assign`, which may be running on another thread.
        let known = lock(&self.state.endpoints);
        self.retired.store(true, Ordering::Relaxed);
        drop(known);
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        self.unsettled.send_replace(0);
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &model::Cluster {
        &self.config
    }

    /// The secrets of its transport sockets.
    pub fn secrets(&self) -> impl Iterator<Item = &SocketSecrets> {
        self.sockets.secrets()
    }

    /// Its endpoints now.
    #[must_use]
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.set.load_full()
    }

    /// The shared resources of one priority.
    #[must_use]
    pub fn resources(&self, priority: Priority) -> &Arc<Resources> {
        self.state.resources(priority)
    }

    /// Outlier detection, where it is on.
    #[must_use]
    pub fn detector(&self) -> Option<&Arc<Detector>> {
        self.detector.as_ref()
    }

    /// How many endpoints there are, and how many of them take traffic or would in need.
    pub(crate) fn membership(&self) -> (u64, u64) {
        self.refresh_membership();
        let stats = self.state.balance_stats.stats();
        let usable = stats.membership_healthy().value() + stats.membership_degraded().value();
        (stats.membership_total().value(), usable)
    }

    pub(crate) fn refresh_membership(&self) {
        self.state.balance_stats.refresh(&self.set.load());
    }

    /// One more name has had its first answer.
    pub(crate) fn name_settled(&self) {
        self.unsettled
            .send_modify(|left| *left = left.saturating_sub(1));
    }

    /// Waits until every name was asked for once, and every endpoint that is checked has been checked
    /// once, whatever came of it.
    pub async fn warmed(&self) {
        let mut left = self.unsettled.subscribe();
        // It can only fail when the cluster has gone, and it is borrowed here.
        let _ = left.wait_for(|left| *left == 0).await;
        if !self.retired.load(Ordering::Relaxed) {
            self.state.checks.settled().await;
        }
    }

    /// Whether every name was asked for once.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        *self.unsettled.borrow() == 0
    }

    pub(crate) fn adopt(&self, task: AbortHandle) {
        lock(&self.tasks).push(task);
    }

    /// The config, with the endpoints of now.
    pub(crate) fn described(&self) -> Arc<model::Cluster> {
        Arc::clone(&lock(&self.described))
    }

    /// Goes on with the endpoints of `config`, all of which are addresses. What else it says may be news that could
    /// not be applied yet: of that, nothing is taken over.
    pub(crate) fn reassign(&self, config: &Arc<model::Cluster>) {
        let mut described = lock(&self.described);
        if Arc::ptr_eq(&described.endpoints, &config.endpoints) {
            return;
        }
        let endpoints = Arc::clone(&config.endpoints);
        *described = Arc::new(model::Cluster {
            endpoints,
            ..(**described).clone()
        });
        drop(described);
        let endpoints = config.endpoints.iter();
        let endpoints = endpoints.filter_map(|endpoint| match &endpoint.target {
            EndpointTarget::Address(address) => Some((address.clone(), endpoint.clone())),
            EndpointTarget::Name(..) => None,
        });
        self.assign(endpoints.collect());
    }

    /// Replaces the endpoints. What is known about an address that stays is kept. One that has left stays
    /// as long as its checks pass, unless the config says otherwise.
    pub(crate) fn assign(&self, endpoints: Vec<(Address, model::EndpointConfig)>) {
        let mut known = lock(&self.state.endpoints);
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = HashSet::with_capacity(endpoints.len());
        let mut members = Vec::with_capacity(endpoints.len());
        for (address, config) in endpoints {
            // The first of several equal addresses counts, as in Envoy.
            if seen.insert(address.clone()) {
                let check = config.check.clone();
                members.push((self.describe(address, config, &known), check));
            }
        }
        for endpoint in self.held(&seen) {
            if let Some(check) = self.state.checks.asked(endpoint.address()) {
                endpoint.state.set_health(HealthFlag::PendingRemoval, true);
                members.push((endpoint, check));
            }
        }
        self.assigned.store(true, Ordering::Relaxed);
        self.publish(&mut known, members);
    }

    /// An endpoint that is in no set yet, though what is known of it is kept for the next one.
    pub(crate) fn meet(&self, address: Address, config: model::EndpointConfig) -> Arc<Endpoint> {
        let mut known = lock(&self.state.endpoints);
        let endpoint = self.describe(address.clone(), config, &known);
        known.insert(address, Arc::clone(&endpoint.state));
        endpoint
    }

    /// An endpoint as the config describes it, with what is known of it.
    fn describe(
        &self,
        address: Address,
        config: model::EndpointConfig,
        known: &HashMap<Address, Arc<EndpointState>>,
    ) -> Arc<Endpoint> {
        let before = known.get(&address).cloned();
        let is_new = before.is_none();
        let state = before.unwrap_or_else(|| {
            let generation = Arc::clone(&self.state.generation);
            Arc::new(EndpointState::new(address, generation))
        });
        let is = |health| config.health == health;
        state.set_health(HealthFlag::FailedEds, is(EndpointHealth::Unhealthy));
        state.set_health(HealthFlag::DegradedEds, is(EndpointHealth::Degraded));
        state.set_health(HealthFlag::Draining, is(EndpointHealth::Draining));
        state.set_health(HealthFlag::PendingRemoval, false);
        let mut endpoint = Endpoint::new(state);
        endpoint.hostname = config.hostname;
        endpoint.weight = config.weight;
        endpoint.priority = config.priority;
        endpoint.locality = config.locality;
        endpoint.metadata = config.metadata;
        let labels = config.socket_labels.as_deref().unwrap_or_default();
        endpoint.transport_socket = TransportSocketMatch::pick(&self.config.socket_matches, labels);
        if is_new {
            self.sockets.count_match(endpoint.transport_socket);
        }
        Arc::new(endpoint)
    }

    /// Those that have left the assignment of this version, and are well according to their checks.
    fn held(&self, assigned: &HashSet<Address>) -> Vec<Arc<Endpoint>> {
        let none = self.config.ignore_health_on_host_removal
            || matches!(self.config.discovery, Discovery::Static)
            || !self.assigned.load(Ordering::Relaxed);
        if none {
            return Vec::new();
        }
        let set = self.set.load();
        let well = |endpoint: &Endpoint| {
            let flags = &endpoint.state;
            !flags.has(HealthFlag::FailedActive) && !flags.has(HealthFlag::FailedEds)
        };
        let left = set.endpoints().iter();
        left.filter(|endpoint| !assigned.contains(endpoint.address()) && well(endpoint))
            .cloned()
            .collect()
    }

    /// Goes on without one of the endpoints.
    fn remove(&self, address: &Address) {
        let mut known = lock(&self.state.endpoints);
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let set = self.set.load_full();
        let stay = set.endpoints().iter().filter(|e| e.address() != address);
        let members = stay.map(|endpoint| {
            // One that is not checked now is not to be checked.
            let check = self.state.checks.asked(endpoint.address());
            let check = check.unwrap_or_else(|| EndpointCheck {
                disabled: true,
                ..EndpointCheck::default()
            });
            (Arc::clone(endpoint), check)
        });
        self.publish(&mut known, members.collect());
    }

    /// These are the endpoints from now on.
    fn publish(
        &self,
        known: &mut HashMap<Address, Arc<EndpointState>>,
        members: Vec<(Arc<Endpoint>, EndpointCheck)>,
    ) {
        let checked: Vec<Member<'_>> = members
            .iter()
            .map(|(endpoint, check)| Member {
                endpoint,
                check,
                known: known.contains_key(endpoint.address()),
            })
            .collect();
        // Before anybody can pick them: new ones count as failed at first.
        let pending = self.config.ignore_new_hosts_until_first_hc;
        self.state.checks.assign(&checked, pending, &self.state.env);
        let list: Vec<Arc<Endpoint>> = members.into_iter().map(|(endpoint, _)| endpoint).collect();
        if let Some(detector) = &self.detector {
            detector.set_endpoints(list.iter().map(|endpoint| &endpoint.state));
        }
        *known = list
            .iter()
            .map(|endpoint| (endpoint.address().clone(), Arc::clone(&endpoint.state)))
            .collect();
        let set = EndpointSet::new(list);
        self.state.balance_stats.refresh(&set);
        if let Some(tables) = &self.tables {
            tables.build(&set);
        }
        self.set.store(set);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
