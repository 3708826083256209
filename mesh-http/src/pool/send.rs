use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, Version};
use mesh_core::{
    Attempt, Body, BoxFuture, Decision, Error, ErrorKind, Overflow, Permit, Reason, RequestInfo,
    Resource, Sent, TlsFacts,
};
use tokio::sync::oneshot;

use super::{
    Checkout, Fit, HttpVersion, Inner, Place, Pool, Pooled, Tracked, is_usable,
    lease::{Lease, StreamLease},
};
use crate::{
    h1::client::{Connection, Exchange},
    h2::client as h2,
};

/// How often one request is sent again because the idle connection it was given had died.
const REPLAYS_MAX: u32 = 1;

/// How many connections that have died may be handed to one request that waits.
const STALE_MAX: u32 = 16;

/// A request on its connection.
enum Exchanging {
    Own(Box<Exchange<Tracked, Lease>>),
    Stream(Box<h2::Exchange<StreamLease>>),
}

impl Exchanging {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        match self {
            Self::Own(exchange) => exchange.poll_head(cx),
            Self::Stream(exchange) => exchange.poll_head(cx),
        }
    }

    fn into_body(self) -> Body {
        match self {
            Self::Own(exchange) => exchange.into_body(),
            Self::Stream(exchange) => exchange.into_body(),
        }
    }

    fn is_request_sent(&self) -> bool {
        match self {
            Self::Own(exchange) => exchange.is_request_sent(),
            Self::Stream(exchange) => exchange.is_request_sent(),
        }
    }

    /// Whether some bytes of an answer have arrived.
    fn has_partial_head(&self) -> bool {
        match self {
            Self::Own(exchange) => exchange.has_partial_head(),
            Self::Stream(_) => false,
        }
    }

    fn untouched_body(&mut self) -> Option<Body> {
        match self {
            Self::Own(exchange) => exchange.untouched_body(),
            Self::Stream(exchange) => exchange.untouched_body(),
        }
    }
}

/// A request on its way through a pool: waits for a connection, sends, and yields the answer's head.
///
/// Dropping it gives the request up: a place in the queue is left, a connection in use is closed.
pub struct Sending {
    pool: Arc<Inner>,
    request: Request<()>,
    state: State,
    replays: u32,
    stale: u32,
    attempt: Option<Attempt>,
}

enum State {
    Start(Body),
    /// Dropped in this order: the pool looks for closed receivers when a place is left.
    Waiting {
        body: Body,
        receiver: oneshot::Receiver<Result<Pooled, Error>>,
        pending: PendingGauge,
    },
    /// A place that is looked at before it is used.
    Checking {
        body: Body,
        place: Place,
        check: BoxFuture<Fit>,
    },
    Exchanging {
        exchange: Exchanging,
        reused: bool,
    },
    Done,
}

/// A place in the queue.
struct PendingGauge {
    pool: Arc<Inner>,
    _permit: Permit,
    served: bool,
}

impl PendingGauge {
    fn new(pool: &Arc<Inner>, permit: Permit) -> Self {
        pool.stats.upstream_rq_pending_active().inc();
        let stats = &pool.endpoint.state.stats;
        stats.rq_pending_active.fetch_add(1, Ordering::Relaxed);
        Self {
            pool: Arc::clone(pool),
            _permit: permit,
            served: false,
        }
    }
}

impl Drop for PendingGauge {
    fn drop(&mut self) {
        self.pool.stats.upstream_rq_pending_active().dec();
        let stats = &self.pool.endpoint.state.stats;
        stats.rq_pending_active.fetch_sub(1, Ordering::Relaxed);
        if !self.served {
            self.pool.stats.upstream_rq_cancelled().inc();
            self.pool.abandoned();
        }
    }
}

