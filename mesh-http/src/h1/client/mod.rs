//! The upstream side: one exchange on one connection.
//!
//! Until the answer's head is there, the exchange sends and listens in the task of the request. From then
//! on its body (`answer`) does so, and what is left of the request goes on in a task of its own (`upload`):
//! it must not stop where nobody reads the answer.

mod answer;
mod upload;

use std::{
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use mesh_core::{Body, Error, ErrorKind, Sent, Tunnel, TunnelRequest};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    buffer::{ReadBuffer, WriteBuffer},
    decode::BodyDecoder,
    encode::{self, BodyEncoder},
    framing::BodyLength,
    head::{self, HeadLimits, HeadScan, Malformed},
};
use upload::Over;

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
        let mut cx = Context::from_waker(Waker::noop());
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

    /// The answer broke off behind its head.
    fn broke_off(&self, _error: &Error) {}
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
    tunnel: TunnelState,
    /// Why the request's body ended early, for whoever reads the answer while somebody else sends it.
    upload_error: Option<Error>,
    /// Who reads the answer then.
    reader: Option<Waker>,
    /// What is closed once nobody holds the exchange's lock.
    over: Option<Over<IO, R>>,
}

/// What becomes of a request for a tunnel.
#[derive(Debug, PartialEq, Eq)]
enum TunnelState {
    /// It is none, or was refused.
    None,
    /// Nothing but the head is sent before the answer: whoever refuses would take it for a request.
    Asked(TunnelRequest),
    /// Bytes go both ways, until both ends have closed.
    Granted,
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
        let tunnel = match TunnelRequest::of(request) {
            Some(asked) => TunnelState::Asked(asked.clone()),
            None => TunnelState::None,
        };
        let hint = body.size_hint();
        let mut encoder = match hint.exact() {
            _ if tunnel != TunnelState::None => BodyEncoder::None,
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
            tunnel,
            upload_error: None,
            reader: None,
            over: None,
        }
    }

    /// No HTTP at all: what the client sends goes to the upstream as it is. Envoy: `connect_config`.
    pub(crate) fn raw(
        connection: Connection<IO>,
        lease: R,
        request: &Request<()>,
        body: Body,
    ) -> Self {
        let mut exchange = Self::new(connection, lease, request, body);
        exchange.write = WriteBuffer::default();
        exchange.grant();
        exchange
    }

    /// Whether any byte went out.
    pub fn sent(&self) -> Sent {
        if self.write.written() == 0 {
            Sent::Nothing
        } else {
            Sent::Some
        }
    }

    /// Whether the whole request went out; of one for a tunnel, its head.
    pub fn is_request_sent(&self) -> bool {
        let body = self.sent_all || matches!(self.tunnel, TunnelState::Asked(_));
        body && self.write.is_empty()
    }

    /// Whether nothing more will be sent.
    fn is_upload_over(&self) -> bool {
        self.write_failed || self.sent_all && self.write.is_empty()
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
        let held = matches!(self.tunnel, TunnelState::Asked(_));
        loop {
            while !held && !self.sent_all && self.write.has_room() && !self.write_failed {
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
                Poll::Ready(Ok(())) if self.sent_all || held => return Ok(()),
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
        if self.tunnel == TunnelState::Granted {
            let mut response = Response::new(());
            response.extensions_mut().insert(Tunnel);
            return Poll::Ready(Ok(response));
        }
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
                    Ok(Some(head)) if self.is_on_the_way(head.response.status()) => {
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

    /// Whether another head follows this one.
    fn is_on_the_way(&self, status: StatusCode) -> bool {
        let granted =
            matches!(&self.tunnel, TunnelState::Asked(asked) if asked.is_granted_by(status));
        status.is_informational() && !granted
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
        if let TunnelState::Asked(asked) = &self.tunnel {
            if asked.is_granted_by(response.status()) {
                self.grant();
                response.extensions_mut().insert(Tunnel);
            } else {
                self.tunnel = TunnelState::None;
                self.body = Body::empty();
                self.sent_all = true;
            }
        }
        response
    }

    /// From now on bytes go both ways as they are.
    fn grant(&mut self) {
        self.tunnel = TunnelState::Granted;
        self.keep_alive = false;
        self.encoder = BodyEncoder::UntilClose;
        self.decoder = BodyDecoder::UntilClose;
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
