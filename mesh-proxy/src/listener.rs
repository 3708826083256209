//! A listener on one worker: accepts connections and serves each as a task of its own.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use mesh_client::Manager;
use mesh_core::clock;
use mesh_http::server::{Connection, Ended};
use mesh_net::{AcceptError, Listener, Stream};
use tokio::sync::watch;

use crate::drain::Phase;

/// How long accepting rests when the process is out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

mesh_core::stats! {
    /// What a listener counts, as `listener.<address>.<stat>`.
    pub(crate) struct ListenerStats {
        /// Connections accepted.
        counter downstream_cx_total,
        /// Connections open.
        gauge downstream_cx_active,
        /// Connections closed.
        counter downstream_cx_destroy,
        /// Times that accepting paused for want of file descriptors.
        counter downstream_cx_overflow,
        /// Milliseconds a connection was open.
        histogram downstream_cx_length_ms,
    }
}

/// What every connection of a listener shares on one worker.
#[derive(Clone)]
pub(crate) struct Accepting {
    pub(crate) name: Arc<str>,
    pub(crate) manager: Manager,
    pub(crate) stats: ListenerStats,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Connections open on all workers.
    pub(crate) open: Arc<AtomicUsize>,
}

/// Accepts until the process finishes, and then what the kernel had queued: closing the socket would
/// reset those.
pub(crate) async fn run(listener: Arc<Listener>, accepting: Accepting) {
    let mut phase = accepting.phase.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => Some(accepted),
            () = finishing(&mut phase) => None,
        };
        match accepted {
            Some(Ok((stream, peer))) => spawn(stream, peer, &accepting),
            Some(Err(error)) => rest(&error, &accepting).await,
            None => break,
        }
    }
    take_queued(&listener, &accepting).await;
}

/// Accepts until the kernel has nothing more.
async fn take_queued(listener: &Listener, accepting: &Accepting) {
    let mut asked_again = false;
    loop {
        match poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await {
            Poll::Ready(Ok((stream, peer))) => spawn(stream, peer, accepting),
            Poll::Ready(Err(error)) => rest(&error, accepting).await,
            Poll::Pending if asked_again => return,
            Poll::Pending => {
                // The runtime looks at its sockets between tasks: what has come since is seen then.
                asked_again = true;
                tokio::task::yield_now().await;
                continue;
            }
        }
        asked_again = false;
    }
}

async fn finishing(phase: &mut watch::Receiver<Phase>) {
    // It can only fail when the process has gone, and then this is over too.
    let _ = phase.wait_for(|phase| *phase == Phase::Finishing).await;
}

async fn rest(error: &AcceptError, accepting: &Accepting) {
    match error {
        AcceptError::Exhausted(_) => {
            accepting.stats.downstream_cx_overflow().inc();
            tracing::warn!(listener = %accepting.name, "{error}; pausing");
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
        }
        AcceptError::Connection(_) => tracing::debug!(listener = %accepting.name, "{error}"),
    }
}

fn spawn(stream: Stream, peer: Option<SocketAddr>, accepting: &Accepting) {
    // Counted before the task first runs, so that the drain does not overlook it.
    let counted = Counted::new(accepting.clone());
    tokio::spawn(serve(stream, peer, counted));
}

/// Counts a connection for as long as it lives.
struct Counted {
    accepting: Accepting,
    opened: std::time::Instant,
}

impl Counted {
    fn new(accepting: Accepting) -> Self {
        accepting.open.fetch_add(1, Ordering::Relaxed);
        accepting.stats.downstream_cx_total().inc();
        accepting.stats.downstream_cx_active().inc();
        let manager = accepting.manager.stats();
        manager.downstream_cx_total().inc();
        manager.downstream_cx_active().inc();
        Self {
            accepting,
            opened: clock::now(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let lived = u64::try_from((clock::now() - self.opened).as_millis()).unwrap_or(u64::MAX);
        let stats = &self.accepting.stats;
        stats.downstream_cx_active().dec();
        stats.downstream_cx_destroy().inc();
        stats.downstream_cx_length_ms().record(lived);
        let manager = self.accepting.manager.stats();
        manager.downstream_cx_active().dec();
        manager.downstream_cx_destroy().inc();
        manager.downstream_cx_length_ms().record(lived);
        self.accepting.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(stream: Stream, peer: Option<SocketAddr>, counted: Counted) {
    let accepting = &counted.accepting;
    let mut phase = accepting.phase.clone();
    let handler = accepting.manager.connection(stream.local_addr(), peer);
    let server = Arc::clone(&accepting.manager.config().server);
    let mut connection = pin!(Connection::new(stream, handler, server));
    let ended = loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Running => {}
            Phase::Announcing => connection.as_mut().announce_close(),
            Phase::Finishing => {
                // The runtime looks at its sockets first: a request that is here is no idle time.
                tokio::task::yield_now().await;
                connection.as_mut().drain();
            }
        }
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            // Without a sender there is no further phase: this branch rests.
            Ok(()) = phase.changed() => {}
        }
    };
    let stats = accepting.manager.stats();
    match ended {
        Ended::ClientGone => stats.downstream_cx_destroy_remote().inc(),
        Ended::Idle => {
            stats.downstream_cx_idle_timeout().inc();
            stats.downstream_cx_destroy_local().inc();
        }
        Ended::Truncated => {
            connection.with_io(reset_on_close);
            stats.downstream_cx_destroy_local().inc();
        }
        Ended::Closed => stats.downstream_cx_destroy_local().inc(),
    }
}

/// Closing will reset the connection. A Unix socket knows no such end.
fn reset_on_close(stream: &Stream) {
    if let Stream::Tcp(stream) = stream {
        // A socket that refuses has been reset by its peer already.
        let _ = stream.set_zero_linger();
    }
}
