use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project::{pin_project, pinned_drop};

use crate::Error;

/// The body type at every boxed seam.
///
/// An empty body and one that is already in memory cost nothing; any other costs one allocation.
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>),
}

impl Body {
    /// No bytes and no trailers.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// Boxes a streaming body; one that is at its end already becomes empty.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error = Error> + Send + 'static,
    {
        if body.is_end_stream() {
            Self::empty()
        } else {
            Self(Inner::Stream(Box::pin(body)))
        }
    }

    /// The bytes, when all of them are in memory.
    #[must_use]
    pub fn as_full(&self) -> Option<&[u8]> {
        match &self.0 {
            Inner::Empty => Some(&[]),
            Inner::Full(bytes) => Some(bytes),
            Inner::Stream(_) => None,
        }
    }

    /// A second copy, when all bytes are in memory; that costs no copying.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Inner::Empty => Some(Self(Inner::Empty)),
            Inner::Full(bytes) => Some(Self(Inner::Full(bytes.clone()))),
            Inner::Stream(_) => None,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self(Inner::Full(bytes))
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Empty => f.write_str("Body::Empty"),
            Inner::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Inner::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(stream) => stream.size_hint(),
        }
    }
}

/// How a body came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// All of it was read.
    Complete,
    /// It failed.
    Failed,
    /// Whoever read it stopped before the end.
    Dropped,
}

impl Body {
    /// This body, and with it something that stays until the body is dropped, which goes first. For what has
    /// to be told how it ended, there is [`GuardedBody`].
    #[must_use]
    pub fn keeping(self, kept: impl Send + 'static) -> Self {
        Self::new(Keeping {
            body: self,
            _kept: kept,
        })
    }
}

/// The order of the fields is the order in which they go.
struct Keeping<T> {
    body: Body,
    _kept: T,
}

// The body is pinned in its own box, and nobody is pinned here.
impl<T> Unpin for Keeping<T> {}

impl<T> HttpBody for Keeping<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Told once how the response body ended: where permits return, and stats and logs settle.
pub trait EndGuard {
    /// The body ended. Dropping the guard follows at once.
    fn on_end(&mut self, end: StreamEnd);
}

/// For guards that only need to be dropped.
impl EndGuard for () {
    fn on_end(&mut self, _: StreamEnd) {}
}

impl<G: EndGuard> EndGuard for Option<G> {
    fn on_end(&mut self, end: StreamEnd) {
        if let Some(guard) = self {
            guard.on_end(end);
        }
    }
}

impl EndGuard for crate::Permit {
    fn on_end(&mut self, _: StreamEnd) {}
}

/// A body that holds a guard until its end, whichever way that comes, and tells it exactly once.
#[pin_project(PinnedDrop)]
#[derive(Debug)]
pub struct GuardedBody<B, G: EndGuard> {
    #[pin]
    body: B,
    guard: Option<G>,
}

impl<B: HttpBody, G: EndGuard> GuardedBody<B, G> {
    /// Guards `body`. When it is at its end already, the guard hears so and goes at once.
    pub fn new(body: B, guard: G) -> Self {
        let mut guard = Some(guard);
        if body.is_end_stream() {
            settle(&mut guard, StreamEnd::Complete);
        }
        Self { body, guard }
    }
}

impl<G: EndGuard + Send + 'static> GuardedBody<Body, G> {
    /// Back to the type of the seam. A body that is in memory lets its guard go now, since nothing
    /// upstream is still in use; a stream keeps it until its end.
    #[must_use]
    pub fn into_body(mut self) -> Body {
        if self.body.as_full().is_some() {
            settle(&mut self.guard, StreamEnd::Complete);
        }
        if self.guard.is_none() {
            return std::mem::take(&mut self.body);
        }
        Body::new(self)
    }
}

fn settle<G: EndGuard>(guard: &mut Option<G>, end: StreamEnd) {
    if let Some(mut guard) = guard.take() {
        guard.on_end(end);
    }
}

impl<B: HttpBody, G: EndGuard> HttpBody for GuardedBody<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            None => settle(this.guard, StreamEnd::Complete),
            Some(Err(_)) => settle(this.guard, StreamEnd::Failed),
            Some(Ok(_)) if this.body.is_end_stream() => settle(this.guard, StreamEnd::Complete),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[pinned_drop]
impl<B, G: EndGuard> PinnedDrop for GuardedBody<B, G> {
    fn drop(self: Pin<&mut Self>) {
        settle(self.project().guard, StreamEnd::Dropped);
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use std::{
        collections::VecDeque,
        pin::Pin,
        sync::{Arc, Mutex},
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::{Body as HttpBody, Frame};
    use http_body_util::BodyExt as _;

    use super::{Body, EndGuard, GuardedBody, StreamEnd};
    use crate::{Error, ErrorKind};

    struct Script(VecDeque<Result<&'static str, ErrorKind>>);

    impl HttpBody for Script {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(self.0.pop_front().map(|step| match step {
                Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
                Err(kind) => Err(Error::new(kind)),
            }))
        }
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<StreamEnd>>>);

    impl EndGuard for Log {
        fn on_end(&mut self, end: StreamEnd) {
            self.0.lock().unwrap().push(end);
        }
    }

    impl Log {
        fn seen(&self) -> Vec<StreamEnd> {
            self.0.lock().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn the_guard_hears_the_end_once() {
        let log = Log::default();
        let body = Body::new(Script([Ok("a"), Ok("b")].into()));
        let body = GuardedBody::new(body, log.clone()).into_body();
        assert_eq!(log.seen(), []);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "ab");
        assert_eq!(log.seen(), [StreamEnd::Complete]);
    }

    #[tokio::test]
    async fn the_guard_hears_of_failure_and_of_abandonment() {
        let log = Log::default();
        let body = Body::new(Script([Ok("a"), Err(ErrorKind::RemoteReset)].into()));
        assert!(GuardedBody::new(body, log.clone()).collect().await.is_err());
        assert_eq!(log.seen(), [StreamEnd::Failed]);

        let log = Log::default();
        let mut body = GuardedBody::new(Body::new(Script([Ok("a")].into())), log.clone());
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(log.seen(), [StreamEnd::Dropped]);
    }

    #[test]
    fn a_body_in_memory_lets_its_guard_go_and_needs_no_box() {
        let log = Log::default();
        let body = GuardedBody::new(Body::from("hello"), log.clone()).into_body();
        assert_eq!(log.seen(), [StreamEnd::Complete]);
        assert_eq!(body.as_full(), Some(&b"hello"[..]));
        assert_eq!(body.size_hint().exact(), Some(5));
    }
}