impl Pool {
    /// Sends `request` on one of the pool's connections.
    ///
    /// Reports `connected` and `request_complete` to the request's [`Attempt`], if it carries one.
    #[must_use]
    pub fn send(self, request: Request<Body>) -> Sending {
        let (parts, body) = request.into_parts();
        let attempt = parts.extensions.get::<Attempt>().cloned();
        if let Some(attempt) = &attempt {
            attempt.defer();
        }
        Sending {
            pool: self.0,
            request: Request::from_parts(parts, ()),
            state: State::Start(body),
            replays: 0,
            stale: 0,
            attempt,
        }
    }
}

impl Future for Sending {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match std::mem::replace(&mut this.state, State::Done) {
                State::Start(body) => this.start(body)?,
                State::Waiting {
                    body,
                    mut receiver,
                    pending,
                } => match Pin::new(&mut receiver).poll(cx) {
                    Poll::Pending => {
                        this.state = State::Waiting {
                            body,
                            receiver,
                            pending,
                        };
                        return Poll::Pending;
                    }
                    Poll::Ready(result) => {
                        let result =
                            result.unwrap_or_else(|_| Err(Error::new(ErrorKind::LocalReset)));
                        this.served(result, body, pending)?;
                    }
                },
                State::Checking {
                    body,
                    place,
                    mut check,
                } => match check.as_mut().poll(cx) {
                    Poll::Pending => {
                        this.state = State::Checking { body, place, check };
                        return Poll::Pending;
                    }
                    Poll::Ready(fit) => this.checked(fit, place, body)?,
                },
                State::Exchanging {
                    mut exchange,
                    reused,
                } => {
                    let result = exchange.poll_head(cx);
                    if let Some(attempt) = &this.attempt
                        && exchange.is_request_sent()
                    {
                        attempt.request_complete();
                    }
                    if result.is_pending() {
                        this.state = State::Exchanging { exchange, reused };
                        return Poll::Pending;
                    }
                    match ready!(result) {
                        Ok(head) => return Poll::Ready(Ok(head.map(|()| exchange.into_body()))),
                        Err(error) => match this.replay(&error, &mut exchange, reused) {
                            Some(body) => this.state = State::Start(body),
                            None => return Poll::Ready(Err(this.failed(error))),
                        },
                    }
                }
                State::Done => return Poll::Ready(Err(Error::new(ErrorKind::LocalReset))),
            }
        }
    }
}

/// Whether a request with this method may be repeated. RFC 9110, section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

impl Sending {
    /// Whether a used connection is looked at twice: this request may not, or not once more, be repeated.
    fn is_careful(&self) -> bool {
        self.replays > 0 || !is_idempotent(self.request.method())
    }

    fn start(&mut self, body: Body) -> Result<(), Error> {
        match self.pool.checkout(self.replays > 0, self.is_careful()) {
            Ok(Checkout::Ready(Pooled::Own(connection))) => self.attach_own(connection, body),
            Ok(Checkout::Ready(Pooled::Shared(place))) => self.take_place(place, body),
            Ok(Checkout::Wait(receiver, permit)) => {
                let pending = PendingGauge::new(&self.pool, permit);
                self.state = State::Waiting {
                    body,
                    receiver,
                    pending,
                };
                Ok(())
            }
            Err(overflow) => {
                self.pool.stats.upstream_rq_pending_overflow().inc();
                Err(self.overflow(overflow, Reason::PendingOverflow))
            }
        }
    }

    /// The wait is over: with an error, or with a connection that came straight from another request
    /// and may have ended with it.
    fn served(
        &mut self,
        result: Result<Pooled, Error>,
        body: Body,
        mut pending: PendingGauge,
    ) -> Result<(), Error> {
        pending.served = true;
        let mut connection = match result? {
            Pooled::Own(connection) => connection,
            Pooled::Shared(place) => {
                drop(pending);
                return self.take_place(place, body);
            }
        };
        if connection.exchanges() == 0 || is_usable(&mut connection, self.is_careful()) {
            drop(pending);
            return self.attach_own(connection, body);
        }
        // Its permit is free before another connection is asked for.
        drop(connection);
        self.count_stale()?;
        pending.served = false;
        self.state = State::Waiting {
            body,
            receiver: self.pool.queue_again(),
            pending,
        };
        Ok(())
    }

