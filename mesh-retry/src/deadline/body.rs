use std::{
    any::Any,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, BoxError, Error};
use pin_project::{pin_project, pinned_drop};

use super::countdown::{Countdown, RequestEnd};
use crate::RetryBody;

/// The request body that [`Deadline`](crate::Deadline) hands on: it tells when its last byte was read. One
/// that nobody reads to its end counts as ended when it is dropped.
#[pin_project(PinnedDrop)]
#[derive(Debug)]
pub struct WatchedBody<B> {
    #[pin]
    body: B,
    /// `None` when the end was known from the start, or has come.
    end: Option<Arc<RequestEnd>>,
}

impl<B> WatchedBody<B> {
    pub(super) const fn new(body: B, end: Option<Arc<RequestEnd>>) -> Self {
        Self { body, end }
    }

    /// The body inside, when nobody waits for its end.
    pub(crate) fn unwatched(&mut self) -> Option<&mut B> {
        self.end.is_none().then_some(&mut self.body)
    }
}

impl WatchedBody<Body> {
    /// To the type of the seam. Only a body that streams costs an allocation.
    #[must_use]
    pub fn into_body(mut self) -> Body {
        match self.unwatched() {
            Some(body) => std::mem::take(body),
            None => Body::new(self),
        }
    }
}

impl From<WatchedBody<Self>> for Body {
    fn from(body: WatchedBody<Self>) -> Self {
        body.into_body()
    }
}

impl<B: HttpBody> HttpBody for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = this.body.as_mut().poll_frame(cx);
        let over = match &frame {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => this.body.is_end_stream(),
            Poll::Ready(_) => true,
        };
        if over && let Some(end) = this.end.take() {
            end.reached();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[pinned_drop]
impl<B> PinnedDrop for WatchedBody<B> {
    fn drop(self: Pin<&mut Self>) {
        if let Some(end) = self.project().end.take() {
            end.reached();
        }
    }
}

/// The response body that [`Deadline`](crate::Deadline) passes on: it fails with
/// [`ErrorKind::RequestTimeout`](mesh_core::ErrorKind::RequestTimeout) when the time is up.
#[pin_project]
#[derive(Debug)]
pub struct DeadlineBody<B> {
    /// `None` once it was cut off.
    #[pin]
    body: Option<B>,
    countdown: Option<Countdown>,
}

impl<B: HttpBody> DeadlineBody<B> {
    pub(super) fn new(body: B, countdown: Option<Countdown>) -> Self {
        let over = body.is_end_stream();
        Self {
            body: Some(body),
            countdown: countdown.filter(|_| !over),
        }
    }
}

impl<B> DeadlineBody<B>
where
    B: HttpBody<Data = bytes::Bytes> + Into<Body> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// To the type of the seam. A body that is in memory, and one without a deadline, cost no
    /// allocation.
    #[must_use]
    pub fn into_body(mut self) -> Body {
        match self.body.take() {
            Some(body) if self.countdown.is_none() || in_memory(&body) => body.into(),
            body => {
                self.body = body;
                Body::new(self)
            }
        }
    }
}

impl<B> From<DeadlineBody<B>> for Body
where
    B: HttpBody<Data = bytes::Bytes> + Into<Self> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn from(body: DeadlineBody<B>) -> Self {
        body.into_body()
    }
}

fn in_memory<B: 'static>(body: &B) -> bool {
    let body = body as &dyn Any;
    let body = match body.downcast_ref::<RetryBody<Body>>() {
        Some(retried) => retried.inner(),
        None => body.downcast_ref::<Body>(),
    };
    body.is_some_and(|body| body.as_full().is_some())
}

impl<B> HttpBody for DeadlineBody<B>
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
        // First the time: a body that always has more would never let it be asked for.
        if let Some(countdown) = this.countdown
            && let Poll::Ready(expired) = countdown.poll(cx)
        {
            *this.countdown = None;
            if let Some(error) = expired {
                this.body.set(None);
                return Poll::Ready(Some(Err(error)));
            }
        }
        let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
            return Poll::Pending;
        };
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            *this.countdown = None;
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
