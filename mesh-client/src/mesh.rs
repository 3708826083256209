use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use mesh_config::model::{self, Config, Discovery};
use mesh_core::{
    Rng, ServerHealth, clock,
    stats::{ComputedGuard, Registry, Scope},
};
use mesh_net::{Connect, dns::Resolver};
use mesh_ratelimit::{LocalRateLimit, LocalRateLimitConfig, RateLimitStore};
use mesh_telemetry::{LogSink, LogWriter, LogWriterConfig};
use tokio::runtime::Handle;

use crate::{Cluster, Secrets, discovery, original_dst};

/// What a process has once, whatever its config: clusters and what was learnt about them, stats, log
/// files, buckets. Cloning shares it.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

/// What background work of clusters needs.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) registry: Registry,
    pub(crate) rng: Rng,
    pub(crate) runtime: Handle,
    /// How health checks reach endpoints.
    pub(crate) connector: Arc<dyn Connect>,
    /// What came from a control plane.
    pub(crate) secrets: Secrets,
}

struct Inner {
    env: Env,
    writer: LogWriter,
    limits: RateLimitStore,
    clusters: ArcSwap<Clusters>,
    generation: AtomicU64,
    health: ServerHealth,
    /// One push at a time.
    pushing: Mutex<()>,
    /// Replaced, and still used by connections.
    replaced: Mutex<Vec<Arc<model::ConnectionManager>>>,
    _membership: ComputedGuard,
}

/// How often it is looked whether what was replaced can be freed.
const FREE_INTERVAL: Duration = Duration::from_secs(1);

/// The clusters of one config version.
#[derive(Default)]
pub struct Clusters {
    pub(crate) generation: u64,
    pub(crate) by_name: HashMap<Arc<str>, Arc<Cluster>, foldhash::fast::RandomState>,
    /// In the order of the config, for people.
    order: Vec<Arc<Cluster>>,
}

impl Clusters {
    /// All of them, in the order of the config.
    #[must_use]
    pub fn list(&self) -> &[Arc<Cluster>] {
        &self.order
    }
}

