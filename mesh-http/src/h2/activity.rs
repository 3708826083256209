use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use mesh_core::clock;

/// When something last moved on a stream. Shared by the stream and the request body that it lends out.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
    request_done: AtomicBool,
    /// And it will not be, because it failed.
    request_failed: AtomicBool,
    /// Who waits for that.
    waker: AtomicWaker,
}

// Relaxed for what timeouts go by: the stream and its body are polled by one task as a rule, and a moment more or less
// does not matter to a timeout.
impl Activity {
    pub(crate) fn begin(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            began: now,
            last: AtomicU64::new(0),
            request_done: AtomicBool::new(false),
            request_failed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })
    }

    /// When the stream began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn touch(&self) {
        let millis = (clock::now() - self.began).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// When something last moved.
    pub(crate) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// The request has been read to its end, or will not be.
    pub(crate) fn request_done(&self) {
        self.touch();
        self.request_done.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The request broke off: its stream was reset, as a rule.
    pub(crate) fn request_failed(&self) {
        self.request_failed.store(true, Ordering::Relaxed);
        self.request_done();
    }

    /// Whether the request was read to its end.
    pub(crate) fn is_request_whole(&self) -> bool {
        self.is_request_done() && !self.request_failed.load(Ordering::Relaxed)
    }

    pub(crate) fn poll_request_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.request_done.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    pub(crate) fn is_request_done(&self) -> bool {
        self.request_done.load(Ordering::Relaxed)
    }
}
