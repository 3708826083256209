//! HTTP/2 on both sides: against the `h2` crate's other half, and byte by byte where a peer misbehaves.

mod floods;
mod pool;
mod serve;
mod tunnels;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use mesh_core::Error;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

/// A body of 16 KiB pieces that counts how many bytes were taken from it.
struct Counted {
    left: u64,
    taken: Arc<AtomicU64>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        static PIECE: [u8; 16 * 1024] = [b'x'; 16 * 1024];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = self.left.min(PIECE.len() as u64);
        self.left -= size;
        self.taken.fetch_add(size, Ordering::SeqCst);
        let piece = Bytes::from_static(&PIECE[..size as usize]);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
