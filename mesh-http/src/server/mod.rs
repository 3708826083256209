//! A client's connection, whatever it speaks.

mod config;
mod refuse;
mod sniff;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version};
use mesh_core::{Error, ErrorKind, LocalReply};
use pin_project::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use self::{
    refuse::Refusing,
    sniff::{Sniffed, Sniffing},
};
use crate::{
    h1::{self, Malformed},
    h2,
    handler::{CodecEvent, Handler},
};
pub use config::{CodecType, ServerConfig};

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This side closed, or both did after the last answer.
    Closed,
    /// The client closed or reset first.
    ClientGone,
    /// This side closed an idle connection.
    Idle,
    /// An answer that lasts until the connection closes broke off. Only a reset tells the client that it is
    /// not complete: see [`Connection::with_io`].
    Truncated,
}

/// Serves one connection with `handler`; the future ends with the connection.
#[pin_project]
pub struct Connection<IO, H: Handler> {
    #[pin]
    codec: Codec<IO, H>,
    config: Arc<ServerConfig>,
    closing: Closing,
}

#[pin_project(project = CodecProject)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large variant is the usual one"
)]
enum Codec<IO, H: Handler> {
    /// `None` while it changes into one of the others.
    Sniffing(Option<Sniffing<IO, H>>),
    Http1(#[pin] h1::server::Connection<IO, H>),
    /// Boxed, so that HTTP/1 does not pay for it.
    Http2(Box<h2::server::Connection<IO, H>>),
    /// It does not speak what this listener speaks.
    Refusing(Box<Refusing<IO>>),
}

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    /// A connection that has just been accepted.
    pub fn new(io: IO, handler: H, config: Arc<ServerConfig>) -> Self {
        let codec = match config.codec {
            CodecType::Http1 => http1(io, BytesMut::new(), handler, &config),
            CodecType::Auto | CodecType::Http2 => Codec::Sniffing(Some(Sniffing::new(io, handler))),
        };
        Self {
            codec,
            config,
            closing: Closing::No,
        }
    }

    /// Announces that the connection ends: with the next answer, or with GOAWAY. An idle connection that
    /// has not been told yet stays for one more request, so that none meets a closed door.
    pub fn announce_close(self: Pin<&mut Self>) {
        self.close_as(Closing::Announced);
    }

    /// Like [`Connection::announce_close`], but an idle connection ends as soon as nothing has arrived on
    /// it. One that was accepted just now may still send its first request. Poll it afterwards.
    pub fn drain(self: Pin<&mut Self>) {
        self.close_as(Closing::Now);
    }

    fn close_as(self: Pin<&mut Self>, closing: Closing) {
        let this = self.project();
        *this.closing = (*this.closing).max(closing);
        match this.codec.project() {
            CodecProject::Sniffing(_) | CodecProject::Refusing(_) => {}
            CodecProject::Http1(connection) => connection.close_as(closing),
            CodecProject::Http2(connection) => connection.close_as(closing),
        }
    }

    /// What the client speaks, once that is known.
    pub const fn protocol(&self) -> Option<Version> {
        match &self.codec {
            Codec::Http1(_) => Some(Version::HTTP_11),
            Codec::Http2(_) => Some(Version::HTTP_2),
            Codec::Sniffing(_) | Codec::Refusing(_) => None,
        }
    }

    /// Shows the transport to `f`, which may set options on it. Not while it speaks HTTP/2, which can tell
    /// its peer of every end.
    pub fn with_io<T>(&self, f: impl FnOnce(&IO) -> T) -> Option<T> {
        match &self.codec {
            Codec::Http1(connection) => Some(connection.with_io(f)),
            Codec::Sniffing(_) | Codec::Http2(_) | Codec::Refusing(_) => None,
        }
    }
}

fn http1<IO, H>(io: IO, read: BytesMut, mut handler: H, config: &Arc<ServerConfig>) -> Codec<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    handler.observe(CodecEvent::Http1);
    let config = Arc::clone(config);
    Codec::Http1(h1::server::Connection::new(io, read, handler, config))
}

fn http2<IO, H>(io: IO, read: Bytes, mut handler: H, config: &Arc<ServerConfig>) -> Codec<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    handler.observe(CodecEvent::Http2);
    let config = Arc::clone(config);
    let connection = h2::server::Connection::new(io, read, handler, config);
    Codec::Http2(Box::new(connection))
}

impl<IO, H> Future for Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let mut this = self.as_mut().project();
            let sniffing = match this.codec.as_mut().project() {
                CodecProject::Http1(connection) => return connection.poll(cx),
                CodecProject::Http2(connection) => return Pin::new(&mut **connection).poll(cx),
                CodecProject::Refusing(refusing) => return refusing.poll(cx),
                CodecProject::Sniffing(sniffing) => sniffing,
            };
            let Some(found) = sniffing else {
                return Poll::Ready(Ended::Closed);
            };
            let sniffed = ready!(found.poll(cx, this.config, *this.closing));
            let Some(Sniffing {
                io,
                read,
                mut handler,
                ..
            }) = sniffing.take()
            else {
                return Poll::Ready(Ended::Closed);
            };
            let codec = match sniffed {
                Sniffed::Ended(ended) => return Poll::Ready(ended),
                Sniffed::Http1 if this.config.codec == CodecType::Http2 => {
                    handler.observe(CodecEvent::ProtocolError);
                    let patience = this.config.delayed_close;
                    Codec::Refusing(Box::new(Refusing::goaway(io, patience)))
                }
                Sniffed::Http1 => http1(io, read.bytes, handler, this.config),
                Sniffed::Http2 => http2(io, read.bytes.freeze(), handler, this.config),
            };
            this.codec.set(codec);
            let closing = *this.closing;
            self.as_mut().close_as(closing);
        }
    }
}

/// How far a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closing {
    No,
    Announced,
    Now,
}

/// How long after it was accepted a connection may still send its first request when everything drains: it
/// may have come from the kernel's queue a moment ago.
pub(crate) const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// What a request is answered that is malformed.
pub(crate) fn refusal(malformed: &Malformed) -> Error {
    let reason = malformed.status.canonical_reason().unwrap_or("Bad Request");
    let reply = LocalReply::new(malformed.status, reason, malformed.details);
    Error::new(ErrorKind::DownstreamProtocol)
        .with_message(malformed.to_string())
        .with_reply(reply)
}

pub(crate) fn receive_timeout() -> Error {
    Error::new(ErrorKind::RequestReceiveTimeout).with_reply(LocalReply::new(
        StatusCode::REQUEST_TIMEOUT,
        "request timeout",
        "request_overall_timeout",
    ))
}

pub(crate) fn idle_timeout(request_done: bool) -> Error {
    let status = if request_done {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::REQUEST_TIMEOUT
    };
    Error::new(ErrorKind::StreamIdleTimeout).with_reply(LocalReply::new(
        status,
        "stream timeout",
        "stream_idle_timeout",
    ))
}
