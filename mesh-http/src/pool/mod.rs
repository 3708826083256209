//! The connections to one endpoint.
//!
//! A pool belongs to one worker, endpoint and priority; the bounds it obeys ([`Resources`]) belong to the
//! cluster and are shared by all workers. They are checked where Envoy checks them:
//!
//! * an idle connection takes the request at once, if `max_requests` allows;
//! * else the request waits, if `max_pending_requests` allows, and a connection is opened for it, if
//!   `max_connections` allows or the pool has none at all;
//! * whichever connection is ready first serves whoever waits longest;
//! * when connecting fails, everybody who waits hears so.
//!
//! An HTTP/1 connection carries one request at a time, an HTTP/2 connection as many as its peer and
//! `max_concurrent_streams` allow; a further one is opened when none has room.
//!
//! The most recently used connection is used first. A used connection is looked at before it is used again;
//! should it die under a request nevertheless, before any byte of an answer, the request is sent again
//! on a fresh connection if nothing of it went out, or if its method may be repeated.

mod lease;
mod multiplexed;
mod open;
mod send;
mod stats;
#[cfg(test)]
mod tests;
mod tracked;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Version;
use mesh_core::{Endpoint, Error, Overflow, Permit, Resource, Resources, clock};
use mesh_net::{CONNECT_TIMEOUT_DEFAULT, Connect};
use tokio::sync::oneshot;

use crate::{
    h1::{HeadLimits, client::Connection},
    h2::{Http2Config, Http2Stats},
};
use multiplexed::{Fit, Multiplexed, Place, STREAMS_AT_FIRST};
use open::Opening;
pub use send::Sending;
pub use stats::{PoolStats, UpstreamStats};
use tracked::Tracked;

/// How a pool treats its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// How long connecting may take. Envoy: `Cluster.connect_timeout`, 5 s.
    pub connect_timeout: Duration,
    /// Unused for so long, a connection is closed. Envoy: `idle_timeout`, 1 hour.
    pub idle_timeout: Option<Duration>,
    /// After so many requests, a connection is closed. Envoy: `max_requests_per_connection`, off.
    pub max_requests_per_connection: Option<u64>,
    /// Open for so long, a connection takes no further request. Envoy: `max_connection_duration`, off.
    pub max_connection_duration: Option<Duration>,
    /// What the connections speak.
    pub protocol: UpstreamProtocol,
    /// What is particular to HTTP/2. Envoy: `http2_protocol_options`.
    pub http2: Http2Config,
    /// How large the heads of answers may be. Envoy: `max_response_headers_kb`, 60 KiB.
    pub limits: HeadLimits,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            idle_timeout: Some(Duration::from_secs(3600)),
            max_requests_per_connection: None,
            max_connection_duration: None,
            protocol: UpstreamProtocol::Http1,
            http2: Http2Config::default(),
            limits: HeadLimits::default(),
        }
    }
}

/// What the connections of a cluster speak. Envoy: `HttpProtocolOptions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1. Envoy: `explicit_http_config.http_protocol_options`, the default.
    #[default]
    Http1,
    /// HTTP/2. Envoy: `explicit_http_config.http2_protocol_options`.
    Http2,
    /// What the client of the request speaks. Envoy: `use_downstream_protocol_config`.
    Downstream,
}

impl UpstreamProtocol {
    /// What a request is sent with that came in as `downstream`.
    #[must_use]
    pub fn for_request(self, downstream: Option<Version>) -> HttpVersion {
        match self {
            Self::Http1 => HttpVersion::Http1,
            Self::Http2 => HttpVersion::Http2,
            Self::Downstream if downstream == Some(Version::HTTP_2) => HttpVersion::Http2,
            Self::Downstream => HttpVersion::Http1,
        }
    }
}

/// What the connections of one pool speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// No HTTP at all: what is inside a CONNECT that ends here.
    Raw,
}

/// What a request is sent on.
enum Pooled {
    /// A connection of its own.
    Own(Connection<Tracked>),
    /// A place on a connection that carries several.
    Shared(Place),
}

