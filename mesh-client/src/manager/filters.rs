use std::{collections::HashMap, sync::Arc};

use http::Request;
use mesh_config::model::HttpFilterKind;
use mesh_core::{Body, BoxHttpService, PolicySource, RequestInfo};
use mesh_ratelimit::{LocalRateLimit, RateLimitLayer};
use tower_layer::Layer as _;

use super::Shared;
use crate::router::Forwarding;

/// The filters in the order of the config, the router behind them.
pub(super) fn chain(shared: &Arc<Shared>, router: BoxHttpService) -> BoxHttpService {
    let mut chain = router;
    for (index, filter) in shared.config.http_filters.iter().enumerate().rev() {
        chain = match &filter.kind {
            HttpFilterKind::LocalRateLimit(config) => {
                let source = LimitSource::new(shared, &filter.name, index, config);
                let layer = RateLimitLayer::new(source).with_rng(shared.worker.rng.clone());
                BoxHttpService::new(layer.layer(chain))
            }
            _ => chain,
        };
    }
    chain
}

/// The local rate limit of a request: that of its route, or else the filter's own.
#[derive(Clone)]
struct LimitSource {
    own: Arc<LocalRateLimit>,
    name: Arc<str>,
    /// Those of routes and virtual hosts, by their owner's path. Grows with the config.
    routes: Arc<HashMap<Arc<str>, Arc<LocalRateLimit>>>,
}

impl LimitSource {
    fn new(
        shared: &Arc<Shared>,
        name: &Arc<str>,
        index: usize,
        config: &Arc<mesh_ratelimit::LocalRateLimitConfig>,
    ) -> Self {
        let mesh = &shared.worker.mesh;
        let scope = mesh.registry().scope("");
        let live = |owner: &str, config: &mesh_ratelimit::LocalRateLimitConfig| {
            mesh.limit(owner, config, &scope)
        };
        let owner = format!("http/{}/filter/{index}", shared.config.stat_prefix);
        let routes = shared
            .config
            .routes
            .routes()
            .filter_map(|route| route.policy().local_rate_limits.get(name))
            .map(|(owner, config)| (Arc::clone(owner), live(owner, config)))
            .collect();
        Self {
            own: live(&owner, config),
            name: Arc::clone(name),
            routes: Arc::new(routes),
        }
    }
}

impl PolicySource<Request<Body>, LocalRateLimit> for LimitSource {
    fn policy(&self, request: &Request<Body>) -> Option<Arc<LocalRateLimit>> {
        if self.routes.is_empty() {
            return Some(Arc::clone(&self.own));
        }
        let forwarding = RequestInfo::of(request)?.route::<Forwarding>();
        let limit = forwarding.as_ref().and_then(|forwarding| {
            let (owner, _) = forwarding.policies()?.local_rate_limits.get(&self.name)?;
            self.routes.get(owner)
        });
        Some(Arc::clone(limit.unwrap_or(&self.own)))
    }
}
