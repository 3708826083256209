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
//! The most recently used connection is used first. An idle connection is looked at before it is used;
//! should it die under a request nevertheless, before any byte of an answer, the request is sent again
//! on a fresh connection if nothing of it went out, or if its method may be repeated.

mod send;
mod stats;
mod tracked;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use mesh_core::{Endpoint, Error, ErrorKind, Overflow, Permit, Resource, Resources, Sent, clock};
use mesh_net::{CONNECT_TIMEOUT_DEFAULT, Connect};
use tokio::sync::oneshot;

use crate::h1::{HeadLimits, client::Connection};
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
}

struct Idle {
    connection: Pooled,
    since: Instant,
}

type Waiter = oneshot::Sender<Result<Pooled, Error>>;

/// What a request gets from the pool.
enum Checkout {
    Ready(Box<Pooled>),
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

    /// Closes all idle connections; those in use end with their request.
    pub fn close_idle(&self) {
        let idle = std::mem::take(&mut self.0.lock().idle);
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

    /// An idle connection, or a place in the queue. `fresh` refuses used connections; `careful` asks the
    /// kernel whether they are alive.
    fn checkout(self: &Arc<Self>, fresh: bool, careful: bool) -> Result<Checkout, Overflow> {
        if !fresh && let Some(connection) = self.take_idle(careful) {
            return Ok(Checkout::Ready(Box::new(connection)));
        }
        let pending = self.resources.try_acquire(Resource::Pending)?;
        let (waiter, receiver) = oneshot::channel();
        self.stats.upstream_rq_pending_total().inc();
        let mut state = self.lock();
        state.waiting.push_back(waiter);
        self.open_for_waiters(&mut state);
        Ok(Checkout::Wait(receiver, pending))
    }

    fn take_idle(&self, careful: bool) -> Option<Pooled> {
        let now = clock::now();
        loop {
            let Idle { mut connection, .. } = self.lock().idle.pop()?;
            let young = self
                .config
                .max_connection_duration
                .is_none_or(|max| now < connection.io().opened() + max);
            if young && connection.is_idle() && (!careful || connection.io().stream().is_quiet()) {
                return Some(connection);
            }
        }
    }

    /// Opens connections until there is one for each waiter, as far as the bounds allow.
    fn open_for_waiters(self: &Arc<Self>, state: &mut State) {
        while state.connecting < state.waiting.len() {
            let permit = match self.resources.try_acquire(Resource::Connections) {
                Ok(permit) => permit,
                Err(_) => {
                    self.stats.upstream_cx_overflow().inc();
                    if state.connections > 0 {
                        return;
                    }
                    self.resources.acquire_beyond(Resource::Connections)
                }
            };
            let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                return;
            };
            state.connections += 1;
            state.connecting += 1;
            runtime.spawn(Arc::clone(self).open(permit));
        }
    }

    async fn open(self: Arc<Self>, permit: Permit) {
        let started = clock::now();
        self.stats.upstream_cx_total().inc();
        let connecting = self.connector.connect(Arc::clone(&self.endpoint));
        let result = match tokio::time::timeout(self.config.connect_timeout, connecting).await {
            Ok(result) => result,
            Err(_) => {
                self.stats.upstream_cx_connect_timeout().inc();
                Err(Error::new(ErrorKind::ConnectTimeout).with_sent(Sent::Nothing))
            }
        };
        self.lock().connecting -= 1;
        match result {
            Ok(stream) => {
                self.stats
                    .upstream_cx_connect_ms()
                    .record(millis(clock::now() - started));
                self.stats.upstream_cx_http1_total().inc();
                let tracked = Tracked::new(stream, Arc::downgrade(&self), permit);
                self.deliver(Connection::new(tracked, self.config.limits));
            }
            Err(error) => self.fail_waiters(&error),
        }
    }

    /// Gives a connection to whoever waits longest, or keeps it.
    fn deliver(self: &Arc<Self>, mut connection: Pooled) {
        let mut state = self.lock();
        while let Some(waiter) = state.waiting.pop_front() {
            match waiter.send(Ok(connection)) {
                Ok(()) => return,
                Err(Ok(back)) => connection = back,
                Err(Err(_)) => return,
            }
        }
        state.idle.push(Idle {
            connection,
            since: clock::now(),
        });
    }

    fn fail_waiters(self: &Arc<Self>, error: &Error) {
        use std::sync::atomic::Ordering;
        self.stats.upstream_cx_connect_fail().inc();
        self.endpoint
            .state
            .stats
            .cx_connect_fail
            .fetch_add(1, Ordering::Relaxed);
        let waiting = {
            let mut state = self.lock();
            state.connections -= 1;
            std::mem::take(&mut state.waiting)
        };
        for waiter in waiting {
            let mut copy = Error::new(error.kind()).with_sent(Sent::Nothing);
            if let Some(message) = error.message() {
                copy = copy.with_message(message.to_owned());
            }
            if waiter.send(Err(copy)).is_ok() {
                self.stats.upstream_rq_pending_failure_eject().inc();
            }
        }
    }

    /// A connection that may carry another request comes back.
    fn put_back(self: &Arc<Self>, connection: Pooled) {
        let used_up = self
            .config
            .max_requests_per_connection
            .is_some_and(|max| connection.exchanges() >= max);
        if used_up {
            self.stats.upstream_cx_max_requests().inc();
            return;
        }
        self.deliver(connection);
    }

    /// A connection has closed: whoever waits may need another.
    fn closed(self: &Arc<Self>) {
        let mut state = self.lock();
        state.connections -= 1;
        state.waiting.retain(|waiter| !waiter.is_closed());
        self.open_for_waiters(&mut state);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

type WeakPool = Weak<Inner>;