/// The connections to one endpoint. Cloning shares them.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    version: HttpVersion,
    endpoint: Arc<Endpoint>,
    connector: Arc<dyn Connect>,
    config: Arc<PoolConfig>,
    resources: Arc<Resources>,
    stats: UpstreamStats,
    http2_stats: Http2Stats,
    /// How many streams the next connection may carry before its peer has said how many: as many as the last
    /// one took.
    streams_at_first: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    /// Those that carry several requests, busy or not.
    shared: Vec<Multiplexed>,
    waiting: VecDeque<Waiter>,
    /// Open or opening.
    connections: usize,
    connecting: usize,
    /// Some of those who wait may have given up.
    abandoned: bool,
    /// Nothing is kept: set when the idle connections are closed, until the next request.
    retired: bool,
}

impl State {
    /// Forgets those who have given up. Cheap unless somebody did.
    fn prune(&mut self) {
        if std::mem::take(&mut self.abandoned) {
            self.waiting.retain(|waiter| !waiter.is_closed());
        }
    }
}

struct Idle {
    connection: Connection<Tracked>,
    since: Instant,
}

type Waiter = oneshot::Sender<Result<Pooled, Error>>;

/// What a request gets from the pool.
enum Checkout {
    Ready(Pooled),
    Wait(oneshot::Receiver<Result<Pooled, Error>>, Permit),
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(
        version: HttpVersion,
        endpoint: Arc<Endpoint>,
        connector: Arc<dyn Connect>,
        config: Arc<PoolConfig>,
        resources: Arc<Resources>,
        stats: PoolStats,
    ) -> Self {
        Self(Arc::new(Inner {
            version,
            endpoint,
            connector,
            config,
            resources,
            stats: stats.upstream,
            http2_stats: stats.http2,
            streams_at_first: AtomicUsize::new(STREAMS_AT_FIRST),
            state: Mutex::default(),
        }))
    }

