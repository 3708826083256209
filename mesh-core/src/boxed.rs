use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::{Body, Error};

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type HttpResult = Result<Response<Body>, Error>;

/// The seam between HTTP filters: any service from request to response, boxed and cloneable.
///
/// Its body and error types are concrete. A call costs one allocation for the future and one indirect
/// jump; a clone costs what the inner clone costs and one allocation.
pub struct BoxHttpService(Box<dyn CloneHttpService>);

trait CloneHttpService: Send + Sync {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    fn call(&mut self, request: Request<Body>) -> BoxFuture<HttpResult>;
    fn clone_box(&self) -> Box<dyn CloneHttpService>;
}

impl<S> CloneHttpService for S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::poll_ready(self, cx)
    }

    fn call(&mut self, request: Request<Body>) -> BoxFuture<HttpResult> {
        Box::pin(Service::call(self, request))
    }

    fn clone_box(&self) -> Box<dyn CloneHttpService> {
        Box::new(self.clone())
    }
}

impl BoxHttpService {
    /// Boxes `service`.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Error>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self(Box::new(service))
    }
}

impl Clone for BoxHttpService {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl fmt::Debug for BoxHttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxHttpService")
    }
}

impl Service<Request<Body>> for BoxHttpService {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<HttpResult>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}
