//! Which listeners there are, and what becomes of them when the config changes.
//!
//! | file | what |
//! |---|---|
//! | `plan` | what a change comes to: which sockets are taken over, which are new |
//! | `commit` | how it is made |
//! | `entry` | one listener and its sockets |

mod commit;
mod entry;
mod plan;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_client::{Mesh, SocketSecrets, Worker};
use mesh_config::model;
use mesh_core::Address;

use entry::Entry;
use plan::BoundAddresses;

use super::{directory::Directory, serving::ChainShared};
use crate::{drain::Phase, flags::Flags, worker::Commands};

/// The listeners of the process, as the control thread knows them. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Listeners(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    workers: Vec<(Arc<Worker>, Commands)>,
    /// For each worker: which listener has which address.
    directories: Vec<Arc<Directory>>,
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
    /// For each address; nothing where the address is in use here already.
    bound: BoundAddresses,
}

impl Listeners {
    /// No listeners yet, for these workers.
    pub(crate) fn new(mesh: Mesh, workers: Vec<(Arc<Worker>, Commands)>, flags: &Flags) -> Self {
        Self(Arc::new(Inner {
            mesh,
            directories: workers.iter().map(|_| Arc::default()).collect(),
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

    /// Takes the addresses of a listener that is to come, unless they are in use here already.
    ///
    /// # Errors
    /// When somebody else has one.
    pub(crate) fn reserve(&self, config: &Arc<model::Listener>) -> anyhow::Result<()> {
        let mut state = self.lock();
        state.release(&config.name);
        if !config.bind_to_port {
            return Ok(());
        }
        let mut bound = Vec::with_capacity(config.addresses.len());
        for asked in &config.addresses {
            let mut here = state.entries.iter().flat_map(|entry| &entry.sockets);
            bound.push(
                match here.any(|socket| socket.asked.address == asked.address) {
                    true => Vec::new(),
                    false => self.0.bind(config, asked)?,
                },
            );
        }
        let config = Arc::clone(config);
        state.reserved.push(Reserved { config, bound });
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
        for entry in &mut state.entries {
            entry.go_on_to(phase);
        }
    }

    /// How far the process is on its way out.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Names and addresses, in the order of the config.
    pub(crate) fn list(&self) -> Vec<(Arc<str>, Vec<Address>)> {
        let state = self.lock();
        let entries = state.entries.iter();
        entries
            .map(|entry| (Arc::clone(&entry.config.name), entry.addresses()))
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

    fn inner(&self) -> &Inner {
        &self.0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // They have the listeners, which have them.
        let directories = self.directories.iter();
        directories.for_each(|directory| directory.replace(std::iter::empty()));
    }
}

impl State {
    fn release(&mut self, name: &str) {
        self.reserved.retain(|kept| *kept.config.name != *name);
    }

    /// The sockets that were taken for `config`.
    fn take_reserved(&mut self, config: &model::Listener) -> Option<BoundAddresses> {
        let fits = |kept: &Reserved| {
            let known = &kept.config;
            known.name == config.name
                && known.addresses == config.addresses
                && known.reuse_port == config.reuse_port
        };
        let at = self.reserved.iter().position(fits)?;
        Some(self.reserved.swap_remove(at).bound)
    }
}
