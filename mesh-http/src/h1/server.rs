//! The downstream side: a connection's life, from its first byte to its last.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, Error, ErrorKind, LocalReply, Timer, clock};
use pin_project::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    buffer::{ReadBuffer, WriteBuffer},
    chunk::Decoded,
    decode::BodyDecoder,
    encode::{self, BodyEncoder},
    framing::BodyLength,
    head::{self, HeadLimits, HeadScan, Malformed, RequestHead},
};
use crate::handler::{Abort, Exchange, Handler};

/// Bytes of further requests that are read ahead while one is being answered.
const READ_AHEAD_MAX: usize = 64 * 1024;
/// How long a client that has closed its side may still wait for its answer. A client that half-closes
/// after its request gets it; work for one that is gone ends soon.
const HALF_CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How a connection behaves.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How large heads may be.
    pub limits: HeadLimits,
    /// Without a request for so long, the connection closes. Envoy: `idle_timeout`, 1 hour.
    pub idle_timeout: Option<Duration>,
    /// From the first byte of a head to its last. Envoy: `request_headers_timeout`, off there; 15 s here,
    /// so that trickled heads cannot hold connections.
    pub headers_timeout: Option<Duration>,
    /// From the first byte of a request to the last of its body. Envoy: `request_timeout`, off.
    pub request_timeout: Option<Duration>,
    /// Without a byte in either direction. Envoy: `stream_idle_timeout`, 5 minutes. A route may say
    /// otherwise.
    pub stream_idle_timeout: Option<Duration>,
    /// After so many requests, the connection closes. Envoy: `max_requests_per_connection`, off.
    pub max_requests: Option<u64>,
    /// Whether HTTP/1.0 is served. Envoy: `accept_http_10`, off: 426.
    pub accept_http_10: bool,
    /// Whether trailers are passed on. Envoy: `enable_trailers`, off.
    pub trailers: bool,
    /// How long the client may take to close after the last answer. Envoy: `delayed_close_timeout`, 1 s.
    pub delayed_close: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            limits: HeadLimits::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            headers_timeout: Some(Duration::from_secs(15)),
            request_timeout: None,
            stream_idle_timeout: Some(Duration::from_secs(300)),
            max_requests: None,
            accept_http_10: false,
            trailers: false,
            delayed_close: Duration::from_secs(1),
        }
    }
}

/// What the connection and the request body that it lent out share. Both are polled by one task as a
/// rule, so the lock is not contended.
struct Shared<IO> {
    io: IO,
    read: ReadBuffer,
    write: WriteBuffer,
    decoder: BodyDecoder,
    /// `100 Continue` is owed as soon as somebody asks for the body.
    owes_continue: bool,
    /// The body was malformed or cut short: nothing after it can be understood.
    broken: bool,
    trailers: bool,
    last_activity: Instant,
}

type Locked<IO> = Arc<Mutex<Shared<IO>>>;

fn lock<IO>(shared: &Locked<IO>) -> MutexGuard<'_, Shared<IO>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection with `handler`; the future ends with the connection.
#[pin_project]
pub struct Connection<IO, H: Handler> {
    shared: Locked<IO>,
    handler: H,
    config: Arc<ServerConfig>,
    timer: Timer,
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

/// How far a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closing {
    No,
    Announced,
    Now,
}

#[derive(Debug, Default)]
struct Current {
    method: Method,
    http10: bool,
    keep_alive: bool,
    started: Option<Instant>,
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
    /// The last answer is out: wait for the client to close, so that no reset overtakes it.
    Lingering(Instant),
    Done,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both sides are through.
    Closed,
    /// The client closed or reset while it was owed an answer.
    ClientGone,
    /// This side closed an idle connection.
    Idle,
    /// Something malformed was answered and the connection closed.
    Refused,
}

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    /// A connection that has just been accepted.
    pub fn new(io: IO, handler: H, config: Arc<ServerConfig>) -> Self {
        let now = clock::now();
        let shared = Shared {
            io,
            read: ReadBuffer::default(),
            write: WriteBuffer::default(),
            decoder: BodyDecoder::Done,
            owes_continue: false,
            broken: false,
            trailers: config.trailers,
            last_activity: now,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            handler,
            config,
            timer: Timer::new(),
            scan: HeadScan::default(),
            state: State::Reading,
            requests: 0,
            current: Current::default(),
            head_started: None,
            idle_since: now,
            closing: Closing::No,
        }
    }

    /// Announces with the next answer that the connection ends, and closes behind it. An idle connection
    /// stays for that answer, so that no request meets a closed door.
    pub fn announce_close(self: Pin<&mut Self>) {
        let this = self.project();
        *this.closing = (*this.closing).max(Closing::Announced);
    }

    /// Like [`Connection::announce_close`], but an idle connection ends now. Poll it afterwards.
    pub fn drain(self: Pin<&mut Self>) {
        *self.project().closing = Closing::Now;
    }
}

