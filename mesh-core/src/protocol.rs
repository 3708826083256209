use std::sync::Arc;

use http::{Request, Response};
use http_body::Body as HttpBody;

use crate::{Attempt, EndGuard, GuardedBody, RequestInfo};

/// What a layer around any service may learn from a request.
///
/// A layer that works for every `Service<R>` takes one of the markers [`Generic`] and [`Http`] as a type
/// parameter, so that there is one implementation for both.
pub trait Requests<R: ?Sized> {
    /// The request's info, if it has one.
    fn info(request: &R) -> Option<&Arc<RequestInfo>>;

    /// The attempt that the request belongs to, if a retry is above.
    fn attempt(request: &R) -> Option<&Attempt>;
}

/// How long a response keeps hold of what was taken for it.
pub trait Responses<T, G> {
    /// The response with the guard.
    type Held;

    /// Lets `guard` go when `response` is over.
    fn hold(response: T, guard: G) -> Self::Held;
}

/// Any request and response: nothing is known, and a response is over when it is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Generic;

/// HTTP: a request may carry a [`RequestInfo`] and an [`Attempt`], and a response is over when its body is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Http;

impl<R: ?Sized> Requests<R> for Generic {
    fn info(_: &R) -> Option<&Arc<RequestInfo>> {
        None
    }

    fn attempt(_: &R) -> Option<&Attempt> {
        None
    }
}

impl<T, G> Responses<T, G> for Generic {
    type Held = T;

    fn hold(response: T, _: G) -> T {
        response
    }
}

impl<B> Requests<Request<B>> for Http {
    fn info(request: &Request<B>) -> Option<&Arc<RequestInfo>> {
        RequestInfo::of(request)
    }

    fn attempt(request: &Request<B>) -> Option<&Attempt> {
        request.extensions().get()
    }
}

impl<B: HttpBody, G: EndGuard> Responses<Response<B>, G> for Http {
    type Held = Response<GuardedBody<B, G>>;

    fn hold(response: Response<B>, guard: G) -> Self::Held {
        response.map(|body| GuardedBody::new(body, guard))
    }
}
