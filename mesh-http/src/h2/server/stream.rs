//! One request and its answer on an HTTP/2 connection.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use mesh_core::{Error, ErrorKind, Timer, Tunnel, clock};
use pin_project::pin_project;

use crate::{
    h2::{
        activity::Activity,
        body, head,
        io::Side,
        pump::{Pump, Pumped},
    },
    handler::{Abort as _, Exchange as _, Handler},
    server::{ServerConfig, idle_timeout, receive_timeout, refusal},
};

/// A stream that is reset within this time and without an answer was opened to be reset. Envoy:
/// `overload.premature_reset_min_stream_lifetime_seconds`.
const PREMATURE: Duration = Duration::from_secs(1);

/// How a stream ended.
pub(super) enum StreamEnd {
    /// The answer is with the connection.
    Complete,
    /// The client gave up; `premature` when it did so at once.
    ResetByPeer {
        /// Soon after it began, and without an answer.
        premature: bool,
    },
    /// The client took its connection with it.
    Gone,
    /// The answer broke off.
    ResetByUs,
    /// The answer broke off, and what there was of it goes out before the reset.
    Broken(Broken),
}

/// A stream that is to be reset once what was written on it has gone out.
pub(super) struct Broken(SendResponse<Bytes>);

impl Broken {
    pub(super) fn reset(mut self) {
        self.0.send_reset(Reason::INTERNAL_ERROR);
    }
}

/// One request and its answer.
#[pin_project]
pub(super) struct Stream<H: Handler> {
    #[pin]
    state: State<H>,
    /// Until the stream is over.
    respond: Option<SendResponse<Bytes>>,
    /// The request was a HEAD.
    head: bool,
    /// The answer grants a tunnel.
    tunnel: bool,
    activity: Arc<Activity>,
    timer: Timer,
    idle_timeout: Option<Duration>,
    request_timeout: Option<Duration>,
}

