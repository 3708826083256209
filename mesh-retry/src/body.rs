use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{
    Attempt, Body, BoxError, Decision, Error, ErrorKind, Permit, Reason, RequestInfo, Timer, clock,
};
use pin_project::pin_project;

use crate::{
    RetryStats,
    time::{after, millis},
};

/// The response body that a retry passes on.
///
/// It holds what the request still holds (its place among the requests in flight, and a retry slot that
/// no later decision gave back) until it ends or is dropped, and it watches `per_try_idle_timeout`.
#[pin_project]
#[derive(Debug)]
pub struct RetryBody<B> {
    /// `None` once it was cut off.
    #[pin]
    body: Option<B>,
    held: Held,
    idle: Option<Box<Idle>>,
}

/// What a request holds while it is answered.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub slot: Option<Permit>,
    pub request: Option<Permit>,
}

/// Watches over the silence of one attempt's response.
#[derive(Debug)]
pub(crate) struct Idle {
    pub timer: Timer,
    pub timeout: Duration,
    pub attempt: Attempt,
    pub stats: RetryStats,
    pub info: Option<Arc<RequestInfo>>,
}

impl Idle {
    fn expired(&self) -> Error {
        self.attempt.time_out();
        self.stats.upstream_rq_per_try_idle_timeout().inc();
        let silent = millis(self.timeout);
        if let Some(info) = &self.info {
            info.decide(Decision::new("retry", Reason::IdleTimeout, silent, silent));
        }
        Error::new(ErrorKind::PerTryIdleTimeout)
    }
}

impl<B: HttpBody> RetryBody<B> {
    pub(crate) fn new(body: B, held: Held, idle: Option<Box<Idle>>) -> Self {
        let over = body.is_end_stream();
        Self {
            body: Some(body),
            held: if over { Held::default() } else { held },
            idle: idle.filter(|_| !over),
        }
    }
}

impl<B> RetryBody<B> {
    pub(crate) const fn inner(&self) -> Option<&B> {
        self.body.as_ref()
    }
}

impl RetryBody<Body> {
    /// To the type of the seam. A body that is in memory, and one that nothing is held for, cost no
    /// allocation.
    #[must_use]
    pub fn into_body(mut self) -> Body {
        let plain = self.held.slot.is_none() && self.held.request.is_none() && self.idle.is_none();
        match self.body.take() {
            Some(body) if plain || body.as_full().is_some() => body,
            body => {
                self.body = body;
                Body::new(self)
            }
        }
    }
}

impl From<RetryBody<Self>> for Body {
    fn from(body: RetryBody<Self>) -> Self {
        body.into_body()
    }
}

impl<B> HttpBody for RetryBody<B>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let mut this = self.project();
        let Some(mut body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let frame = match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let Some(idle) = this.idle.as_mut() else {
                    return Poll::Pending;
                };
                if idle.timer.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let error = idle.expired();
                this.body.set(None);
                *this.held = Held::default();
                return Poll::Ready(Some(Err(error)));
            }
        };
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            *this.held = Held::default();
            *this.idle = None;
        } else if let Some(idle) = this.idle {
            idle.timer.arm(after(clock::now(), idle.timeout));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|e| Error::from_boxed(e.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
