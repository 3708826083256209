use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use mesh_core::{
    BoxError, Decision, Error, Mode, PolicySource, Reason, RequestInfo, ResponseFlag, Rng, clock,
};
use tower_service::Service;

use crate::{
    HeadersToAdd, LocalRateLimit, Quota, RequestView, ResponseFuture, Verdict, XRateLimitHeaders,
    error,
};

/// Refuses requests for which there are no tokens; see the [crate's page](crate).
///
/// It is as ready as the service inside: which bucket a request takes from is known only in `call`.
#[derive(Debug, Clone)]
pub struct RateLimit<S, P> {
    pub(crate) inner: S,
    pub(crate) source: P,
    pub(crate) rng: Rng,
}

impl<S, P, B, C> Service<Request<B>> for RateLimit<S, P>
where
    S: Service<Request<B>, Response = Response<C>, Error: Into<BoxError>>,
    P: PolicySource<Request<B>, LocalRateLimit>,
{
    type Response = Response<C>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::from_boxed(error.into()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(limit) = self.source.policy(&request) else {
            return ResponseFuture::pass(self.inner.call(request), None);
        };
        let now = clock::now();
        let rng = &self.rng;
        let verdict = limit.decide(&RequestView::new(&request), now, || rng.next_u64());
        match &verdict {
            Verdict::NotEnabled | Verdict::Ok(_) => {}
            Verdict::Excess { quota, left } => {
                trace(&request, &limit, quota, *left, true);
                if limit.config().mode == Mode::Enforce {
                    let headers = &limit.config().request_headers_to_add_when_not_enforced;
                    add_to_request(headers, &mut request);
                }
            }
            Verdict::Refused { quota, left } => {
                trace(&request, &limit, quota, *left, false);
                if let Some(info) = RequestInfo::of(&request) {
                    info.flag(ResponseFlag::RateLimited);
                }
                let refusal = error::refusal(&limit, quota, &RequestView::new(&request), now);
                return ResponseFuture::refuse(refusal);
            }
        }
        let config = limit.config();
        let quota = match (config.enable_x_ratelimit_headers, config.mode) {
            (XRateLimitHeaders::DraftVersion03, Mode::Enforce) => verdict.quota().cloned(),
            _ => None,
        };
        ResponseFuture::pass(self.inner.call(request), quota)
    }
}

fn trace<B>(
    request: &Request<B>,
    limit: &Arc<LocalRateLimit>,
    quota: &Quota,
    left: u32,
    shadow: bool,
) {
    RequestInfo::trace(request, || {
        let (left, max) = (u64::from(left), u64::from(quota.limit()));
        let mut decision =
            Decision::new("local_ratelimit", Reason::RateLimited, left, max).shadowed(shadow);
        decision.owner = limit.owner().cloned();
        decision
    });
}

fn add_to_request<B>(add: &HeadersToAdd, request: &mut Request<B>) {
    if add.is_none() {
        return;
    }
    // Formatters see the request as it came.
    let mut headers = request.headers().clone();
    add.add(&RequestView::new(request), &mut headers);
    *request.headers_mut() = headers;
}
