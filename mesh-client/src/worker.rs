use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use mesh_balance::{Balancer, NoHealthy, PickContext};
use mesh_config::model::Discovery;
use mesh_core::{ConnectionInfo, Endpoint, HealthFlag, Priority, Rng, clock};
use mesh_http::pool::{HttpVersion, Pool};
use mesh_net::Connect;
use mesh_outlier::Monitor;

use crate::{Cluster, mesh::Mesh, proxy_protocol, tls};
use mesh_tls::ServerNames;

/// How often idle connections are looked at.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// So many clusters are looked at before requests get their turn again.
const SWEPT_AT_ONCE: usize = 32;

type ByName<T> = HashMap<Arc<str>, T, foldhash::fast::RandomState>;

/// One worker's share of the data path: its own pools and its own place in each balancer's rotation, so
/// that workers never wait for each other. What they must agree on belongs to the [`Mesh`].
pub struct Worker {
    pub(crate) mesh: Mesh,
    pub(crate) rng: Rng,
    connector: Arc<dyn Connect>,
    /// The clusters that it was asked for: a push costs it only those, one by one as they are asked for again.
    known: Mutex<ByName<Known>>,
}

/// A cluster, as it was in the config of that generation.
struct Known {
    generation: u64,
    cluster: Arc<WorkerCluster>,
}

/// One worker's balancer and pools for one cluster.
pub struct WorkerCluster {
    pub(crate) cluster: Arc<Cluster>,
    /// Without anything that the cluster says or encrypts.
    base: Arc<dyn Connect>,
    /// With the cluster's handshake, if it has any.
    connector: Arc<dyn Connect>,
    pub(crate) rng: Rng,
    inner: Mutex<Inner>,
}

struct Inner {
    balancer: Balancer,
    /// Bounded by the endpoints, since the sweep drops what has left the set, by [`NAMED_MAX`], and where each client has
    /// connections of its own, by the clients: those who have gone are swept too.
    slots: Slots,
    /// How many of them are for servers of certain names.
    named: usize,
    /// The version of the set that `slots` was last compared with.
    swept: u64,
}

/// Ways to servers of names that come with requests, in one cluster on one worker. One more, and all that are there
/// are forgotten: what runs on them goes on, and the next requests open new connections.
const NAMED_MAX: usize = 1024;

/// What connections are kept apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SlotKey {
    /// Where the endpoint's state lies.
    endpoint: usize,
    priority: Priority,
    version: HttpVersion,
    /// As whom the endpoint is asked, where requests say that.
    names: Option<ServerNames>,
    /// The client's number, or 0 where connections are everybody's.
    client: u64,
}

/// What a connection is made for, beside its endpoint.
#[derive(Default)]
pub(crate) struct Whose<'a> {
    /// As whom the endpoint is asked, where requests say that.
    pub(crate) names: Option<ServerNames>,
    /// Who asks.
    pub(crate) client: Option<&'a Arc<ConnectionInfo>>,
}

type Slots = HashMap<SlotKey, Open, foldhash::fast::RandomState>;

struct Open {
    slot: Slot,
    /// What `slot` was made for; `None` when a push came between, so that all but the connections may have
    /// changed.
    endpoint: Option<Arc<Endpoint>>,
    /// Whose connections they are; `None` when they are everybody's.
    client: Option<Weak<ConnectionInfo>>,
    /// Its idle connections were closed when its health checks failed, and they still do.
    failed: bool,
}

impl Open {
    /// Nobody will use its connections any more.
    fn client_has_gone(&self) -> bool {
        let client = self.client.as_ref();
        client.is_some_and(|client| client.strong_count() == 0)
    }

    /// The connections to an endpoint whose health checks fail since the last look: who knows what they are
    /// worth when it is well again.
    fn fell_ill(&mut self) -> Option<Pool> {
        let pool = &self.slot.pool;
        let failed = pool.endpoint().state.has(HealthFlag::FailedActive);
        let before = std::mem::replace(&mut self.failed, failed);
        (failed && !before).then(|| pool.clone())
    }
}

/// The way to one endpoint.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) pool: Pool,
    pub(crate) monitor: Option<Monitor>,
}

