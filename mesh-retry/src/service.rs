use std::{
    fmt,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_core::{BoxError, Error, PolicySource, RequestInfo, Rng};
use tower_service::Service;

use crate::{
    ReplayBody, ResponseFuture, RetryBody, RetryConfig, RetrySource,
    call::Call,
    plan::{Plan, Terms, count_request, first_attempt},
};

/// Repeats requests as their policy says. See the [crate documentation](crate).
///
/// Readiness is the inner service's. The attempt is made on the instance that was polled ready, and each
/// repetition drives that instance ready again. Dropping the future drops every attempt and gives back
/// what the request holds.
#[derive(Clone)]
pub struct Retry<S, P, C> {
    inner: S,
    policy: P,
    source: C,
    rng: Rng,
}

impl<S, P, C> Retry<S, P, C> {
    pub(crate) const fn new(inner: S, policy: P, source: C, rng: Rng) -> Self {
        Self {
            inner,
            policy,
            source,
            rng,
        }
    }

    /// The service that is retried.
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: fmt::Debug, P, C> fmt::Debug for Retry<S, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, P, C, B, RB> Service<Request<B>> for Retry<S, P, C>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    P: PolicySource<Request<B>, RetryConfig>,
    C: RetrySource<Request<B>>,
    B: HttpBody + Unpin + 'static,
    B::Error: Into<BoxError>,
    RB: HttpBody,
{
    type Response = Response<RetryBody<RB>>;
    type Error = Error;
    type Future = ResponseFuture<S, B, C::Context>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::from_boxed(error.into()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let policy = self.policy.policy(&request);
        let found = policy.and_then(|policy| Some((policy, self.source.context(&request)?)));
        let Some((config, context)) = found else {
            if let Some(info) = RequestInfo::of(&request) {
                info.with(|facts| facts.attempts += 1);
            }
            let attempt = self.inner.call(request.map(ReplayBody::once));
            return ResponseFuture::through(attempt, None);
        };
        let Some(terms) = Terms::new(&config, &mut request) else {
            first_attempt(&config, &mut request);
            let attempt = self.inner.call(request.map(ReplayBody::once));
            return ResponseFuture::through(attempt, count_request(&context));
        };
        // The instance that is ready makes the call, and a clone that is not takes its place.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let (plan, request, first) = Plan::new(config, context, terms, request);
        let attempt = ready.call(request);
        ResponseFuture::managed(attempt, ready, Call::new(plan, self.rng.clone()), first)
    }
}