impl<IO, H> Future for Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let step = match self.as_mut().project().state.project() {
                StateProject::Reading => self.as_mut().poll_reading(cx),
                StateProject::Handling(_) => self.as_mut().poll_handling(cx),
                StateProject::Answering { .. } => self.as_mut().poll_answering(cx),
                StateProject::Lingering(_) => self.as_mut().poll_lingering(cx),
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

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    fn poll_reading(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        loop {
            let this = self.as_mut().project();
            let shared = Arc::clone(this.shared);
            let mut guard = lock(&shared);
            if !guard.read.bytes.is_empty() {
                this.head_started.get_or_insert_with(clock::now);
                if this.scan.ripe(&guard.read.bytes) {
                    match head::parse_request(&mut guard.read.bytes, this.config.limits) {
                        Ok(Some(head)) => {
                            this.scan.reset();
                            drop(guard);
                            return self.begin(head);
                        }
                        Ok(None) => {}
                        Err(malformed) => {
                            drop(guard);
                            return self.refuse(malformed);
                        }
                    }
                }
            }
            if *this.closing == Closing::Now && guard.read.bytes.is_empty() {
                drop(guard);
                return self.linger();
            }
            let Shared { io, read, .. } = &mut *guard;
            match read.poll_fill(cx, io) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Ended::Closed)),
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Ended::ClientGone)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    drop(guard);
                    return self.poll_head_timeout(cx);
                }
            }
        }
    }

    fn poll_head_timeout(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let this = self.project();
        let deadline = match *this.head_started {
            Some(started) => this.config.headers_timeout.map(|t| started + t),
            None => this.config.idle_timeout.map(|t| *this.idle_since + t),
        };
        this.timer.set(deadline);
        ready!(this.timer.poll(cx));
        if this.head_started.is_none() {
            return Poll::Ready(Some(Ended::Idle));
        }
        let error = Error::new(ErrorKind::RequestReceiveTimeout).with_reply(LocalReply::new(
            StatusCode::REQUEST_TIMEOUT,
            "request header timeout",
            "request_header_timeout",
        ));
        let response = this.handler.reject(error);
        Self::answer_and_close(this.shared, this.state, response)
    }

    /// Hands a complete head to the handler.
    fn begin(self: Pin<&mut Self>, head: RequestHead) -> Step {
        let mut this = self.project();
        *this.requests += 1;
        let started = this.head_started.take();
        let last = this
            .config
            .max_requests
            .is_some_and(|max| *this.requests >= max);
        *this.current = Current {
            method: head.request.method().clone(),
            http10: head.http10,
            keep_alive: head.keep_alive && !last,
            started,
            client_left: None,
        };
        if head.http10 && !this.config.accept_http_10 {
            let response =
                this.handler
                    .reject(
                        Error::new(ErrorKind::DownstreamProtocol).with_reply(LocalReply::new(
                            StatusCode::UPGRADE_REQUIRED,
                            "Upgrade Required",
                            "low_version",
                        )),
                    );
            return Self::answer_and_close(this.shared, this.state, response);
        }
        let body = lend_body(this.shared, &head, this.config.limits);
        let (mut parts, ()) = head.request.into_parts();
        parts.version = if head.http10 {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        };
        parts.headers.remove(header::EXPECT);
        parts.headers.remove(header::TRANSFER_ENCODING);
        let exchange = this.handler.call(Request::from_parts(parts, body));
        this.state.set(State::Handling(exchange));
        NEXT
    }

    fn refuse(self: Pin<&mut Self>, malformed: Malformed) -> Step {
        let this = self.project();
        let error = Error::new(ErrorKind::DownstreamProtocol)
            .with_message(malformed.to_string())
            .with_reply(LocalReply::new(
                malformed.status,
                malformed.status.canonical_reason().unwrap_or("Bad Request"),
                malformed.details,
            ));
        *this.current = Current::default();
        let response = this.handler.reject(error);
        Self::answer_and_close(this.shared, this.state, response)
    }

    /// For answers given without a handler's exchange: the connection closes behind them.
    fn answer_and_close(
        shared: &Locked<IO>,
        mut state: Pin<&mut State<H>>,
        response: Response<H::Body>,
    ) -> Step {
        let (parts, body) = response.into_parts();
        let head = Response::from_parts(parts, ());
        let mut guard = lock(shared);
        guard.broken = true;
        let length = body.size_hint().exact().unwrap_or(0);
        let encoder = if length == 0 {
            BodyEncoder::None
        } else {
            BodyEncoder::Length(length)
        };
        encode::response_head(
            &head,
            encoder,
            false,
            true,
            length as usize,
            &mut guard.write.flat,
        );
        drop(guard);
        state.set(State::Answering {
            ended: body.is_end_stream(),
            body,
            encoder,
            close: true,
        });
        NEXT
    }

    fn poll_handling(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let this = self.as_mut().project();
        let StateProject::Handling(exchange) = this.state.project() else {
            return NEXT;
        };
        if let Poll::Ready(response) = exchange.poll(cx) {
            return self.begin_answer(response);
        }
        let Some(error) = ready!(self.as_mut().poll_impatience(cx)) else {
            return NEXT;
        };
        let this = self.as_mut().project();
        let StateProject::Handling(exchange) = this.state.project() else {
            return NEXT;
        };
        let gone = error.kind() == ErrorKind::DownstreamGone;
        let response = exchange.cancel(error);
        if gone {
            return Poll::Ready(Some(Ended::ClientGone));
        }
        self.begin_answer(response)
    }

    /// Waits for what may end an exchange early: the client leaves, or time runs out.
    fn poll_impatience(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        let this = self.project();
        let mut guard = lock(this.shared);
        let request_done = guard.decoder.is_done();
        // What the handler wrote through the body (a 100) goes out here.
        let Shared {
            io, read, write, ..
        } = &mut *guard;
        if !write.is_empty() && matches!(write.poll_flush(cx, io), Poll::Ready(Err(_))) {
            return Poll::Ready(Some(Error::new(ErrorKind::DownstreamGone)));
        }
        while request_done
            && this.current.client_left.is_none()
            && read.bytes.len() < READ_AHEAD_MAX
        {
            match read.poll_fill(cx, io) {
                Poll::Ready(Ok(0)) => this.current.client_left = Some(clock::now()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(Some(Error::new(ErrorKind::DownstreamGone)));
                }
                Poll::Pending => break,
            }
        }
        let last_activity = guard.last_activity;
        drop(guard);
        let idle = match this.state.project() {
            StateProject::Handling(exchange) => exchange.as_ref().get_ref().idle_timeout(),
            _ => None,
        };
        let idle = idle
            .or(this.config.stream_idle_timeout)
            .filter(|t| !t.is_zero());
        let idle = idle.map(|t| last_activity + t);
        let request = this.config.request_timeout.filter(|_| !request_done);
        let request = request.and_then(|t| Some(this.current.started? + t));
        let left = this.current.client_left.map(|t| t + HALF_CLOSE_GRACE);
        this.timer
            .set([idle, request, left].into_iter().flatten().min());
        ready!(this.timer.poll(cx));
        let now = clock::now();
        Poll::Ready(if left.is_some_and(|t| now >= t) {
            Some(Error::new(ErrorKind::DownstreamGone))
        } else if request.is_some_and(|t| now >= t) {
            Some(receive_timeout())
        } else {
            idle.is_some_and(|t| now >= t)
                .then(|| idle_timeout(request_done))
        })
    }

    /// Writes the head of an answer.
    fn begin_answer(self: Pin<&mut Self>, response: Response<H::Body>) -> Step {
        let mut this = self.project();
        let (parts, body) = response.into_parts();
        let head = Response::from_parts(parts, ());
        let mut guard = lock(this.shared);
        let told_to_close = head
            .extensions()
            .get::<crate::handler::CloseConnection>()
            .is_some();
        let request_done = guard.decoder.is_done() && !guard.broken;
        let status = head.status();
        let bodiless = this.current.method == Method::HEAD
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let hint = body.size_hint().exact();
        let encoder = match hint {
            _ if bodiless => BodyEncoder::None,
            Some(0) => BodyEncoder::None,
            Some(n) => BodyEncoder::Length(n),
            None if this.current.http10 => BodyEncoder::UntilClose,
            None => BodyEncoder::Chunked {
                trailers: this.config.trailers,
            },
        };
        let close = told_to_close
            || *this.closing != Closing::No
            || !this.current.keep_alive
            || !request_done
            || this.current.client_left.is_some()
            || encoder == BodyEncoder::UntilClose;
        let copied = hint.filter(|n| *n < 16 * 1024).unwrap_or_default() as usize;
        encode::response_head(
            &head,
            encoder,
            bodiless,
            close,
            copied,
            &mut guard.write.flat,
        );
        guard.last_activity = clock::now();
        drop(guard);
        let ended = bodiless || body.is_end_stream();
        this.state.set(State::Answering {
            body,
            encoder,
            ended,
            close,
        });
        NEXT
    }

    fn poll_answering(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        loop {
            let this = self.as_mut().project();
            let StateProject::Answering {
                mut body,
                encoder,
                ended,
                close,
            } = this.state.project()
            else {
                return NEXT;
            };
            let close = *close;
            let mut progress = false;
            while !*ended && lock(this.shared).write.has_room() {
                let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
                    break;
                };
                progress = true;
                let mut guard = lock(this.shared);
                guard.last_activity = clock::now();
                match write_frame(frame, &body, encoder, &mut guard.write) {
                    Ok(last) => *ended = last,
                    Err(()) => {
                        // The answer cannot be completed. What was read of it goes out, and the client
                        // sees the connection end before the message does.
                        let Shared { io, write, .. } = &mut *guard;
                        let _ = write.poll_flush(cx, io);
                        return Poll::Ready(Some(Ended::Closed));
                    }
                }
            }
            let mut guard = lock(this.shared);
            let Shared { io, write, .. } = &mut *guard;
            let before = write.written();
            let flushed = write.poll_flush(cx, io);
            if write.written() != before {
                guard.last_activity = clock::now();
            }
            drop(guard);
            match flushed {
                Poll::Ready(Ok(())) if *ended => {
                    return if close {
                        self.linger()
                    } else {
                        self.next_request()
                    };
                }
                Poll::Ready(Ok(())) if progress => {}
                Poll::Ready(Err(_)) => {
                    body.abort(&Error::new(ErrorKind::DownstreamGone));
                    return Poll::Ready(Some(Ended::ClientGone));
                }
                _ => return self.poll_slow_answer(cx),
            }
        }
    }

    /// While an answer waits for its next bytes: the client may leave, or nothing may move for too long.
    fn poll_slow_answer(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        if self.as_ref().get_ref().current.client_left.is_some() {
            // The grace of a half-closed client has no end once its answer flows: writes tell.
            self.as_mut().project().current.client_left = None;
        }
        let Some(error) = ready!(self.as_mut().poll_impatience(cx)) else {
            return NEXT;
        };
        let this = self.project();
        if let StateProject::Answering { body, .. } = this.state.project() {
            body.abort(&error);
        }
        Poll::Ready(Some(Ended::ClientGone))
    }

    fn next_request(self: Pin<&mut Self>) -> Step {
        let mut this = self.project();
        *this.idle_since = clock::now();
        lock(this.shared).read.rest();
        this.timer.disarm();
        this.state.set(State::Reading);
        NEXT
    }

    fn linger(self: Pin<&mut Self>) -> Step {
        let mut this = self.project();
        let until = clock::now() + this.config.delayed_close;
        this.timer.arm(until);
        this.state.set(State::Lingering(until));
        NEXT
    }

    /// Closes our side, then reads and forgets until the client has closed its own: closing with unread
    /// bytes would make the kernel reset the connection and take the answer with it.
    fn poll_lingering(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let this = self.project();
        let mut guard = lock(this.shared);
        let Shared { io, read, .. } = &mut *guard;
        if ready!(Pin::new(&mut *io).poll_shutdown(cx)).is_err() {
            return Poll::Ready(Some(Ended::Closed));
        }
        loop {
            read.bytes.clear();
            match read.poll_fill(cx, io) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Some(Ended::Closed)),
                Poll::Pending => {
                    ready!(this.timer.poll(cx));
                    return Poll::Ready(Some(Ended::Closed));
                }
            }
        }
    }
}

