use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tower_service::Service;

/// Waits until `service` is ready.
///
/// # Errors
/// Those of `poll_ready`.
pub async fn ready<S: Service<R>, R>(service: &mut S) -> Result<(), S::Error> {
    poll_fn(|cx| service.poll_ready(cx)).await
}

/// Waits until `service` is ready and calls it.
///
/// # Errors
/// Those of the service.
pub async fn call<S: Service<R>, R>(service: &mut S, request: R) -> Result<S::Response, S::Error> {
    ready(service).await?;
    service.call(request).await
}

/// A future that a test polls by hand, and that knows whether it was woken since.
#[derive(Debug)]
pub struct Polled<F> {
    future: Pin<Box<F>>,
    woken: Arc<Flag>,
}

#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// How often a future may wake itself before a test gives up on it.
const TURNS_MAX: usize = 1_000;

impl<F: Future> Polled<F> {
    /// Wraps `future` without polling it.
    pub fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            woken: Arc::default(),
        }
    }

    /// Polls once.
    pub fn poll(&mut self) -> Poll<F::Output> {
        self.woken.take();
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polls as long as the future wakes itself: where it ends up without help from outside.
    ///
    /// # Panics
    /// When it never stops waking itself.
    pub fn run(&mut self) -> Poll<F::Output> {
        for _ in 0..TURNS_MAX {
            match self.poll() {
                Poll::Pending if self.is_woken() => {}
                result => return result,
            }
        }
        panic!("the future wakes itself without end");
    }

    /// Whether the future was woken since the last poll.
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Acquire)
    }
}