    /// Whether nobody waits in it and no connection is open or opening.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        let state = self.0.lock();
        state.connections == 0 && state.waiting.is_empty()
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0.endpoint
    }

    /// Closes idle connections that the peer has closed, or that have been idle for too long. Call it
    /// about once a second.
    pub fn sweep(&self, now: Instant) {
        let too_old = |since: Instant| self.0.config.idle_timeout.is_some_and(|t| now >= since + t);
        let (gone, unused) = {
            let mut state = self.0.lock();
            let ends = |idle: &mut Idle| too_old(idle.since) || !idle.connection.is_idle();
            let gone: Vec<Idle> = state.idle.extract_if(.., ends).collect();
            (gone, Inner::take_unused(&mut state, too_old))
        };
        let timed_out = gone.iter().filter(|idle| too_old(idle.since)).count() + unused.len();
        self.0
            .stats
            .upstream_cx_idle_timeout()
            .add(timed_out as u64);
        // Dropped here, outside the lock: a closing connection locks the pool again.
        drop((gone, unused));
    }

    /// Closes all idle connections. Those in use end with their request, unless another request comes
    /// in the meantime.
    pub fn close_idle(&self) {
        let idle = {
            let mut state = self.0.lock();
            state.retired = true;
            let unused = Inner::take_unused(&mut state, |_| true);
            (std::mem::take(&mut state.idle), unused)
        };
        drop(idle);
    }

    /// How many connections are open or opening.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.lock().connections
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection, or a place in the queue. `fresh` wishes for a new connection, and takes a used
    /// one if none can be had; `careful` asks the kernel whether a used one is alive.
    fn checkout(self: &Arc<Self>, fresh: bool, careful: bool) -> Result<Checkout, Overflow> {
        let open = match self.version {
            HttpVersion::Raw => None,
            HttpVersion::Http1 if fresh => None,
            HttpVersion::Http1 => self.take_idle(careful).map(Pooled::Own),
            HttpVersion::Http2 => self.take_place().map(Pooled::Shared),
        };
        if let Some(open) = open {
            return Ok(Checkout::Ready(open));
        }
        let pending = match self.resources.try_acquire(Resource::Pending) {
            Ok(permit) => permit,
            Err(overflow) => {
                let used = self.take_idle(true).ok_or(overflow)?;
                return Ok(Checkout::Ready(Pooled::Own(used)));
            }
        };
        self.stats.upstream_rq_pending_total().inc();
        let (waiter, receiver) = oneshot::channel();
        self.lock().waiting.push_back(waiter);
        self.open_for_waiters();
        Ok(Checkout::Wait(receiver, pending))
    }

    /// A place at the head of the queue, for a request that was served badly.
    fn queue_again(self: &Arc<Self>) -> oneshot::Receiver<Result<Pooled, Error>> {
        let (waiter, receiver) = oneshot::channel();
        self.lock().waiting.push_front(waiter);
        self.open_for_waiters();
        receiver
    }

    fn take_idle(&self, careful: bool) -> Option<Connection<Tracked>> {
        loop {
            let idle = {
                let mut state = self.lock();
                state.retired = false;
                state.idle.pop()
            };
            let mut connection = idle?.connection;
            if self.is_young(connection.io().opened(), clock::now())
                && is_usable(&mut connection, careful)
            {
                return Some(connection);
            }
        }
    }

    fn is_young(&self, opened: Instant, now: Instant) -> bool {
        let longest = self.config.max_connection_duration;
        longest.is_none_or(|max| now < opened + max)
    }

    /// How many of those who wait a connection is for that is being opened.
    fn places_each(&self) -> usize {
        match self.version {
            HttpVersion::Http1 | HttpVersion::Raw => 1,
            HttpVersion::Http2 => {
                let at_first = self.streams_at_first.load(Ordering::Relaxed);
                self.streams_max().min(at_first)
            }
        }
    }

    /// Opens connections until there is a place for each waiter, as far as the bounds allow.
    fn open_for_waiters(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            state.prune();
            if state.connecting.saturating_mul(self.places_each()) >= state.waiting.len() {
                return;
            }
            let permit = match self.resources.try_acquire(Resource::Connections) {
                Ok(permit) => permit,
                Err(_) => {
                    self.stats.upstream_cx_overflow().inc();
                    // Somebody who wished for a fresh connection waits beside an idle one.
                    if let Some(idle) = state.idle.pop() {
                        drop(state);
                        self.deliver(idle.connection);
                        continue;
                    }
                    if state.connections > 0 {
                        return;
                    }
                    self.resources.acquire_beyond(Resource::Connections)
                }
            };
            state.connections += 1;
            state.connecting += 1;
            // A runtime that is going down drops the task at once, and that locks the pool again.
            drop(state);
            let opening = Opening::new(self, permit);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(opening.run());
            }
        }
    }

    /// Gives a connection to whoever waits longest, or keeps it.
    fn deliver(&self, mut connection: Connection<Tracked>) {
        let mut state = self.lock();
        while let Some(waiter) = state.waiting.pop_front() {
            match waiter.send(Ok(Pooled::Own(connection))) {
                Err(Ok(Pooled::Own(back))) => connection = back,
                _ => return,
            }
        }
        if state.retired || self.version == HttpVersion::Raw {
            // Closed outside the lock: a closing connection locks the pool again.
            drop(state);
            drop(connection);
            return;
        }
        state.idle.push(Idle {
            connection,
            since: clock::now(),
        });
    }

    /// A connection that may carry another request comes back.
    fn put_back(&self, connection: Connection<Tracked>) {
        let used_up = self
            .config
            .max_requests_per_connection
            .is_some_and(|max| connection.exchanges() >= max);
        if used_up {
            self.stats.upstream_cx_max_requests().inc();
        } else if self.is_young(connection.io().opened(), clock::now()) {
            self.deliver(connection);
        }
    }

    /// A connection has closed: whoever waits may need another.
    fn closed(self: &Arc<Self>) {
        self.lock().connections -= 1;
        self.open_for_waiters();
    }

    /// Somebody who waited has given up.
    fn abandoned(&self) {
        self.lock().abandoned = true;
    }
}

/// Whether a connection that was used before can carry a request. `careful` asks the kernel, not only the
/// reactor.
fn is_usable(connection: &mut Connection<Tracked>, careful: bool) -> bool {
    connection.is_idle() && (!careful || connection.io().stream().is_quiet())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
