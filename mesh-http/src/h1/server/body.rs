//! What the connection shares with the request body that it lends out.

use std::{
    io, mem,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, Error, ErrorKind, LocalReply, clock};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::h1::{
    buffer::{ReadBuffer, WriteBuffer},
    chunk::{ChunkError, Decoded},
    decode::BodyDecoder,
    framing::BodyLength,
    head::{HeadLimits, RequestHead},
};

/// Bytes that are read ahead while a request is being answered: further requests, or a body that nobody
/// asks for yet.
const READ_AHEAD_MAX: usize = 64 * 1024;

pub(super) struct Shared<IO> {
    pub(super) io: IO,
    pub(super) read: ReadBuffer,
    pub(super) write: WriteBuffer,
    decoder: BodyDecoder,
    /// Which body `decoder` reads: one that somebody kept beyond its answer must not read the next one's.
    generation: u64,
    /// Who waits for more of the body: whoever reads from the socket tells them.
    waiting: Option<Waker>,
    tunnel: Tunnelling,
    /// The connection, when it waits for the end of a tunnel.
    ending: Option<Waker>,
    /// `100 Continue` is owed as soon as somebody asks for the body.
    owes_continue: bool,
    /// The body was malformed or cut short: nothing after it can be understood.
    broken: bool,
    trailers: bool,
    pub(super) last_activity: Instant,
}

/// Whether the body is what goes through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tunnelling {
    No,
    /// Nobody may read it yet.
    Asked,
    Granted,
}

type Locked<IO> = Arc<Mutex<Shared<IO>>>;

fn lock<IO>(shared: &Locked<IO>) -> MutexGuard<'_, Shared<IO>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection's hold on what it shares, when there is somebody to share it with.
pub(super) enum Holder<IO> {
    /// No body reads from the connection, as with most requests: there is nothing to lock.
    Own(Shared<IO>),
    /// A body may. One task polls both as a rule, so the lock is not contended. No foreign code runs under
    /// it: an answer's body may be the request's.
    Lent(Locked<IO>),
    /// On its way from one to the other.
    Moving,
}

/// See [`Holder::lock`].
pub(super) enum Guard<'a, IO> {
    Own(&'a mut Shared<IO>),
    Lent(MutexGuard<'a, Shared<IO>>),
}

impl<IO> Deref for Guard<'_, IO> {
    type Target = Shared<IO>;

    fn deref(&self) -> &Shared<IO> {
        match self {
            Self::Own(shared) => shared,
            Self::Lent(guard) => guard,
        }
    }
}

impl<IO> DerefMut for Guard<'_, IO> {
    fn deref_mut(&mut self) -> &mut Shared<IO> {
        match self {
            Self::Own(shared) => shared,
            Self::Lent(guard) => guard,
        }
    }
}

