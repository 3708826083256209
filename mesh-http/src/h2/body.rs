//! Bodies that arrive over HTTP/2, on either side.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, Error, Sent};

use super::{activity::Activity, error, io::Side};

/// A body of known length is taken at once when it is here and no larger, so that it can be sent twice.
const AT_ONCE_MAX: u64 = 64 * 1024;

/// What lives as long as a body.
pub(crate) trait Hold: Send + Unpin + 'static {
    /// The body came to its end.
    fn complete(self);

    /// The body failed; hands back what is told of it. Dropped without either, it was given up.
    fn failed(self, error: Error) -> Error;
}

impl Hold for () {
    fn complete(self) {}
    fn failed(self, error: Error) -> Error {
        error
    }
}

/// A body while it arrives. What is taken from it makes room in the peer's window.
pub(crate) struct IncomingBody<G> {
    recv: RecvStream,
    /// What was read when the head came.
    first: Option<Bytes>,
    /// Bytes still to come, where the head says so.
    left: Option<u64>,
    data_ended: bool,
    activity: Option<Arc<Activity>>,
    side: Side,
    /// Let go when the body is over.
    guard: Option<G>,
}

/// The body behind a head that announced `length`: in memory when all of it has arrived. `guard` lives until
/// it is over.
pub(crate) fn receive<G: Hold>(
    recv: RecvStream,
    length: Option<u64>,
    side: Side,
    activity: Option<&Arc<Activity>>,
    guard: Option<G>,
) -> Body {
    if recv.is_end_stream() {
        if let Some(guard) = guard {
            guard.complete();
        }
        return Body::empty();
    }
    let mut body = IncomingBody {
        recv,
        first: None,
        left: length,
        data_ended: false,
        activity: activity.cloned(),
        side,
        guard,
    };
    if body.left.is_some_and(|left| left <= AT_ONCE_MAX) {
        // Whoever reads on polls again, with a waker of his own.
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(Ok(data))) = body.recv.poll_data(&mut cx) {
            body.release(data.len());
            if body.recv.is_end_stream() {
                body.settle();
                return Body::from(data);
            }
            body.first = Some(data);
        }
    }
    Body::new(body)
}

/// What a head says about the length of its body.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

impl<G: Hold> IncomingBody<G> {
    fn release(&mut self, bytes: usize) {
        // It can only fail when the stream is over, and then there is no window to open.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }

    fn settle(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.complete();
        }
        self.request_done();
    }

    fn request_done(&mut self) {
        if let Some(activity) = self.activity.take() {
            activity.request_done();
        }
    }

    fn fail(&mut self, error: h2::Error) -> Error {
        let error = match self.side {
            Side::Server => error::downstream(error),
            Side::Client => error::upstream(error, Sent::Some),
        };
        let error = match self.guard.take() {
            Some(guard) => guard.failed(error),
            None => error,
        };
        if let Some(activity) = self.activity.take() {
            activity.request_failed();
        }
        error
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let data = ready!(self.recv.poll_data(cx));
        if let Some(Ok(data)) = &data {
            self.release(data.len());
        }
        Poll::Ready(data)
    }
}

impl<G> Drop for IncomingBody<G> {
    fn drop(&mut self) {
        if let Some(activity) = self.activity.take() {
            activity.request_done();
        }
    }
}

impl<G: Hold> HttpBody for IncomingBody<G> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if !this.data_ended {
            match ready!(this.poll_data(cx)) {
                Some(Ok(data)) => {
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    if let Some(activity) = &this.activity {
                        activity.touch();
                    }
                    if this.recv.is_end_stream() {
                        this.data_ended = true;
                        this.settle();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(this.fail(error)))),
                None => this.data_ended = true,
            }
        }
        let trailers = ready!(this.recv.poll_trailers(cx));
        Poll::Ready(match trailers {
            Ok(Some(trailers)) => {
                this.settle();
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(None) => {
                this.settle();
                None
            }
            Err(error) => Some(Err(this.fail(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.recv.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