#[pin_project(project = StateProject)]
enum State<H: Handler> {
    /// The handler works on the answer.
    Handling(#[pin] H::Exchange),
    /// A request that nobody was asked about has its answer ready.
    Refused(Option<Response<H::Body>>),
    /// The answer's body goes out.
    Answering(#[pin] Pump<H::Body>),
    /// The answer is out; what the client of a tunnel says is still read.
    HalfClosed,
}

impl<H: Handler> Stream<H> {
    /// Hands the request to the handler.
    pub(super) fn begin(
        handler: &mut H,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        config: &ServerConfig,
    ) -> Self {
        let activity = Activity::begin(clock::now());
        let (mut parts, recv) = request.into_parts();
        let head = parts.method == Method::HEAD;
        let mut idle_timeout = config.stream_idle_timeout;
        let too_many = parts.headers.len() > config.limits.count;
        let state = match head::canonical(&mut parts) {
            _ if too_many => {
                respond.send_reset(Reason::PROTOCOL_ERROR);
                State::Refused(None)
            }
            Err(malformed) => State::Refused(Some(handler.reject(refusal(&malformed)))),
            Ok(()) => {
                parts.version = Version::HTTP_2;
                if parts.headers.remove(header::EXPECT).is_some() && !recv.is_end_stream() {
                    let mut go_on = Response::new(());
                    *go_on.status_mut() = StatusCode::CONTINUE;
                    // A client that has gone needs none.
                    let _ = respond.send_informational(go_on);
                }
                if recv.is_end_stream() {
                    activity.request_done();
                }
                let guard: Option<()> = None;
                let length = body::content_length(&parts.headers);
                let body = body::receive(recv, length, Side::Server, Some(&activity), guard);
                let exchange = handler.call(Request::from_parts(parts, body));
                if let Some(own) = exchange.idle_timeout() {
                    idle_timeout = Some(own);
                }
                State::Handling(exchange)
            }
        };
        Self {
            state,
            respond: Some(respond),
            head,
            tunnel: false,
            activity,
            timer: Timer::new(),
            idle_timeout: idle_timeout.filter(|t| !t.is_zero()),
            request_timeout: config.request_timeout,
        }
    }

    /// Sends the head. `None` when the body follows.
    fn answer(self: Pin<&mut Self>, response: Response<H::Body>) -> Option<StreamEnd> {
        let mut this = self.project();
        this.activity.touch();
        let (mut parts, body) = response.into_parts();
        if parts.extensions.get::<Tunnel>().is_some() {
            head::tunnel_answer(&mut parts);
            *this.tunnel = true;
        }
        let bodiless = *this.head
            || parts.status == StatusCode::NO_CONTENT
            || parts.status == StatusCode::NOT_MODIFIED;
        let ended = bodiless || body.is_end_stream();
        head::answer(
            &mut parts.headers,
            parts.status,
            body.size_hint().exact(),
            !bodiless,
        );
        parts.version = Version::HTTP_2;
        let Some(respond) = this.respond else {
            return Some(StreamEnd::ResetByUs);
        };
        let sent = respond.send_response(Response::from_parts(parts, ()), ended);
        match sent {
            // It had been reset, or its connection has ended.
            Err(_) => Some(StreamEnd::ResetByPeer {
                premature: clock::now() - this.activity.began() < PREMATURE,
            }),
            Ok(_) if ended => Some(StreamEnd::Complete),
            Ok(send) => {
                this.state.set(State::Answering(Pump::new(send, body)));
                None
            }
        }
    }

    /// What ends a stream early: the client resets it, or time runs out.
    fn poll_impatience(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Error> {
        let this = self.project();
        let handling = matches!(*this.state.as_ref(), State::Handling(_));
        if handling
            && let Some(respond) = this.respond
            && let Poll::Ready(reset) = respond.poll_reset(cx)
        {
            let kind = match reset {
                Ok(_) => ErrorKind::DownstreamReset,
                Err(_) => ErrorKind::DownstreamGone,
            };
            return Poll::Ready(Error::new(kind));
        }
        let done = this.activity.is_request_done();
        let idle = this.idle_timeout.map(|t| this.activity.last() + t);
        // An answer that has begun is not ended for a request that goes on.
        let request = this.request_timeout.filter(|_| handling && !done);
        let request = request.map(|t| this.activity.began() + t);
        this.timer.set([idle, request].into_iter().flatten().min());
        ready!(this.timer.poll(cx));
        let late = request.is_some_and(|t| clock::now() >= t);
        Poll::Ready(if late {
            receive_timeout()
        } else {
            idle_timeout(done)
        })
    }

    fn poll_handling(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamEnd>> {
        let this = self.as_mut().project();
        let StateProject::Handling(exchange) = this.state.project() else {
            return Poll::Ready(None);
        };
        let response = match exchange.poll(cx) {
            Poll::Ready(response) => response,
            Poll::Pending => {
                let error = ready!(self.as_mut().poll_impatience(cx));
                let kind = error.kind();
                let this = self.as_mut().project();
                let premature = clock::now() - this.activity.began() < PREMATURE;
                let StateProject::Handling(exchange) = this.state.project() else {
                    return Poll::Ready(None);
                };
                let response = exchange.cancel(error);
                match kind {
                    ErrorKind::DownstreamReset => {
                        return Poll::Ready(Some(StreamEnd::ResetByPeer { premature }));
                    }
                    ErrorKind::DownstreamGone => return Poll::Ready(Some(StreamEnd::Gone)),
                    _ => {}
                }
                response
            }
        };
        Poll::Ready(self.answer(response))
    }

    fn poll_answering(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StreamEnd> {
        let this = self.as_mut().project();
        let StateProject::Answering(mut pump) = this.state.project() else {
            return Poll::Ready(StreamEnd::Complete);
        };
        let activity = &*this.activity;
        // While its request goes on, the end of an answer may be the consequence of a reset: that is the cause.
        let polled = if activity.is_request_whole() {
            Poll::Pending
        } else {
            pump.as_mut().poll_reset(cx)
        };
        let polled = match polled {
            Poll::Ready(reason) => Poll::Ready(Pumped::Reset(reason)),
            Poll::Pending => pump.as_mut().poll(cx, || activity.touch()),
        };
        match polled {
            Poll::Ready(Pumped::Complete) if *this.tunnel && !activity.is_request_done() => {
                self.as_mut().project().state.set(State::HalfClosed);
                return self.poll_half_closed(cx);
            }
            Poll::Ready(Pumped::Complete) => return Poll::Ready(StreamEnd::Complete),
            Poll::Ready(Pumped::Failed(_)) => {
                let broken = this.respond.take().map(Broken);
                return Poll::Ready(broken.map_or(StreamEnd::ResetByUs, StreamEnd::Broken));
            }
            Poll::Ready(Pumped::Reset(reason)) => {
                let kind = match reason {
                    Some(_) => ErrorKind::DownstreamReset,
                    None => ErrorKind::DownstreamGone,
                };
                pump.body().abort(&Error::new(kind));
                return Poll::Ready(match reason {
                    Some(_) => StreamEnd::ResetByPeer { premature: false },
                    None => StreamEnd::Gone,
                });
            }
            Poll::Pending => {}
        }
        let error = ready!(self.as_mut().poll_impatience(cx));
        if let StateProject::Answering(mut pump) = self.project().state.project() {
            pump.as_mut().body().abort(&error);
            pump.reset(Reason::INTERNAL_ERROR);
        }
        Poll::Ready(StreamEnd::ResetByUs)
    }
}

impl<H: Handler> Stream<H> {
    /// Waits for the client's end of a tunnel.
    fn poll_half_closed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StreamEnd> {
        let activity = self.as_mut().project().activity;
        if activity.poll_request_done(cx).is_ready() {
            return Poll::Ready(StreamEnd::Complete);
        }
        ready!(self.as_mut().poll_impatience(cx));
        if let Some(respond) = self.project().respond {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        Poll::Ready(StreamEnd::ResetByUs)
    }
}

impl<H: Handler> Future for Stream<H> {
    type Output = StreamEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StreamEnd> {
        loop {
            match self.as_mut().project().state.project() {
                StateProject::Handling(_) => {
                    if let Some(end) = ready!(self.as_mut().poll_handling(cx)) {
                        return Poll::Ready(end);
                    }
                }
                StateProject::Refused(response) => {
                    let Some(response) = response.take() else {
                        return Poll::Ready(StreamEnd::ResetByUs);
                    };
                    if let Some(end) = self.as_mut().answer(response) {
                        return Poll::Ready(end);
                    }
                }
                StateProject::Answering(_) => return self.as_mut().poll_answering(cx),
                StateProject::HalfClosed => return self.as_mut().poll_half_closed(cx),
            }
        }
    }
}
