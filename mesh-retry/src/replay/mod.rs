//! Bodies that can be sent again.

mod shared;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, BoxError, Error, ErrorKind};
use pin_project::pin_project;

use crate::WatchedBody;

pub use shared::FRAMES_MAX;
use shared::{Reader, Shared};

/// The request body that a retry hands to each attempt.
///
/// An empty body and one that is in memory cost nothing. A streaming one is kept while it is sent, up to
/// the policy's `request_body_buffer_limit`, and a later attempt reads what was kept and then goes on with
/// the stream; trailers are repeated too. When the body turns out to be longer, the attempt under way goes
/// on, nothing is kept any more, and the request is not repeated. Between attempts nobody reads from the
/// client, so that the buffer cannot overflow then.
///
/// Data frames are [`Bytes`], whatever those of `B` are; errors are [`mesh_core::Error`]: an error of
/// another type counts as [`ErrorKind::DownstreamGone`].
#[pin_project]
pub struct ReplayBody<B>(#[pin] Inner<B>);

#[pin_project(project = InnerProject)]
enum Inner<B> {
    Empty,
    Full(Bytes),
    /// Sent once, straight from the client.
    Through(#[pin] B),
    Shared(Reader<B>),
}

impl<B> ReplayBody<B> {
    /// A body that is sent once.
    #[must_use]
    pub const fn once(body: B) -> Self {
        Self(Inner::Through(body))
    }
}

impl<B> ReplayBody<B>
where
    B: HttpBody + Into<Body> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// To the type of the seam. Only a body that is kept while it streams costs an allocation.
    #[must_use]
    pub fn into_body(self) -> Body {
        match self.0 {
            Inner::Empty => Body::empty(),
            Inner::Full(bytes) => Body::from(bytes),
            Inner::Through(body) => body.into(),
            shared @ Inner::Shared(_) => Body::new(Self(shared)),
        }
    }
}

impl<B> From<ReplayBody<B>> for Body
where
    B: HttpBody + Into<Self> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn from(body: ReplayBody<B>) -> Self {
        body.into_body()
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Inner::Empty => "ReplayBody::Empty",
            Inner::Full(_) => "ReplayBody::Full",
            Inner::Through(_) => "ReplayBody::Once",
            Inner::Shared(_) => "ReplayBody::Shared",
        })
    }
}

impl<B> HttpBody for ReplayBody<B>
where
    B: HttpBody + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut inner = self.project().0;
        match inner.as_mut().project() {
            InnerProject::Empty => Poll::Ready(None),
            InnerProject::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                inner.set(Inner::Empty);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            InnerProject::Through(body) => body.poll_frame(cx).map(|frame| {
                frame.map(|frame| match frame {
                    Ok(frame) => {
                        Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
                    }
                    Err(error) => Err(request_error(error)),
                })
            }),
            InnerProject::Shared(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::Through(body) => body.is_end_stream(),
            Inner::Shared(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Through(body) => body.size_hint(),
            Inner::Shared(reader) => reader.size_hint(),
        }
    }
}

/// What goes wrong while a request is read is the client's fault, unless the body knows better.
fn request_error(error: impl Into<BoxError>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(own) => *own,
        Err(foreign) => Error::new(ErrorKind::DownstreamGone).with_source(foreign),
    }
}

/// Where the attempts of one request take their bodies from.
pub(crate) enum Source<B> {
    Empty,
    Full(Bytes),
    Shared(Arc<Shared<B>>),
    /// The one attempt has it.
    Gone,
}

/// What a request's body is wanted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Bytes to keep for replay; `None` when there will be none.
    pub replay_limit: Option<u64>,
    /// Whether somebody waits for its end.
    pub end: bool,
}

impl<B: HttpBody + 'static> Source<B> {
    /// The source, and the body of the first attempt with the reader's number.
    pub(crate) fn new(mut body: B, wanted: Wanted) -> (Self, ReplayBody<B>, u32) {
        if body.is_end_stream() {
            return (Self::Empty, ReplayBody(Inner::Empty), 0);
        }
        if let Some(bytes) = in_memory(&mut body) {
            let source = match wanted.replay_limit {
                Some(limit) if bytes.len() as u64 <= limit => Self::Full(bytes.clone()),
                _ => Self::Gone,
            };
            return (source, ReplayBody(Inner::Full(bytes)), 0);
        }
        // Known to be too long: do not begin to keep it.
        let limit = wanted
            .replay_limit
            .filter(|limit| body.size_hint().lower() <= *limit);
        if limit.is_none() && !wanted.end {
            return (Self::Gone, ReplayBody::once(body), 0);
        }
        let source = Self::Shared(Shared::new(body, limit));
        let (body, reader) = source.body();
        (source, body, reader)
    }

    /// The body of an attempt, from its first byte, and the reader's number.
    pub(crate) fn body(&self) -> (ReplayBody<B>, u32) {
        match self {
            Self::Full(bytes) => (ReplayBody(Inner::Full(bytes.clone())), 0),
            Self::Shared(shared) => {
                let (reader, id) = shared.reader();
                (ReplayBody(Inner::Shared(reader)), id)
            }
            Self::Empty | Self::Gone => (ReplayBody(Inner::Empty), 0),
        }
    }
}

impl<B> Source<B> {
    /// Whether a further attempt can have the whole body.
    pub(crate) fn can_replay(&self) -> bool {
        match self {
            Self::Empty | Self::Full(_) => true,
            Self::Shared(shared) => shared.can_replay(),
            Self::Gone => false,
        }
    }

    /// Whether more came than could be kept.
    pub(crate) fn overflowed(&self) -> bool {
        matches!(self, Self::Shared(shared) if shared.overflowed())
    }

    /// Bytes that came from the client so far, where anybody counts.
    pub(crate) fn pulled(&self) -> u64 {
        match self {
            Self::Shared(shared) => shared.pulled(),
            _ => 0,
        }
    }

    /// Whether reading it from the client failed.
    pub(crate) fn failed(&self) -> bool {
        matches!(self, Self::Shared(shared) if shared.failed())
    }

    /// Ready once the last byte came from the client.
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        match self {
            Self::Shared(shared) => shared.poll_ended(cx),
            _ => Poll::Ready(()),
        }
    }

    /// The attempt with this reader is over.
    pub(crate) fn cut(&self, reader: u32) {
        if let Self::Shared(shared) = self {
            shared.cut(reader);
        }
    }

    /// The attempt with this reader was answered; there will be no other.
    pub(crate) fn settle_on(&self, reader: u32) {
        if let Self::Shared(shared) = self {
            shared.settle_on(reader);
        }
    }
}

/// The bytes of a [`Body`] that has all of them; nothing is copied.
fn in_memory<B: HttpBody + 'static>(body: &mut B) -> Option<Bytes> {
    let body = body as &mut dyn Any;
    let body = match body.downcast_mut::<WatchedBody<Body>>() {
        Some(watched) => watched.unwatched()?,
        None => body.downcast_mut::<Body>()?,
    };
    body.as_full()?;
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}
