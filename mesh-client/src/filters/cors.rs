//! `envoy.filters.http.cors`: which pages of other origins may use what is here.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use mesh_config::model::{CorsPolicy, RouteFilterKind};
use mesh_core::{Body, BoxHttpService, RequestInfo};
use mesh_route::Action;
use tower_service::Service as _;

use super::{
    OnLocalReply, Place, RouteSource,
    simple::{self, Answer, Handle},
};
use crate::router::{Forwarding, Local};

const REQUEST_PRIVATE: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

mesh_core::stats! {
    /// What the filter counts, as `http.<stat_prefix>.cors.<stat>`.
    struct CorsStats {
        /// Requests of origins that are allowed.
        counter origin_valid,
        /// Requests of other origins.
        counter origin_invalid,
    }
}

/// What all levels together say; nothing lets requests pass by.
type Policy = Option<Arc<CorsPolicy>>;

pub(super) fn over(place: &Place<'_>, next: BoxHttpService) -> BoxHttpService {
    let filter = Cors(CorsStats::register(&place.scope().scope("cors.")));
    simple::over(filter, source(place), next)
}

fn source(place: &Place<'_>) -> RouteSource<Policy> {
    RouteSource::new(place, Arc::new(None), |_, says| match says {
        RouteFilterKind::Cors(policy) => Some(Arc::new(Some(Arc::clone(policy)))),
        _ => None,
    })
}

pub(super) fn on_local_reply(place: &Place<'_>) -> Box<dyn OnLocalReply> {
    Box::new(source(place))
}

impl OnLocalReply for RouteSource<Policy> {
    fn on_local_reply(&self, info: &RequestInfo, response: &mut Response<Body>) {
        let policy = self.policy_for(info);
        if let Some(policy) = policy.as_deref().and_then(Option::as_ref) {
            allow(info, policy, response.headers_mut());
        }
    }
}

#[derive(Clone)]
struct Cors(CorsStats);

impl Handle for Cors {
    type Policy = Policy;

    fn handle(
        &self,
        policy: Arc<Policy>,
        request: Request<Body>,
        next: &mut BoxHttpService,
    ) -> Answer {
        let info = RequestInfo::of(&request).cloned();
        let (Some(policy), Some(origin), Some(info)) = (
            (*policy).clone(),
            origin(request.headers()),
            info.filter(|info| is_forwarded(info)),
        ) else {
            return next.call(request);
        };
        let includes = |share: &mesh_core::RuntimeFraction| share.includes(info.random);
        let enabled = policy.filter_enabled.as_ref().is_none_or(includes);
        let shadowed = policy.shadow_enabled.as_ref().is_some_and(includes);
        if !enabled && !shadowed {
            return next.call(request);
        }
        let allowed = allows(&policy, &origin);
        if allowed {
            self.0.origin_valid().inc();
        } else {
            self.0.origin_invalid().inc();
        }
        if !enabled {
            return next.call(request);
        }
        let answers = allowed || policy.forward_not_matching_preflights == Some(false);
        if answers && is_preflight(&request) {
            let private = request.headers().get(REQUEST_PRIVATE);
            let private = private.is_some_and(|asked| asked == "true");
            let origin = Some(origin).filter(|_| allowed);
            return answer(&info, preflight_headers(&policy, origin, private));
        }
        if !allowed {
            return next.call(request);
        }
        if let Some(forwarding) = info.route::<Forwarding>() {
            // Nobody lets in another one.
            let _ = forwarding.origin.set(origin);
        }
        let answer = next.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            allow(&info, &policy, response.headers_mut());
            Ok(response)
        })
    }
}

/// The origin; several are one text, which nobody allows.
fn origin(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(header::ORIGIN).iter();
    let first = values.next()?;
    if values.next().is_none() {
        return Some(first.clone()).filter(|origin| !origin.is_empty());
    }
    let all = headers.get_all(header::ORIGIN).iter();
    let all: Vec<&[u8]> = all.map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&all.join(&b","[..])).ok()
}

/// Answers that a route gives itself are nobody's to share, as in Envoy.
fn is_forwarded(info: &RequestInfo) -> bool {
    let forwarding = info.route::<Forwarding>();
    let action = forwarding.and_then(Forwarding::action);
    matches!(action, Some(Action::Route(_)))
}

fn allows(policy: &CorsPolicy, origin: &HeaderValue) -> bool {
    let mut origins = policy.allow_origins.iter();
    origins.any(|allowed| allowed.matches(b"*") || allowed.matches(origin.as_bytes()))
}

/// A browser asks before it asks.
fn is_preflight(request: &Request<Body>) -> bool {
    let method = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    *request.method() == Method::OPTIONS && method.is_some_and(|method| !method.is_empty())
}

fn answer(info: &RequestInfo, headers: HeaderMap) -> Answer {
    info.set_details("cors_response");
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    response.extensions_mut().insert(Local);
    Box::pin(std::future::ready(Ok(response)))
}

/// Without its origin in the answer, a browser goes no further, whatever else that says.
fn preflight_headers(policy: &CorsPolicy, origin: Option<HeaderValue>, private: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        // An answer like any other, as in Envoy.
        expose(policy, &mut headers);
    }
    if policy.allow_credentials == Some(true) {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    let texts = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, &policy.allow_methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, &policy.allow_headers),
        (header::ACCESS_CONTROL_MAX_AGE, &policy.max_age),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            headers.insert(name, text.clone());
        }
    }
    if private && policy.allow_private_network_access == Some(true) {
        headers.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
    }
    headers
}

/// What an answer to an origin that was let in says.
fn allow(info: &RequestInfo, policy: &CorsPolicy, headers: &mut HeaderMap) {
    let forwarding = info.route::<Forwarding>();
    let Some(origin) = forwarding.and_then(|forwarding| forwarding.origin.get()) else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials == Some(true) {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    expose(policy, headers);
}

fn expose(policy: &CorsPolicy, headers: &mut HeaderMap) {
    if let Some(expose) = &policy.expose_headers {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
    }
}
