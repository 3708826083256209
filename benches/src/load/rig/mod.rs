//! Load generator and upstream in one thread and one epoll loop.
//!
//! Both must cost less than the proxy between them, or the proxy would never be busy: no runtime, no
//! allocation per request, one read and one write per message.

mod client;
mod http2;
mod tls;
mod upstream;

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_core::clock;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};

use client::Client;
use upstream::Upstream;

pub(crate) use tls::{Files, write_files};

/// So many events are taken from the kernel at once.
const EVENTS_MAX: usize = 256;

/// What is read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// So many connections are made at once while many idle ones are opened.
const OPENING_MAX: usize = 32;

/// Both upstreams are always this rig.
pub(crate) const UPSTREAMS: usize = 2;

/// A body that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// 100 bytes.
    Small,
    /// 64 KiB.
    Large,
    /// 16 MiB.
    Huge,
}

impl Size {
    const ALL: [Self; 3] = [Self::Small, Self::Large, Self::Huge];

    const fn bytes(self) -> usize {
        match self {
            Self::Small => 100,
            Self::Large => 64 << 10,
            Self::Huge => 16 << 20,
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Small => "/small",
            Self::Large => "/large",
            Self::Huge => "/huge",
        }
    }

    /// By the first letter of its path.
    fn of_target(letter: u8) -> Option<Self> {
        let same = |size: &Self| size.path().as_bytes().get(1) == Some(&letter);
        Self::ALL.into_iter().find(same)
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// So many requests at a time.
    Http2 {
        streams: usize,
    },
}

/// How a client begins a TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Full,
    /// With a ticket of an earlier one, where there is any.
    Resumed,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// One request after the other.
    KeepAlive,
    /// One request; another connection takes its place.
    Once,
    /// One request, and then nothing.
    Idle,
}

/// What a client asks for, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) size: Size,
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<Tls>,
    pub(crate) life: Life,
}

/// What clients have seen since [`Rig::reset`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Responses that are complete.
    pub(crate) finished: u64,
    /// Requests that are not, or whose answer was not a 200.
    pub(crate) failed: u64,
    /// Sessions that were to be taken up again and began anew.
    pub(crate) not_resumed: u64,
    /// Why the first failed.
    pub(crate) failure: Option<String>,
    /// How long each took, in microseconds.
    pub(crate) took_us: Vec<u32>,
}

impl Tally {
    fn finish(&mut self, since: Instant, now: Instant) {
        let took = (now - since).as_micros();
        self.finished += 1;
        self.took_us.push(u32::try_from(took).unwrap_or(u32::MAX));
    }
}

/// All sockets of the load side.
pub(crate) struct Rig {
    epoll: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<usize>,
    io: Io,
    tls: tls::Clients,
    events: Vec<Event>,
    addresses: [SocketAddr; UPSTREAMS],
}

/// What all connections use.
struct Io {
    /// What was read from a socket.
    buffer: Box<[u8]>,
    /// What was decrypted.
    plain: Box<[u8]>,
    /// What is to be written.
    out: Vec<u8>,
    /// Responses of HTTP/1.1, by their size.
    responses: [Vec<u8>; Size::ALL.len()],
    tally: Tally,
}

enum Slot {
    Free,
    Listener(TcpListener),
    Client(Client),
    Upstream(Upstream),
}

/// What becomes of a connection after an event.
enum Next {
    Keep,
    /// Waits until it can write.
    Write,
    /// Waits until it can read, after it had waited for writing.
    Read,
    Close,
    /// Closes, and another one takes its place.
    Replace,
}

