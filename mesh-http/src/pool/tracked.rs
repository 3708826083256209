use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use mesh_core::{Endpoint, Permit, TlsFacts, clock};
use mesh_net::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Inner, UpstreamStats, millis};

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// What runs on a connection, for the books of its end.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// Requests that are not over.
    pub(super) requests: AtomicU32,
    /// Whatever closes it from here has reset them before.
    pub(super) were_reset: AtomicBool,
}

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
    running: Arc<Running>,
    /// The upstream has closed it.
    peer_ended: bool,
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
            running: Arc::default(),
            peer_ended: false,
            permit: Some(permit),
        }
    }

    /// What runs on it.
    pub(super) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// Who closed it, and what ran on it then.
    fn count_end(&self) {
        let under = self.peer_ended || !self.running.were_reset.load(Ordering::Relaxed);
        let active = under && self.running.requests.load(Ordering::Relaxed) > 0;
        self.stats.count_end(self.peer_ended, active);
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
        self.count_end();
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
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let bytes = buf.filled().len() - before;
        self.peer_ended |= read.is_err() || (bytes == 0 && buf.remaining() > 0);
        self.stats.upstream_cx_rx_bytes_total().add(bytes as u64);
        Poll::Ready(read)
    }
}

impl Tracked {
    fn count_sent(&mut self, written: &io::Result<usize>) {
        match written {
            Ok(n) => self.stats.upstream_cx_tx_bytes_total().add(*n as u64),
            Err(_) => self.peer_ended = true,
        }
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.count_sent(&written);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        self.count_sent(&written);
        Poll::Ready(written)
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
