//! Load generator and upstream in one thread and one epoll loop.
//!
//! Both must cost less than the proxy between them, or the proxy would never be busy: no runtime, no
//! allocation per request, one read and one write per message.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
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

use super::http::{Requests, Responses};

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
}

impl Size {
    const fn request(self) -> &'static [u8] {
        match self {
            Self::Small => b"GET /small HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
            Self::Large => b"GET /large HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
        }
    }

    fn response(self) -> Vec<u8> {
        let length = match self {
            Self::Small => 100,
            Self::Large => 64 << 10,
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), &vec![b'x'; length]].concat()
    }
}

/// What clients have seen since [`Rig::reset`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Responses that are complete.
    pub(crate) finished: u64,
    /// Requests that are not, or whose answer was not a 200.
    pub(crate) failed: u64,
    /// Why the first failed.
    pub(crate) failure: Option<String>,
    /// How long each took, in microseconds.
    pub(crate) took_us: Vec<u32>,
}

/// All sockets of the load side.
pub(crate) struct Rig {
    epoll: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Clients that are connected.
    clients: usize,
    io: Io,
    events: Vec<Event>,
    addresses: [SocketAddr; UPSTREAMS],
}

/// What all connections use.
struct Io {
    buffer: Box<[u8]>,
    small: Vec<u8>,
    large: Vec<u8>,
    tally: Tally,
}

enum Slot {
    Free,
    Listener(TcpListener),
    Client(Client),
    Upstream(Upstream),
}

struct Client {
    stream: TcpStream,
    size: Size,
    responses: Responses,
    sent: Instant,
    /// Whether a response is followed by the next request.
    loops: bool,
}

struct Upstream {
    stream: TcpStream,
    requests: Requests,
    /// What is being answered, and how much of it was written, when the socket took only a part.
    unwritten: Option<(Size, usize)>,
}

/// What becomes of a connection after an event.
enum Next {
    Keep,
    /// Waits until it can write.
    Write,
    /// Waits until it can read, after it had waited for writing.
    Read,
    Close,
}

impl Rig {
    pub(crate) fn new() -> Result<Self> {
        let mut rig = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            slots: Vec::new(),
            free: Vec::new(),
            clients: 0,
            io: Io {
                buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
                small: Size::Small.response(),
                large: Size::Large.response(),
                tally: Tally::default(),
            },
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

    /// Opens connections that send one request after the other until [`Rig::close`].
    pub(crate) fn open(&mut self, to: SocketAddr, connections: usize, size: Size) -> Result<()> {
        for _ in 0..connections {
            self.connect(to, size, true)?;
        }
        Ok(())
    }

    /// Opens connections that send one request each and are idle from then on.
    pub(crate) fn open_idle(
        &mut self,
        to: SocketAddr,
        connections: usize,
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
                self.connect(to, Size::Small, false)?;
                opened += 1;
            }
            self.turn(Duration::from_millis(1))?;
        }
    }

    /// Asks until there is an answer; how long that took since `start`.
    pub(crate) fn first_answer(
        &mut self,
        to: SocketAddr,
        start: Instant,
        limit: Duration,
        mut alive: impl FnMut() -> Result<()>,
    ) -> Result<Duration> {
        while start.elapsed() < limit {
            self.reset();
            if self.connect(to, Size::Small, false).is_ok() {
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

    fn connect(&mut self, to: SocketAddr, size: Size, loops: bool) -> Result<()> {
        let mut stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        stream.write_all(size.request())?;
        self.clients += 1;
        self.insert(Slot::Client(Client {
            stream,
            size,
            responses: Responses::default(),
            sent: clock::now(),
            loops,
        }))
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

    fn remove(&mut self, place: usize) {
        // Dropping a socket takes it out of the epoll.
        let slot = std::mem::replace(&mut self.slots[place], Slot::Free);
        self.clients -= usize::from(matches!(slot, Slot::Client(_)));
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
        }
        Ok(())
    }

    fn wait_for(&self, place: usize, events: EventFlags) -> Result<()> {
        if let Slot::Upstream(Upstream { stream, .. }) = &self.slots[place] {
            epoll::modify(
                &self.epoll,
                stream,
                EventData::new_u64(place as u64),
                events,
            )?;
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
            self.insert(Slot::Upstream(Upstream {
                stream,
                requests: Requests::default(),
                unwritten: None,
            }))?;
        }
    }
}

impl Client {
    fn on_readable(&mut self, io: &mut Io) -> Next {
        let read = match self.stream.read(&mut io.buffer) {
            Ok(0) => Err(anyhow::anyhow!("the proxy closed the connection")),
            Ok(read) => self.responses.read(&io.buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Keep,
            Err(error) => Err(error.into()),
        };
        match read {
            Ok(false) => Next::Keep,
            Ok(true) => self.on_response(io),
            Err(error) => io.fail(&error),
        }
    }

    fn on_response(&mut self, io: &mut Io) -> Next {
        let now = clock::now();
        let took = (now - self.sent).as_micros();
        io.tally.finished += 1;
        io.tally
            .took_us
            .push(u32::try_from(took).unwrap_or(u32::MAX));
        if !self.loops {
            return Next::Keep;
        }
        self.sent = now;
        // So few bytes always fit into an empty socket buffer.
        match self.stream.write_all(self.size.request()) {
            Ok(()) => Next::Keep,
            Err(error) => io.fail(&error.into()),
        }
    }
}

impl Upstream {
    fn on_event(&mut self, io: &mut Io) -> Next {
        if let Some((size, written)) = self.unwritten.take() {
            return match self.answer(io, size, written) {
                Next::Keep => Next::Read,
                next => next,
            };
        }
        let read = match self.stream.read(&mut io.buffer) {
            Ok(0) => return Next::Close,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Keep,
            Err(_) => return Next::Close,
        };
        match self.requests.read(&io.buffer[..read]) {
            Ok(None) => Next::Keep,
            Ok(Some(b'l')) => self.answer(io, Size::Large, 0),
            Ok(Some(_)) => self.answer(io, Size::Small, 0),
            Err(error) => io.fail(&error.context("what the upstream was sent")),
        }
    }

    fn answer(&mut self, io: &Io, size: Size, mut written: usize) -> Next {
        let response = match size {
            Size::Small => &io.small,
            Size::Large => &io.large,
        };
        while written < response.len() {
            match self.stream.write(&response[written..]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unwritten = Some((size, written));
                    return Next::Write;
                }
                Err(_) => return Next::Close,
            }
        }
        Next::Keep
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
