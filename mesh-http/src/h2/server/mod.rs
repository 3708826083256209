//! The downstream side: accepts streams and answers each with the handler.

mod stream;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream as _};
use h2::{
    Reason, RecvStream,
    server::{Builder, Handshake, SendResponse},
};
use http::Request;
use mesh_core::{Timer, clock};
use tokio::io::{AsyncRead, AsyncWrite};

use self::stream::{Broken, Stream, StreamEnd};
use super::{
    flood::{Flood, ResetGuard},
    io::{Side, Verdict, Watched},
    keepalive::Keepalive,
};
use crate::{
    handler::{CodecEvent, Handler},
    server::{Closing, Ended, FIRST_REQUEST_GRACE, ServerConfig},
};

/// Serves one HTTP/2 connection with `handler`; the future ends with the connection.
pub(crate) struct Connection<IO, H: Handler> {
    state: State<IO>,
    verdict: Verdict,
    streams: FuturesUnordered<Stream<H>>,
    /// To be reset when what was written has gone out; no more than there were streams.
    broken: Vec<Broken>,
    resets: ResetGuard,
    handler: H,
    config: Arc<ServerConfig>,
    keepalive: Option<Keepalive>,
    timer: Timer,
    accepted: u64,
    opened: Instant,
    idle_since: Instant,
    closing: Closing,
    /// The peer was told to go elsewhere.
    told: bool,
    /// How it has ended, but for what is still to be sent.
    ended: Option<Ended>,
}

enum State<IO> {
    Handshaking(Handshake<Watched<IO>, Bytes>),
    Serving(h2::server::Connection<Watched<IO>, Bytes>),
}

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    /// A connection that has just been accepted. `before` was read from it already.
    pub(crate) fn new(io: IO, before: Bytes, handler: H, config: Arc<ServerConfig>) -> Self {
        let now = clock::now();
        let http2 = &config.http2;
        let (io, verdict) = Watched::new(io, before, Side::Server, http2.flood.clone());
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(http2.max_concurrent_streams)
            .initial_window_size(http2.initial_stream_window_size)
            .initial_connection_window_size(http2.initial_connection_window_size)
            .header_table_size(http2.hpack_table_size)
            .max_send_buffer_size(http2.max_send_buffer_size)
            .max_header_list_size(u32::try_from(config.limits.bytes).unwrap_or(u32::MAX));
        if http2.allow_connect {
            builder.enable_connect_protocol();
        }
        Self {
            state: State::Handshaking(builder.handshake(io)),
            verdict,
            streams: FuturesUnordered::new(),
            broken: Vec::new(),
            resets: ResetGuard::default(),
            handler,
            keepalive: None,
            timer: Timer::new(),
            accepted: 0,
            opened: now,
            idle_since: now,
            closing: Closing::No,
            told: false,
            ended: None,
            config,
        }
    }

    /// When announced, the client is told to go elsewhere once it has sent a request: one that has not
    /// would only come back. When now, a connection that never sends a request ends soon.
    pub(crate) fn close_as(&mut self, closing: Closing) {
        self.closing = self.closing.max(closing);
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let State::Handshaking(handshake) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        if let Poll::Ready(done) = Pin::new(handshake).poll(cx) {
            let mut connection = done?;
            let keepalive = self.config.http2.keepalive.as_ref();
            self.keepalive = keepalive
                .zip(connection.ping_pong())
                .map(|(config, pings)| Keepalive::new(config.clone(), pings, clock::now()));
            self.state = State::Serving(connection);
            return Poll::Ready(Ok(()));
        }
        // A preface that does not come is a head that does not come.
        let patience = self.config.headers_timeout.or(self.config.idle_timeout);
        self.timer.set(patience.map(|t| self.opened + t));
        ready!(self.timer.poll(cx));
        self.ended = Some(Ended::Idle);
        Poll::Ready(Ok(()))
    }

    /// Waits for the last words to go out, but not for long.
    fn poll_last_words(&mut self, cx: &mut Context<'_>, ended: Ended) -> Poll<Ended> {
        ready!(self.timer.poll(cx));
        Poll::Ready(ended)
    }

    /// Lets the streams work; those that are over are counted.
    fn poll_streams(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(end)) = Pin::new(&mut self.streams).poll_next(cx) {
            self.handler.observe(match end {
                StreamEnd::Complete | StreamEnd::Gone => CodecEvent::StreamEnded,
                StreamEnd::ResetByPeer { .. } => CodecEvent::StreamResetByPeer,
                StreamEnd::ResetByUs | StreamEnd::Broken(_) => CodecEvent::StreamResetByUs,
            });
            let premature = matches!(end, StreamEnd::ResetByPeer { premature: true });
            if let StreamEnd::Broken(broken) = end {
                self.broken.push(broken);
            }
            let limits = &self.config.http2.flood;
            if let Err(flood) = self.resets.on_closed(premature, limits) {
                self.cut_off(flood);
            }
            self.idle_since = clock::now();
        }
    }

    /// Takes in a request.
    fn accept(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.accepted += 1;
        self.handler.observe(CodecEvent::StreamBegan);
        let stream = Stream::begin(&mut self.handler, request, respond, &self.config);
        self.streams.push(stream);
        let last = self.config.max_requests;
        if last.is_some_and(|max| self.accepted >= max) {
            if last == Some(self.accepted) {
                self.handler.observe(CodecEvent::MaxRequests);
            }
            self.close_as(Closing::Announced);
        }
    }

    /// Ends a connection that floods us.
    fn cut_off(&mut self, flood: Flood) {
        if self.ended.is_some() {
            return;
        }
        self.handler.observe(CodecEvent::Flooded(flood));
        self.end_at_once(Reason::ENHANCE_YOUR_CALM, Ended::Closed);
    }

    /// Sends GOAWAY with the last stream that was looked at, and ends all of them.
    fn end_at_once(&mut self, reason: Reason, ended: Ended) {
        self.ended.get_or_insert(ended);
        self.timer.arm(clock::now() + self.config.delayed_close);
        if let State::Serving(connection) = &mut self.state {
            connection.abrupt_shutdown(reason);
        }
    }

    /// Tells the client to go elsewhere, when that is due.
    fn tell(&mut self) {
        if self.told || self.closing == Closing::No || self.accepted == 0 {
            return;
        }
        if let State::Serving(connection) = &mut self.state {
            connection.graceful_shutdown();
            self.told = true;
        }
    }

    /// What time does to a connection: it is idle for too long, or never sends its first request.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        if let (Some(keepalive), State::Serving(_)) = (&mut self.keepalive, &self.state)
            && keepalive.poll(cx, now).is_ready()
        {
            self.handler.observe(CodecEvent::KeepaliveTimeout);
            self.ended = Some(Ended::ClientGone);
            return Poll::Ready(());
        }
        let deadline = if !self.streams.is_empty() {
            None
        } else if self.closing == Closing::Now && self.accepted == 0 {
            Some(self.opened + FIRST_REQUEST_GRACE)
        } else {
            self.config.idle_timeout.map(|t| self.idle_since + t)
        };
        self.timer.set(deadline);
        ready!(self.timer.poll(cx));
        self.end_at_once(Reason::NO_ERROR, Ended::Idle);
        Poll::Ready(())
    }

    fn closed(&self) -> Ended {
        self.ended.unwrap_or(if self.told {
            Ended::Closed
        } else {
            Ended::ClientGone
        })
    }

    fn failed(&mut self, error: &h2::Error) -> Ended {
        if error.is_library() && self.ended.is_none() {
            self.handler.observe(CodecEvent::ProtocolError);
            return Ended::Closed;
        }
        self.closed()
    }
}

