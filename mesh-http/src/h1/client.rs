//! The upstream side: one exchange on one connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, Error, ErrorKind, Sent};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    buffer::{ReadBuffer, WriteBuffer},
    chunk::Decoded,
    decode::BodyDecoder,
    encode::{self, BodyEncoder},
    framing::BodyLength,
    head::{self, HeadLimits, HeadScan, Malformed},
};

/// 1xx answers before the real one; more is an attack or a fault.
const INFORMATIONAL_MAX: u32 = 16;

/// A connection to an upstream between exchanges.
#[derive(Debug)]
pub struct Connection<IO> {
    pub(crate) io: IO,
    read: ReadBuffer,
    exchanges: u64,
    limits: HeadLimits,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    /// A fresh connection; `limits` bound the answers' heads.
    pub fn new(io: IO, limits: HeadLimits) -> Self {
        Self {
            io,
            read: ReadBuffer::default(),
            exchanges: 0,
            limits,
        }
    }

    /// Exchanges begun so far.
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// What carries the connection.
    pub fn io(&self) -> &IO {
        &self.io
    }

    /// Whether nothing has arrived since the last exchange, as far as the reactor knows: neither an end
    /// nor bytes that nobody asked for.
    pub fn is_idle(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.read.bytes.is_empty()
            && !self.read.is_eof()
            && self.read.poll_fill(&mut cx, &mut self.io).is_pending()
    }
}

/// Gets a connection back, or learns that it is gone.
pub trait Return<IO>: Unpin {
    /// The exchange is over. The connection comes back if it may carry another; else it has done what it
    /// was asked for, and closes. Dropped without this call, the exchange was cut short.
    fn give_back(self, connection: Option<Connection<IO>>);
}

/// One request on its way, and its answer on the way back. Holds `R`, what the pool lent with the
/// connection, until the exchange is over.
#[derive(Debug)]
pub struct Exchange<IO, R> {
    connection: Option<Connection<IO>>,
    lease: Option<R>,
    write: WriteBuffer,
    encoder: BodyEncoder,
    body: Body,
    /// The body again, while none of it was taken from a stream.
    replay: Option<Body>,
    touched: bool,
    sent_all: bool,
    write_failed: bool,
    method: Method,
    decoder: BodyDecoder,
    keep_alive: bool,
    scan: HeadScan,
    informational: u32,
}

impl<IO: AsyncRead + AsyncWrite + Unpin, R: Return<IO>> Exchange<IO, R> {
    /// Writes the head into the buffer; nothing is sent before the first poll. `request` keeps its head,
    /// so that it can be sent again.
    pub fn new(
        mut connection: Connection<IO>,
        lease: R,
        request: &Request<()>,
        body: Body,
    ) -> Self {
        let mut write = WriteBuffer::default();
        let hint = body.size_hint();
        let mut encoder = match hint.exact() {
            Some(0) => BodyEncoder::None,
            Some(n) => BodyEncoder::Length(n),
            // A body has trailers only where the config lets them through.
            None => BodyEncoder::Chunked { trailers: true },
        };
        let full = body.as_full().map_or(0, <[u8]>::len);
        encode::request_head(request, encoder, full, &mut write.flat);
        connection.exchanges += 1;
        let sent_all = body.is_end_stream();
        if sent_all {
            encoder = BodyEncoder::None;
        }
        let replay = body.try_clone();
        Self {
            connection: Some(connection),
            lease: Some(lease),
            write,
            encoder,
            body,
            replay,
            touched: false,
            sent_all,
            write_failed: false,
            method: request.method().clone(),
            decoder: BodyDecoder::Done,
            keep_alive: false,
            scan: HeadScan::default(),
            informational: 0,
        }
    }

    /// Whether any byte went out.
    pub fn sent(&self) -> Sent {
        if self.write.written() == 0 {
            Sent::Nothing
        } else {
            Sent::Some
        }
    }

    /// Whether the whole request went out.
    pub fn is_request_sent(&self) -> bool {
        self.sent_all && self.write.is_empty()
    }

    /// The request's body, if none of it was read yet: it can be sent on another connection.
    pub fn untouched_body(&mut self) -> Option<Body> {
        match self.replay.take() {
            Some(body) => Some(body),
            None if self.touched => None,
            None => Some(std::mem::take(&mut self.body)),
        }
    }

    /// Whether some bytes of an answer have arrived.
    pub fn has_partial_head(&self) -> bool {
        self.informational > 0
            || self
                .connection
                .as_ref()
                .is_some_and(|c| !c.read.bytes.is_empty())
    }

    /// What the pool lent.
    pub fn lease(&mut self) -> Option<&mut R> {
        self.lease.as_mut()
    }

    fn fail(&self, kind: ErrorKind) -> Error {
        Error::new(kind).with_sent(self.sent())
    }

    fn broken(&self, malformed: Malformed) -> Error {
        self.fail(ErrorKind::UpstreamProtocol)
            .with_message(malformed.to_string())
            .with_source(malformed)
    }

