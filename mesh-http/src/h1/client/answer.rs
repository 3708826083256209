//! The answer's body.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, Exchange, Return, TunnelState, upload::Uploading};
use crate::h1::{chunk::Decoded, decode::BodyDecoder};

impl<IO: AsyncRead + AsyncWrite + Unpin, R: Return<IO>> Exchange<IO, R> {
    /// The answer's body: in memory if all of it has arrived and the request is out, and then the
    /// connection is given back at once; else a stream, which drives the rest of the exchange. What is left
    /// of the request goes on by itself.
    pub fn into_body(mut self) -> Body
    where
        IO: Send + 'static,
        R: Send + 'static,
    {
        // The upstream of a tunnel hears when its client has no more to say.
        if !self.is_upload_over() || self.tunnel == TunnelState::Granted {
            return Body::new(AnswerBody::Shared(Uploading::spawn(self)));
        }
        let Some(connection) = self.connection.as_mut() else {
            return Body::empty();
        };
        let here = connection.read.bytes.len() as u64;
        match self.decoder {
            BodyDecoder::Done => {
                self.finish();
                return Body::empty();
            }
            BodyDecoder::Length(left) if left <= here => {
                let bytes = connection.read.bytes.split_to(left as usize).freeze();
                self.decoder = BodyDecoder::Done;
                self.finish();
                return Body::from(bytes);
            }
            _ => {}
        }
        Body::new(AnswerBody::Own(self))
    }

    /// The answer is complete: the connection goes back if it can carry another exchange.
    fn finish(&mut self) {
        if self.tunnel == TunnelState::Granted {
            if self.is_upload_over() {
                self.end_tunnel();
            }
            return;
        }
        let (Some(mut connection), Some(lease)) = (self.connection.take(), self.lease.take())
        else {
            return;
        };
        // Bytes beyond the answer are nobody's: such a connection is not used again.
        let clean = connection.read.bytes.is_empty() && !connection.read.is_eof();
        if !self.is_request_sent() {
            return;
        }
        if self.keep_alive && clean && !self.write_failed {
            connection.read.rest();
            lease.give_back(Some(connection));
        } else {
            lease.give_back(None);
        }
    }

    /// Hands out the connection, which must not be used again.
    fn break_off(&mut self, error: &Error) -> Option<Connection<IO>> {
        if let Some(lease) = &self.lease {
            lease.broke_off(error);
        }
        self.connection.take()
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded, Error>> {
        loop {
            let Some(connection) = self.connection.as_mut() else {
                return Poll::Ready(Ok(Decoded::End));
            };
            match self.decoder.decode(&mut connection.read.bytes) {
                Ok(Decoded::NeedMore) => {}
                Ok(decoded) => {
                    if self.decoder.is_done() {
                        self.finish();
                    }
                    return Poll::Ready(Ok(decoded));
                }
                Err(error) => {
                    let error = Error::new(ErrorKind::UpstreamProtocol)
                        .with_message(error.to_string())
                        .with_source(error);
                    return Poll::Ready(Err(error));
                }
            }
            let read = ready!(connection.read.poll_fill(cx, &mut connection.io));
            if matches!(read, Ok(0)) && self.decoder.on_close() {
                self.finish();
                return Poll::Ready(Ok(Decoded::End));
            }
            if let Ok(0) | Err(_) = read {
                // A body that ends before its time breaks the protocol; a reset is just that.
                let (kind, cause) = match read {
                    Err(cause) => (ErrorKind::ConnectionTermination, cause),
                    Ok(_) => (
                        ErrorKind::UpstreamProtocol,
                        io::ErrorKind::UnexpectedEof.into(),
                    ),
                };
                let error = Error::new(kind).with_source(cause);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Receives, while another task sends.
    fn poll_receive_beside(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded, Error>> {
        if let Some(error) = self.upload_error.take() {
            return Poll::Ready(Err(error));
        }
        let received = self.poll_receive(cx);
        if received.is_pending() {
            match &mut self.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        received
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder.remaining() {
            Some(n) if !matches!(self.decoder, BodyDecoder::Chunked(_)) => SizeHint::with_exact(n),
            _ => SizeHint::default(),
        }
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "it is boxed as a whole, and the large variant is the usual one"
)]
enum AnswerBody<IO, R> {
    /// The request is out.
    Own(Exchange<IO, R>),
    /// The request is still being sent.
    Shared(Uploading<IO, R>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin, R: Return<IO>> HttpBody for AnswerBody<IO, R> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let received = match &mut *self {
            Self::Own(exchange) => exchange.poll_receive(cx),
            Self::Shared(uploading) => uploading.with(|exchange| exchange.poll_receive_beside(cx)),
        };
        match ready!(received) {
            Ok(Decoded::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(Decoded::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(Decoded::End | Decoded::NeedMore) => Poll::Ready(None),
            Err(error) => {
                // The connection is in an unknown state: it must not be used again.
                let connection = match &mut *self {
                    Self::Own(exchange) => exchange.break_off(&error),
                    Self::Shared(uploading) => uploading.lock().break_off(&error),
                };
                drop(connection);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(exchange) => exchange.decoder.is_done(),
            Self::Shared(uploading) => uploading.lock().decoder.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(exchange) => exchange.size_hint(),
            Self::Shared(uploading) => uploading.lock().size_hint(),
        }
    }
}
