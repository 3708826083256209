use std::{collections::HashMap, sync::Arc};

use http::Request;
use mesh_config::model::{HttpFilter, HttpFilterKind};
use mesh_core::{Body, BoxHttpService, PolicySource, RequestInfo};
use mesh_ratelimit::{
    LocalRateLimit, LocalRateLimitConfig, RateLimitLayer, RateLimits, RequestView,
};
use tower_layer::Layer as _;

use super::Shared;
use crate::router::Forwarding;

/// The filters in the order of the config, the router behind them.
pub(super) fn chain(shared: &Arc<Shared>, router: BoxHttpService) -> BoxHttpService {
    let mut chain = router;
    for filter in shared.config.http_filters.iter().rev() {
        chain = match &filter.kind {
            HttpFilterKind::LocalRateLimit(config) => {
                let source = LimitSource::new(shared, filter, config);
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
    fn new(shared: &Arc<Shared>, filter: &HttpFilter, config: &LocalRateLimitConfig) -> Self {
        let mesh = &shared.worker.mesh;
        let scope = mesh.registry().scope("");
        let live = |owner: &str, config: &LocalRateLimitConfig| {
            mesh.limit(owner, &with_route_rules(config, &filter.name), &scope)
        };
        let policies = shared.config.routes.routes().map(|route| route.policy());
        let routes = policies
            .flat_map(|policies| {
                let weighted = policies.weighted_rate_limits.iter();
                weighted.chain([&policies.local_rate_limits])
            })
            .filter_map(|overrides| overrides.get(&filter.name))
            .map(|(owner, config)| (Arc::clone(owner), live(owner, config)))
            .collect();
        Self {
            own: live(&filter.owner, config),
            name: Arc::clone(&filter.name),
            routes: Arc::new(routes),
        }
    }
}

/// A limit with descriptors and no rules of its own takes those of the request's route.
fn with_route_rules(config: &LocalRateLimitConfig, filter: &Arc<str>) -> LocalRateLimitConfig {
    let mut config = config.clone();
    let none = matches!(&config.rate_limits, RateLimits::Fixed(rules) if rules.is_empty());
    if none && !config.descriptors.as_slice().is_empty() {
        let filter = Arc::clone(filter);
        config.rate_limits = RateLimits::FromRequest(Arc::new(move |request: &RequestView<'_>| {
            let forwarding = request.info()?.route::<Forwarding>()?;
            forwarding
                .policies()?
                .rate_limit_rules
                .get(&filter)
                .cloned()
        }));
    }
    config
}

impl PolicySource<Request<Body>, LocalRateLimit> for LimitSource {
    fn policy(&self, request: &Request<Body>) -> Option<Arc<LocalRateLimit>> {
        if self.routes.is_empty() {
            return Some(Arc::clone(&self.own));
        }
        let forwarding = RequestInfo::of(request)?.route::<Forwarding>();
        let limit = forwarding.as_ref().and_then(|forwarding| {
            let (owner, _) = forwarding.rate_limit(&self.name)?;
            self.routes.get(owner)
        });
        Some(Arc::clone(limit.unwrap_or(&self.own)))
    }
}