    /// Sends what can be sent. Errors of the request's own body end the exchange; an error of the
    /// connection does not yet: the upstream may have answered before it closed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let Some(connection) = self.connection.as_mut() else {
            return Ok(());
        };
        loop {
            while !self.sent_all && self.write.has_room() && !self.write_failed {
                let frame = Pin::new(&mut self.body).poll_frame(cx);
                self.touched |= frame.is_ready();
                match frame {
                    Poll::Pending => break,
                    Poll::Ready(Some(Err(error))) => return Err(error),
                    Poll::Ready(frame) => {
                        self.sent_all = encode_frame(
                            frame.and_then(Result::ok),
                            &self.body,
                            &mut self.encoder,
                            &mut self.write,
                        )?
                    }
                }
            }
            if self.write_failed || self.write.is_empty() {
                return Ok(());
            }
            match self.write.poll_flush(cx, &mut connection.io) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if self.sent_all => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.write_failed = true,
            }
        }
    }

    /// Drives the exchange until the answer's head is there.
    ///
    /// # Errors
    /// The connection failed, the answer is malformed, or the request's own body failed.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        self.poll_send(cx)?;
        loop {
            let Some(connection) = self.connection.as_mut() else {
                return Poll::Ready(Err(Error::new(ErrorKind::LocalReset)));
            };
            let buffered = &mut connection.read.bytes;
            if !buffered.is_empty() && self.scan.ripe(buffered) {
                match head::parse_response(buffered, connection.limits, &self.method) {
                    Err(malformed) => return Poll::Ready(Err(self.broken(malformed))),
                    Ok(None) => {}
                    Ok(Some(head)) if head.response.status().is_informational() => {
                        self.scan.reset();
                        self.skip_informational(head.response.status())?;
                        continue;
                    }
                    Ok(Some(head)) => return Poll::Ready(Ok(self.begin_answer(head))),
                }
            }
            match ready!(connection.read.poll_fill(cx, &mut connection.io)) {
                // Half a head is a broken answer; nothing at all is a connection that ended.
                Ok(0) if self.has_partial_head() => {
                    return Poll::Ready(Err(self.fail(ErrorKind::UpstreamProtocol)));
                }
                Ok(0) | Err(_) => {
                    return Poll::Ready(Err(self.fail(ErrorKind::ConnectionTermination)));
                }
                Ok(_) => {}
            }
        }
    }

    fn skip_informational(&mut self, status: StatusCode) -> Result<(), Error> {
        self.informational += 1;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(self
                .fail(ErrorKind::UpstreamProtocol)
                .with_message("the upstream switched protocols without being asked"));
        }
        if self.informational > INFORMATIONAL_MAX {
            return Err(self
                .fail(ErrorKind::UpstreamProtocol)
                .with_message("too many informational answers"));
        }
        Ok(())
    }

    fn begin_answer(&mut self, head: head::ResponseHead) -> Response<()> {
        let limits = self
            .connection
            .as_ref()
            .map_or_else(HeadLimits::default, |c| c.limits);
        self.keep_alive = head.keep_alive;
        self.decoder = BodyDecoder::new(head.length, limits);
        let mut response = head.response;
        if matches!(head.length, BodyLength::Chunked) {
            response.headers_mut().remove(header::TRANSFER_ENCODING);
        }
        response
    }

    /// The answer's body: in memory if all of it has arrived and the request is out, and then the
    /// connection is given back at once; else a stream, which drives the rest of the exchange.
    pub fn into_body(mut self) -> Body
    where
        IO: Send + 'static,
        R: Send + 'static,
    {
        let sent = self.is_request_sent();
        let Some(connection) = self.connection.as_mut() else {
            return Body::empty();
        };
        let here = connection.read.bytes.len() as u64;
        if sent {
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
        }
        Body::new(AnswerBody { exchange: self })
    }

    /// The answer is complete: the connection goes back if it can carry another exchange.
    fn finish(&mut self) {
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

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded, Error>> {
        self.poll_send(cx)?;
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
}

/// Puts one frame of the request into the buffer; `true` when it was the last.
fn encode_frame(
    frame: Option<Frame<Bytes>>,
    body: &Body,
    encoder: &mut BodyEncoder,
    write: &mut WriteBuffer,
) -> Result<bool, Error> {
    let wrong = |_| {
        Error::new(ErrorKind::DownstreamProtocol)
            .with_message("the request body does not have the length it announced")
    };
    let Some(frame) = frame else {
        encoder.end(None, write).map_err(wrong)?;
        return Ok(true);
    };
    match frame.into_data() {
        Ok(data) => {
            encoder.data(data, write).map_err(wrong)?;
            let last = body.is_end_stream();
            if last {
                encoder.end(None, write).map_err(wrong)?;
            }
            Ok(last)
        }
        Err(frame) => {
            encoder.end(frame.trailers_ref(), write).map_err(wrong)?;
            Ok(true)
        }
    }
}

struct AnswerBody<IO, R> {
    exchange: Exchange<IO, R>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin, R: Return<IO>> HttpBody for AnswerBody<IO, R> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match ready!(self.exchange.poll_data(cx)) {
            Ok(Decoded::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(Decoded::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(Decoded::End | Decoded::NeedMore) => Poll::Ready(None),
            Err(error) => {
                // The connection is in an unknown state: it must not be used again.
                self.exchange.connection = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match self.exchange.decoder.remaining() {
            Some(n) if !matches!(self.exchange.decoder, BodyDecoder::Chunked(_)) => {
                SizeHint::with_exact(n)
            }
            _ => SizeHint::default(),
        }
    }
}
