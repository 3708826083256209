//! Connections that carry many requests at once: HTTP/2.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Instant,
};

use http::Request;
use mesh_core::{BoxFuture, Error, ErrorKind, TlsFacts, TunnelRequest, clock};
use tokio::sync::watch;

use super::{Inner, Pooled, State, Tracked, Waiter, open::Opening, tracked::Running};
use crate::h2::client::{self, Driver, DriverEnd, Streams};

/// How many streams a peer takes of which nothing is known. RFC 9113, section 6.5.2, asks peers not to take
/// fewer.
pub(super) const STREAMS_AT_FIRST: usize = 100;

/// An open connection.
pub(super) struct Shared {
    streams: Streams,
    /// Whether the peer's settings are here.
    greeted: watch::Receiver<bool>,
    pub(super) id: u64,
    pub(super) local: Option<SocketAddr>,
    pub(super) tls: Option<Arc<dyn TlsFacts>>,
    opened: Instant,
    pub(super) running: Arc<Running>,
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

    /// What is to be found out before `request` gets its stream, which is nothing as a rule.
    ///
    /// A connection that had been idle may have ended without our knowledge: a request that may not be
    /// repeated, hence `careful`, gives the reactor a turn to hear of it. Whether tunnels may be asked for is
    /// known only once the peer has said so.
    pub(super) fn check(&self, request: &Request<()>, careful: bool) -> Option<BoxFuture<Fit>> {
        if let Some(TunnelRequest::Upgrade(_)) = TunnelRequest::of(request) {
            return Some(Box::pin(tunnels(Arc::clone(&self.shared))));
        }
        (self.reused && careful)
            .then(|| -> BoxFuture<Fit> { Box::pin(after_a_turn(Arc::clone(&self.shared))) })
    }

    /// The connection takes no more streams: nobody else shall try.
    pub(super) fn condemn(&self) {
        self.pool.forget(self.shared.id);
    }
}

/// Whether a connection can carry a certain request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// As far as anybody knows.
    Fits,
    /// It has ended.
    Gone,
    /// Its peer knows no extended CONNECT.
    NoTunnels,
}

async fn tunnels(shared: Arc<Shared>) -> Fit {
    if shared.greeted.clone().wait_for(|here| *here).await.is_err() {
        Fit::Gone
    } else if shared.streams.is_extended_connect_protocol_enabled() {
        Fit::Fits
    } else {
        Fit::NoTunnels
    }
}

/// Lets others go first.
async fn after_a_turn(shared: Arc<Shared>) -> Fit {
    // The reactor looks at its sockets, and wakes whoever drives the connection.
    tokio::task::yield_now().await;
    // Who drives it works.
    let mut worked = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut worked, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if shared.is_open() {
        Fit::Fits
    } else {
        Fit::Gone
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
    /// Whether it takes one more stream, where its peer allows so many at once.
    fn has_room(&self, most: usize, peers: usize) -> bool {
        (self.active as usize) < most.min(peers)
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
        let most = self.streams_max();
        let now = clock::now();
        let mut gone = Vec::new();
        let mut at = 0;
        while let Some(connection) = state.shared.get_mut(at) {
            if !self.is_young(connection.shared.opened, now) || !connection.shared.is_open() {
                gone.push(state.shared.remove(at));
                continue;
            }
            let peers = connection.shared.streams.current_max_send_streams();
            // The next connection will be like this one.
            self.streams_at_first.store(peers, Ordering::Relaxed);
            if !connection.has_room(most, peers) {
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
        // A place that nobody takes comes back here from within.
        while state.waiting.front().is_some_and(Waiter::is_closed) {
            state.waiting.pop_front();
        }
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

    /// How many streams we want on one connection.
    pub(super) fn streams_max(&self) -> usize {
        usize::try_from(self.config.http2.max_concurrent_streams).unwrap_or(usize::MAX)
    }

    /// Makes an HTTP/2 connection of a stream that is open, and drives it until it ends.
    pub(super) async fn run_multiplexed(self: Arc<Self>, tracked: Tracked, opening: Opening) {
        let (id, local, opened) = (tracked.id(), tracked.local_addr(), tracked.opened());
        let tls = tracked.tls();
        let running = Arc::clone(tracked.running());
        let at_first = self.streams_at_first.load(Ordering::Relaxed);
        let (http2, limits) = (&self.config.http2, self.config.limits);
        let (streams, greeted, driver) =
            match client::connect(tracked, http2, limits, at_first).await {
                Ok(connected) => connected,
                Err(error) => {
                    let failed = Error::new(ErrorKind::ConnectFailure)
                        .with_message(format!("no HTTP/2 connection: {error}"));
                    return opening.fail(&failed);
                }
            };
        let shared = Arc::new(Shared {
            streams,
            greeted,
            id,
            local,
            tls,
            opened,
            running: Arc::clone(&running),
        });
        opening.done(|state| {
            state.shared.push(Multiplexed {
                shared,
                active: 0,
                requests: 0,
                idle_since: clock::now(),
            });
        });
        self.serve_waiters();
        self.open_for_waiters();
        // The pool may go while its connection still works for somebody.
        let (pool, stats) = (Arc::downgrade(&self), self.stats.clone());
        let http2 = self.http2_stats.clone();
        drop(self);
        let mut driver: Driver<Tracked> = driver;
        let end = (&mut driver).await;
        match end {
            DriverEnd::Closed => {}
            DriverEnd::Protocol => stats.upstream_cx_protocol_error().inc(),
            DriverEnd::KeepaliveTimeout => http2.keepalive_timeout().inc(),
            DriverEnd::Flooded(flood) => http2.count_flood(flood),
        }
        // It ends from here only after its streams, unless nobody hears us.
        let were_reset = end != DriverEnd::KeepaliveTimeout;
        running.were_reset.store(were_reset, Ordering::Relaxed);
        if let Some(pool) = pool.upgrade() {
            pool.forget(id);
        }
    }
}
