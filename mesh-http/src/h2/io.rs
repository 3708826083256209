//! The stream below an HTTP/2 connection: hands out what was read before, and watches the frames go by.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use mesh_core::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    config::FloodLimits,
    flood::{Flood, FloodGuard, FrameScan},
    gather::Gather,
};

/// What a client sends before its first frame.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Tells the connection what its stream has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    flood: AtomicU8,
    greeted: AtomicBool,
    holds_back: AtomicBool,
}

// Relaxed: whoever reads it has just polled the stream that set it.
impl Verdict {
    fn set(&self, flood: Flood) {
        self.0.flood.store(flood as u8, Ordering::Relaxed);
    }

    /// What the peer floods us with.
    pub(crate) fn flood(&self) -> Option<Flood> {
        Flood::from_code(self.0.flood.load(Ordering::Relaxed))
    }

    fn greeted(&self) {
        self.0.greeted.store(true, Ordering::Relaxed);
    }

    /// Whether something that was written is still here, though the peer would take it: then drive the connection
    /// once more. Says so once: what waits for the peer after that is the peer's to wake us for.
    pub(crate) fn take_holds_back(&self) -> bool {
        let holds_back = self.0.holds_back.load(Ordering::Relaxed);
        self.0.holds_back.store(false, Ordering::Relaxed);
        holds_back
    }

    /// Whether the peer has acknowledged our settings, which it does after it has sent its own.
    pub(crate) fn is_greeted(&self) -> bool {
        self.0.greeted.load(Ordering::Relaxed)
    }
}

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A stream whose frames are counted. Once they are a flood, nothing more is read.
pub(crate) struct Watched<IO> {
    io: Gather<IO>,
    /// Bytes that were read to find out which protocol this is.
    before: Bytes,
    inbound: FrameScan,
    outbound: FrameScan,
    guard: FloodGuard,
    verdict: Verdict,
    flooded: bool,
}

impl<IO> Watched<IO> {
    pub(crate) fn new(io: IO, before: Bytes, side: Side, limits: FloodLimits) -> (Self, Verdict) {
        let verdict = Verdict::default();
        let preface = |here: Side| if here == side { PREFACE.len() } else { 0 };
        let watched = Self {
            io: Gather::new(io),
            before,
            inbound: FrameScan::new(preface(Side::Server)),
            outbound: FrameScan::new(preface(Side::Client)),
            guard: FloodGuard::new(limits),
            verdict: verdict.clone(),
            flooded: false,
        };
        (watched, verdict)
    }

    fn received(&mut self, bytes: &[u8]) {
        let Self {
            inbound,
            guard,
            verdict,
            flooded,
            ..
        } = self;
        inbound.feed(bytes, |frame| {
            if frame.is_settings_ack() {
                verdict.greeted();
            }
            if !*flooded && let Err(flood) = guard.on_received(frame, clock::now) {
                *flooded = true;
                verdict.set(flood);
            }
        });
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self {
            outbound, guard, ..
        } = self;
        outbound.feed(bytes, |frame| guard.on_sent(frame));
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flooded {
            // Whoever drives the connection looks at the verdict next, and ends it.
            return Poll::Pending;
        }
        let filled = buf.filled().len();
        if this.before.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        } else {
            let n = this.before.len().min(buf.remaining());
            buf.put_slice(&this.before[..n]);
            this.before.advance(n);
        }
        this.received(&buf.filled()[filled..]);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.sent(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let n = buf.len().min(left);
            self.sent(&buf[..n]);
            left -= n;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let holds_back = self.io.holds_back();
        self.verdict
            .0
            .holds_back
            .store(holds_back, Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
