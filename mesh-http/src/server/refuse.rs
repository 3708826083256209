//! The end of a connection that does not speak what it must.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use mesh_core::{Timer, clock};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Ended;
use crate::h1::{ReadBuffer, WriteBuffer};

/// GOAWAY with a last stream of 0 and PROTOCOL_ERROR.
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Says why, and closes so that the last words arrive: closing with unread bytes would make the kernel reset
/// the connection and take them with it.
pub(super) struct Refusing<IO> {
    io: IO,
    write: WriteBuffer,
    read: ReadBuffer,
    timer: Timer,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Refusing<IO> {
    /// For a client that was to speak HTTP/2.
    pub(super) fn goaway(io: IO, delayed_close: Duration) -> Self {
        let mut write = WriteBuffer::default();
        write.push(Bytes::from_static(GOAWAY));
        Self {
            io,
            write,
            read: ReadBuffer::holding(BytesMut::new()),
            timer: Timer::at(clock::now() + delayed_close),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let late = self.timer.poll(cx).is_ready();
        match self.poll_close(cx) {
            Poll::Pending if !late => Poll::Pending,
            _ => Poll::Ready(Ended::Closed),
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.write.poll_flush(cx, &mut self.io) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
        match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
        loop {
            self.read.bytes.clear();
            match self.read.poll_fill(cx, &mut self.io) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
