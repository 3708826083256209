//! Which listeners there are, and what becomes of them when the config changes.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use mesh_client::{Mesh, NextManager, SocketSecrets, Worker};
use mesh_config::model;
use mesh_core::Address;
use mesh_net::BoundSocket;
use tokio::sync::watch;

use super::{
    Serving,
    filters::inspectors,
    serving::{Chain, ChainShared, Common},
    stats::ListenerStats,
};
use crate::{
    drain::{Drain, Phase},
    flags::Flags,
    worker::Commands,
};

/// The listeners of the process, as the control thread knows them. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Listeners(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    workers: Vec<(Arc<Worker>, Commands)>,
    drain_min: Duration,
    drain_max: Duration,
    /// Connections open in the whole process.
    open: Arc<AtomicUsize>,
    /// Listeners and filter chains that have been replaced and still have time to go.
    draining: Arc<AtomicUsize>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    entries: Vec<Entry>,
    /// Addresses of listeners that are to come.
    reserved: Vec<Reserved>,
}

/// Sockets that nobody accepts from yet.
struct Reserved {
    config: Arc<model::Listener>,
    bound: Vec<BoundSocket>,
}

/// One listener.
struct Entry {
    config: Arc<model::Listener>,
    /// For each worker.
    serving: Vec<Arc<Serving>>,
    /// For each filter chain.
    shared: Vec<ChainShared>,
    socket: Socket,
}

/// Where a listener listens.
struct Socket {
    local: Address,
    /// For each worker: who serves.
    accept: Vec<watch::Sender<Option<Arc<Serving>>>>,
}

/// A change that is ready to be made. Nothing has changed yet but that addresses are taken.
pub(crate) struct Plan {
    planned: Vec<Planned>,
    /// Listeners that cannot be as they should; they stay as they are.
    pub(crate) failed: Vec<(Arc<str>, anyhow::Error)>,
}

impl Plan {
    /// All or nothing.
    ///
    /// # Errors
    /// Names the first listener that cannot be, and says why.
    pub(crate) fn whole(mut self) -> anyhow::Result<Self> {
        if self.failed.is_empty() {
            return Ok(self);
        }
        let (name, error) = self.failed.swap_remove(0);
        Err(error.context(format!("listener {name:?}")))
    }
}

/// The next version of a connection manager whose filter chain stays: its routes have changed.
struct Update {
    chain: Arc<Chain>,
    next: NextManager,
}

enum Planned {
    /// As it is, but for routes that come on their own.
    Keep {
        config: Arc<model::Listener>,
        updates: Vec<Update>,
    },
    /// As it is, since it cannot be as it should.
    Stay(Arc<str>),
    Serve {
        config: Arc<model::Listener>,
        /// Of the filter chains that it has in common with the one before.
        updates: Vec<Update>,
        serving: Vec<Arc<Serving>>,
        shared: Vec<ChainShared>,
        local: Address,
        /// Fresh sockets, one for each worker; `None` takes over those that are bound to `local`.
        bound: Option<Vec<BoundSocket>>,
    },
}

impl Listeners {
    /// No listeners yet, for these workers.
    pub(crate) fn new(mesh: Mesh, workers: Vec<(Arc<Worker>, Commands)>, flags: &Flags) -> Self {
        Self(Arc::new(Inner {
            mesh,
            workers,
            drain_min: flags.drain_min(),
            drain_max: flags.drain_max(),
            open: Arc::default(),
            draining: Arc::default(),
            state: Mutex::new(State {
                phase: Phase::Running,
                entries: Vec::new(),
                reserved: Vec::new(),
            }),
        }))
    }

    /// Prepares to have exactly these listeners: takes addresses, builds filter chains. Nobody is served
    /// differently yet. One plan at a time.
    pub(crate) fn plan(&self, listeners: &[Arc<model::Listener>], version: &Arc<str>) -> Plan {
        let mut state = self.lock();
        let mut plan = Plan {
            planned: Vec::with_capacity(listeners.len()),
            failed: Vec::new(),
        };
        let mut taken: HashMap<&Address, &Arc<str>> = HashMap::new();
        for config in listeners {
            let any_port = matches!(&config.address, Address::Socket(socket) if socket.port() == 0);
            let other = taken.insert(&config.address, &config.name);
            let planned = match other.filter(|_| !any_port) {
                Some(other) => Err(anyhow!(
                    "the listener {other:?} has the same address, {}",
                    config.address
                )),
                None => self.0.plan_one(&mut state, config, version),
            };
            match planned {
                Ok(planned) => plan.planned.push(planned),
                Err(error) => {
                    plan.planned.push(Planned::Stay(Arc::clone(&config.name)));
                    plan.failed.push((Arc::clone(&config.name), error));
                }
            }
        }
        plan
    }

