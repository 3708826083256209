//! An HTTP/1.1 and HTTP/2 server that answers by script and records every request, byte by byte.

mod http2;
mod reply;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, SockAddr, Socket, Type};

pub use reply::Reply;

use crate::http2::ENABLE_CONNECT_PROTOCOL;
use crate::wait::Deadline;
use crate::wire::{Body, Head};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which connection of this upstream carried it, from 0 in the order of accepting.
    pub connection: usize,
    /// Which request on that connection it was, from 0.
    pub position: usize,
    /// The head, with its bytes.
    pub head: Head,
    /// Content and trailers, as far as they were read.
    pub body: Body,
    /// Whether the whole request was read.
    pub complete: bool,
    /// Why its stream was reset, in HTTP/2.
    pub reset: Option<String>,
}

/// What an upstream has seen so far; see [`Upstream::wait`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections accepted.
    pub accepted: usize,
    /// Connections not closed yet.
    pub open: usize,
    /// Requests whose head has arrived.
    pub requests: usize,
}

/// A running upstream. Dropping it closes everything.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    rules: Vec<Rule>,
    requests: Vec<Recorded>,
    open: BTreeMap<usize, TcpStream>,
    connections: usize,
    released: BTreeSet<String>,
    /// What it says of itself in HTTP/2.
    settings: Vec<(u16, u32)>,
    /// Counts resets, so that what was waiting before one does not go on after it.
    epoch: usize,
    stopped: bool,
    /// Requests that are over are not kept.
    forgets: bool,
}

#[derive(Debug)]
struct Rule {
    path: String,
    replies: Vec<Reply>,
    used: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` yields something; `None` at the deadline.
    fn wait<T>(
        &self,
        deadline: Deadline,
        mut done: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(value) = done(&mut state) {
                return Some(value);
            }
            let left = deadline.left()?;
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.notify_all();
        value
    }
}

/// What an upstream says of itself in HTTP/2 unless it is told otherwise.
const SETTINGS: [(u16, u32); 1] = [(ENABLE_CONNECT_PROTOCOL, 1)];

impl Upstream {
    /// Starts on a port of the kernel's choice. Without a script it answers 200 with its name.
    ///
    /// # Errors
    /// When loopback cannot be listened on.
    pub fn start(name: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let upstream = Self {
            name: name.to_owned(),
            address: listener.local_addr()?,
            shared: Arc::default(),
        };
        upstream.set_http2(&SETTINGS);
        let shared = Arc::clone(&upstream.shared);
        let name = upstream.name.clone();
        std::thread::spawn(move || serve::accept(&listener, &shared, &name));
        Ok(upstream)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests whose path starts like this with these replies in turn, the last one
    /// for ever. A later rule for the same path replaces the earlier one.
    pub fn on(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let rule = Rule {
            path: path.to_owned(),
            replies: replies.into_iter().collect(),
            used: 0,
        };
        self.shared.update(|state| state.rules.insert(0, rule));
    }

    /// What it says of itself on connections in HTTP/2 from now on; it speaks what its peers do.
    pub fn set_http2(&self, settings: &[(u16, u32)]) {
        self.shared
            .update(|state| state.settings = settings.to_vec());
    }

    /// Keeps requests only until they are over: for a long run that looks at none of them.
    pub fn forget(&self) {
        self.shared.update(|state| state.forgets = true);
    }

    /// Lets replies go that wait for this word, now and later.
    pub fn release(&self, word: &str) {
        self.shared
            .update(|state| state.released.insert(word.to_owned()));
    }

    /// What it has seen since the last [`reset`](Self::reset).
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.lock().seen
    }

    /// Waits until it has seen enough; `false` at the deadline.
    #[must_use]
    pub fn wait(&self, enough: impl Fn(Seen) -> bool) -> bool {
        self.shared
            .wait(Deadline::default(), |state| {
                enough(state.seen).then_some(())
            })
            .is_some()
    }

    /// Removes and returns the requests recorded so far.
    #[must_use]
    pub fn take_requests(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.shared.lock().requests)
    }

    /// Closes the connections that are open now, whatever they are doing.
    pub fn close_connections(&self) {
        self.shared.update(State::close_connections);
    }

    /// As it was when it was started.
    pub fn start_afresh(&self) {
        self.reset();
        self.shared.update(|state| {
            state.settings = SETTINGS.to_vec();
            state.close_connections();
        });
    }

    /// Starts afresh: no script, nothing seen. Connections stay, so that a proxy's pool is not
    /// disturbed; replies that wait for a word go on.
    pub fn reset(&self) {
        self.shared.update(|state| {
            state.epoch += 1;
            state.rules.clear();
            state.requests.clear();
            state.released.clear();
            state.seen = Seen {
                open: state.open.len(),
                ..Seen::default()
            };
        });
    }
}

impl State {
    /// A request is over.
    fn done_with(&mut self, connection: usize, position: usize) {
        if self.forgets {
            self.requests
                .retain(|r| (r.connection, r.position) != (connection, position));
        }
    }

    fn close_connections(&mut self) {
        for stream in std::mem::take(&mut self.open).into_values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.seen.open = 0;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.update(|state| {
            state.stopped = true;
            state.close_connections();
        });
        // The accepting thread looks at `stopped` when it wakes.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// A port on which nothing answers, in one of two ways, and that nobody else can take.
#[derive(Debug)]
pub struct DeadPort {
    address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl DeadPort {
    /// Connecting is refused at once.
    ///
    /// # Errors
    /// When loopback cannot be bound.
    pub fn refusing() -> Result<Self> {
        let (socket, address) = Self::bound()?;
        Ok(Self {
            address,
            _sockets: vec![socket],
        })
    }

    /// Connecting gets no answer at all: the queue of connections to accept is full for ever.
    ///
    /// # Errors
    /// When loopback cannot be bound, or the kernel's queue would not fill.
    pub fn silent() -> Result<Self> {
        let (socket, address) = Self::bound()?;
        socket.listen(0)?;
        let mut sockets = vec![socket];
        for _ in 0..Self::QUEUE_MAX {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let full = filler
                .connect_timeout(&SockAddr::from(address), Duration::from_millis(100))
                .is_err();
            sockets.push(filler);
            if full {
                return Ok(Self {
                    address,
                    _sockets: sockets,
                });
            }
        }
        anyhow::bail!("a backlog of 0 took {} connections", Self::QUEUE_MAX)
    }

    /// How many connections a queue of length 0 may take before this gives up filling it.
    const QUEUE_MAX: usize = 8;

    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn bound() -> Result<(Socket, SocketAddr)> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| anyhow::anyhow!("not an address of IP"))?;
        Ok((socket, address))
    }
}
