//! Finds out what a client speaks by its first bytes.

use std::{
    task::{Context, Poll, ready},
    time::Instant,
};

use mesh_core::{Timer, clock};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Closing, Ended, FIRST_REQUEST_GRACE, ServerConfig};
use crate::{h1::ReadBuffer, h2::PREFACE};

/// A connection whose protocol is not known yet.
pub(super) struct Sniffing<IO, H> {
    pub(super) io: IO,
    pub(super) read: ReadBuffer,
    pub(super) handler: H,
    timer: Timer,
    opened: Instant,
    first_byte: Option<Instant>,
}

/// What there is to know.
pub(super) enum Sniffed {
    Http1,
    Http2,
    Ended(Ended),
}

impl<IO: AsyncRead + AsyncWrite + Unpin, H> Sniffing<IO, H> {
    pub(super) fn new(io: IO, handler: H) -> Self {
        Self {
            io,
            read: ReadBuffer::default(),
            handler,
            timer: Timer::new(),
            opened: clock::now(),
            first_byte: None,
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        config: &ServerConfig,
        closing: Closing,
    ) -> Poll<Sniffed> {
        loop {
            let bytes = &self.read.bytes;
            let compared = bytes.len().min(PREFACE.len());
            if bytes[..compared] != PREFACE[..compared] {
                return Poll::Ready(Sniffed::Http1);
            }
            if compared == PREFACE.len() {
                return Poll::Ready(Sniffed::Http2);
            }
            match self.read.poll_fill(cx, &mut self.io) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.first_byte.get_or_insert_with(clock::now);
                }
                // Half a preface is for the HTTP/1 codec to refuse.
                Poll::Ready(Ok(_)) if compared > 0 => return Poll::Ready(Sniffed::Http1),
                Poll::Ready(_) => return Poll::Ready(Sniffed::Ended(Ended::ClientGone)),
                Poll::Pending => break,
            }
        }
        let deadline = match (self.first_byte, closing) {
            (Some(first), _) => config.headers_timeout.map(|t| first + t),
            (None, Closing::Now) => Some(self.opened + FIRST_REQUEST_GRACE),
            (None, _) => config.idle_timeout.map(|t| self.opened + t),
        };
        self.timer.set(deadline);
        ready!(self.timer.poll(cx));
        Poll::Ready(match self.first_byte {
            // Some of a head is here, and the HTTP/1 codec says why it waits no longer.
            Some(_) => Sniffed::Http1,
            None => Sniffed::Ended(Ended::Idle),
        })
    }
}
