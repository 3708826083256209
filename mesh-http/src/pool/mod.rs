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
//! The most recently used connection is used first. A used connection is looked at before it is used again;
//! should it die under a request nevertheless, before any byte of an answer, the request is sent again
//! on a fresh connection if nothing of it went out, or if its method may be repeated.

mod open;
mod send;
mod stats;
#[cfg(test)]
mod tests;
mod tracked;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_core::{Endpoint, Error, Overflow, Permit, Resource, Resources, clock};
use mesh_net::{CONNECT_TIMEOUT_DEFAULT, Connect};
use tokio::sync::oneshot;

use crate::h1::{HeadLimits, client::Connection};
use open::Opening;
pub use send::Sending;
pub use stats::UpstreamStats;
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
            limits: HeadLimits::default(),
        }
    }
}

type Pooled = Connection<Tracked>;

/// The connections to one endpoint. Cloning shares them.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    endpoint: Arc<Endpoint>,
    connector: Arc<dyn Connect>,
    config: Arc<PoolConfig>,
    resources: Arc<Resources>,
    stats: UpstreamStats,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
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
    connection: Pooled,
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
        endpoint: Arc<Endpoint>,
        connector: Arc<dyn Connect>,
        config: Arc<PoolConfig>,
        resources: Arc<Resources>,
        stats: UpstreamStats,
    ) -> Self {
        Self(Arc::new(Inner {
            endpoint,
            connector,
            config,
            resources,
            stats,
            state: Mutex::default(),
        }))
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0.endpoint
    }

    /// Closes idle connections that the peer has closed, or that have been idle for too long. Call it
    /// about once a second.
    pub fn sweep(&self, now: Instant) {
        let too_old = |idle: &Idle| {
            self.0
                .config
                .idle_timeout
                .is_some_and(|t| now >= idle.since + t)
        };
        let gone: Vec<Idle> = self
            .0
            .lock()
            .idle
            .extract_if(.., |idle| too_old(idle) || !idle.connection.is_idle())
            .collect();
        self.0
            .stats
            .upstream_cx_idle_timeout()
            .add(gone.iter().filter(|g| too_old(g)).count() as u64);
        // Dropped here, outside the lock: a closing connection locks the pool again.
        drop(gone);
    }

    /// Closes all idle connections. Those in use end with their request, unless another request comes
    /// in the meantime.
    pub fn close_idle(&self) {
        let idle = {
            let mut state = self.0.lock();
            state.retired = true;
            std::mem::take(&mut state.idle)
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
        if !fresh && let Some(connection) = self.take_idle(careful) {
            return Ok(Checkout::Ready(connection));
        }
        let pending = match self.resources.try_acquire(Resource::Pending) {
            Ok(permit) => permit,
            Err(overflow) => {
                let used = self.take_idle(true).ok_or(overflow)?;
                return Ok(Checkout::Ready(used));
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

    fn take_idle(&self, careful: bool) -> Option<Pooled> {
        loop {
            let idle = {
                let mut state = self.lock();
                state.retired = false;
                state.idle.pop()
            };
            let mut connection = idle?.connection;
            if self.is_young(&connection) && is_usable(&mut connection, careful) {
                return Some(connection);
            }
        }
    }

    fn is_young(&self, connection: &Pooled) -> bool {
        self.config
            .max_connection_duration
            .is_none_or(|max| clock::now() < connection.io().opened() + max)
    }

    /// Opens connections until there is one for each waiter, as far as the bounds allow.
    fn open_for_waiters(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            state.prune();
            if state.connecting >= state.waiting.len() {
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
    fn deliver(&self, mut connection: Pooled) {
        let mut state = self.lock();
        while let Some(waiter) = state.waiting.pop_front() {
            match waiter.send(Ok(connection)) {
                Ok(()) => return,
                Err(Ok(back)) => connection = back,
                Err(Err(_)) => return,
            }
        }
        if state.retired {
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
    fn put_back(&self, connection: Pooled) {
        let used_up = self
            .config
            .max_requests_per_connection
            .is_some_and(|max| connection.exchanges() >= max);
        if used_up {
            self.stats.upstream_cx_max_requests().inc();
        } else if self.is_young(&connection) {
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
fn is_usable(connection: &mut Pooled, careful: bool) -> bool {
    connection.is_idle() && (!careful || connection.io().stream().is_quiet())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
