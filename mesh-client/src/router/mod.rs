//! The router: the last filter. What a route says happens here.
//!
//! The order inside is frozen: mirrors, route deadline, retry (which holds the per-try timeout), and for each
//! attempt the cluster's balancer, the endpoint's observer, its pool. Thresholds are checked by the pool
//! and the retry, where Envoy checks them.

mod attempt;
mod forward;
mod future;
mod hash;
mod mirror;
mod redirect;
mod selection;
mod tee;
mod upstream_log;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, header};
use mesh_core::{
    Body, Decision, Error, ErrorKind, Reason, RequestInfo, TunnelRequest, format::RequestView,
};
use mesh_http::reply::ReplyContext;
use mesh_retry::{Deadline, DeadlineLayer, Retry, RetryLayer};
use mesh_route::Action;
use tower_layer::Layer as _;
use tower_service::Service;

use attempt::Attempts;
use forward::{Charge, RouteDeadline, RouteRetry};
pub(crate) use future::RouterFuture;
use redirect::Redirectable;
pub(crate) use redirect::{Again, Redirected};
pub(crate) use selection::{Forwarding, resolve};
pub(crate) use upstream_log::UpstreamLog;

use crate::manager::Shared;

/// In the extensions of a response that this process made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local;

type Stack = Deadline<Retry<Attempts, RouteRetry, Charge>, RouteDeadline>;

/// Sends requests where their route says.
#[derive(Clone)]
pub(crate) struct Router {
    shared: Arc<Shared>,
    /// What was captured before the filters may not be true behind them.
    filters_change_heads: bool,
    stack: Stack,
}

impl Router {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let retry = RetryLayer::from_source(RouteRetry)
            .with_budget(Charge)
            .with_rng(shared.worker.rng.clone());
        let respect_expected = shared.config.router.respect_expected_rq_timeout;
        let stack = DeadlineLayer::from_source(RouteDeadline)
            .respect_expected_rq_timeout(respect_expected)
            .layer(retry.layer(Attempts));
        let filters = &shared.config.http_filters;
        Self {
            shared: Arc::clone(shared),
            filters_change_heads: filters.iter().any(|filter| !filter.kind.leaves_head()),
            stack,
        }
    }

    fn refuse(info: &RequestInfo, error: impl Into<Error>, decision: Decision) -> RouterFuture {
        info.decide(decision);
        RouterFuture::refused(error.into())
    }

    /// What the route answers itself: a redirect or a direct response.
    fn answer(
        &self,
        forwarding: &Forwarding,
        info: &Arc<RequestInfo>,
        request: &Request<Body>,
    ) -> Option<RouterFuture> {
        if matches!(forwarding.action(), Some(Action::Route(_))) {
            return None;
        }
        let reply = forwarding.local_reply(&RequestView::of(request))?;
        let status = u64::from(reply.status.as_u16());
        // Envoy counts both kinds of answers as direct.
        self.shared.stats.rq_direct_response().inc();
        let reason = match forwarding.action() {
            Some(Action::DirectResponse(_)) => Reason::DirectResponse,
            _ => Reason::Redirected,
        };
        info.decide(Decision::new("route", reason, status, 0));
        if ReplyContext::of(request).grpc {
            info.set_details(reply.details.clone());
            let mut response = mesh_http::reply::grpc_response(&reply);
            forwarding.finish_local(&mut response, info);
            response.extensions_mut().insert(Local);
            return Some(RouterFuture::answered(response));
        }
        info.set_details(reply.details);
        let mut response = Response::new(Body::from(reply.body));
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        let length = response.body().as_full().map_or(0, <[u8]>::len);
        if length > 0 {
            let headers = response.headers_mut();
            headers
                .entry(header::CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("text/plain"));
            // For HEAD, which gets the length and not the body.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        forwarding.finish_local(&mut response, info);
        response.extensions_mut().insert(Local);
        Some(RouterFuture::answered(response))
    }
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Error;
    type Future = RouterFuture;

    /// Always ready: where a request goes is known only in `call`.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> RouterFuture {
        self.shared.stats.rq_total().inc();
        let Some(info) = RequestInfo::of(&request).cloned() else {
            return RouterFuture::refused(ErrorKind::NoRoute.into());
        };
        let Some(forwarding) = info.route::<Forwarding>() else {
            return Self::refuse(
                &info,
                ErrorKind::NoRoute,
                Decision::new("route", Reason::NoRoute, 0, 0),
            );
        };
        if let Some(answer) = self.answer(forwarding, &info, &request) {
            return answer;
        }
        if forwarding.worker_cluster().is_none() {
            let decision = Decision::new("route", Reason::NoCluster, 0, 0);
            return Self::refuse(&info, forwarding.no_cluster(), decision);
        }
        let (mut parts, body) = request.into_parts();
        match forwarding.prepare(&mut parts, &info) {
            Err(error) => return RouterFuture::refused(error),
            Ok(changed) if changed || self.filters_change_heads => {
                let view = RequestView::of_parts(&parts);
                info.with(|facts| crate::manager::capture(&self.shared, facts, &view));
            }
            Ok(_) => {}
        }
        // What goes through a tunnel is nobody else's.
        let tunnel = parts.extensions.get::<TunnelRequest>().is_some();
        let body = if tunnel || forwarding.mirrors().is_empty() {
            body
        } else {
            self.mirror(forwarding, &info, &parts, body)
        };
        let (redirectable, body) = Redirectable::new(&self.shared, forwarding, &parts, body);
        let future = self.stack.call(Request::from_parts(parts, body));
        RouterFuture::forwarded(future, info, redirectable)
    }
}
