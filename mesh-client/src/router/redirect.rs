//! Redirects of the upstream that are followed here, in place of the client.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, Response, request::Parts};
use http_body::Body as _;
use mesh_core::{Body, Decision, Reason, RequestInfo, TunnelRequest, format::RequestView};
use mesh_route::{Found, InternalRedirectPolicy, RedirectHistory, RedirectRefusal};

use super::{
    Forwarding,
    tee::{Copied, Tee},
};
use crate::manager::Shared;

/// A request whose answer may turn out to be a redirect that is followed.
pub(super) struct Redirectable {
    shared: Arc<Shared>,
    policy: Arc<InternalRedirectPolicy>,
    parts: Parts,
    body: Kept,
}

enum Kept {
    Whole(Body),
    /// In memory, and more than `request_body_buffer_limit`.
    TooLarge,
    /// While it is read; at most `request_body_buffer_limit` of it.
    Copied(Arc<Copied>),
}

/// In the extensions of a redirect that is followed: the request to start again with.
#[derive(Clone)]
pub(crate) struct Redirected(Arc<Mutex<Option<Box<Again>>>>);

/// A request that starts again.
pub(crate) struct Again {
    pub(crate) request: Request<Body>,
    pub(crate) history: RedirectHistory,
}

impl Redirected {
    /// The request, once.
    pub(crate) fn take(&self) -> Option<Box<Again>> {
        let mut again = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        again.take()
    }
}

impl Redirectable {
    /// Remembers the request if its route follows redirects, and hands back the body to go on with.
    pub(super) fn new(
        shared: &Arc<Shared>,
        forwarding: &Forwarding,
        parts: &Parts,
        body: Body,
    ) -> (Option<Box<Self>>, Body) {
        let Some(policy) = forwarding.internal_redirect() else {
            return (None, body);
        };
        // A tunnel is dug where its client asked for it.
        if parts.extensions.get::<TunnelRequest>().is_some() {
            return (None, body);
        }
        let mut parts = parts.clone();
        parts.extensions.clear();
        let (kept, body) = match body.try_clone() {
            Some(_) if body.size_hint().lower() > forwarding.body_limit() => (Kept::TooLarge, body),
            Some(copy) => (Kept::Whole(copy), body),
            None => {
                let mut tee = Tee::new(body);
                (
                    Kept::Copied(tee.copy(forwarding.body_limit())),
                    tee.into_body(),
                )
            }
        };
        let this = Self {
            shared: Arc::clone(shared),
            policy: Arc::clone(policy),
            parts,
            body: kept,
        };
        (Some(Box::new(this)), body)
    }

    /// Breaks off with a redirect that is followed; goes on with any other answer.
    pub(super) fn judge(
        mut self,
        response: Response<Body>,
        info: &RequestInfo,
        forwarding: &Forwarding,
    ) -> ControlFlow<Response<Body>, Response<Body>> {
        if !self.policy.concerns(response.status()) {
            return ControlFlow::Continue(response);
        }
        let (answer, body) = response.into_parts();
        let stats = forwarding
            .worker_cluster()
            .map(|c| &c.cluster.state.stats.router);
        match self.follow(&answer, info, forwarding) {
            Some(again) => {
                if let Some(stats) = stats {
                    stats.upstream_internal_redirect_succeeded_total().inc();
                }
                // What is left of the answer is not read.
                let mut response = Response::from_parts(answer, Body::empty());
                let again = Arc::new(Mutex::new(Some(Box::new(again))));
                response.extensions_mut().insert(Redirected(again));
                ControlFlow::Break(response)
            }
            None => {
                if let Some(stats) = stats {
                    stats.upstream_internal_redirect_failed_total().inc();
                }
                ControlFlow::Continue(Response::from_parts(answer, body))
            }
        }
    }

    fn follow(
        &mut self,
        answer: &http::response::Parts,
        info: &RequestInfo,
        forwarding: &Forwarding,
    ) -> Option<Again> {
        let body = match &mut self.body {
            Kept::Whole(body) => std::mem::take(body),
            Kept::TooLarge => return None,
            Kept::Copied(copy) => Body::from(copy.whole()?),
        };
        // Nothing but a missing header is no fault of its value.
        answer.headers.get(http::header::LOCATION)?;
        let history = forwarding.redirects();
        // That of the connection, whatever the request claims: as in Envoy.
        let scheme = info.connection.scheme();
        let target = self.policy.target(&self.parts, scheme, answer, history);
        let followed = target.and_then(|mut target| {
            // What the edge does to a client's path: whoever matches paths sees this form alone.
            mesh_http::hygiene::prepare_path(&mut target.parts.uri, &self.shared.config.edge)
                .map_err(|_| RedirectRefusal::BadLocation)?;
            let found = self
                .shared
                .config
                .routes
                .find(&RequestView::of_parts(&target.parts), info.random);
            let to = match found {
                Ok(Found::Route(entry)) => Arc::clone(entry.name()),
                Ok(Found::TlsRequired(_)) => Arc::from(""),
                Err(_) => return Err(RedirectRefusal::NoRoute),
            };
            let from = forwarding.route_name();
            let history = self.policy.accept(&target, &from, &to, history)?;
            Ok((target, history))
        });
        match followed {
            Ok((target, history)) => {
                let status = u64::from(answer.status.as_u16());
                let most = u64::from(self.policy.max_internal_redirects);
                info.decide(Decision::new("redirect", Reason::Redirected, status, most));
                let body = if target.drops_body {
                    Body::empty()
                } else {
                    body
                };
                let request = Request::from_parts(target.parts, body);
                Some(Again { request, history })
            }
            Err(refusal) => {
                self.count(refusal);
                None
            }
        }
    }

    fn count(&self, refusal: RedirectRefusal) {
        let stats = &self.shared.stats;
        match refusal {
            RedirectRefusal::BadLocation => stats.passthrough_internal_redirect_bad_location(),
            RedirectRefusal::UnsafeScheme => stats.passthrough_internal_redirect_unsafe_scheme(),
            RedirectRefusal::TooMany => stats.passthrough_internal_redirect_too_many_redirects(),
            RedirectRefusal::NoRoute => stats.passthrough_internal_redirect_no_route(),
            RedirectRefusal::Predicate => stats.passthrough_internal_redirect_predicate(),
        }
        .inc();
    }
}