impl Rig {
    pub(crate) fn new(files: &Files) -> Result<Self> {
        let mut rig = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            slots: Vec::new(),
            free: Vec::new(),
            io: Io {
                buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
                plain: vec![0; BUFFER_BYTES].into_boxed_slice(),
                out: Vec::new(),
                responses: Size::ALL.map(upstream::response),
                tally: Tally::default(),
            },
            tls: tls::Clients::new(files)?,
            events: Vec::with_capacity(EVENTS_MAX),
            addresses: [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); UPSTREAMS],
        };
        for place in 0..UPSTREAMS {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            rig.addresses[place] = listener.local_addr()?;
            rig.insert(Slot::Listener(listener))?;
        }
        Ok(rig)
    }

    /// Where the upstreams listen.
    pub(crate) const fn upstreams(&self) -> [SocketAddr; UPSTREAMS] {
        self.addresses
    }

    /// Opens connections that ask until [`Rig::close`].
    pub(crate) fn open(&mut self, to: SocketAddr, connections: usize, ask: Ask) -> Result<()> {
        for _ in 0..connections {
            self.connect(to, ask)?;
        }
        Ok(())
    }

    /// Opens connections that ask once each and are idle from then on.
    pub(crate) fn open_idle(
        &mut self,
        to: SocketAddr,
        connections: usize,
        ask: Ask,
        limit: Duration,
    ) -> Result<()> {
        let deadline = clock::now() + limit;
        let mut opened = 0;
        self.reset();
        loop {
            let done = (self.io.tally.finished + self.io.tally.failed) as usize;
            self.healthy()?;
            if done == connections {
                return Ok(());
            }
            ensure!(
                clock::now() < deadline,
                "only {done} of {connections} connections were served"
            );
            while opened < connections && opened - done < OPENING_MAX {
                self.connect(to, ask)?;
                opened += 1;
            }
            self.turn(Duration::from_millis(1))?;
        }
    }

    /// Asks until there is an answer; how long that took since `start`.
    pub(crate) fn first_answer(
        &mut self,
        to: SocketAddr,
        ask: Ask,
        start: Instant,
        limit: Duration,
        mut alive: impl FnMut() -> Result<()>,
    ) -> Result<Duration> {
        while start.elapsed() < limit {
            self.reset();
            if self.connect(to, ask).is_ok() {
                while self.io.tally.finished + self.io.tally.failed == 0 && start.elapsed() < limit
                {
                    self.turn(Duration::from_micros(100))?;
                }
                if self.io.tally.finished == 1 {
                    let took = start.elapsed();
                    self.close();
                    return Ok(took);
                }
                self.close();
            }
            alive()?;
            self.turn(Duration::from_micros(100))?;
        }
        let why = self.io.tally.failure.take();
        bail!(
            "no answer within {limit:?}: {}",
            why.as_deref().unwrap_or("no connection")
        )
    }

    /// Works for so long, without ever sleeping: a proxy whose peers sleep pays for waking them, which on
    /// a virtual machine may cost more than the request.
    pub(crate) fn run(&mut self, time: Duration) -> Result<()> {
        let end = clock::now() + time;
        while clock::now() < end {
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Begins a new tally and hands out the old one.
    pub(crate) fn reset(&mut self) -> Tally {
        let capacity = self.io.tally.took_us.capacity();
        let fresh = Tally {
            took_us: Vec::with_capacity(capacity),
            ..Tally::default()
        };
        std::mem::replace(&mut self.io.tally, fresh)
    }

    /// Closes all clients.
    pub(crate) fn close(&mut self) {
        for place in 0..self.slots.len() {
            if matches!(self.slots[place], Slot::Client(_)) {
                self.remove(place);
            }
        }
    }

    /// Fails when a request has.
    pub(crate) fn healthy(&mut self) -> Result<()> {
        match self.io.tally.failure.take() {
            Some(failure) => bail!(
                "{} requests failed, the first: {failure}",
                self.io.tally.failed
            ),
            None => Ok(()),
        }
    }

    fn connect(&mut self, to: SocketAddr, ask: Ask) -> Result<()> {
        let session = ask.tls.map(|tls| self.tls.begin(tls)).transpose()?;
        let client = Client::connect(to, ask, session, &mut self.io)?;
        self.insert(Slot::Client(client))
    }

    fn insert(&mut self, slot: Slot) -> Result<()> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.slots.len() - 1
        });
        let data = EventData::new_u64(place as u64);
        match &slot {
            Slot::Free => {}
            Slot::Listener(socket) => epoll::add(&self.epoll, socket, data, EventFlags::IN)?,
            Slot::Client(Client { stream, .. }) | Slot::Upstream(Upstream { stream, .. }) => {
                epoll::add(&self.epoll, stream, data, EventFlags::IN)?;
            }
        }
        self.slots[place] = slot;
        Ok(())
    }

    /// Dropping a socket takes it out of the epoll.
    fn remove(&mut self, place: usize) {
        self.slots[place] = Slot::Free;
        self.free.push(place);
    }

    /// Waits for events, at most so long, and handles them.
    fn turn(&mut self, wait: Duration) -> Result<()> {
        let wait = Timespec {
            tv_sec: wait.as_secs() as _,
            tv_nsec: wait.subsec_nanos().into(),
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for events"),
        }
        for number in 0..self.events.len() {
            let place = self.events[number].data.u64() as usize;
            self.handle(place)?;
        }
        Ok(())
    }

    fn handle(&mut self, place: usize) -> Result<()> {
        let next = match &mut self.slots[place] {
            Slot::Free => return Ok(()),
            Slot::Listener(_) => return self.accept(place),
            Slot::Client(client) => client.on_readable(&mut self.io),
            Slot::Upstream(upstream) => upstream.on_event(&mut self.io),
        };
        match next {
            Next::Keep => {}
            Next::Close => self.remove(place),
            Next::Write => self.wait_for(place, EventFlags::OUT)?,
            Next::Read => self.wait_for(place, EventFlags::IN)?,
            Next::Replace => {
                if let Slot::Client(Client { to, ask, .. }) = &self.slots[place] {
                    let (to, ask) = (*to, *ask);
                    self.remove(place);
                    self.connect(to, ask)?;
                }
            }
        }
        Ok(())
    }

    fn wait_for(&self, place: usize, events: EventFlags) -> Result<()> {
        if let Slot::Upstream(Upstream { stream, .. }) = &self.slots[place] {
            let data = EventData::new_u64(place as u64);
            epoll::modify(&self.epoll, stream, data, events)?;
        }
        Ok(())
    }

    fn accept(&mut self, place: usize) -> Result<()> {
        loop {
            let Slot::Listener(listener) = &self.slots[place] else {
                return Ok(());
            };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting from a proxy"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.insert(Slot::Upstream(Upstream::new(stream)))?;
        }
    }
}

impl Io {
    fn fail(&mut self, error: &anyhow::Error) -> Next {
        self.tally.failed += 1;
        self.tally
            .failure
            .get_or_insert_with(|| format!("{error:#}"));
        Next::Close
    }
}
