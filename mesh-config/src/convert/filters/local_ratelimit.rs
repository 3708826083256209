//! `envoy.filters.http.local_ratelimit`.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;

use super::registry::{Filter, RouteSays};
use crate::{
    convert::{context::Context, listener::Surroundings, ratelimit},
    language::{At, MessageSupport},
    model::{HttpFilterKind, RateLimitFilter, RouteFilterKind},
};

pub(super) struct LocalRateLimitFilter;

impl Filter for LocalRateLimitFilter {
    type Config = LocalRateLimit;
    type Route = LocalRateLimit;

    const SUPPORT: &'static [MessageSupport] = ratelimit::SUPPORT;

    fn convert(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &LocalRateLimit,
        around: &Surroundings<'_>,
    ) -> Option<HttpFilterKind> {
        let limit = limit(cx, at, from, around)?;
        Some(HttpFilterKind::LocalRateLimit(limit))
    }

    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &LocalRateLimit,
        around: &Surroundings<'_>,
        _: Option<&RouteFilterKind>,
    ) -> Option<RouteSays> {
        if from.token_bucket.is_none() {
            cx.invalid(at, "token_bucket is missing: a config of its own needs one");
            return None;
        }
        let limit = limit(cx, at, from, around)?;
        Some(RouteSays::Config(RouteFilterKind::LocalRateLimit(limit)))
    }
}

fn limit(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &LocalRateLimit,
    around: &Surroundings<'_>,
) -> Option<Arc<RateLimitFilter>> {
    ratelimit::convert(cx, at, from, &around.node.cluster).map(Arc::new)
}
