//! How a planned change is made.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use anyhow::Context as _;
use mesh_config::model;
use mesh_core::Address;

use super::{
    Inner, Listeners,
    entry::{Entry, Socket, Update},
    plan::{Plan, Planned, PlannedSocket},
};
use crate::{
    drain::{Drain, Phase},
    listener::{Serving, serving::ChainShared},
};

/// What [`Inner::open_sockets`] made of a plan.
enum Opened {
    Keep(Arc<model::Listener>),
    Stay(Arc<str>),
    Serve {
        entry: Box<Entry>,
        /// Where its sockets are those of another, with their place among its own.
        inherited: Vec<(usize, PlannedSocket)>,
    },
}

impl Listeners {
    /// Makes the change. Listeners that are not in the plan go.
    ///
    /// # Errors
    /// When a worker cannot accept; then it serves nothing new.
    pub(crate) async fn commit(&self, plan: Plan) -> anyhow::Result<()> {
        let mut next = Vec::with_capacity(plan.planned.len());
        for planned in plan.planned {
            next.push(self.inner().open_sockets(planned).await?);
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
                Opened::Serve {
                    mut entry,
                    inherited,
                } => {
                    for (number, planned) in inherited {
                        let socket = inherit(&mut old, &mut retired, &planned.local);
                        let Some(mut socket) = socket else { continue };
                        socket.change(planned);
                        entry
                            .sockets
                            .insert(number.min(entry.sockets.len()), socket);
                    }
                    entry.serve();
                    Some(*entry)
                }
            };
            state.entries.extend(entry);
        }
        for entry in &mut state.entries {
            entry.go_on_to(phase);
        }
        self.inner().list_addresses(&state.entries);
        for entry in old.iter_mut().chain(&mut retired) {
            entry.close();
        }
        let kept = |chain: &ChainShared| {
            let mut live = state.entries.iter().flat_map(|entry| &entry.shared);
            live.any(|other| other.drain.is(&chain.drain))
        };
        let gone = old.into_iter().chain(retired);
        let gone = gone.flat_map(|entry| entry.shared);
        let gone = gone.filter(|chain| !kept(chain)).map(|chain| chain.drain);
        self.inner().retire(gone.collect());
        Ok(())
    }
}

fn take(entries: &mut Vec<Entry>, wanted: impl Fn(&Entry) -> bool) -> Option<Entry> {
    let at = entries.iter().position(wanted)?;
    Some(entries.remove(at))
}

/// The socket that listens at `local`. A listener that has lost its last one is over.
fn inherit(old: &mut Vec<Entry>, retired: &mut Vec<Entry>, local: &Address) -> Option<Socket> {
    let socket = old.iter_mut().find_map(|entry| entry.take_socket(local))?;
    let emptied = |entry: &Entry| entry.config.bind_to_port && entry.sockets.is_empty();
    retired.extend(take(old, emptied));
    Some(socket)
}

impl Socket {
    /// Gives a socket that is taken over what the new listener asks of it.
    fn change(&mut self, planned: PlannedSocket) {
        if let Some(handle) = self.handle.as_ref().filter(|_| self.asked != planned.asked)
            && let Err(error) = handle.change(&planned.asked.bind)
        {
            tracing::warn!("{} stays in part as it was: {error}", self.local);
        }
        self.asked = planned.asked;
    }
}

impl Inner {
    /// Hands fresh sockets to the workers, which accept as soon as somebody serves.
    async fn open_sockets(&self, planned: Planned) -> anyhow::Result<Opened> {
        let (config, serving, shared, planned) = match planned {
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
                sockets,
            } => {
                updates.into_iter().for_each(Update::make);
                (config, serving, shared, sockets)
            }
        };
        let mut sockets = Vec::new();
        let mut inherited = Vec::new();
        for (number, planned) in planned.into_iter().enumerate() {
            if planned.bound.is_none() {
                inherited.push((number, planned));
                continue;
            }
            let opened = self.open_socket(planned, &serving).await;
            sockets.push(opened.with_context(|| format!("listener {:?}", config.name))?);
        }
        let entry = Box::new(Entry {
            config,
            serving,
            shared,
            sockets,
        });
        Ok(Opened::Serve { entry, inherited })
    }

    async fn open_socket(
        &self,
        planned: PlannedSocket,
        serving: &[Arc<Serving>],
    ) -> anyhow::Result<Socket> {
        let bound = planned.bound.unwrap_or_default();
        let handle = match (&planned.local, bound.first()) {
            (Address::Unix(_), Some(first)) => Some(first.try_clone()?),
            _ => None,
        };
        let mut socket = Socket {
            asked: planned.asked,
            local: planned.local,
            accept: Vec::new(),
            handle,
        };
        let workers = self.workers.iter().zip(bound).zip(serving);
        for (((_, commands), bound), serving) in workers {
            let accept = tokio::sync::watch::Sender::new(Some(Arc::clone(serving)));
            commands.listen(bound, accept.subscribe()).await?;
            socket.accept.push(accept);
        }
        Ok(socket)
    }

    /// Tells each worker which listener has which address, for connections that were meant for another.
    fn list_addresses(&self, entries: &[Entry]) {
        for (index, directory) in self.directories.iter().enumerate() {
            let rows = entries.iter().flat_map(|entry| {
                let serving = entry.serving.get(index);
                let addresses = entry.addresses().into_iter();
                addresses.filter_map(move |address| match address {
                    Address::Socket(address) => Some((address, Arc::clone(serving?))),
                    Address::Unix(_) => None,
                })
            });
            directory.replace(rows);
        }
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
