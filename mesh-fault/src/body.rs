use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, GuardedBody, Timer, clock};
use pin_project::pin_project;

use crate::{Pace, Take, active::ActiveFault};

/// The response body that a [`Fault`](crate::Fault) passes on: it may trickle.
///
/// It reads on only when what it has read is gone, so that a slow answer slows down whoever sends it.
#[pin_project]
#[derive(Debug)]
pub struct FaultBody<B> {
    #[pin]
    body: GuardedBody<B, Option<ActiveFault>>,
    slow: Option<Box<Slow>>,
}

#[derive(Debug)]
struct Slow {
    pace: Pace,
    timer: Timer,
    /// What has been read and is not gone.
    waiting: Bytes,
    /// The fault goes on for as long as something is waiting.
    active: Option<ActiveFault>,
}

impl<B: HttpBody<Data = Bytes>> FaultBody<B> {
    pub(crate) fn new(body: B, pace: Option<Pace>, mut active: Option<ActiveFault>) -> Self {
        let pace = pace.filter(|_| !body.is_end_stream());
        let slow = pace.map(|pace| {
            Box::new(Slow {
                pace,
                timer: Timer::new(),
                waiting: Bytes::new(),
                active: active.take(),
            })
        });
        Self {
            body: GuardedBody::new(body, active),
            slow,
        }
    }
}

impl FaultBody<Body> {
    /// To the type of the seam. Only a body that trickles or streams in a fault costs an allocation.
    #[must_use]
    pub fn into_body(self) -> Body {
        if self.slow.is_none() {
            return self.body.into_body();
        }
        Body::new(self)
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for FaultBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(slow) = this.slow else {
            return this.body.poll_frame(cx);
        };
        if slow.waiting.is_empty() {
            match ready!(this.body.as_mut().poll_frame(cx)).map(|frame| frame.map(Frame::into_data))
            {
                Some(Ok(Ok(data))) => slow.waiting = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => {
                    slow.active = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    slow.active = None;
                    return Poll::Ready(None);
                }
            }
        }
        let part = ready!(slow.poll(cx));
        if slow.waiting.is_empty() && this.body.is_end_stream() {
            slow.active = None;
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        let waits = self
            .slow
            .as_ref()
            .is_some_and(|slow| !slow.waiting.is_empty());
        !waits && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let waiting = self
            .slow
            .as_ref()
            .map_or(0, |slow| slow.waiting.len() as u64);
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(waiting));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(waiting));
        }
        hint
    }
}

impl Slow {
    /// The next part of what waits.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        if self.waiting.is_empty() {
            // An empty frame costs nothing.
            return Poll::Ready(Bytes::new());
        }
        loop {
            match self.pace.take(clock::now(), self.waiting.len() as u64) {
                Take::Bytes(bytes) => {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    let part = self.waiting.split_to(bytes.min(self.waiting.len()));
                    return Poll::Ready(part);
                }
                Take::NotBefore(at) => {
                    self.timer.arm(at);
                    ready!(self.timer.poll(cx));
                }
            }
        }
    }
}