    /// Makes the change. Listeners that are not in the plan go.
    ///
    /// # Errors
    /// When a worker cannot accept; then it serves nothing new.
    pub(crate) async fn commit(&self, plan: Plan) -> anyhow::Result<()> {
        let mut next = Vec::with_capacity(plan.planned.len());
        for planned in plan.planned {
            next.push(self.0.open_sockets(planned).await?);
        }
        // What stays has its sockets only if nobody else got them.
        next.sort_by_key(|opened| matches!(opened, Opened::Stay(_)));
        let mut state = self.lock();
        let phase = state.phase;
        let mut old = mem::take(&mut state.entries);
        let mut retired = Vec::new();
        for opened in next {
            let entry = match opened {
                Opened::Keep(config) => {
                    let kept = take(&mut old, |entry| entry.config.name == config.name);
                    kept.map(|kept| Entry { config, ..kept })
                }
                Opened::Stay(name) => take(&mut old, |entry| entry.config.name == name),
                Opened::Fresh(entry) => {
                    entry.serve();
                    Some(*entry)
                }
                Opened::Inherit(mut entry) => {
                    let local = entry.socket.local.clone();
                    let mut before = take(&mut old, |entry| entry.socket.local == local);
                    if let Some(before) = &mut before {
                        entry.socket.accept = mem::take(&mut before.socket.accept);
                        entry.serve();
                    }
                    retired.extend(before);
                    Some(*entry)
                }
            };
            state.entries.extend(entry);
        }
        for entry in &state.entries {
            entry.go_on_to(phase);
        }
        for entry in old.iter().chain(&retired) {
            entry.close();
        }
        let kept = |chain: &ChainShared| {
            let mut live = state.entries.iter().flat_map(|entry| &entry.shared);
            live.any(|other| other.drain.is(&chain.drain))
        };
        let gone = old.into_iter().chain(retired);
        let gone = gone.flat_map(|entry| entry.shared);
        let gone = gone.filter(|chain| !kept(chain)).map(|chain| chain.drain);
        self.0.retire(gone.collect());
        Ok(())
    }

    /// Takes the address of a listener that is to come, unless it is in use here already.
    ///
    /// # Errors
    /// When somebody else has it.
    pub(crate) fn reserve(&self, config: &Arc<model::Listener>) -> anyhow::Result<()> {
        let mut state = self.lock();
        state.release(&config.name);
        let here = |entry: &Entry| entry.config.address == config.address;
        if !state.entries.iter().any(here) {
            let bound = self.0.bind(config)?;
            let config = Arc::clone(config);
            state.reserved.push(Reserved { config, bound });
        }
        Ok(())
    }

    /// A listener will not come after all.
    pub(crate) fn release(&self, name: &str) {
        self.lock().release(name);
    }

    /// The whole process goes on to `phase`, never back.
    pub(crate) fn advance(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = state.phase.max(phase);
        for entry in &state.entries {
            entry.go_on_to(phase);
        }
    }

    /// How far the process is on its way out.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Names and addresses, in the order of the config.
    pub(crate) fn list(&self) -> Vec<(Arc<str>, Address)> {
        let state = self.lock();
        let entries = state.entries.iter();
        entries
            .map(|entry| (Arc::clone(&entry.config.name), entry.socket.local.clone()))
            .collect()
    }

    /// The secrets of all transport sockets.
    pub(crate) fn secrets(&self) -> Vec<SocketSecrets> {
        let state = self.lock();
        let chains = state.entries.iter().flat_map(|entry| &entry.shared);
        let sockets = chains.filter_map(ChainShared::tls);
        sockets.map(|socket| socket.secrets().clone()).collect()
    }

