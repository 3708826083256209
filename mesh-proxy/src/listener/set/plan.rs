//! What a change of config comes to, before it is made.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context as _, anyhow};
use mesh_config::model::{self, ListenAddress};
use mesh_core::Address;
use mesh_net::BoundSocket;

use super::{
    super::{
        Serving,
        filters::inspectors,
        serving::{ChainShared, Common},
        stats::ListenerStats,
    },
    Inner, Listeners, State,
    entry::{Entry, Update},
};
use crate::listener::balance::ExactBalance;

/// A change that is ready to be made. Nothing has changed yet but that addresses are taken.
pub(crate) struct Plan {
    pub(super) planned: Vec<Planned>,
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

pub(super) enum Planned {
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
        sockets: Vec<PlannedSocket>,
    },
}

/// One address of a listener.
pub(super) struct PlannedSocket {
    pub(super) asked: ListenAddress,
    pub(super) local: Address,
    /// Fresh sockets, one for each worker; `None` takes over those that are bound to `local`.
    pub(super) bound: Option<Vec<BoundSocket>>,
}

/// The sockets of each address of a listener, in order.
pub(super) type BoundAddresses = Vec<Vec<BoundSocket>>;

impl Listeners {
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
            let planned = claim(&mut taken, config)
                .and_then(|()| self.inner().plan_one(&mut state, config, version));
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
}

/// Takes the addresses of a listener for it alone.
fn claim<'a>(
    taken: &mut HashMap<&'a Address, &'a Arc<str>>,
    config: &'a model::Listener,
) -> anyhow::Result<()> {
    for asked in config
        .addresses
        .iter()
        .filter(|asked| !asked.has_any_port())
    {
        if let Some(other) = taken.insert(&asked.address, &config.name) {
            let address = &asked.address;
            return Err(anyhow!(
                "the listener {other:?} has the same address, {address}"
            ));
        }
    }
    Ok(())
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
        let sockets = self.plan_sockets(state, &config, reserved)?;
        let first = sockets.first().map(|socket| &socket.local);
        let registry = self.mesh.registry();
        let scope = registry.scope(&scope(
            &config,
            first.unwrap_or(&config.addresses[0].address),
        ));
        let shared = config.chains.iter().map(|chain| {
            let kept = before.and_then(|entry| entry.shared.get(entry.number_of(chain)?));
            match kept {
                Some(kept) => Ok(kept.clone()),
                None => ChainShared::new(chain, &self.mesh, &scope),
            }
        });
        let shared = shared.collect::<anyhow::Result<Vec<ChainShared>>>()?;
        let stats = ListenerStats::register(&scope);
        let balance = config.exact_balance.then(|| {
            let doors = self.workers.iter().map(|(_, commands)| commands.door());
            Arc::new(ExactBalance::new(doors.collect()))
        });
        let mut bare = (*config).clone();
        bare.chains.clear();
        let common = Common {
            config: &config,
            bare: &Arc::new(bare),
            version,
            stats: &stats,
            scope: &scope,
            inspectors: &inspectors(&config.listener_filters, registry),
            shared: &shared,
            balance: &balance,
            open: &self.open,
        };
        let workers = self.workers.iter().zip(&self.directories).enumerate();
        let serving = workers.map(|(index, ((worker, _), directory))| {
            Serving::new((index, worker, directory), &common, |number| {
                before?.kept(index, &config.chains[number])
            })
        });
        let serving = serving.collect::<std::io::Result<Vec<_>>>()?;
        if let Some(balance) = balance {
            balance.serve(&serving);
        }
        Ok(Planned::Serve {
            config,
            updates,
            serving,
            shared,
            sockets,
        })
    }

    /// The sockets that are there, those that were taken for it, and new ones for the rest.
    fn plan_sockets(
        &self,
        state: &State,
        config: &model::Listener,
        reserved: Option<BoundAddresses>,
    ) -> anyhow::Result<Vec<PlannedSocket>> {
        if !config.bind_to_port {
            return Ok(Vec::new());
        }
        let mut reserved = reserved.map(Vec::into_iter);
        let mut sockets = Vec::with_capacity(config.addresses.len());
        for (number, asked) in config.addresses.iter().enumerate() {
            let taken = reserved.as_mut().and_then(Iterator::next);
            let mut entries = state.entries.iter();
            let (local, bound) = match entries.find_map(|entry| entry.socket_for(config, number)) {
                Some(socket) => (socket.local.clone(), None),
                None => {
                    let bound = match taken.filter(|bound| !bound.is_empty()) {
                        Some(bound) => bound,
                        None => self.bind(config, asked)?,
                    };
                    let first = bound.first().context("there are no workers")?;
                    (first.local_address()?, Some(bound))
                }
            };
            sockets.push(PlannedSocket {
                asked: asked.clone(),
                local,
                bound,
            });
        }
        Ok(sockets)
    }

    /// One socket for each worker. What exists once, as a Unix socket does, is shared: all workers accept
    /// from its queue.
    pub(super) fn bind(
        &self,
        config: &model::Listener,
        asked: &ListenAddress,
    ) -> std::io::Result<Vec<BoundSocket>> {
        let workers = self.workers.len();
        let count = if config.reuse_port { workers } else { 1 };
        let mut bound = mesh_net::bind(&asked.address, count, &asked.bind)?;
        while bound.len() < workers {
            bound.push(bound[0].try_clone()?);
        }
        Ok(bound)
    }
}

fn scope(config: &model::Listener, local: &Address) -> String {
    let prefix = config.stat_prefix.clone();
    let prefix = prefix.unwrap_or_else(|| local.to_string().replace(':', "_"));
    format!("listener.{prefix}.")
}
