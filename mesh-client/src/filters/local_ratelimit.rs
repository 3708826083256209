//! `envoy.filters.http.local_ratelimit`.

use std::sync::Arc;

use mesh_config::model::{RateLimitFilter, RouteFilterKind};
use mesh_core::BoxHttpService;
use mesh_ratelimit::{LocalRateLimitConfig, RateLimitLayer, RateLimits, RequestView};
use tower_layer::Layer as _;

use super::{Place, RouteSource};
use crate::router::Forwarding;

pub(super) fn over(
    place: &Place<'_>,
    own: &RateLimitFilter,
    next: BoxHttpService,
) -> BoxHttpService {
    let worker = &place.worker;
    let scope = worker.mesh.registry().scope("");
    let name = &place.filter.name;
    let live = |owner: &str, limit: &RateLimitFilter| {
        worker
            .mesh
            .limit(owner, &with_route_rules(&limit.config, name), &scope)
    };
    let source = RouteSource::new(
        place,
        live(&place.filter.owner, own),
        |owner, says| match says {
            RouteFilterKind::LocalRateLimit(limit) => Some(live(owner, limit)),
            _ => None,
        },
    );
    let layer = RateLimitLayer::new(source).with_rng(worker.rng.clone());
    BoxHttpService::new(layer.layer(next))
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