    /// Connections open.
    pub(crate) fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Listeners and filter chains that have been replaced and still have time to go.
    pub(crate) fn draining(&self) -> usize {
        self.0.draining.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn release(&mut self, name: &str) {
        self.reserved.retain(|kept| *kept.config.name != *name);
    }

    /// The sockets that were taken for `config`.
    fn take_reserved(&mut self, config: &model::Listener) -> Option<Vec<BoundSocket>> {
        let fits = |kept: &Reserved| {
            let known = &kept.config;
            known.name == config.name
                && known.address == config.address
                && known.bind == config.bind
                && known.reuse_port == config.reuse_port
        };
        let at = self.reserved.iter().position(fits)?;
        Some(self.reserved.swap_remove(at).bound)
    }
}

/// What [`Inner::open_sockets`] made of a plan.
enum Opened {
    Keep(Arc<model::Listener>),
    Stay(Arc<str>),
    Fresh(Box<Entry>),
    /// Its sockets are those of another.
    Inherit(Box<Entry>),
}

impl Inner {
    fn plan_one(
        &self,
        state: &mut State,
        config: &Arc<model::Listener>,
        version: &Arc<str>,
    ) -> anyhow::Result<Planned> {
        let reserved = state.take_reserved(config);
        let known = |entry: &&Entry| entry.config.name == config.name;
        let before = state.entries.iter().find(known);
        let updates = before.map_or_else(|| Ok(Vec::new()), |entry| entry.updates(config, version));
        let updates = updates?;
        let config = Arc::clone(config);
        if before.is_some_and(|entry| entry.config.fingerprint == config.fingerprint) {
            return Ok(Planned::Keep { config, updates });
        }
        let same_socket = |entry: &&Entry| entry.has_socket_of(&config);
        let (local, bound) = match state.entries.iter().find(same_socket) {
            Some(owner) => (owner.socket.local.clone(), None),
            None => {
                let bound = match reserved {
                    Some(bound) => bound,
                    None => self.bind(&config)?,
                };
                let first = bound.first().context("there are no workers")?;
                (first.local_address()?, Some(bound))
            }
        };
        let registry = self.mesh.registry();
        let scope = registry.scope(&scope(&config, &local));
        let shared = config.chains.iter().map(|chain| {
            let kept = before.and_then(|entry| entry.shared.get(entry.number_of(chain)?));
            match kept {
                Some(kept) => Ok(kept.clone()),
                None => ChainShared::new(chain, &self.mesh, &scope),
            }
        });
        let shared = shared.collect::<anyhow::Result<Vec<ChainShared>>>()?;
        let stats = ListenerStats::register(&scope);
        let mut bare = (*config).clone();
        bare.chains.clear();
        let common = Common {
            config: &config,
            bare: &Arc::new(bare),
            version,
            stats: &stats,
            inspectors: &inspectors(&config.listener_filters, registry),
            shared: &shared,
            open: &self.open,
        };
        let workers = self.workers.iter().enumerate();
        let serving = workers.map(|(index, (worker, _))| {
            Serving::new(worker, &common, |number| {
                before?.kept(index, &config.chains[number])
            })
        });
        let serving = serving.collect::<std::io::Result<_>>()?;
        Ok(Planned::Serve {
            config,
            updates,
            serving,
            shared,
            local,
            bound,
        })
    }

    /// One socket for each worker. What exists once, as a Unix socket does, is shared: all workers accept
    /// from its queue.
    fn bind(&self, config: &model::Listener) -> std::io::Result<Vec<BoundSocket>> {
        let workers = self.workers.len();
        let count = if config.reuse_port { workers } else { 1 };
        let mut bound = mesh_net::bind(&config.address, count, &config.bind)?;
        while bound.len() < workers {
            bound.push(bound[0].try_clone()?);
        }
        Ok(bound)
    }

