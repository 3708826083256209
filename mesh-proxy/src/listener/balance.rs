//! Each new connection to the worker that has the fewest.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use mesh_net::Stream;

use super::{
    Serving,
    connection::{self, Accepted},
};
use crate::worker::Door;

/// The connections of one listener, by worker.
///
/// # Envoy
/// `Listener.connection_balance_config.exact_balance`
pub(super) struct ExactBalance {
    /// How many each worker has; one lock for all, since the choice must be exact.
    counts: Mutex<Vec<usize>>,
    doors: Vec<Door>,
    /// The listener as each worker serves it, which has this.
    serving: OnceLock<Vec<Weak<Serving>>>,
}

/// A connection counts for as long as this lives.
pub(super) struct Place {
    balance: Arc<ExactBalance>,
    worker: usize,
}

impl ExactBalance {
    /// Nobody has any yet; connections are handed over through `doors`, one for each worker.
    pub(super) fn new(doors: Vec<Door>) -> Self {
        Self {
            counts: Mutex::new(vec![0; doors.len()]),
            doors,
            serving: OnceLock::new(),
        }
    }

    /// This is how each worker serves the listener.
    pub(super) fn serve(&self, serving: &[Arc<Serving>]) {
        let serving = serving.iter().map(Arc::downgrade).collect();
        // Nobody says so twice.
        let _ = self.serving.set(serving);
    }

    /// A place with the worker that has the fewest, the first of several.
    fn place(self: &Arc<Self>) -> Place {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let fewest = (0..counts.len()).min_by_key(|worker| counts[*worker]);
        let worker = fewest.unwrap_or_default();
        if let Some(count) = counts.get_mut(worker) {
            *count += 1;
        }
        Place {
            balance: Arc::clone(self),
            worker,
        }
    }
}

/// Serves a connection that `serving`'s worker has accepted, there or elsewhere.
pub(super) fn spawn(stream: Stream, peer: Option<SocketAddr>, serving: &Arc<Serving>) {
    let Some(balance) = &serving.balance else {
        return connection::spawn(Accepted::new(stream, peer, serving));
    };
    let place = balance.place();
    let worker = place.worker;
    let there = balance.serving.get();
    let there = there.and_then(|all| all.get(worker)?.upgrade());
    let there = there.filter(|there| there.worker != serving.worker);
    let Some((there, door)) = there.zip(balance.doors.get(worker)) else {
        let accepted = Accepted::new(stream, peer, serving);
        return connection::spawn(accepted.with_place(place));
    };
    // Counted for the drain from here on.
    let handed = Accepted::new((), peer, &there).with_place(place);
    match handed.try_map(|()| stream.detach()) {
        Ok(handed) => {
            // One that is not taken in is served here, for want of somebody else.
            if let Err(back) = door.knock(handed) {
                connection::attach(back);
            }
        }
        Err(error) => tracing::debug!("a connection was lost on its way: {error}"),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &self.balance.counts;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(self.worker) {
            *count -= 1;
        }
    }
}