    /// One more connection was given to this request that had died.
    fn count_stale(&mut self) -> Result<(), Error> {
        self.stale += 1;
        if self.stale > STALE_MAX {
            let error = Error::new(ErrorKind::ConnectionTermination).with_sent(Sent::Nothing);
            return Err(self.failed(error));
        }
        Ok(())
    }

    /// Puts the request on a connection of its own.
    fn attach_own(&mut self, connection: Connection<Tracked>, body: Body) -> Result<(), Error> {
        let permit = match self.pool.resources.try_acquire(Resource::Requests) {
            Ok(permit) => permit,
            Err(overflow) => {
                self.pool.put_back(connection);
                return Err(self.requests_overflow(overflow));
            }
        };
        let io = connection.io();
        let raw = self.pool.version == HttpVersion::Raw;
        let protocol = (!raw).then_some(Version::HTTP_11);
        self.connected(protocol, io.local_addr(), io.id(), io.tls());
        let reused = connection.exchanges() > 0;
        let running = Arc::clone(io.running());
        let lease = Lease::new(Arc::clone(&self.pool), permit, running);
        let exchange = if raw {
            Exchange::raw(connection, lease, &self.request, body)
        } else {
            Exchange::new(connection, lease, &self.request, body)
        };
        self.state = State::Exchanging {
            exchange: Exchanging::Own(Box::new(exchange)),
            reused,
        };
        Ok(())
    }

    /// Has a place looked at where that is called for, and uses it.
    fn take_place(&mut self, place: Place, body: Body) -> Result<(), Error> {
        match place.check(&self.request, self.is_careful()) {
            None => self.attach_stream(place, body),
            Some(check) => {
                self.state = State::Checking { body, place, check };
                Ok(())
            }
        }
    }

    fn checked(&mut self, fit: Fit, place: Place, body: Body) -> Result<(), Error> {
        match fit {
            Fit::Fits => self.attach_stream(place, body),
            Fit::Gone => {
                place.condemn();
                drop(place);
                self.count_stale()?;
                self.state = State::Start(body);
                Ok(())
            }
            Fit::NoTunnels => {
                let error = Error::new(ErrorKind::RemoteRefused)
                    .with_sent(Sent::Nothing)
                    .with_message("the upstream has not enabled extended CONNECT");
                Err(self.failed(error))
            }
        }
    }

    /// Puts the request on a stream of a connection that carries several.
    fn attach_stream(&mut self, place: Place, body: Body) -> Result<(), Error> {
        let permit = match self.pool.resources.try_acquire(Resource::Requests) {
            Ok(permit) => permit,
            Err(overflow) => return Err(self.requests_overflow(overflow)),
        };
        let (shared, reused) = (Arc::clone(&place.shared), place.reused);
        let streams = place.streams();
        let lease = Lease::new(Arc::clone(&self.pool), permit, Arc::clone(&shared.running));
        let lease = StreamLease::new(lease, place);
        match h2::Exchange::new(streams, &self.request, body, lease) {
            Ok(exchange) => {
                let tls = shared.tls.clone();
                self.connected(Some(Version::HTTP_2), shared.local, shared.id, tls);
                self.state = State::Exchanging {
                    exchange: Exchanging::Stream(Box::new(exchange)),
                    reused,
                };
                Ok(())
            }
            // It cannot be written: no other connection would do better.
            Err((error, body, lease)) if error.kind() == ErrorKind::LocalReset => {
                drop((body, lease));
                Err(self.failed(error))
            }
            // It has just ended, or is about to: another must do.
            Err((_, body, lease)) => {
                lease.place.condemn();
                drop(lease);
                self.count_stale()?;
                self.state = State::Start(body);
                Ok(())
            }
        }
    }

