use std::{
    io,
    sync::{Arc, atomic::AtomicUsize},
};

use mesh_client::{DownstreamSocket, Manager, Worker};
use mesh_config::model::{self, NetworkFilter};
use mesh_core::ConnectionInfo;
use tokio::sync::watch;

use super::stats::ListenerStats;
use crate::drain::{Drain, Phase};

/// What one worker does with the connections of a listener: one version of its config, built once.
pub(crate) struct Serving {
    pub(super) config: Arc<model::Listener>,
    /// In the order of the config.
    chains: Vec<Arc<Chain>>,
    pub(super) stats: ListenerStats,
    /// Connections open in the whole process.
    pub(super) open: Arc<AtomicUsize>,
}

/// One filter chain on one worker.
pub(crate) struct Chain {
    pub(super) terminal: Terminal,
    pub(super) tls: Option<Arc<DownstreamSocket>>,
    phase: watch::Receiver<Phase>,
}

/// The network filter that ends a chain.
pub(super) enum Terminal {
    Http(Manager),
}

/// What the workers' versions of a listener have in common.
pub(super) struct Common<'a> {
    pub(super) config: &'a Arc<model::Listener>,
    pub(super) version: &'a Arc<str>,
    pub(super) stats: &'a ListenerStats,
    /// For each filter chain.
    pub(super) drains: &'a [Drain],
    /// For each filter chain, unless it is kept or plaintext.
    pub(super) sockets: &'a [Option<Arc<DownstreamSocket>>],
    pub(super) open: &'a Arc<AtomicUsize>,
}

impl Serving {
    /// The listener as `worker` serves it. A chain that `kept` has is taken from there: its connections go on
    /// undisturbed.
    ///
    /// # Errors
    /// When a log file cannot be opened.
    pub(super) fn new(
        worker: &Arc<Worker>,
        common: &Common<'_>,
        kept: impl Fn(usize) -> Option<Arc<Chain>>,
    ) -> io::Result<Arc<Self>> {
        let chains = common.config.chains.iter().enumerate();
        let chains = chains
            .map(|(number, config)| match kept(number) {
                Some(chain) => Ok(chain),
                None => Chain::new(worker, config, common, number).map(Arc::new),
            })
            .collect::<io::Result<_>>()?;
        Ok(Arc::new(Self {
            config: Arc::clone(common.config),
            chains,
            stats: common.stats.clone(),
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
        common: &Common<'_>,
        number: usize,
    ) -> io::Result<Self> {
        let mut terminal = None;
        for filter in &config.filters {
            match filter {
                NetworkFilter::Http(manager) => {
                    terminal = Some(Terminal::Http(Manager::new(
                        worker,
                        manager,
                        common.version,
                    )?));
                }
                other => {
                    let reason = format!("a network filter is not known: {other:?}");
                    return Err(io::Error::other(reason));
                }
            }
        }
        let nothing = || io::Error::other("a filter chain has no filter that ends it");
        Ok(Self {
            terminal: terminal.ok_or_else(nothing)?,
            tls: common.sockets[number].clone(),
            phase: common.drains[number].watch(),
        })
    }

    /// How far the chain is on its way out.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }
}
