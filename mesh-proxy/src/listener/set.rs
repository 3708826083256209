//! Which listeners there are, and what becomes of them when the config changes.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use mesh_client::{Mesh, Worker};
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
pub(crate) struct Plan(Vec<Planned>);

enum Planned {
    /// As it is.
    Keep(Arc<str>),
    Serve {
        config: Arc<model::Listener>,
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
            }),
        }))
    }

    /// Prepares to have exactly these listeners: takes addresses, builds filter chains. Nobody is served
    /// differently yet. One plan at a time.
    ///
    /// # Errors
    /// Names the listener, and says why it cannot be.
    pub(crate) fn plan(
        &self,
        listeners: &[model::Listener],
        version: &Arc<str>,
    ) -> anyhow::Result<Plan> {
        let state = self.lock();
        let planned = listeners.iter().map(|config| {
            let named = || format!("listener {:?}", config.name);
            self.0.plan_one(&state, config, version).with_context(named)
        });
        planned.collect::<anyhow::Result<_>>().map(Plan)
    }

    /// Makes the change. Listeners that are not in the plan go.
    ///
    /// # Errors
    /// When a worker cannot accept; then it serves nothing new.
    pub(crate) async fn commit(&self, plan: Plan) -> anyhow::Result<()> {
        let mut next = Vec::with_capacity(plan.0.len());
        for planned in plan.0 {
            next.push(self.0.open_sockets(planned).await?);
        }
        let mut state = self.lock();
        let phase = state.phase;
        let mut old = mem::take(&mut state.entries);
        let mut retired = Vec::new();
        for opened in next {
            let entry = match opened {
                Opened::Keep(name) => take(&mut old, |entry| entry.config.name == name),
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

/// What [`Inner::open_sockets`] made of a plan.
enum Opened {
    Keep(Arc<str>),
    Fresh(Box<Entry>),
    /// Its sockets are those of another.
    Inherit(Box<Entry>),
}

impl Inner {
    fn plan_one(
        &self,
        state: &State,
        config: &model::Listener,
        version: &Arc<str>,
    ) -> anyhow::Result<Planned> {
        let known = |entry: &&Entry| entry.config.name == config.name;
        let before = state.entries.iter().find(known);
        if before.is_some_and(|entry| entry.config.fingerprint == config.fingerprint) {
            return Ok(Planned::Keep(Arc::clone(&config.name)));
        }
        let config = Arc::new(config.clone());
        let same_socket = |entry: &&Entry| entry.has_socket_of(&config);
        let (local, bound) = match state.entries.iter().find(same_socket) {
            Some(owner) => (owner.socket.local.clone(), None),
            None => {
                let bound = self.bind(&config)?;
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
                None => ChainShared::new(chain, registry, &scope),
            }
        });
        let shared = shared.collect::<anyhow::Result<Vec<ChainShared>>>()?;
        let stats = ListenerStats::register(&scope);
        let common = Common {
            config: &config,
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
            Planned::Keep(name) => return Ok(Opened::Keep(name)),
            Planned::Serve {
                config,
                serving,
                shared,
                local,
                bound,
            } => (config, serving, shared, local, bound),
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

impl Entry {
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
