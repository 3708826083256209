use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::Status;

use crate::server::Payload;

/// The head of a gRPC message: not compressed, and its length.
const HEAD_LEN: usize = 5;

/// The answer of a stream: what `S` gives, each as a gRPC message, and then the status. Bytes that a
/// message shares with other clients' messages are sent from where they are.
pub(super) struct GrpcBody<S> {
    payloads: S,
    ready: VecDeque<Bytes>,
    done: bool,
}

impl<S> GrpcBody<S> {
    pub(super) const fn new(payloads: S) -> Self {
        Self {
            payloads,
            ready: VecDeque::new(),
            done: false,
        }
    }
}

impl<S> Body for GrpcBody<S>
where
    S: Stream<Item = Result<Payload, Status>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.done {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.payloads).poll_next(cx)) {
                Some(Ok(payload)) => this.ready.extend(framed(payload)),
                end => {
                    this.done = true;
                    let status = end.and_then(Result::err).unwrap_or_else(|| Status::ok(""));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)?))));
                }
            }
        }
    }
}

fn framed(payload: Payload) -> impl Iterator<Item = Bytes> {
    let mut own = BytesMut::with_capacity(HEAD_LEN + payload.own.len());
    own.put_u8(0);
    // Beyond 4 GiB no gRPC message can be; a snapshot of that size does not fit a client either.
    own.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    own.put_slice(&payload.own);
    let parts = [own.freeze(), payload.shared];
    parts.into_iter().filter(|part| !part.is_empty())
}

fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}
