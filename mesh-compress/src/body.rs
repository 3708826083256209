use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use mesh_core::{Body, Error};

/// So much is collected before it is handed on, as long as more is there.
const PIECE: usize = 16 * 1024;

/// So much of a frame is worked on at a time: what a piece of it may grow to is bounded by that.
pub(crate) const SLICE_MAX: usize = 4 * 1024;

/// What happens to the bytes of a body.
pub(crate) trait Transform: Unpin + Send {
    fn write(&mut self, data: &[u8]) -> Result<(), Error>;
    /// Lets out what can be let out.
    fn flush(&mut self) -> Result<(), Error>;
    /// Bytes that are there.
    fn ready(&self) -> usize;
    fn take(&mut self) -> Bytes;
    /// The end: what is left.
    fn finish(&mut self) -> Result<Bytes, Error>;
}

/// A body whose bytes go through a [`Transform`]. It reads on only when what has come out was taken, and
/// lets everything out whenever the body inside makes it wait: streams of messages stay streams of messages.
pub(crate) struct Coded<T> {
    inner: Body,
    transform: T,
    /// What was read and not worked on yet.
    data: Bytes,
    /// Something was written that may not have come out.
    dirty: bool,
    trailers: Option<HeaderMap>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Over,
}

impl<T: Transform + 'static> Coded<T> {
    pub(crate) fn new(inner: Body, transform: T) -> Self {
        Self {
            inner,
            transform,
            data: Bytes::new(),
            dirty: false,
            trailers: None,
            state: State::Reading,
        }
    }

    /// Works on what was read, until there is enough to hand on.
    fn work(&mut self) -> Result<(), Error> {
        while !self.data.is_empty() && self.transform.ready() < PIECE {
            let slice = self.data.split_to(self.data.len().min(SLICE_MAX));
            self.transform.write(&slice)?;
            self.dirty = true;
        }
        Ok(())
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Error>> {
        loop {
            self.work()?;
            if self.transform.ready() >= PIECE {
                return Poll::Ready(Ok(self.transform.take()));
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => self.data = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(None) => {
                    self.state = State::Ended;
                    let before = self.transform.take();
                    let rest = self.transform.finish()?;
                    return Poll::Ready(Ok(join(before, rest)));
                }
                Poll::Pending => {
                    if std::mem::take(&mut self.dirty) {
                        self.transform.flush()?;
                    }
                    let out = self.transform.take();
                    if out.is_empty() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Ok(out));
                }
            }
        }
    }
}

fn join(a: Bytes, b: Bytes) -> Bytes {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        _ => [a, b].concat().into(),
    }
}

impl<T: Transform + 'static> HttpBody for Coded<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.state == State::Reading {
            match ready!(this.poll_data(cx)) {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(error) => {
                    this.state = State::Over;
                    this.inner = Body::empty();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        this.state = State::Over;
        let trailers = this.trailers.take().map(Frame::trailers);
        Poll::Ready(trailers.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Over || (self.state == State::Ended && self.trailers.is_none())
    }
}
