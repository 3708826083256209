use std::{
    io,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use mesh_client::{ConnectionLog, DownstreamSocket, Manager, Mesh, NextManager, TcpProxy, Worker};
use mesh_config::model::{self, NetworkFilter};
use mesh_core::{ConnectionInfo, stats::Scope};
use tokio::{runtime::Handle, sync::watch};

use super::{
    balance::ExactBalance,
    directory::Directory,
    filters::Inspector,
    limit::ConnectionLimit,
    stats::{ListenerStats, WorkerStats},
};
use crate::drain::{Drain, Phase};

/// What one worker does with the connections of a listener: one version of its config, built once.
pub(crate) struct Serving {
    /// Without its filter chains, which live on with other routes than these.
    pub(super) config: Arc<model::Listener>,
    /// In the order of the config.
    chains: Vec<Arc<Chain>>,
    pub(super) inspectors: Arc<[Inspector]>,
    pub(super) stats: ListenerStats,
    /// The number of the worker.
    pub(super) worker: usize,
    pub(super) worker_stats: WorkerStats,
    /// Who has which address on this worker.
    pub(super) directory: Arc<Directory>,
    /// Which worker gets a connection, where it is not the one that accepted it.
    pub(super) balance: Option<Arc<ExactBalance>>,
    /// Of connections, if they are logged.
    pub(super) log: Option<ConnectionLog>,
    /// Connections open in the whole process.
    pub(super) open: Arc<AtomicUsize>,
}

/// One filter chain on one worker.
pub(crate) struct Chain {
    /// In the order of the config; shared by the workers.
    pub(super) limits: Arc<[Arc<ConnectionLimit>]>,
    pub(super) terminal: Terminal,
    pub(super) tls: Option<Arc<DownstreamSocket>>,
    phase: watch::Receiver<Phase>,
}

/// The network filter that ends a chain.
pub(super) enum Terminal {
    /// As it is for the next connection.
    Http(Mutex<Manager>),
    Tcp(TcpProxy),
}

/// What the workers' versions of a listener have in common.
pub(super) struct Common<'a> {
    pub(super) config: &'a model::Listener,
    /// The same without its filter chains.
    pub(super) bare: &'a Arc<model::Listener>,
    pub(super) version: &'a Arc<str>,
    pub(super) stats: &'a ListenerStats,
    /// Of its stats.
    pub(super) scope: &'a Scope,
    pub(super) inspectors: &'a Arc<[Inspector]>,
    /// For each filter chain.
    pub(super) shared: &'a [ChainShared],
    pub(super) balance: &'a Option<Arc<ExactBalance>>,
    pub(super) open: &'a Arc<AtomicUsize>,
}

/// What the workers' versions of a filter chain have in common. Cloning shares it.
#[derive(Clone)]
pub(super) struct ChainShared {
    pub(super) drain: Drain,
    limits: Arc<[Arc<ConnectionLimit>]>,
    tls: Option<Arc<DownstreamSocket>>,
}

impl ChainShared {
    /// # Errors
    /// When its certificates cannot be used.
    pub(super) fn new(
        config: &model::FilterChain,
        mesh: &Mesh,
        listener: &Scope,
    ) -> anyhow::Result<Self> {
        let registry = mesh.registry();
        let limits = config.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::ConnectionLimit(limit) => Some(ConnectionLimit::new(limit, registry)),
            _ => None,
        });
        let tls = config.tls.as_ref();
        let tls =
            tls.map(|tls| DownstreamSocket::new(tls, listener, mesh.secrets(), &Handle::current()));
        Ok(Self {
            drain: Drain::new(),
            limits: limits.collect(),
            tls: tls.transpose()?.map(Arc::new),
        })
    }
}

impl ChainShared {
    /// Its transport socket, if it encrypts.
    pub(super) fn tls(&self) -> Option<&Arc<DownstreamSocket>> {
        self.tls.as_ref()
    }
}

impl Serving {
    /// The listener as `worker` serves it. A chain that `kept` has is taken from there: its connections go on
    /// undisturbed.
    ///
    /// # Errors
    /// When a log file cannot be opened.
    pub(super) fn new(
        (number, worker, directory): (usize, &Arc<Worker>, &Arc<Directory>),
        common: &Common<'_>,
        kept: impl Fn(usize) -> Option<Arc<Chain>>,
    ) -> io::Result<Arc<Self>> {
        let chains = common.config.chains.iter().zip(common.shared).enumerate();
        let chains = chains
            .map(|(number, (config, shared))| match kept(number) {
                Some(chain) => Ok(chain),
                None => Chain::new(worker, config, common.version, shared).map(Arc::new),
            })
            .collect::<io::Result<_>>()?;
        Ok(Arc::new(Self {
            config: Arc::clone(common.bare),
            chains,
            inspectors: Arc::clone(common.inspectors),
            stats: common.stats.clone(),
            worker: number,
            worker_stats: WorkerStats::register(&common.scope.scope(&format!("worker_{number}."))),
            directory: Arc::clone(directory),
            balance: common.balance.clone(),
            log: ConnectionLog::new(worker, &common.config.access_log, common.version)?,
            open: Arc::clone(common.open),
        }))
    }

    /// The filter chain of that number.
    pub(super) fn chain(&self, number: usize) -> Option<&Arc<Chain>> {
        self.chains.get(number)
    }

    /// The filter chain that takes the connection.
    pub(super) fn chain_for(&self, connection: &ConnectionInfo) -> Option<&Arc<Chain>> {
        let found = self.config.matcher.find(connection);
        self.chain(found.or(self.config.default_chain)?)
    }
}

impl Chain {
    fn new(
        worker: &Arc<Worker>,
        config: &model::FilterChain,
        version: &Arc<str>,
        shared: &ChainShared,
    ) -> io::Result<Self> {
        let mut terminal = None;
        for filter in &config.filters {
            match filter {
                NetworkFilter::Http(manager) => {
                    let manager = Manager::new(worker, manager, version)?;
                    terminal = Some(Terminal::Http(Mutex::new(manager)));
                }
                NetworkFilter::TcpProxy(proxy) => {
                    terminal = Some(Terminal::Tcp(TcpProxy::new(worker, proxy, version)?));
                }
                // With what the workers share.
                NetworkFilter::ConnectionLimit(_) => {}
            }
        }
        let nothing = || io::Error::other("a filter chain has no filter that ends it");
        Ok(Self {
            limits: Arc::clone(&shared.limits),
            terminal: terminal.ok_or_else(nothing)?,
            tls: shared.tls.clone(),
            phase: shared.drain.watch(),
        })
    }

    /// Its connection manager of now, if it ends in one.
    pub(super) fn manager(&self) -> Option<Manager> {
        match &self.terminal {
            Terminal::Http(manager) => Some(newest(manager)),
            Terminal::Tcp(_) => None,
        }
    }

    /// Gives its connection manager another config.
    pub(super) fn replace(&self, next: NextManager) {
        if let Terminal::Http(manager) = &self.terminal {
            let mut manager = manager.lock().unwrap_or_else(PoisonError::into_inner);
            manager.replace(next);
        }
    }

    /// How far the chain is on its way out.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }
}

/// The connection manager for the next connection.
pub(super) fn newest(manager: &Mutex<Manager>) -> Manager {
    let manager = manager.lock().unwrap_or_else(PoisonError::into_inner);
    manager.clone()
}
