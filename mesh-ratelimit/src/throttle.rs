use std::{
    sync::Arc,
    task::{Context, Poll},
};

use mesh_core::{Timer, clock};
use tower_layer::Layer;
use tower_service::Service;

use crate::{TokenBucket, TokenBucketConfig};

/// Puts a [`Throttle`] over a service: all services of the layer share one bucket.
#[derive(Debug, Clone)]
pub struct ThrottleLayer(Arc<TokenBucket>);

impl ThrottleLayer {
    /// A full bucket.
    #[must_use]
    pub fn new(bucket: TokenBucketConfig) -> Self {
        Self(Arc::new(TokenBucket::new(bucket, clock::now())))
    }
}

impl<S> Layer<S> for ThrottleLayer {
    type Service = Throttle<S>;

    fn layer(&self, inner: S) -> Throttle<S> {
        Throttle::new(inner, &self.0)
    }
}

/// Slows calls down to the rate of a bucket instead of refusing them. For any service.
///
/// `poll_ready` reserves a token, or waits for one; `call` spends it. A clone carries no token, and a
/// service that is dropped while it holds one puts it back. Several services that wait for the same
/// bucket compete for each token; none is promised its turn.
#[derive(Debug)]
pub struct Throttle<S> {
    inner: S,
    bucket: Arc<TokenBucket>,
    reserved: bool,
    timer: Timer,
}

impl<S> Throttle<S> {
    fn new(inner: S, bucket: &Arc<TokenBucket>) -> Self {
        Self {
            inner,
            bucket: Arc::clone(bucket),
            reserved: false,
            timer: Timer::new(),
        }
    }

    fn poll_token(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.reserved {
            let now = clock::now();
            match self.bucket.take(now, 1) {
                Ok(_) => self.reserved = true,
                Err(shortage) => {
                    self.timer.set(now.checked_add(shortage.wait));
                    if self.timer.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: Clone> Clone for Throttle<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), &self.bucket)
    }
}

impl<S> Drop for Throttle<S> {
    fn drop(&mut self) {
        if self.reserved {
            self.bucket.give_back(1);
        }
    }
}

impl<S: Service<R>, R> Service<R> for Throttle<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        std::task::ready!(self.poll_token(cx));
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        assert!(
            std::mem::take(&mut self.reserved),
            "called without being polled ready"
        );
        self.inner.call(request)
    }
}