/// Streams that end with their connection end in the books as well.
impl<IO, H: Handler> Drop for Connection<IO, H> {
    fn drop(&mut self) {
        for _ in 0..self.streams.len() {
            self.handler.observe(CodecEvent::StreamEnded);
        }
    }
}

/// Nothing in it is pinned in place: streams lie on the heap.
impl<IO, H: Handler> Unpin for Connection<IO, H> {}

impl<IO, H> Future for Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = &mut *self;
        if let Err(error) = ready!(this.poll_handshake(cx)) {
            return Poll::Ready(this.failed(&error));
        }
        loop {
            this.poll_streams(cx);
            this.tell();
            let State::Serving(connection) = &mut this.state else {
                return Poll::Ready(this.closed());
            };
            // Sends what the streams have left behind, too.
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    this.accept(request, respond);
                    continue;
                }
                Poll::Ready(end) => {
                    // What the client said of its streams before it left is heard by them first.
                    this.poll_streams(cx);
                    return Poll::Ready(match end {
                        Some(Err(error)) => this.failed(&error),
                        _ => this.closed(),
                    });
                }
                Poll::Pending if this.verdict.take_holds_back() => continue,
                // What could be sent has been.
                Poll::Pending if !this.broken.is_empty() => {
                    this.broken.drain(..).for_each(Broken::reset);
                    continue;
                }
                Poll::Pending => {}
            }
            if let Some(ended) = this.ended {
                return this.poll_last_words(cx, ended);
            }
            if let Some(flood) = this.verdict.flood() {
                this.cut_off(flood);
                continue;
            }
            ready!(this.poll_timers(cx));
            if matches!(this.ended, Some(Ended::ClientGone)) {
                return Poll::Ready(Ended::ClientGone);
            }
        }
    }
}