fn receive_timeout() -> Error {
    Error::new(ErrorKind::RequestReceiveTimeout).with_reply(LocalReply::new(
        StatusCode::REQUEST_TIMEOUT,
        "request timeout",
        "request_overall_timeout",
    ))
}

fn idle_timeout(request_done: bool) -> Error {
    let status = if request_done {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::REQUEST_TIMEOUT
    };
    Error::new(ErrorKind::StreamIdleTimeout).with_reply(LocalReply::new(
        status,
        "stream timeout",
        "stream_idle_timeout",
    ))
}

/// Puts one frame of the answer into the buffer; `true` when it was the last.
fn write_frame<B: HttpBody<Data = Bytes, Error = Error>>(
    frame: Option<Result<Frame<Bytes>, Error>>,
    body: &Pin<&mut B>,
    encoder: &mut BodyEncoder,
    write: &mut WriteBuffer,
) -> Result<bool, ()> {
    let end =
        |encoder: &mut BodyEncoder, trailers: Option<&http::HeaderMap>, write: &mut WriteBuffer| {
            encoder.end(trailers, write).map(|()| true).map_err(|_| ())
        };
    match frame {
        Some(Err(_)) => Err(()),
        None => end(encoder, None, write),
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => {
                encoder.data(data, write).map_err(|_| ())?;
                if body.is_end_stream() {
                    end(encoder, None, write)
                } else {
                    Ok(false)
                }
            }
            Err(frame) => end(encoder, frame.trailers_ref(), write),
        },
    }
}

