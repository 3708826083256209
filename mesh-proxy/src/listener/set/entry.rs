//! One listener, and its sockets.

use std::sync::Arc;

use mesh_client::NextManager;
use mesh_config::model::{self, ListenAddress};
use mesh_core::Address;
use mesh_net::BoundSocket;
use tokio::sync::watch;

use super::super::{
    Serving,
    serving::{Chain, ChainShared},
};
use crate::drain::Phase;

/// One listener.
pub(super) struct Entry {
    pub(super) config: Arc<model::Listener>,
    /// For each worker.
    pub(super) serving: Vec<Arc<Serving>>,
    /// For each filter chain.
    pub(super) shared: Vec<ChainShared>,
    /// For each address, in the order of the config; none if it does not listen.
    pub(super) sockets: Vec<Socket>,
}

/// Where a listener listens.
pub(super) struct Socket {
    /// The address that was asked for, and how.
    pub(super) asked: ListenAddress,
    pub(super) local: Address,
    /// For each worker: who serves.
    pub(super) accept: Vec<watch::Sender<Option<Arc<Serving>>>>,
    /// A Unix socket exists once: what is changed about it is changed here.
    pub(super) handle: Option<BoundSocket>,
}

/// The next version of a connection manager whose filter chain stays: its routes have changed.
pub(super) struct Update {
    chain: Arc<Chain>,
    next: NextManager,
}

impl Update {
    pub(super) fn make(self) {
        self.chain.replace(self.next);
    }
}

impl Entry {
    /// What changes about the connection managers of the filter chains that stay for `next`.
    pub(super) fn updates(
        &self,
        next: &model::Listener,
        version: &Arc<str>,
    ) -> std::io::Result<Vec<Update>> {
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

    /// Its socket that will do for the address of that number of `config`.
    pub(super) fn socket_for(&self, config: &model::Listener, number: usize) -> Option<&Socket> {
        let asked = config.addresses.get(number)?;
        if asked.has_any_port() && self.config.name != config.name {
            return None;
        }
        let fits = |socket: &Socket| match &asked.address {
            // There is no second one of the same name, whatever is changed about it.
            Address::Unix(_) => socket.asked.address == asked.address,
            Address::Socket(_) => {
                socket.asked == *asked && self.config.reuse_port == config.reuse_port
            }
        };
        if asked.has_any_port() {
            // Which of the ports is known by the place in the config alone.
            return self.sockets.get(number).filter(|socket| fits(socket));
        }
        self.sockets.iter().find(|socket| fits(socket))
    }

    /// Gives away the socket that listens at `local`.
    pub(super) fn take_socket(&mut self, local: &Address) -> Option<Socket> {
        let at = self
            .sockets
            .iter()
            .position(|socket| socket.local == *local)?;
        Some(self.sockets.remove(at))
    }

    /// Where it listens, or would.
    pub(super) fn addresses(&self) -> Vec<Address> {
        if self.config.bind_to_port {
            return self
                .sockets
                .iter()
                .map(|socket| socket.local.clone())
                .collect();
        }
        let asked = self.config.addresses.iter();
        asked.map(|asked| asked.address.clone()).collect()
    }

    /// Its filter chain that is just like `chain`.
    pub(super) fn number_of(&self, chain: &model::FilterChain) -> Option<usize> {
        let mut chains = self.config.chains.iter();
        chains.position(|own| own.fingerprint == chain.fingerprint)
    }

    pub(super) fn kept(&self, worker: usize, chain: &model::FilterChain) -> Option<Arc<Chain>> {
        let number = self.number_of(chain)?;
        self.serving.get(worker)?.chain(number).cloned()
    }

    /// From now on, its sockets' connections are its own.
    pub(super) fn serve(&self) {
        for socket in &self.sockets {
            for (accept, serving) in socket.accept.iter().zip(&self.serving) {
                accept.send_replace(Some(Arc::clone(serving)));
            }
        }
    }

    pub(super) fn go_on_to(&mut self, phase: Phase) {
        let chains = self.shared.iter();
        chains.for_each(|chain| chain.drain.advance(phase));
        if phase >= Phase::Finishing {
            self.close();
        }
    }

    /// Its sockets take what is queued and close.
    pub(super) fn close(&mut self) {
        self.sockets.iter_mut().for_each(Socket::close);
    }
}

impl Socket {
    pub(super) fn close(&mut self) {
        self.handle = None;
        for accept in &self.accept {
            accept.send_replace(None);
        }
    }
}
