use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Instant,
};

use mesh_core::{Permit, clock};
use mesh_net::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{WeakPool, millis};

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// A stream that counts its bytes, and settles its permit and its pool's books when it closes.
pub(crate) struct Tracked {
    stream: Stream,
    pool: WeakPool,
    opened: Instant,
    id: u64,
    /// Returned when the connection closes.
    permit: Option<Permit>,
}

impl Tracked {
    pub(super) fn new(stream: Stream, pool: WeakPool, permit: Permit) -> Self {
        if let Some(pool) = pool.upgrade() {
            pool.stats.upstream_cx_active().inc();
            let stats = &pool.endpoint.state.stats;
            stats.cx_total.fetch_add(1, Ordering::Relaxed);
            stats.cx_active.fetch_add(1, Ordering::Relaxed);
        }
        let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self {
            stream,
            pool,
            opened: clock::now(),
            id,
            permit: Some(permit),
        }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // First the permit, so that whoever waits can have it.
        drop(self.permit.take());
        if let Some(pool) = self.pool.upgrade() {
            pool.stats.upstream_cx_active().dec();
            pool.stats.upstream_cx_destroy().inc();
            pool.stats
                .upstream_cx_length_ms()
                .record(millis(clock::now() - self.opened));
            pool.endpoint
                .state
                .stats
                .cx_active
                .fetch_sub(1, Ordering::Relaxed);
            pool.closed();
        }
    }
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(pool) = self.pool.upgrade() {
            pool.stats
                .upstream_cx_rx_bytes_total()
                .add((buf.filled().len() - before) as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl Tracked {
    fn count_sent(&self, n: usize) {
        if let Some(pool) = self.pool.upgrade() {
            pool.stats.upstream_cx_tx_bytes_total().add(n as u64);
        }
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.count_sent(n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.count_sent(n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
