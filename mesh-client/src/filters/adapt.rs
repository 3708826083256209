use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use mesh_core::{Body, BoxHttpService, Error};
use pin_project::pin_project;
use tower_service::Service;

/// A layer's service with its own type of body brought back to that of the seam.
pub(super) struct Adapted<S, B> {
    inner: S,
    into_body: fn(B) -> Body,
}

impl<S, B> Adapted<S, B>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Error>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: 'static,
{
    pub(super) fn boxed(inner: S, into_body: fn(B) -> Body) -> BoxHttpService {
        BoxHttpService::new(Self { inner, into_body })
    }
}

// Derived, it would ask the body to be cloneable.
impl<S: Clone, B> Clone for Adapted<S, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            into_body: self.into_body,
        }
    }
}

impl<S, B> Service<Request<Body>> for Adapted<S, B>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = AdaptedFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        AdaptedFuture {
            future: self.inner.call(request),
            into_body: self.into_body,
        }
    }
}

#[pin_project]
pub(super) struct AdaptedFuture<F, B> {
    #[pin]
    future: F,
    into_body: fn(B) -> Body,
}

impl<F, B> Future for AdaptedFuture<F, B>
where
    F: Future<Output = Result<Response<B>, Error>>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        Poll::Ready(Ok(response.map(this.into_body)))
    }
}
