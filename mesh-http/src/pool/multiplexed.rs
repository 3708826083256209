//! Connections that carry many requests at once: HTTP/2.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use mesh_core::clock;

use super::{Inner, Pooled, State, Tracked, Waiter};
use crate::h2::client::{self, Driver, DriverEnd, Streams};

/// An open connection.
pub(super) struct Shared {
    streams: Streams,
    pub(super) id: u64,
    pub(super) local: Option<SocketAddr>,
    opened: Instant,
}

/// What the pool knows of an open connection.
pub(super) struct Multiplexed {
    shared: Arc<Shared>,
    active: u32,
    requests: u64,
    idle_since: Instant,
}

/// A place for one stream on a connection; dropping it gives the place back.
pub(super) struct Place {
    pool: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    /// The connection had been idle after an earlier request.
    pub(super) reused: bool,
}

impl Place {
    /// What opens the stream.
    pub(super) fn streams(&self) -> Streams {
        self.shared.streams.clone()
    }

    /// The connection takes no more streams: nobody else shall try.
    pub(super) fn condemn(&self) {
        self.pool.forget(self.shared.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.release(self.shared.id);
    }
}

impl Shared {
    /// Whether it takes further streams: it does not once the peer has said that it goes.
    fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(
            self.streams.clone().poll_ready(&mut cx),
            Poll::Ready(Ok(()))
        )
    }
}

impl Multiplexed {
    fn has_room(&self, most: u32) -> bool {
        let peers = self.shared.streams.current_max_send_streams();
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(peers);
        (self.active as usize) < most
    }
}

impl Inner {
    /// A place on a connection that has room.
    pub(super) fn take_place(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.lock();
        state.retired = false;
        let (place, gone) = self.find_place(&mut state);
        // Closed outside the lock: a closing connection locks the pool again.
        drop(state);
        drop(gone);
        place
    }

    /// Looks for a place; connections that take no more streams are set aside, for what runs on them.
    fn find_place(self: &Arc<Self>, state: &mut State) -> (Option<Place>, Vec<Multiplexed>) {
        let most = self.config.http2.max_concurrent_streams;
        let now = clock::now();
        let mut gone = Vec::new();
        let mut at = 0;
        while let Some(connection) = state.shared.get_mut(at) {
            if !self.is_young(connection.shared.opened, now) || !connection.shared.is_open() {
                gone.push(state.shared.remove(at));
                continue;
            }
            if !connection.has_room(most) {
                at += 1;
                continue;
            }
            let place = Place {
                pool: Arc::clone(self),
                shared: Arc::clone(&connection.shared),
                reused: connection.requests > 0 && connection.active == 0,
            };
            connection.active += 1;
            connection.requests += 1;
            let last = self.config.max_requests_per_connection;
            if last.is_some_and(|max| connection.requests >= max) {
                self.stats.upstream_cx_max_requests().inc();
                gone.push(state.shared.remove(at));
            }
            return (Some(place), gone);
        }
        (None, gone)
    }

    /// A stream is over.
    fn release(self: &Arc<Self>, id: u64) {
        let mut gone = None;
        let mut state = self.lock();
        if let Some(at) = state.shared.iter().position(|c| c.shared.id == id) {
            let connection = &mut state.shared[at];
            connection.active = connection.active.saturating_sub(1);
            if connection.active == 0 {
                connection.idle_since = clock::now();
                if state.retired && state.waiting.is_empty() {
                    gone = Some(state.shared.remove(at));
                }
            }
        }
        let waiting = !state.waiting.is_empty();
        drop(state);
        drop(gone);
        if waiting {
            self.serve_waiters();
            self.open_for_waiters();
        }
    }

    /// Gives places to those who wait longest, as long as there are both.
    pub(super) fn serve_waiters(self: &Arc<Self>) {
        while let Some((waiter, place)) = self.match_waiter() {
            // One that comes back is given back, outside the lock.
            drop(waiter.send(Ok(Pooled::Shared(place))));
        }
    }

    fn match_waiter(self: &Arc<Self>) -> Option<(Waiter, Place)> {
        let mut state = self.lock();
        state.prune();
        if state.waiting.is_empty() {
            return None;
        }
        let (place, gone) = self.find_place(&mut state);
        let matched = place.map(|place| (state.waiting.pop_front(), place));
        drop(state);
        drop(gone);
        match matched? {
            (Some(waiter), place) => Some((waiter, place)),
            (None, _) => None,
        }
    }

    /// The connection is not used for anything new.
    pub(super) fn forget(&self, id: u64) {
        let gone = {
            let mut state = self.lock();
            let at = state.shared.iter().position(|c| c.shared.id == id);
            at.map(|at| state.shared.remove(at))
        };
        drop(gone);
    }

    /// Takes those off the list that nothing runs on, and that `ends` names.
    pub(super) fn take_unused(
        state: &mut State,
        mut ends: impl FnMut(Instant) -> bool,
    ) -> Vec<Multiplexed> {
        let unused = |c: &mut Multiplexed| c.active == 0 && ends(c.idle_since);
        state.shared.extract_if(.., unused).collect()
    }

    /// Makes an HTTP/2 connection of a stream that is open, and drives it until it ends.
    pub(super) async fn run_multiplexed(self: Arc<Self>, tracked: Tracked) {
        let (id, local, opened) = (tracked.id(), tracked.local_addr(), tracked.opened());
        let connected = client::connect(tracked, &self.config.http2, self.config.limits).await;
        let Ok((streams, driver)) = connected else {
            // The stream is closed by now, and whoever waits gets another.
            return;
        };
        let shared = Arc::new(Shared {
            streams,
            id,
            local,
            opened,
        });
        self.lock().shared.push(Multiplexed {
            shared,
            active: 0,
            requests: 0,
            idle_since: clock::now(),
        });
        self.serve_waiters();
        // The pool may go while its connection still works for somebody.
        let (pool, stats) = (Arc::downgrade(&self), self.stats.clone());
        let http2 = self.http2_stats.clone();
        drop(self);
        let mut driver: Driver<Tracked> = driver;
        match (&mut driver).await {
            DriverEnd::Closed => {}
            DriverEnd::Protocol => stats.upstream_cx_protocol_error().inc(),
            DriverEnd::KeepaliveTimeout => http2.keepalive_timeout().inc(),
            DriverEnd::Flooded(flood) => http2.count_flood(flood),
        }
        if let Some(pool) = pool.upgrade() {
            pool.forget(id);
        }
    }
}
