//! The downstream side: a connection's life, from its first byte to its last.
//!
//! A connection reads a head (`reading`), lends the body out (`body`), lets the handler work
//! (`handling`), writes the answer (`answering`) and starts again.

mod answering;
mod body;
mod handling;
mod reading;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::Method;
use mesh_core::{Alarm, Timer, clock};
use pin_project::{pin_project, pinned_drop};
use tokio::io::{AsyncRead, AsyncWrite};

use self::body::{Holder, Shared};
use super::{encode::BodyEncoder, head::HeadScan};
use crate::{
    handler::Handler,
    server::{Closing, Ended, ServerConfig},
};

/// Serves one connection with `handler`; the future ends with the connection.
#[pin_project(PinnedDrop)]
pub(crate) struct Connection<IO, H: Handler> {
    shared: Holder<IO>,
    handler: H,
    config: Arc<ServerConfig>,
    timer: Timer,
    /// For every timer that is polled here.
    alarm: Alarm,
    scan: HeadScan,
    #[pin]
    state: State<H>,
    requests: u64,
    /// The head of the current request, as far as the answer needs it.
    current: Current,
    head_started: Option<Instant>,
    idle_since: Instant,
    closing: Closing,
}

#[derive(Debug, Default)]
struct Current {
    method: Method,
    http10: bool,
    keep_alive: bool,
    started: Option<Instant>,
    /// How long the stream may be silent, where the request's route says so.
    idle_timeout: Option<Duration>,
    client_left: Option<Instant>,
}

#[pin_project(project = StateProject)]
enum State<H: Handler> {
    /// Waiting for a head.
    Reading,
    /// The handler works on the answer.
    Handling(#[pin] H::Exchange),
    /// The answer's body goes out.
    Answering {
        #[pin]
        body: H::Body,
        encoder: BodyEncoder,
        ended: bool,
        close: bool,
    },
    /// The upstream's end of a tunnel has closed: the client may still have something to say.
    HalfClosed,
    /// The last answer is out: wait for the client to close, so that no reset overtakes it.
    Lingering(Instant),
    Done,
}

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    /// A connection that has just been accepted, of which `read` was read already.
    pub(crate) fn new(io: IO, read: BytesMut, handler: H, config: Arc<ServerConfig>) -> Self {
        let now = clock::now();
        Self {
            shared: Holder::Own(Shared::new(io, read, config.trailers, now)),
            handler,
            config,
            timer: Timer::new(),
            alarm: Alarm::new(),
            scan: HeadScan::default(),
            state: State::Reading,
            requests: 0,
            current: Current::default(),
            head_started: None,
            idle_since: now,
            closing: Closing::No,
        }
    }

    /// When announced, the next answer says that the connection ends behind it; an idle connection stays
    /// for that. When now, an idle connection ends as soon as nothing has arrived on it.
    pub(crate) fn close_as(self: Pin<&mut Self>, closing: Closing) {
        let this = self.project();
        *this.closing = (*this.closing).max(closing);
    }

    /// Shows the transport to `f`, which may set options on it.
    pub(crate) fn with_io<T>(&self, f: impl FnOnce(&IO) -> T) -> T {
        self.shared.with_io(f)
    }
}

#[pinned_drop]
impl<IO, H: Handler> PinnedDrop for Connection<IO, H> {
    fn drop(self: Pin<&mut Self>) {
        // Whoever still reads from a tunnel holds the socket.
        self.project().shared.lock().abandon();
    }
}

impl<IO, H> Future for Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let _clock = clock::hold();
        let watching = Alarm::watch(cx);
        let ended = self.as_mut().poll_states(cx);
        if ended.is_pending() {
            self.project().alarm.set(watching, cx);
        }
        ended
    }
}

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    fn poll_states(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let step = match self.as_mut().project().state.project() {
                StateProject::Reading => self.as_mut().poll_reading(cx),
                StateProject::Handling(_) => self.as_mut().poll_handling(cx),
                StateProject::Answering { .. } => self.as_mut().poll_answering(cx),
                StateProject::HalfClosed => self.as_mut().poll_half_closed(cx),
                StateProject::Lingering(until) => {
                    let until = *until;
                    self.as_mut().poll_lingering(cx, until)
                }
                StateProject::Done => return Poll::Ready(Ended::Closed),
            };
            if let Some(ended) = ready!(step) {
                self.as_mut().project().state.set(State::Done);
                return Poll::Ready(ended);
            }
        }
    }
}

/// A step of the connection: go on, or end.
type Step = Poll<Option<Ended>>;
const NEXT: Step = Poll::Ready(None);

const fn end(ended: Ended) -> Step {
    Poll::Ready(Some(ended))
}
