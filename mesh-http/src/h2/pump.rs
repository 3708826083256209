//! Sends a body over HTTP/2: an answer downstream, or a request upstream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as HttpBody;
use mesh_core::Error;
use pin_project::pin_project;

/// A body on its way out. It takes from the body only what the peer's window and the send buffer have room
/// for, but for one piece.
#[pin_project]
pub(crate) struct Pump<B> {
    send: SendStream<Bytes>,
    #[pin]
    body: B,
    /// Taken from the body and not yet sent.
    piece: Bytes,
    /// Something was taken from the body.
    touched: bool,
    done: bool,
}

/// How sending a body ended.
#[derive(Debug)]
pub(crate) enum Pumped {
    /// All of it is with the connection.
    Complete,
    /// The peer wants no more of it: with `NO_ERROR` it has what it needs.
    Reset(Option<Reason>),
    /// The body itself failed.
    Failed(Error),
}

impl<B: HttpBody<Data = Bytes, Error = Error>> Pump<B> {
    pub(crate) fn new(send: SendStream<Bytes>, body: B) -> Self {
        Self {
            send,
            body,
            piece: Bytes::new(),
            touched: false,
            done: false,
        }
    }

    /// Whether all of it is with the connection.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether something was taken from the body.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched
    }

    /// The body, if nothing was taken from it.
    pub(crate) fn into_untouched(self) -> Option<B> {
        (!self.touched).then_some(self.body)
    }

    /// The body, to tell it something.
    pub(crate) fn body(self: Pin<&mut Self>) -> Pin<&mut B> {
        self.project().body
    }

    /// Tells the peer that there will be no more.
    pub(crate) fn reset(self: Pin<&mut Self>, reason: Reason) {
        self.project().send.send_reset(reason);
    }

    /// Ready when the peer wants no more, or its connection has ended.
    pub(crate) fn poll_reset(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Reason>> {
        self.project().send.poll_reset(cx).map(Result::ok)
    }

    /// Sends what can be sent. `progress` is called whenever something went.
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut progress: impl FnMut(),
    ) -> Poll<Pumped> {
        loop {
            let this = self.as_mut().project();
            if *this.done {
                return Poll::Ready(Pumped::Complete);
            }
            let step = if this.piece.is_empty() {
                self.as_mut().poll_take(cx)
            } else {
                self.as_mut().poll_piece(cx)
            };
            match step {
                Poll::Ready(None) => progress(),
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                Poll::Pending => {
                    // Nobody else would hear of a reset while the body has nothing to send.
                    let this = self.as_mut().project();
                    let reset = ready!(this.send.poll_reset(cx));
                    return Poll::Ready(Pumped::Reset(reset.ok()));
                }
            }
        }
    }

    /// Takes the next piece from the body.
    fn poll_take(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Pumped>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        *this.touched = true;
        let sent = match frame {
            Some(Err(error)) => return Poll::Ready(Some(Pumped::Failed(error))),
            None => {
                *this.done = true;
                this.send.send_data(Bytes::new(), true)
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => {
                    this.send.reserve_capacity(data.len());
                    *this.piece = data;
                    return Poll::Ready(None);
                }
                Ok(_) if this.body.is_end_stream() => {
                    *this.done = true;
                    this.send.send_data(Bytes::new(), true)
                }
                Ok(_) => return Poll::Ready(None),
                Err(frame) => {
                    *this.done = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    this.send.send_trailers(trailers)
                }
            },
        };
        Poll::Ready(sent.is_err().then_some(Pumped::Reset(None)))
    }

    /// Sends as much of the piece as there is room for.
    fn poll_piece(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Pumped>> {
        let this = self.project();
        let mut room = this.send.capacity();
        if room == 0 {
            room = match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => {
                    let reason = match this.send.poll_reset(cx) {
                        Poll::Ready(Ok(reason)) => Some(reason),
                        _ => None,
                    };
                    return Poll::Ready(Some(Pumped::Reset(reason)));
                }
            };
        }
        let part = this.piece.split_to(room.min(this.piece.len()));
        let last = this.piece.is_empty() && this.body.is_end_stream();
        *this.done = last;
        let sent = this.send.send_data(part, last);
        Poll::Ready(sent.is_err().then_some(Pumped::Reset(None)))
    }
}
