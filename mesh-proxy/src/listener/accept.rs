//! One socket on one worker.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use mesh_net::{AcceptError, Listener, Stream};
use tokio::sync::watch;

use super::{Serving, balance};

/// How long accepting rests when the process is out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Who serves the connections of a socket; nobody closes it.
pub(crate) type Accept = watch::Receiver<Option<Arc<Serving>>>;

/// Accepts until nobody serves any more, and then what the kernel had queued: closing the socket would
/// reset those.
pub(crate) async fn run(listener: Listener, mut accept: Accept) {
    let mut last = None;
    loop {
        let Some(serving) = accept.borrow_and_update().clone() else {
            break;
        };
        while let Some(accepted) = next(&listener, &mut accept).await {
            match accepted {
                Ok((stream, peer)) => balance::spawn(stream, peer, &serving),
                Err(error) => rest(&error, &serving).await,
            }
        }
        last = Some(serving);
        if accept.has_changed().is_err() {
            // Nobody is left to say who serves.
            break;
        }
    }
    if let Some(serving) = last {
        if let Err(error) = listener.refuse() {
            tracing::debug!(listener = &*serving.config.name, %error, "late clients may be reset");
        }
        take_queued(&listener, &serving).await;
        match listener.close() {
            Ok(late) => {
                for (stream, peer) in late {
                    balance::spawn(stream, peer, &serving);
                }
            }
            Err(error) => tracing::warn!(listener = &*serving.config.name, %error, "closing"),
        }
    }
}

/// The next connection; `None` when somebody else is to serve from now on.
async fn next(
    listener: &Listener,
    accept: &mut Accept,
) -> Option<Result<(Stream, Option<SocketAddr>), AcceptError>> {
    tokio::select! {
        biased;
        accepted = listener.accept() => Some(accepted),
        _ = accept.changed() => None,
    }
}

/// Accepts until the kernel has nothing more.
async fn take_queued(listener: &Listener, serving: &Arc<Serving>) {
    let mut asked_again = false;
    loop {
        match poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await {
            Poll::Ready(Ok((stream, peer))) => balance::spawn(stream, peer, serving),
            Poll::Ready(Err(error)) => rest(&error, serving).await,
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

async fn rest(error: &AcceptError, serving: &Serving) {
    let listener = &*serving.config.name;
    match error {
        AcceptError::Exhausted(_) => {
            serving.stats.downstream_cx_overflow().inc();
            tracing::warn!(listener, "{error}; pausing");
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
        }
        AcceptError::Connection(_) => tracing::debug!(listener, "{error}"),
    }
}