impl Worker {
    /// A worker of `mesh`, which connects with `connector`.
    #[must_use]
    pub fn new(mesh: Mesh, connector: Arc<dyn Connect>) -> Arc<Self> {
        // Of its own: workers that draw from one would wait for each other.
        let rng = mesh.rng().fork();
        Arc::new(Self {
            mesh,
            rng,
            connector,
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, ByName<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster of that name in the latest config.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<Arc<WorkerCluster>> {
        let generation = self.mesh.generation();
        let all = self.known();
        if let Some(known) = all.get(name)
            && known.generation == generation
        {
            return Some(Arc::clone(&known.cluster));
        }
        drop(all);
        self.look_up(name)
    }

    /// The same, of a cluster that was not asked for since the last push.
    #[cold]
    fn look_up(&self, name: &str) -> Option<Arc<WorkerCluster>> {
        let snapshot = self.mesh.clusters();
        let generation = snapshot.generation;
        let mut all = self.known();
        let Some((name, cluster)) = snapshot.by_name.get_key_value(name) else {
            let gone = all.remove(name);
            drop(all);
            drop(gone);
            return None;
        };
        let before = all.get(name).map(|known| Arc::clone(&known.cluster));
        let same = before.filter(|before| Arc::ptr_eq(&before.cluster, cluster));
        let cluster = same.unwrap_or_else(|| {
            let before = all.get(name).map(|known| &*known.cluster);
            WorkerCluster::new(Arc::clone(cluster), self, before)
        });
        let known = Known {
            generation,
            cluster: Arc::clone(&cluster),
        };
        let before = all.insert(Arc::clone(name), known);
        drop(all);
        // With its last connections, maybe.
        drop(before);
        Some(cluster)
    }

    /// Closes idle connections whose time is up or whose peer has gone, and lets go of clusters that were
    /// replaced or have gone. Call it every `SWEEP_INTERVAL`; others get their turn meanwhile.
    pub async fn sweep(&self, now: Instant) {
        let names: Vec<Arc<str>> = self.known().keys().cloned().collect();
        for some in names.chunks(SWEPT_AT_ONCE) {
            for cluster in some.iter().filter_map(|name| self.cluster(name)) {
                cluster.sweep(now);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Closes all idle connections.
    pub fn close_idle(&self) {
        for known in self.known().values() {
            known
                .cluster
                .lock()
                .slots
                .values()
                .for_each(|open| open.slot.pool.close_idle());
        }
    }
}

impl WorkerCluster {
    fn new(cluster: Arc<Cluster>, worker: &Worker, previous: Option<&Self>) -> Arc<Self> {
        let balancer = Balancer::with_stats(
            cluster.config.balance,
            cluster.set.load_full(),
            Arc::clone(&cluster.state.balance_stats),
        )
        .with_tables(cluster.tables.clone());
        // Connections survive a push that does not change how they are made.
        let slots = match previous {
            Some(previous)
                if previous.cluster.config.pool == cluster.config.pool
                    && previous.cluster.config.tls == cluster.config.tls
                    && previous.cluster.config.socket_matches == cluster.config.socket_matches
                    && previous.cluster.config.auto_names == cluster.config.auto_names
                    && previous.cluster.config.proxy_protocol == cluster.config.proxy_protocol
                    && Arc::ptr_eq(&previous.cluster.state, &cluster.state) =>
            {
                previous.pools()
            }
            _ => HashMap::default(),
        };
        let named = slots.keys().filter(|key| key.names.is_some()).count();
        let base = Arc::clone(&worker.connector);
        let said = proxy_protocol::said(&base, &cluster.config, None);
        let connector = tls::over(&said, &cluster.sockets);
        let inner = Mutex::new(Inner {
            balancer,
            slots,
            named,
            swept: 0,
        });
        Arc::new(Self {
            cluster,
            base,
            connector,
            rng: worker.rng.clone(),
            inner,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Picks an endpoint, and the way to it.
    pub(crate) fn pick(
        &self,
        context: &PickContext<'_>,
        priority: Priority,
        version: HttpVersion,
        meant: Option<SocketAddr>,
        whose: Whose<'_>,
    ) -> Result<(Arc<Endpoint>, Slot, bool), NoHealthy> {
        // Upstreams are told whose a connection is: then nobody else may use it.
        let client = whose
            .client
            .filter(|_| self.cluster.config.proxy_protocol.is_some());
        let mut inner = self.lock();
        let Inner {
            balancer,
            slots,
            named,
            ..
        } = &mut *inner;
        let endpoint = self.choose(balancer, context, meant)?;
        let panicked = balancer.panicked();
        let key = SlotKey {
            endpoint: Arc::as_ptr(&endpoint.state) as usize,
            priority,
            version,
            names: whose.names,
            client: client.map_or(0, |client| client.id),
        };
        let current = |open: &Open| {
            open.endpoint
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(known, &endpoint))
        };
        let slot = match slots.get(&key).filter(|open| current(open)) {
            Some(open) => open.slot.clone(),
            None => {
                let pool = slots.remove(&key).map(|open| open.slot.pool);
                if key.names.is_some() && pool.is_none() {
                    if *named >= NAMED_MAX {
                        slots.retain(|key, _| key.names.is_none());
                        *named = 0;
                    }
                    *named += 1;
                }
                let slot = self.open_slot(&endpoint, &key, pool, client);
                let open = Open {
                    slot: slot.clone(),
                    endpoint: Some(Arc::clone(&endpoint)),
                    client: client.map(Arc::downgrade),
                    failed: false,
                };
                slots.insert(key, open);
                slot
            }
        };
        Ok((endpoint, slot, panicked))
    }

    /// Picks an endpoint for a connection that belongs to no pool, and who watches it.
    pub(crate) fn pick_endpoint(
        &self,
        context: &PickContext<'_>,
        meant: Option<SocketAddr>,
    ) -> Result<(Arc<Endpoint>, Option<Monitor>), NoHealthy> {
        let endpoint = self.choose(&mut self.lock().balancer, context, meant)?;
        let detector = self.cluster.detector.as_ref();
        let monitor = detector.map(|detector| detector.monitor(&endpoint.state));
        Ok((endpoint, monitor))
    }

    /// The endpoint that the client meant, where endpoints come from that; else the balancer's.
    fn choose(
        &self,
        balancer: &mut Balancer,
        context: &PickContext<'_>,
        meant: Option<SocketAddr>,
    ) -> Result<Arc<Endpoint>, NoHealthy> {
        if let Discovery::OriginalDst(_) = self.cluster.config.discovery {
            let original = meant.and_then(|address| self.cluster.original(address));
            let total = self.cluster.set.load().endpoints().len();
            return original.ok_or(NoHealthy { total });
        }
        balancer.update(&self.cluster.set.load());
        let now = balancer.needs_time().then(clock::now);
        let stats = &self.cluster.state.pool_stats.upstream;
        let active = balancer.needs_active();
        let active = active.then(|| stats.upstream_rq_active().value());
        balancer.pick(&context.at(now).while_active(active))
    }

    /// Its connections, for the version that follows it.
    fn pools(&self) -> Slots {
        let pools = self.lock();
        let open = |open: &Open| Open {
            slot: Slot {
                pool: open.slot.pool.clone(),
                monitor: None,
            },
            endpoint: None,
            client: open.client.clone(),
            failed: open.failed,
        };
        let slots = pools.slots.iter();
        slots.map(|(key, o)| (key.clone(), open(o))).collect()
    }

    /// With the connections of `pool`, if they were made for an endpoint of that description.
    fn open_slot(
        &self,
        endpoint: &Arc<Endpoint>,
        key: &SlotKey,
        pool: Option<Pool>,
        client: Option<&Arc<ConnectionInfo>>,
    ) -> Slot {
        let state = &self.cluster.state;
        let same = |pool: &Pool| {
            let known = pool.endpoint();
            known.hostname == endpoint.hostname
                && known.metadata == endpoint.metadata
                && known.transport_socket == endpoint.transport_socket
        };
        let pool = pool.filter(same).unwrap_or_else(|| {
            let client = client.map(Arc::as_ref);
            let connector = match &key.names {
                None => self.connector(client),
                Some(names) => {
                    let said = proxy_protocol::said(&self.base, &self.cluster.config, client);
                    tls::over_as(&said, &self.cluster.sockets, endpoint, names)
                }
            };
            Pool::new(
                key.version,
                Arc::clone(endpoint),
                connector,
                Arc::clone(&self.cluster.config.pool),
                Arc::clone(state.resources(key.priority)),
                state.pool_stats.clone(),
            )
        });
        let detector = self.cluster.detector.as_ref();
        Slot {
            pool,
            monitor: detector.map(|detector| detector.monitor(&endpoint.state)),
        }
    }

    /// How connections are made for `client`, or for everybody.
    pub(crate) fn connector(&self, client: Option<&ConnectionInfo>) -> Arc<dyn Connect> {
        if client.is_none() || self.cluster.config.proxy_protocol.is_none() {
            return Arc::clone(&self.connector);
        }
        let said = proxy_protocol::said(&self.base, &self.cluster.config, client);
        tls::over(&said, &self.cluster.sockets)
    }

    fn sweep(&self, now: Instant) {
        let set = self.cluster.set.load_full();
        let mut inner = self.lock();
        let mut closed = Vec::new();
        if inner.swept != set.version() {
            inner.swept = set.version();
            let members = set.endpoints().iter();
            let here: HashSet<usize> = members.map(|e| Arc::as_ptr(&e.state) as usize).collect();
            closed.extend(
                inner
                    .slots
                    .extract_if(|key, _| !here.contains(&key.endpoint)),
            );
        }
        if inner.named > 0 {
            // Names that nobody asks for any more.
            inner
                .slots
                .retain(|key, open| key.names.is_none() || !open.slot.pool.is_unused());
            inner.named = inner.slots.keys().filter(|key| key.names.is_some()).count();
        }
        let own = self.cluster.config.proxy_protocol.is_some();
        if own {
            let gone = inner.slots.extract_if(|_, open| open.client_has_gone());
            closed.extend(gone);
        }
        let open = inner.slots.values_mut();
        let ill: Vec<Pool> = open.filter_map(Open::fell_ill).collect();
        let open = inner.slots.values();
        let pools: Vec<Pool> = open.map(|open| open.slot.pool.clone()).collect();
        drop(inner);
        for (_, open) in closed {
            open.slot.pool.close_idle();
        }
        ill.iter().for_each(Pool::close_idle);
        pools.iter().for_each(|pool| pool.sweep(now));
    }
}
