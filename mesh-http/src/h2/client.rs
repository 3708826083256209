//! The upstream side: one stream carries one request and its answer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{Request, Response};
use http_body::Body as _;
use mesh_core::{Body, Error, ErrorKind, Sent, TunnelRequest, clock};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::AbortHandle,
};

use super::{
    body::{self, Hold},
    config::Http2Config,
    error,
    flood::Flood,
    head,
    io::{Side, Verdict, Watched},
    keepalive::Keepalive,
    pump::{Pump, Pumped},
};
use crate::h1::HeadLimits;

/// A connection to an upstream: whoever holds it opens streams on it. Cloning shares the connection.
pub(crate) type Streams = SendRequest<Bytes>;

/// Drives a connection; the future ends with it. It ends by itself when nobody holds its [`Streams`] any
/// more and none of them runs.
pub(crate) struct Driver<IO: AsyncRead + AsyncWrite + Unpin> {
    connection: h2::client::Connection<Watched<IO>, Bytes>,
    keepalive: Option<Keepalive>,
    verdict: Verdict,
    /// Until the peer's settings are here.
    greeting: Option<watch::Sender<bool>>,
}

/// Why a connection to an upstream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriverEnd {
    /// Either side closed it.
    Closed,
    /// The peer broke the protocol.
    Protocol,
    /// The peer kept us busy for nothing.
    Flooded(Flood),
    /// The peer no longer answers pings.
    KeepaliveTimeout,
}

/// A connection to an upstream, whether the peer's settings are here, and who drives it.
pub(crate) type Connected<IO> = (Streams, watch::Receiver<bool>, Driver<IO>);

/// Makes an HTTP/2 connection of `io`. Until the peer says how many streams it takes, it gets at most
/// `streams_at_first`: what is beyond its limit would wait within the connection.
///
/// # Errors
/// When the connection fails at once.
pub(crate) async fn connect<IO>(
    io: IO,
    config: &Http2Config,
    limits: HeadLimits,
    streams_at_first: usize,
) -> Result<Connected<IO>, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (io, verdict) = Watched::new(io, Bytes::new(), Side::Client, config.flood.clone());
    let (streams, mut connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(streams_at_first)
        .initial_window_size(config.initial_stream_window_size)
        .initial_connection_window_size(config.initial_connection_window_size)
        .header_table_size(config.hpack_table_size)
        .max_send_buffer_size(config.max_send_buffer_size)
        .max_header_list_size(u32::try_from(limits.bytes).unwrap_or(u32::MAX))
        .handshake(io)
        .await
        .map_err(|error| error::upstream(error, Sent::Nothing))?;
    let pings = config.keepalive.as_ref().zip(connection.ping_pong());
    let keepalive =
        pings.map(|(config, pings)| Keepalive::new(config.clone(), pings, clock::now()));
    let (greeting, greeted) = watch::channel(false);
    let driver = Driver {
        connection,
        keepalive,
        verdict,
        greeting: Some(greeting),
    };
    Ok((streams, greeted, driver))
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = DriverEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DriverEnd> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(result) = Pin::new(&mut this.connection).poll(cx) {
                return Poll::Ready(match result {
                    Err(error) if error.is_library() => DriverEnd::Protocol,
                    _ => DriverEnd::Closed,
                });
            }
            if !this.verdict.take_holds_back() {
                break;
            }
        }
        if let Some(flood) = this.verdict.flood() {
            return Poll::Ready(DriverEnd::Flooded(flood));
        }
        // The connection has just worked off all that was read.
        if this.verdict.is_greeted()
            && let Some(greeting) = this.greeting.take()
        {
            greeting.send_replace(true);
        }
        if let Some(keepalive) = &mut this.keepalive
            && keepalive.poll(cx, clock::now()).is_ready()
        {
            return Poll::Ready(DriverEnd::KeepaliveTimeout);
        }
        Poll::Pending
    }
}

/// Whether the peer said in closing the connection that it had not looked at the stream.
pub(crate) fn is_go_away(error: &Error) -> bool {
    cause(error).is_some_and(h2::Error::is_go_away)
}

/// What the library said of it.
pub(crate) fn cause(error: &Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref::<h2::Error>()
}

/// What is held while a request and its answer are on their way.
pub(crate) trait Guard: Send + Sync + Unpin + 'static {
    /// The answer broke off behind its head; without an error, because nobody wants more of it.
    fn broke_off(&self, error: Option<&Error>);
}

/// One request on its way, and its answer on the way back. Holds `G` until both are over.
pub(crate) struct Exchange<G> {
    response: ResponseFuture,
    upload: Option<Pin<Box<Pump<Body>>>>,
    /// The body again, while none of it was taken from a stream.
    replay: Option<Body>,
    guard: G,
    /// What the request asks for, until it is refused. Nothing but the head is sent before that is known.
    tunnel: Option<TunnelRequest>,
    answer: Option<(RecvStream, Option<u64>)>,
}