impl<IO> Holder<IO> {
    /// What is shared, for the connection alone.
    pub(super) fn lock(&mut self) -> Guard<'_, IO> {
        match self {
            Self::Own(shared) => Guard::Own(shared),
            Self::Lent(shared) => Guard::Lent(lock(shared)),
            Self::Moving => unreachable!("nothing is called while it moves"),
        }
    }

    /// Shows the transport to `f`.
    pub(super) fn with_io<T>(&self, f: impl FnOnce(&IO) -> T) -> T {
        match self {
            Self::Own(shared) => f(&shared.io),
            Self::Lent(shared) => f(&lock(shared).io),
            Self::Moving => unreachable!("nothing is called while it moves"),
        }
    }

    /// Whether nobody holds the body any more.
    pub(super) fn is_alone(&self) -> bool {
        match self {
            Self::Lent(shared) => Arc::strong_count(shared) == 1,
            _ => true,
        }
    }

    /// Gives a body its part.
    fn share(&mut self) -> Locked<IO> {
        let shared = match mem::replace(self, Self::Moving) {
            Self::Own(shared) => Arc::new(Mutex::new(shared)),
            Self::Lent(shared) => shared,
            Self::Moving => unreachable!("nothing is called while it moves"),
        };
        *self = Self::Lent(Arc::clone(&shared));
        shared
    }

    /// Takes everything back, unless somebody still holds the body.
    fn unshare(&mut self) {
        if let Self::Lent(_) = self
            && let Self::Lent(shared) = mem::replace(self, Self::Moving)
        {
            *self = match Arc::try_unwrap(shared) {
                Ok(shared) => {
                    Self::Own(shared.into_inner().unwrap_or_else(PoisonError::into_inner))
                }
                Err(shared) => Self::Lent(shared),
            };
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Holder<IO> {
    /// Takes the connection back from the body of the last request; `false` when that has not arrived.
    pub(super) fn take_back(&mut self) -> bool {
        let complete = self.lock().take_back();
        self.unshare();
        complete
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Shared<IO> {
    pub(super) fn new(io: IO, read: BytesMut, trailers: bool, now: Instant) -> Self {
        Self {
            io,
            read: ReadBuffer::holding(read),
            write: WriteBuffer::default(),
            decoder: BodyDecoder::Done,
            generation: 0,
            waiting: None,
            tunnel: Tunnelling::No,
            ending: None,
            owes_continue: false,
            broken: false,
            trailers,
            last_activity: now,
        }
    }

    /// Whether the request has been read to its end.
    pub(super) fn request_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// The answer grants the tunnel that was asked for: from now on its body may be read. `false` when none
    /// was.
    pub(super) fn grant_tunnel(&mut self) -> bool {
        if self.tunnel == Tunnelling::No {
            return false;
        }
        self.tunnel = Tunnelling::Granted;
        self.wake_reader();
        true
    }

    /// Whether a tunnel is open.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel == Tunnelling::Granted
    }

    /// Waits until the client's end of a tunnel has closed.
    pub(super) fn poll_tunnel_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.decoder.is_done() || self.broken {
            return Poll::Ready(());
        }
        self.ending = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Decides at the start of the answer whether another request may follow: only when all of this one
    /// has arrived. `abandoned` says that nobody will read the rest of its body.
    pub(super) fn settle_request(&mut self, abandoned: bool) -> bool {
        // Behind the answer's head, a 100 would be taken for the next answer. A client that was never
        // told to continue may send its body or not: what follows cannot be understood.
        if mem::take(&mut self.owes_continue) || self.broken {
            return false;
        }
        match &self.decoder {
            _ if abandoned => self.skip_body(),
            BodyDecoder::Length(left) => *left <= self.read.bytes.len() as u64,
            decoder => decoder.is_done(),
        }
    }

    fn take_back(&mut self) -> bool {
        self.generation += 1;
        self.waiting = None;
        let complete = self.skip_body();
        self.decoder = BodyDecoder::Done;
        self.read.rest();
        complete
    }

    /// Forgets what has arrived of the body; `true` when that was all of it.
    fn skip_body(&mut self) -> bool {
        loop {
            match self.decoder.decode(&mut self.read.bytes) {
                Ok(Decoded::Data(_) | Decoded::Trailers(_)) => {}
                Ok(Decoded::End) => return !self.broken,
                Ok(Decoded::NeedMore) => return false,
                Err(_) => {
                    self.broken = true;
                    return false;
                }
            }
        }
    }

    /// While the answer is being made: lets out what the body wrote (a 100), and reads ahead, which is how
    /// a client that leaves is noticed.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.write.is_empty()
            && let Poll::Ready(flushed) = self.write.poll_flush(cx, &mut self.io)
        {
            flushed?;
        }
        while !self.read.is_eof() && self.read.bytes.len() < READ_AHEAD_MAX {
            let Poll::Ready(read) = self.read.poll_fill(cx, &mut self.io) else {
                break;
            };
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
            if read? > 0 && !self.decoder.is_done() {
                self.last_activity = clock::now();
            }
        }
        Ok(())
    }
}

/// Lends the request's body out: in memory when all of it has arrived, else a stream that reads from the
/// connection.
pub(super) fn lend<IO>(holder: &mut Holder<IO>, head: &RequestHead, limits: HeadLimits) -> Body
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut guard = holder.lock();
    guard.last_activity = clock::now();
    guard.owes_continue = false;
    guard.decoder = BodyDecoder::Done;
    let length = match &head.tunnel {
        Some(_) => {
            guard.tunnel = Tunnelling::Asked;
            BodyLength::UntilClose
        }
        None => head.length,
    };
    match length {
        BodyLength::Empty => Body::empty(),
        BodyLength::Length(n) if n <= guard.read.bytes.len() as u64 => {
            Body::from(guard.read.bytes.split_to(n as usize).freeze())
        }
        length => {
            guard.decoder = BodyDecoder::new(length, limits);
            guard.owes_continue = head.expect_continue;
            let generation = guard.generation;
            // The body looks at the shared state to see whether it has ended.
            drop(guard);
            Body::new(IncomingBody {
                shared: holder.share(),
                generation,
                ended: false,
            })
        }
    }
}

/// A request's body while it arrives.
struct IncomingBody<IO> {
    shared: Locked<IO>,
    generation: u64,
    /// It has been read to its end.
    ended: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> HttpBody for IncomingBody<IO> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let mut guard = lock(&this.shared);
        if guard.generation != this.generation {
            // The answer is over, and what was left of the request went with it.
            return Poll::Ready(Some(Err(Error::new(ErrorKind::LocalReset))));
        }
        let frame = guard.poll_body(cx);
        this.ended = guard.decoder.is_done();
        if this.ended
            && let Some(ending) = guard.ending.take()
        {
            ending.wake();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        if self.ended {
            return true;
        }
        let guard = lock(&self.shared);
        guard.generation == self.generation && guard.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            return SizeHint::with_exact(0);
        }
        let guard = lock(&self.shared);
        match &guard.decoder {
            _ if guard.generation != self.generation => SizeHint::default(),
            BodyDecoder::Chunked(_) => SizeHint::default(),
            decoder => decoder
                .remaining()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl<IO> Drop for IncomingBody<IO> {
    fn drop(&mut self) {
        // Nobody takes what the client sends through its tunnel any more.
        if let Some(ending) = lock(&self.shared).ending.take() {
            ending.wake();
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Shared<IO> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.tunnel == Tunnelling::Asked {
            self.wait(cx);
            return Poll::Pending;
        }
        if mem::take(&mut self.owes_continue) {
            self.write
                .flat
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            // What cannot be written now goes out with the connection's next turn.
            let _ = self.write.poll_flush(cx, &mut self.io);
        }
        loop {
            match self.decoder.decode(&mut self.read.bytes) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) if self.trailers => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::End | Decoded::Trailers(_)) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) => {}
                Err(error) => {
                    self.broken = true;
                    return Poll::Ready(Some(Err(malformed(error))));
                }
            }
            match self.read.poll_fill(cx, &mut self.io) {
                Poll::Pending => {
                    self.wait(cx);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(n)) if n > 0 => self.last_activity = clock::now(),
                Poll::Ready(Ok(_)) if self.decoder.on_close() => return Poll::Ready(None),
                Poll::Ready(result) => {
                    self.broken = true;
                    let cause = result
                        .err()
                        .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    let error = Error::new(ErrorKind::DownstreamGone).with_source(cause);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl<IO> Shared<IO> {
    /// Whoever holds the body gets no more of it.
    pub(super) fn abandon(&mut self) {
        self.generation += 1;
        self.wake_reader();
    }

    /// Lets whoever waits for more of the body look again.
    pub(super) fn wake_reader(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waiting {
            Some(waiting) => waiting.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

fn malformed(error: ChunkError) -> Error {
    Error::new(ErrorKind::DownstreamProtocol)
        .with_message(error.to_string())
        .with_reply(LocalReply::new(
            StatusCode::BAD_REQUEST,
            "Bad Request",
            "http1.codec_error",
        ))
        .with_source(error)
}