/// Lends the request's body out: in memory when all of it has arrived, else a stream that reads from the
/// connection.
fn lend_body<IO>(shared: &Locked<IO>, head: &RequestHead, limits: HeadLimits) -> Body
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut guard = lock(shared);
    guard.last_activity = clock::now();
    guard.owes_continue = false;
    guard.decoder = BodyDecoder::Done;
    match head.length {
        BodyLength::Empty => Body::empty(),
        BodyLength::Length(n) if n <= guard.read.bytes.len() as u64 => {
            Body::from(guard.read.bytes.split_to(n as usize).freeze())
        }
        length => {
            guard.decoder = BodyDecoder::new(length, limits);
            guard.owes_continue = head.expect_continue;
            // The body looks at the shared state to see whether it has ended.
            drop(guard);
            Body::new(IncomingBody {
                shared: Arc::clone(shared),
            })
        }
    }
}

/// A request's body while it arrives.
struct IncomingBody<IO> {
    shared: Locked<IO>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> HttpBody for IncomingBody<IO> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut guard = lock(&self.shared);
        let shared = &mut *guard;
        if std::mem::take(&mut shared.owes_continue) {
            shared
                .write
                .flat
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            let _ = shared.write.poll_flush(cx, &mut shared.io);
        }
        loop {
            match shared.decoder.decode(&mut shared.read.bytes) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) if shared.trailers => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::End | Decoded::Trailers(_)) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) => {}
                Err(error) => {
                    shared.broken = true;
                    let error = Error::new(ErrorKind::DownstreamProtocol)
                        .with_message(error.to_string())
                        .with_reply(LocalReply::new(
                            StatusCode::BAD_REQUEST,
                            "Bad Request",
                            "http1.codec_error",
                        ))
                        .with_source(error);
                    return Poll::Ready(Some(Err(error)));
                }
            }
            match ready!(shared.read.poll_fill(cx, &mut shared.io)) {
                Ok(n) if n > 0 => shared.last_activity = clock::now(),
                result => {
                    shared.broken = true;
                    let cause = result
                        .err()
                        .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    let error = Error::new(ErrorKind::DownstreamGone).with_source(cause);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.shared).decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        let guard = lock(&self.shared);
        match &guard.decoder {
            BodyDecoder::Chunked(_) => SizeHint::default(),
            decoder => decoder
                .remaining()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
