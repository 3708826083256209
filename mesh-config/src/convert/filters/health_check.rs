//! `envoy.filters.http.health_check`.

use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::envoy::extensions::filters::http::health_check::v3::HealthCheck;

use super::registry::{Filter, RouteSays};
use crate::{
    convert::{context::Context, listener::Surroundings, matcher, value},
    language::{At, MessageSupport, Support::Enforced},
    model::{HealthCheckConfig, HealthCheckMode, HttpFilterKind, RouteFilterKind},
};

pub(super) struct HealthCheckFilter;

impl Filter for HealthCheckFilter {
    type Config = HealthCheck;
    /// Routes have nothing to say.
    type Route = HealthCheck;

    const SUPPORT: &'static [MessageSupport] = &[MessageSupport {
        message: "envoy.extensions.filters.http.health_check.v3.HealthCheck",
        fields: &[
            ("pass_through_mode", Enforced),
            ("cache_time", Enforced),
            ("cluster_min_healthy_percentages", Enforced),
            ("headers", Enforced),
        ],
    }];

    fn convert(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &HealthCheck,
        around: &Surroundings<'_>,
    ) -> Option<HttpFilterKind> {
        let pass_through = value::flag(from.pass_through_mode, false);
        let cache_time =
            value::timeout(cx, &at.field("cache_time"), from.cache_time.as_ref(), None);
        let clusters = &from.cluster_min_healthy_percentages;
        if !pass_through && cache_time.is_some() {
            let reason = "only what passes through can be remembered: set pass_through_mode";
            cx.invalid(&at.field("cache_time"), reason);
        }
        if pass_through && !clusters.is_empty() {
            let at = at.field("cluster_min_healthy_percentages");
            cx.invalid(&at, "what passes through is answered by the upstream");
        }
        let mut minima = BTreeMap::new();
        for (name, percent) in clusters {
            let list = at.field("cluster_min_healthy_percentages");
            let percent = value::percent(cx, &list.key(name), Some(percent))?;
            minima.insert(Arc::from(name.as_str()), percent);
        }
        Some(HttpFilterKind::HealthCheck(Arc::new(HealthCheckConfig {
            headers: matcher::headers(cx, &at.field("headers"), &from.headers),
            mode: if pass_through {
                HealthCheckMode::PassThrough { cache_time }
            } else {
                HealthCheckMode::Answer {
                    cluster_min_healthy_percentages: minima,
                }
            },
            node_cluster: value::nonempty(&around.node.cluster).map(Arc::from),
        })))
    }

    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        _: &HealthCheck,
        _: &Surroundings<'_>,
        _: Option<&RouteFilterKind>,
    ) -> Option<RouteSays> {
        cx.invalid(at, "the health check filter does not listen to routes");
        None
    }
}