    /// Tells everybody which connection it is.
    fn connected(
        &self,
        protocol: Option<Version>,
        local: Option<SocketAddr>,
        id: u64,
        tls: Option<Arc<dyn TlsFacts>>,
    ) {
        if let Some(attempt) = &self.attempt {
            attempt.connected();
        }
        if let Some(info) = RequestInfo::of(&self.request) {
            info.with(|facts| {
                facts.upstream_protocol = protocol;
                facts.upstream_local = local;
                facts.upstream_connection_id = Some(id);
                facts.upstream_tls = tls;
            });
        }
    }

    fn requests_overflow(&self, overflow: Overflow) -> Error {
        self.pool.stats.upstream_rq_active_overflow().inc();
        self.overflow(overflow, Reason::RequestsOverflow)
    }

    fn overflow(&self, overflow: Overflow, reason: Reason) -> Error {
        RequestInfo::trace(&self.request, || {
            Decision::new(
                "thresholds",
                reason,
                overflow.in_use.into(),
                overflow.limit.into(),
            )
        });
        Error::new(ErrorKind::Overflow(overflow.resource))
            .with_sent(Sent::Nothing)
            .with_source(overflow)
    }

    /// The body to send again, if the connection had been idle and died before it answered, and sending
    /// again is safe.
    fn replay(&mut self, error: &Error, exchange: &mut Exchanging, reused: bool) -> Option<Body> {
        let died = match error.kind() {
            ErrorKind::ConnectionTermination => reused,
            ErrorKind::RemoteRefused => h2::is_go_away(error),
            _ => false,
        };
        let safe = error.sent() == Sent::Nothing || is_idempotent(self.request.method());
        if !died || !safe || exchange.has_partial_head() || self.replays >= REPLAYS_MAX {
            return None;
        }
        let body = exchange.untouched_body()?;
        self.replays += 1;
        self.pool.stats.upstream_rq_idle_replay().inc();
        Some(body)
    }

    fn failed(&self, error: Error) -> Error {
        if self.pool.version == HttpVersion::Http2 {
            self.pool.count_broken(Some(&error));
        } else if error.kind() == ErrorKind::UpstreamProtocol {
            self.pool.stats.upstream_cx_protocol_error().inc();
        }
        tracing::debug!(endpoint = %self.pool.endpoint.address(), %error, "request failed");
        error
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        match &mut self.state {
            State::Exchanging {
                exchange: Exchanging::Stream(_),
                ..
            } => self.pool.count_broken(None),
            State::Waiting { receiver, .. } => {
                receiver.close();
                // It was served and did not live to see it: the connection is for somebody else.
                if let Ok(Ok(Pooled::Own(connection))) = receiver.try_recv() {
                    self.pool.put_back(connection);
                }
            }
            // The end of a connection is in its own books.
            State::Exchanging { .. } | State::Start(_) | State::Checking { .. } | State::Done => {}
        }
    }
}

impl Inner {
    /// A stream ended before its time: by `error`, or because nobody wants more of it.
    pub(super) fn count_broken(&self, error: Option<&Error>) {
        let cause = error.and_then(h2::cause);
        let by_peer = cause.is_some_and(|cause| cause.is_reset() && cause.is_remote());
        if by_peer {
            self.http2_stats.rx_reset().inc();
        }
        match error.map(Error::kind) {
            Some(ErrorKind::RemoteReset) => self.stats.upstream_rq_rx_reset().inc(),
            // The peer has not looked at it: there was nothing to reset.
            Some(ErrorKind::RemoteRefused) => {}
            Some(ErrorKind::ConnectionTermination) => {
                self.stats.upstream_rq_pending_failure_eject().inc();
            }
            kind => {
                // What ends the whole connection is counted with that.
                let alone = !cause.is_some_and(::h2::Error::is_go_away);
                if kind == Some(ErrorKind::UpstreamProtocol) && alone {
                    self.stats.upstream_cx_protocol_error().inc();
                }
                if alone && !by_peer {
                    self.http2_stats.tx_reset().inc();
                }
                self.stats.upstream_rq_tx_reset().inc();
            }
        }
    }
}