    /// Hands fresh sockets to the workers, which accept as soon as somebody serves.
    async fn open_sockets(&self, planned: Planned) -> anyhow::Result<Opened> {
        let (config, serving, shared, local, bound) = match planned {
            Planned::Keep { config, updates } => {
                updates.into_iter().for_each(Update::make);
                return Ok(Opened::Keep(config));
            }
            Planned::Stay(name) => return Ok(Opened::Stay(name)),
            Planned::Serve {
                config,
                updates,
                serving,
                shared,
                local,
                bound,
            } => {
                updates.into_iter().for_each(Update::make);
                (config, serving, shared, local, bound)
            }
        };
        let mut entry = Box::new(Entry {
            config,
            serving,
            shared,
            socket: Socket {
                local,
                accept: Vec::new(),
            },
        });
        let Some(bound) = bound else {
            return Ok(Opened::Inherit(entry));
        };
        let workers = self.workers.iter().zip(bound).zip(&entry.serving);
        for (((_, commands), socket), serving) in workers {
            let accept = watch::Sender::new(Some(Arc::clone(serving)));
            let named = || format!("listener {:?}", entry.config.name);
            commands
                .listen(socket, accept.subscribe())
                .await
                .with_context(named)?;
            entry.socket.accept.push(accept);
        }
        Ok(Opened::Fresh(entry))
    }

    /// Tells the connections of filter chains to go, and ends them when their time is over.
    fn retire(&self, drains: Vec<Drain>) {
        if drains.is_empty() {
            return;
        }
        let advance =
            |drains: &[Drain], phase| drains.iter().for_each(|drain| drain.advance(phase));
        advance(&drains, Phase::Announcing);
        let draining = Arc::clone(&self.draining);
        let (min, max) = (self.drain_min, self.drain_max);
        draining.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::time::sleep(min).await;
            advance(&drains, Phase::Finishing);
            tokio::time::sleep(max.saturating_sub(min)).await;
            advance(&drains, Phase::Over);
            draining.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl Update {
    fn make(self) {
        self.chain.replace(self.next);
    }
}

impl Entry {
    /// What changes about the connection managers of the filter chains that stay for `next`.
    fn updates(&self, next: &model::Listener, version: &Arc<str>) -> std::io::Result<Vec<Update>> {
        let mut updates = Vec::new();
        for chain in &next.chains {
            let Some(number) = self.number_of(chain) else {
                continue;
            };
            let known = self
                .config
                .chains
                .get(number)
                .and_then(model::FilterChain::manager);
            let Some(config) = chain.manager() else {
                continue;
            };
            if known.is_some_and(|known| Arc::ptr_eq(known, config)) {
                continue;
            }
            let workers = self.serving.iter();
            for chain in workers.filter_map(|serving| serving.chain(number)) {
                if let Some(manager) = chain.manager() {
                    let next = manager.next(config, version)?;
                    let chain = Arc::clone(chain);
                    updates.push(Update { chain, next });
                }
            }
        }
        Ok(updates)
    }

    /// Whether its sockets will do for `config`.
    fn has_socket_of(&self, config: &model::Listener) -> bool {
        let any_port = matches!(&config.address, Address::Socket(socket) if socket.port() == 0);
        self.config.address == config.address
            && self.config.reuse_port == config.reuse_port
            && self.config.bind == config.bind
            && (!any_port || self.config.name == config.name)
    }

    /// Its filter chain that is just like `chain`.
    fn number_of(&self, chain: &model::FilterChain) -> Option<usize> {
        let mut chains = self.config.chains.iter();
        chains.position(|own| own.fingerprint == chain.fingerprint)
    }

    fn kept(&self, worker: usize, chain: &model::FilterChain) -> Option<Arc<Chain>> {
        let number = self.number_of(chain)?;
        self.serving.get(worker)?.chain(number).cloned()
    }

    /// From now on, its sockets' connections are its own.
    fn serve(&self) {
        for (accept, serving) in self.socket.accept.iter().zip(&self.serving) {
            accept.send_replace(Some(Arc::clone(serving)));
        }
    }

    fn go_on_to(&self, phase: Phase) {
        let chains = self.shared.iter();
        chains.for_each(|chain| chain.drain.advance(phase));
        if phase >= Phase::Finishing {
            self.close();
        }
    }

    /// Its sockets take what is queued and close.
    fn close(&self) {
        for accept in &self.socket.accept {
            accept.send_replace(None);
        }
    }
}

fn take(entries: &mut Vec<Entry>, wanted: impl Fn(&Entry) -> bool) -> Option<Entry> {
    let at = entries.iter().position(wanted)?;
    Some(entries.remove(at))
}

fn scope(config: &model::Listener, local: &Address) -> String {
    let prefix = config.stat_prefix.clone();
    let prefix = prefix.unwrap_or_else(|| local.to_string().replace(':', "_"));
    format!("listener.{prefix}.")
}
