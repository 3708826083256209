use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use mesh_core::{Endpoint, Permit, TlsFacts, clock};
use mesh_net::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Inner, UpstreamStats, millis};

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// A stream that counts its bytes, and settles its permit and the books when it closes.
///
/// It may outlive its pool, as idle connections do for a moment when the pool is dropped: what it counts
/// in is its own, and only whoever waits is looked for in the pool.
pub(crate) struct Tracked {
    stream: Stream,
    stats: UpstreamStats,
    endpoint: Arc<Endpoint>,
    pool: Weak<Inner>,
    opened: Instant,
    id: u64,
    local: Option<SocketAddr>,
    /// Returned when the connection closes.
    permit: Option<Permit>,
}

impl Tracked {
    pub(super) fn new(stream: Stream, pool: &Arc<Inner>, permit: Permit) -> Self {
        pool.stats.upstream_cx_active().inc();
        let stats = &pool.endpoint.state.stats;
        stats.cx_total.fetch_add(1, Ordering::Relaxed);
        stats.cx_active.fetch_add(1, Ordering::Relaxed);
        Self {
            local: stream.local_addr(),
            stream,
            stats: pool.stats.clone(),
            endpoint: Arc::clone(&pool.endpoint),
            pool: Arc::downgrade(pool),
            opened: clock::now(),
            id: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            permit: Some(permit),
        }
    }

    /// Our end, asked for once.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// What its handshake brought.
    pub(super) fn tls(&self) -> Option<Arc<dyn TlsFacts>> {
        self.stream.tls_facts()
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
        self.stats.upstream_cx_active().dec();
        self.stats.upstream_cx_destroy().inc();
        self.stats
            .upstream_cx_length_ms()
            .record(millis(clock::now() - self.opened));
        self.endpoint
            .state
            .stats
            .cx_active
            .fetch_sub(1, Ordering::Relaxed);
        if let Some(pool) = self.pool.upgrade() {
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
        self.stats
            .upstream_cx_rx_bytes_total()
            .add((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl Tracked {
    fn count_sent(&self, n: usize) {
        self.stats.upstream_cx_tx_bytes_total().add(n as u64);
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