impl Mesh {
    /// A process without clusters. Background work (name resolution, health checks, outlier sweeps) runs on
    /// the current tokio runtime; health checks connect with `connector`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(
        registry: Registry,
        rng: Rng,
        logs: LogWriterConfig,
        connector: Arc<dyn Connect>,
    ) -> Self {
        let writer = LogWriter::new(logs, &registry.scope(""));
        Self(Arc::new_cyclic(|weak: &Weak<Inner>| {
            let weak = weak.clone();
            // Health changes without a pick: look again whenever somebody looks at the gauges.
            let membership = registry.computed(move |_| {
                if let Some(inner) = weak.upgrade() {
                    let clusters = inner.clusters.load();
                    clusters
                        .order
                        .iter()
                        .for_each(|cluster| cluster.refresh_membership());
                }
            });
            Inner {
                env: Env {
                    registry,
                    rng,
                    runtime: Handle::current(),
                    connector,
                    secrets: Secrets::default(),
                },
                writer,
                limits: RateLimitStore::new(),
                clusters: ArcSwap::default(),
                generation: AtomicU64::new(0),
                health: ServerHealth::default(),
                pushing: Mutex::default(),
                replaced: Mutex::default(),
                _membership: membership,
            }
        }))
    }

    /// The stats.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.env.registry
    }

    /// Whether this process asks for traffic.
    #[must_use]
    pub fn server_health(&self) -> &ServerHealth {
        &self.0.health
    }

    /// Where random numbers come from.
    #[must_use]
    pub fn rng(&self) -> &Rng {
        &self.0.env.rng
    }

    /// The log files.
    #[must_use]
    pub fn writer(&self) -> &LogWriter {
        &self.0.writer
    }

    /// Secrets that came from a control plane.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.0.env.secrets
    }

    /// How health checks, and calls of this process itself, reach endpoints.
    pub(crate) fn connector(&self) -> Arc<dyn Connect> {
        Arc::clone(&self.0.env.connector)
    }

    /// The buckets of `owner`, which all workers share and a config push keeps.
    pub(crate) fn limit(
        &self,
        owner: &str,
        config: &LocalRateLimitConfig,
        scope: &Scope,
    ) -> Arc<LocalRateLimit> {
        self.0
            .limits
            .live(owner, config.clone(), scope, clock::now())
    }

    pub(crate) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// The clusters now.
    #[must_use]
    pub fn clusters(&self) -> Guard<Arc<Clusters>> {
        self.0.clusters.load()
    }

    /// Swaps in the clusters of `config`. What is unchanged stays as it is; what was learnt about a cluster
    /// or an endpoint that stays is kept. Requests that run finish with the version they began with. A config
    /// that is refused changes nothing.
    ///
    /// Names are resolved and endpoints checked in the background: see [`Mesh::warmed`].
    ///
    /// # Errors
    /// When the name servers of a cluster cannot be used, or an event log cannot be opened.
    pub fn apply(&self, config: &Config) -> io::Result<()> {
        self.apply_beside(config, &[])
    }

    /// The same; the clusters of these names stay, as they are now, although the config has them no more.
    pub(crate) fn apply_beside(&self, config: &Config, leaving: &[Arc<str>]) -> io::Result<()> {
        let _pushing = self.pushing();
        self.0.env.secrets.publish(&config.secrets);
        let old = self.0.clusters.load_full();
        let kept = leaving.iter().filter_map(|name| old.by_name.get(name));
        let kept = kept.map(|cluster| Plan::Keep(Arc::clone(cluster)));
        // All that can fail comes first: a config that is refused changes nothing.
        let plans = config
            .clusters
            .iter()
            .map(|config| Plan::prepare(config, old.by_name.get(&config.name), &self.0.writer))
            .chain(kept.map(Ok))
            .collect::<io::Result<Vec<_>>>()?;
        let mut next = Clusters {
            generation: old.generation + 1,
            ..Clusters::default()
        };
        for plan in plans {
            let cluster = self.commit(plan);
            next.by_name
                .insert(Arc::clone(cluster.name()), Arc::clone(&cluster));
            next.order.push(cluster);
        }
        for cluster in &old.order {
            let stays = next.by_name.get(cluster.name());
            if !stays.is_some_and(|stays| Arc::ptr_eq(stays, cluster)) {
                cluster.retire();
            }
        }
        self.publish(next);
        Ok(())
    }

    /// Takes out the clusters of these names; the others stay as they are.
    pub(crate) fn remove(&self, names: &[Arc<str>]) {
        let _pushing = self.pushing();
        let old = self.0.clusters.load_full();
        let mut next = Clusters {
            generation: old.generation + 1,
            ..Clusters::default()
        };
        for cluster in &old.order {
            if names.contains(cluster.name()) {
                cluster.retire();
            } else {
                let name = Arc::clone(cluster.name());
                next.by_name.insert(name, Arc::clone(cluster));
                next.order.push(Arc::clone(cluster));
            }
        }
        self.publish(next);
    }

    fn pushing(&self) -> MutexGuard<'_, ()> {
        let pushing = &self.0.pushing;
        pushing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, next: Clusters) {
        let generation = next.generation;
        self.0.clusters.store(Arc::new(next));
        self.0.generation.store(generation, Ordering::Release);
    }

    /// Gives the cluster of that name the endpoints of `config`, and nothing else of it.
    /// Nobody else notices: what it costs does not depend on how many clusters there are.
    pub(crate) fn reassign(&self, config: &Arc<model::Cluster>) {
        let _pushing = self.pushing();
        let clusters = self.clusters();
        if let Some(cluster) = clusters.by_name.get(&config.name) {
            cluster.reassign(config);
        }
    }

    /// Frees a connection manager's config, which may be large, once nobody has it any more: what connections
    /// let go of must not hold up their worker. Every worker says so of the same one.
    pub(crate) fn drop_later(&self, config: Arc<model::ConnectionManager>) {
        let mut replaced = self.replaced();
        if replaced.iter().any(|known| Arc::ptr_eq(known, &config)) {
            return;
        }
        replaced.push(config);
        if replaced.len() == 1 {
            let mesh = self.clone();
            self.0.env.runtime.spawn(async move {
                while mesh.drop_unused() {
                    tokio::time::sleep(FREE_INTERVAL).await;
                }
            });
        }
    }

    /// Frees what was replaced and is not used any more; says whether something else is left.
    fn drop_unused(&self) -> bool {
        let mut replaced = self.replaced();
        let (used, unused) = std::mem::take(&mut *replaced)
            .into_iter()
            .partition::<Vec<_>, _>(|config| Arc::strong_count(config) > 1);
        *replaced = used;
        let left = !replaced.is_empty();
        drop(replaced);
        drop(unused);
        left
    }

    fn replaced(&self) -> MutexGuard<'_, Vec<Arc<model::ConnectionManager>>> {
        let replaced = &self.0.replaced;
        replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, plan: Plan) -> Arc<Cluster> {
        let (config, previous, resolver, event_logs) = match plan {
            Plan::Keep(cluster) => return cluster,
            Plan::Build {
                config,
                previous,
                resolver,
                event_logs,
            } => (config, previous, resolver, event_logs),
        };
        let env = &self.0.env;
        if let Some(previous) = &previous {
            previous.retire();
        }
        let cluster = Cluster::new(config, previous.as_deref(), env, event_logs);
        discovery::publish(&cluster);
        if let Discovery::OriginalDst(config) = &cluster.config.discovery {
            original_dst::start(&cluster, config, &env.runtime);
        }
        if let (Discovery::Dns(dns), Some(resolver)) = (&cluster.config.discovery, resolver) {
            discovery::start(&cluster, dns, &resolver, env);
        }
        cluster
    }

    /// Waits until every cluster with names has been resolved once, and every endpoint that is checked has
    /// been checked once, whatever came of it.
    pub async fn warmed(&self) {
        let clusters: Vec<Arc<Cluster>> = self.clusters().order.clone();
        for cluster in clusters {
            cluster.warmed().await;
        }
    }
}

