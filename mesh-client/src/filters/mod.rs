//! The chain of HTTP filters: a file each, and an arm in [`chain`].
//!
//! A filter is built once for each chain. What a route, a weighted cluster, a virtual host or the route
//! configuration changes about it is data that [`RouteSource`] finds for each request.

mod adapt;
mod buffer;
mod compressor;
mod cors;
mod fault;
mod header_mutation;
mod health_check;
mod local_ratelimit;
mod simple;

use std::{collections::HashMap, sync::Arc};

use http::{Method, Request, Response, header};
use mesh_config::model::{ConnectionManager, HttpFilter, HttpFilterKind, RouteFilterKind};
use mesh_core::{Body, BoxHttpService, PolicySource, RequestInfo, stats::Scope};

use crate::{Worker, router::Forwarding};

/// Where a filter stands.
struct Place<'a> {
    worker: &'a Arc<Worker>,
    config: &'a ConnectionManager,
    filter: &'a HttpFilter,
}

impl Place<'_> {
    /// Where filters count: `http.<stat_prefix>.`.
    fn scope(&self) -> Scope {
        let prefix = format!("http.{}.", self.config.stat_prefix);
        self.worker.mesh.registry().scope(&prefix)
    }
}

/// The filters in the order of the config, the router behind them.
pub(crate) fn chain(
    worker: &Arc<Worker>,
    config: &ConnectionManager,
    router: BoxHttpService,
) -> BoxHttpService {
    let mut chain = router;
    for filter in config.http_filters.iter().rev() {
        let place = Place {
            worker,
            config,
            filter,
        };
        chain = match &filter.kind {
            HttpFilterKind::LocalRateLimit(own) => local_ratelimit::over(&place, own, chain),
            HttpFilterKind::Buffer(own) => buffer::over(&place, *own, chain),
            HttpFilterKind::Compressor(own) => compressor::over(&place, own, chain),
            HttpFilterKind::Decompressor(own) => compressor::decompress_over(&place, own, chain),
            HttpFilterKind::Fault(own) => fault::over(&place, own, chain),
            HttpFilterKind::HealthCheck(own) => health_check::over(&place, own, chain),
            HttpFilterKind::HeaderMutation(own) => header_mutation::over(&place, own, chain),
            HttpFilterKind::Cors => cors::over(&place, chain),
            _ => chain,
        };
    }
    chain
}

/// What the filters of a chain do to answers that are made of errors, behind the last of them.
///
/// As in Envoy, every filter sees such an answer, whichever of them refused the request and whether it got
/// as far as this one.
pub(crate) struct LocalReplies(Vec<Box<dyn OnLocalReply>>);

trait OnLocalReply: Send + Sync {
    fn on_local_reply(&self, info: &RequestInfo, response: &mut Response<Body>);
}

impl LocalReplies {
    pub(crate) fn new(worker: &Arc<Worker>, config: &ConnectionManager) -> Self {
        let filters = config.http_filters.iter().rev().filter_map(|filter| {
            let place = Place {
                worker,
                config,
                filter,
            };
            match &filter.kind {
                HttpFilterKind::HeaderMutation(own) => {
                    Some(header_mutation::on_local_reply(&place, own))
                }
                HttpFilterKind::Cors => Some(cors::on_local_reply(&place)),
                _ => None,
            }
        });
        Self(filters.collect())
    }

    pub(crate) fn apply(&self, info: &RequestInfo, response: &mut Response<Body>) {
        for filter in &self.0 {
            filter.on_local_reply(info, response);
        }
    }
}

/// What a filter does with a request: what its route says, or else the filter's own config. There is no
/// policy, and the request passes by, where the filter is disabled.
struct RouteSource<L> {
    name: Arc<str>,
    own: Arc<L>,
    disabled: bool,
    /// Those of routes and so on, by their owner's path. Grows with the config.
    routes: Arc<ByOwner<L>>,
}

type ByOwner<L> = HashMap<Arc<str>, Arc<L>, foldhash::fast::RandomState>;

impl<L> RouteSource<L> {
    /// `live` brings to life what a level says to the filter, if it is of the filter's kind; the path of the
    /// owner names its state.
    fn new(
        place: &Place<'_>,
        own: Arc<L>,
        mut live: impl FnMut(&str, &RouteFilterKind) -> Option<Arc<L>>,
    ) -> Self {
        let name = &place.filter.name;
        let mut routes = ByOwner::default();
        let table = &place.config.routes;
        for policies in table.routes().map(|route| route.policy()) {
            let levels = policies.weighted_filters.iter().chain([&policies.filters]);
            for (owner, says) in levels.filter_map(|level| level.get(name)?.config.as_ref()) {
                // Routes share what they have from above.
                if !routes.contains_key(owner)
                    && let Some(policy) = live(owner, says)
                {
                    routes.insert(Arc::clone(owner), policy);
                }
            }
        }
        Self {
            name: Arc::clone(name),
            own,
            disabled: place.filter.disabled,
            routes: Arc::new(routes),
        }
    }
}

impl<L> Clone for RouteSource<L> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            own: Arc::clone(&self.own),
            disabled: self.disabled,
            routes: Arc::clone(&self.routes),
        }
    }
}

impl<L> RouteSource<L> {
    fn policy_for(&self, info: &RequestInfo) -> Option<Arc<L>> {
        let own = || (!self.disabled).then(|| Arc::clone(&self.own));
        let Some(forwarding) = info.route::<Forwarding>() else {
            return own();
        };
        let Some(found) = forwarding.filter(&self.name) else {
            return own();
        };
        if found.disabled {
            return None;
        }
        let config = found.config.as_ref();
        let policy = config.and_then(|(owner, _)| self.routes.get(owner));
        Some(Arc::clone(policy.unwrap_or(&self.own)))
    }
}

impl<B, L> PolicySource<Request<B>, L> for RouteSource<L> {
    fn policy(&self, request: &Request<B>) -> Option<Arc<L>> {
        self.policy_for(RequestInfo::of(request)?)
    }
}

/// Whether the body of a request has no end before its answer begins: filters must not wait for it.
fn is_tunnel<B>(request: &Request<B>) -> bool {
    *request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE)
}