impl<G: Guard> Exchange<G> {
    /// Opens a stream for `request`.
    ///
    /// # Errors
    /// When the connection takes no further stream; nothing was sent, and what was given comes back.
    pub(crate) fn new(
        mut streams: Streams,
        request: &Request<()>,
        body: Body,
        guard: G,
    ) -> Result<Self, (Error, Body, G)> {
        let head = match head::outgoing(request) {
            Ok(head) => head,
            Err(error) => {
                let error = Error::new(ErrorKind::LocalReset)
                    .with_sent(Sent::Nothing)
                    .with_source(error);
                return Err((error, body, guard));
            }
        };
        let tunnel = TunnelRequest::of(request).cloned();
        let ended = body.is_end_stream() && tunnel.is_none();
        match streams.send_request(head, ended) {
            Err(refused) => Err((error::upstream(refused, Sent::Nothing), body, guard)),
            Ok((response, send)) => {
                let replay = body.try_clone();
                let upload = (!ended).then(|| Box::pin(Pump::new(send, body)));
                Ok(Self {
                    response,
                    upload,
                    replay,
                    guard,
                    tunnel,
                    answer: None,
                })
            }
        }
    }

    /// Whether the whole request is with the connection.
    pub(crate) fn is_request_sent(&self) -> bool {
        self.tunnel.is_some() || self.upload.as_ref().is_none_or(|upload| upload.is_done())
    }

    /// The request's body, if none of it was read yet: it can be sent again.
    pub(crate) fn untouched_body(&mut self) -> Option<Body> {
        match self.replay.take() {
            Some(body) => Some(body),
            None => Pin::into_inner(self.upload.take()?).into_untouched(),
        }
    }

    /// Sends what can be sent. An upstream that wants no more of the body will answer all the same.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        match upload.as_mut().poll(cx, || {}) {
            Poll::Pending | Poll::Ready(Pumped::Complete) => Ok(()),
            Poll::Ready(Pumped::Reset(_)) => {
                // One that nobody has touched may be sent again.
                if upload.is_touched() {
                    self.upload = None;
                }
                Ok(())
            }
            Poll::Ready(Pumped::Failed(error)) => {
                upload.as_mut().reset(Reason::CANCEL);
                self.upload = None;
                Err(error)
            }
        }
    }

    /// Drives the exchange until the answer's head is there.
    ///
    /// # Errors
    /// The stream or its connection failed, or the request's own body did.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        if self.tunnel.is_none() {
            self.poll_upload(cx)?;
        }
        match ready!(Pin::new(&mut self.response).poll(cx)) {
            Ok(response) => {
                let (mut parts, recv) = response.into_parts();
                match &self.tunnel {
                    Some(tunnel) if parts.status.is_success() => {
                        head::tunnel_granted(tunnel, &mut parts);
                    }
                    Some(_) => {
                        self.tunnel = None;
                        self.upload = None;
                    }
                    None => {}
                }
                self.answer = Some((recv, body::content_length(&parts.headers)));
                Poll::Ready(Ok(Response::from_parts(parts, ())))
            }
            Err(error) => Poll::Ready(Err(error::upstream(error, Sent::Some))),
        }
    }

    /// The answer's body. What is left of the request goes on by itself.
    pub(crate) fn into_body(self) -> Body {
        let Some((recv, length)) = self.answer else {
            return Body::empty();
        };
        let upload = self.upload.filter(|upload| !upload.is_done());
        let tunnel = self.tunnel.is_some();
        let both = Arc::new(Both {
            guard: self.guard,
            cause: Mutex::default(),
        });
        let sent = Arc::clone(&both);
        let held = Held {
            both,
            upload: upload.map(|upload| send_on(upload, sent)),
            tunnel,
            over: false,
        };
        body::receive(recv, length, Side::Client, None, Some(held))
    }
}

/// What the rest of a request and its answer have in common.
struct Both<G> {
    guard: G,
    /// Why the request broke off, which is why the answer did.
    cause: Mutex<Option<Error>>,
}

/// What lives until the answer is over.
struct Held<G: Guard> {
    both: Arc<Both<G>>,
    upload: Option<Upload>,
    tunnel: bool,
    over: bool,
}

impl<G: Guard> Drop for Held<G> {
    fn drop(&mut self) {
        if !self.over {
            self.both.guard.broke_off(None);
        }
    }
}

impl<G: Guard> Hold for Held<G> {
    fn failed(mut self, error: Error) -> Error {
        self.over = true;
        let cause = self.both.cause.lock();
        let cause = cause.unwrap_or_else(PoisonError::into_inner).take();
        let error = cause.unwrap_or(error);
        self.both.guard.broke_off(Some(&error));
        error
    }

    fn complete(mut self) {
        self.over = true;
        // What a client says goes on when the upstream's end of a tunnel has closed.
        if self.tunnel
            && let Some(upload) = self.upload.take()
        {
            upload.detach();
        }
    }
}

/// Sends the rest of a request whose answer has begun, whether or not the answer is being read.
/// Holds `both` until it is done.
fn send_on<G: Send + Sync + 'static>(mut pump: Pin<Box<Pump<Body>>>, both: Arc<Both<G>>) -> Upload {
    let task = tokio::spawn(async move {
        let end = std::future::poll_fn(|cx| pump.as_mut().poll(cx, || {})).await;
        if let Pumped::Failed(error) = end {
            let cause = both.cause.lock();
            *cause.unwrap_or_else(PoisonError::into_inner) = Some(error);
            pump.as_mut().reset(Reason::CANCEL);
        }
        drop(both);
    });
    Upload(Some(task.abort_handle()))
}

/// Ends the task that sends the rest of a request.
struct Upload(Option<AbortHandle>);

impl Upload {
    /// It ends by itself.
    fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