/// What a push does about one cluster.
enum Plan {
    Keep(Arc<Cluster>),
    Build {
        config: Arc<model::Cluster>,
        previous: Option<Arc<Cluster>>,
        resolver: Option<Box<Resolver>>,
        /// Of its health checks.
        event_logs: Vec<LogSink>,
    },
}

impl Plan {
    fn prepare(
        config: &Arc<model::Cluster>,
        previous: Option<&Arc<Cluster>>,
        writer: &LogWriter,
    ) -> io::Result<Self> {
        let same = |previous: &&Arc<Cluster>| {
            let known = previous.described();
            Arc::ptr_eq(&known, config) || known == *config
        };
        if let Some(kept) = previous.filter(same) {
            return Ok(Self::Keep(Arc::clone(kept)));
        }
        let resolver = match &config.discovery {
            Discovery::Dns(dns) => Some(Box::new(
                Resolver::new(&dns.resolver).map_err(io::Error::other)?,
            )),
            _ => None,
        };
        let check = config.health_check.iter();
        let event_logs = check.flat_map(|check| &check.event_logs);
        Ok(Self::Build {
            config: Arc::clone(config),
            previous: previous.cloned(),
            resolver,
            event_logs: event_logs
                .map(|target| writer.open(target))
                .collect::<io::Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use mesh_config::{LoadOptions, language::Source, load};
    use mesh_net::TcpConnector;

    use super::*;
    use crate::Worker;

    fn config(ports: &[u16]) -> Config {
        let endpoint = |port: &u16| {
            format!(
                "{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
            )
        };
        let endpoints: Vec<_> = ports.iter().map(endpoint).collect();
        let cluster = |name: &str| {
            format!(
                "{{name: {name}, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}}}",
                endpoints.join(", ")
            )
        };
        let text = format!(
            "static_resources: {{clusters: [{}, {}]}}",
            cluster("a"),
            cluster("b")
        );
        load(&Source::text("f", text), &LoadOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn other_endpoints_of_one_cluster_disturb_nothing_else() {
        let mesh = mesh();
        mesh.apply(&config(&[1])).unwrap();
        let worker = Worker::new(mesh.clone(), Arc::new(TcpConnector));
        let before = worker.cluster("a").unwrap();
        let table = mesh.clusters().clone();
        let ports = |cluster: &Cluster| {
            let set = cluster.endpoints();
            set.endpoints()
                .iter()
                .map(|e| e.address().to_string())
                .collect::<Vec<_>>()
        };
        let next = config(&[1, 2]);
        mesh.reassign(&next.clusters[0]);
        assert!(Arc::ptr_eq(&table, &mesh.clusters()));
        assert!(Arc::ptr_eq(&before, &worker.cluster("a").unwrap()));
        assert_eq!(ports(&table.by_name["a"]), ["127.0.0.1:1", "127.0.0.1:2"]);
        assert_eq!(ports(&table.by_name["b"]), ["127.0.0.1:1"]);
        // It is known by now: a whole config that says the same changes nothing about it.
        mesh.apply(&next).unwrap();
        assert!(Arc::ptr_eq(&before.cluster, &mesh.clusters().by_name["a"]));
        let other = Arc::clone(&worker.cluster("b").unwrap().cluster);
        assert!(Arc::ptr_eq(&other, &mesh.clusters().by_name["b"]));
        assert_eq!(ports(&other).len(), 2);
        // One that is gone is known to nobody, once somebody asks.
        let mut without = next.clone();
        without.clusters.remove(0);
        mesh.apply_beside(&without, &["a".into()]).unwrap();
        assert!(worker.cluster("a").is_some());
        mesh.apply(&without).unwrap();
        assert!(worker.cluster("a").is_none());
        worker.sweep(clock::now()).await;
    }

    fn mesh() -> Mesh {
        let logs = LogWriterConfig::default();
        let connector = Arc::new(TcpConnector);
        Mesh::new(Registry::new(), Rng::seeded(1), logs, connector)
    }

    #[tokio::test]
    async fn endpoints_that_come_with_news_that_was_not_applied_do_not_hide_them() {
        let mesh = mesh();
        mesh.apply(&config(&[1])).unwrap();
        let mut next = config(&[1, 2]);
        let mut news = (*next.clusters[0]).clone();
        news.stat_name = "other".to_owned();
        next.clusters[0] = Arc::new(news);
        mesh.reassign(&next.clusters[0]);
        let before = Arc::clone(&mesh.clusters().by_name["a"]);
        assert_eq!(before.endpoints().endpoints().len(), 2);
        assert_eq!(before.config.stat_name, "a");
        mesh.apply(&next).unwrap();
        assert_eq!(mesh.clusters().by_name["a"].config.stat_name, "other");
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_workers_replaced_is_freed_once_no_connection_has_it() {
        let text = r#"static_resources: {listeners: [{name: l,
            address: {socket_address: {address: 127.0.0.1, port_value: 0}},
            filter_chains: [{filters: [{name: h, typed_config: {
              "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
              stat_prefix: s, route_config: {},
              http_filters: [{name: envoy.filters.http.router, typed_config: {
                "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]}"#;
        let config = load(&Source::text("f", text), &LoadOptions::default()).unwrap();
        let replaced = Arc::clone(config.listeners[0].managers().next().unwrap());
        drop(config);
        let mesh = mesh();
        let connection = Arc::clone(&replaced);
        let weak = Arc::downgrade(&replaced);
        mesh.drop_later(Arc::clone(&replaced));
        mesh.drop_later(replaced);
        tokio::time::sleep(3 * FREE_INTERVAL).await;
        assert!(weak.upgrade().is_some(), "a connection has it");
        drop(connection);
        tokio::time::sleep(2 * FREE_INTERVAL).await;
        assert!(weak.upgrade().is_none());
    }
}
