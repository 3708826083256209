//! Filters that are a function: of a request, its policy, and what comes next.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use mesh_core::{Body, BoxFuture, BoxHttpService, Error, PolicySource as _};
use tower_service::Service;

use super::RouteSource;

pub(super) type Answer = BoxFuture<Result<Response<Body>, Error>>;

/// What such a filter does with a request that it is not told to let pass.
pub(super) trait Handle: Clone + Send + Sync + 'static {
    type Policy: Send + Sync + 'static;

    /// `next` is ready for one call; whoever has to wait before it takes a clone: see [`call_later`].
    fn handle(
        &self,
        policy: Arc<Self::Policy>,
        request: Request<Body>,
        next: &mut BoxHttpService,
    ) -> Answer;
}

/// The filter over `next`.
pub(super) fn over<H: Handle>(
    handle: H,
    source: RouteSource<H::Policy>,
    next: BoxHttpService,
) -> BoxHttpService {
    BoxHttpService::new(Simple {
        handle,
        source,
        next,
    })
}

/// Calls a service that need not be ready yet.
pub(super) async fn call_later(
    mut next: BoxHttpService,
    request: Request<Body>,
) -> Result<Response<Body>, Error> {
    poll_fn(|cx| next.poll_ready(cx)).await?;
    next.call(request).await
}

struct Simple<H: Handle> {
    handle: H,
    source: RouteSource<H::Policy>,
    next: BoxHttpService,
}

// Derived, it would ask the policy to be cloneable.
impl<H: Handle> Clone for Simple<H> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            source: self.source.clone(),
            next: self.next.clone(),
        }
    }
}

impl<H: Handle> Service<Request<Body>> for Simple<H> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.next.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self.source.policy(&request) {
            Some(policy) => self.handle.handle(policy, request, &mut self.next),
            None => self.next.call(request),
        }
    }
}
