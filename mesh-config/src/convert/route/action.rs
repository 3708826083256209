//! `RouteAction`: to which cluster, and how changed.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::{
    core::v3::RoutingPriority,
    route::v3::{
        self as pb,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier as Specifier, HostRewriteSpecifier,
        },
    },
};
use http::StatusCode;
use mesh_core::Priority;
use mesh_route::{
    ClusterSpecifier, HostRewrite, MaxStreamDuration, MirrorPolicy, PathRewrite, RouteAction,
    TIMEOUT_DEFAULT,
};

use super::{
    Scope, internal_redirect,
    overrides::{Overrides, Site},
    weighted,
};
use crate::{
    convert::{context::Context, hash, matcher, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::FilterOverrides,
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction",
        fields: &[
            ("cluster", Enforced),
            ("cluster_header", Enforced),
            ("weighted_clusters", Enforced),
            ("cluster_specifier_plugin", Enforced),
            ("inline_cluster_specifier_plugin", Enforced),
            ("cluster_not_found_response_code", Enforced),
            ("prefix_rewrite", Enforced),
            ("regex_rewrite", Enforced),
            ("host_rewrite_literal", Enforced),
            ("auto_host_rewrite", Enforced),
            ("host_rewrite_header", Enforced),
            ("host_rewrite_path_regex", Enforced),
            ("append_x_forwarded_host", Enforced),
            ("timeout", Enforced),
            ("max_stream_duration", Enforced),
            ("idle_timeout", Enforced),
            ("retry_policy", Enforced),
            ("hedge_policy", Enforced),
            ("priority", Enforced),
            ("rate_limits", Enforced),
            ("include_vh_rate_limits", Enforced),
            ("request_mirror_policies", Enforced),
            ("internal_redirect_policy", Enforced),
            ("upgrade_configs", Enforced),
            ("hash_policy", Enforced),
            // There is no early data without TLS.
            ("early_data_policy", Meaningless),
            // The upstream would see another path or host than it should.
            ("path_rewrite_policy", Security),
            ("path_rewrite", Security),
            ("host_rewrite", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.MaxStreamDuration",
        fields: &[
            ("max_stream_duration", Enforced),
            ("grpc_timeout_header_max", Enforced),
            ("grpc_timeout_header_offset", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.WeightedCluster",
        fields: &[
            ("clusters", Enforced),
            ("header_name", Enforced),
            ("use_hash_policy", Enforced),
            // The sum of the weights is what counts.
            ("total_weight", Meaningless),
            // No runtime layer is read.
            ("runtime_key_prefix", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.WeightedCluster.ClusterWeight",
        fields: &[
            ("name", Enforced),
            ("cluster_header", Enforced),
            ("weight", Enforced),
            ("request_headers_to_add", Enforced),
            ("request_headers_to_remove", Enforced),
            ("response_headers_to_add", Enforced),
            ("response_headers_to_remove", Enforced),
            ("typed_per_filter_config", Enforced),
            ("host_rewrite_literal", Enforced),
        ],
    },
];

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RouteAction,
    scope: &Scope<'_>,
    mirrors: &Arc<[MirrorPolicy]>,
) -> Option<RouteAction> {
    let cluster = cluster(cx, at, from, scope);
    let mirrors = scope.mirrors(cx, at, &from.request_mirror_policies, mirrors);
    let redirect = from.internal_redirect_policy.as_ref();
    let redirect = redirect
        .map(|from| internal_redirect::convert(cx, &at.field("internal_redirect_policy"), from));
    let path_rewrite = path_rewrite(cx, at, from);
    let host_rewrite = host_rewrite(cx, at, from);
    let duration = |field, from| value::duration(cx, &at.field(field), from);
    let timeout = duration("timeout", from.timeout.as_ref()).unwrap_or(TIMEOUT_DEFAULT);
    let idle_timeout = duration("idle_timeout", from.idle_timeout.as_ref());
    let mut action = RouteAction::new(cluster?);
    action.cluster_not_found_response_code = match from.cluster_not_found_response_code() {
        ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
        ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
    };
    action.path_rewrite = path_rewrite;
    action.host_rewrite = host_rewrite;
    action.append_x_forwarded_host = from.append_x_forwarded_host;
    action.mirrors = mirrors;
    action.internal_redirect = redirect.map(Arc::new);
    action.hash = hash::convert(cx, &at.field("hash_policy"), &from.hash_policy);
    action.timeout = timeout;
    if let Some(from) = &from.max_stream_duration {
        action.max_stream_duration =
            max_stream_duration(cx, &at.field("max_stream_duration"), from);
        // The one replaces the other, as in Envoy, be it that it says nothing.
        action.timeout = Duration::ZERO;
    }
    action.idle_timeout = idle_timeout;
    action.priority = match from.priority() {
        RoutingPriority::Default => Priority::Default,
        RoutingPriority::High => Priority::High,
    };
    Some(action)
}

fn max_stream_duration(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::route_action::MaxStreamDuration,
) -> MaxStreamDuration {
    let duration = |field, from| value::duration(cx, &at.field(field), from);
    MaxStreamDuration {
        max_stream_duration: duration("max_stream_duration", from.max_stream_duration.as_ref()),
        grpc_timeout_header_max: duration(
            "grpc_timeout_header_max",
            from.grpc_timeout_header_max.as_ref(),
        ),
        grpc_timeout_header_offset: duration(
            "grpc_timeout_header_offset",
            from.grpc_timeout_header_offset.as_ref(),
        ),
    }
}

fn cluster(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RouteAction,
    scope: &Scope<'_>,
) -> Option<ClusterSpecifier> {
    match from.cluster_specifier.as_ref()? {
        Specifier::Cluster(name) => {
            scope.check_cluster(cx, &at.field("cluster"), name);
            Some(ClusterSpecifier::Cluster(Arc::from(name.as_str())))
        }
        Specifier::ClusterHeader(name) => {
            let name = value::header_name(cx, &at.field("cluster_header"), name)?;
            Some(ClusterSpecifier::ClusterHeader(name))
        }
        Specifier::WeightedClusters(from) => {
            let clusters = weighted::convert(cx, &at.field("weighted_clusters"), from, scope)?;
            Some(ClusterSpecifier::WeightedClusters(clusters))
        }
        Specifier::ClusterSpecifierPlugin(_) | Specifier::InlineClusterSpecifierPlugin(_) => {
            cx.invalid(at, "plugins that choose clusters are not supported");
            None
        }
    }
}

/// The overrides of each weighted cluster, in order; none at all if no cluster has its own.
pub(super) fn weighted_filters(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RouteAction,
    overrides: &Overrides,
    site: &Site<'_>,
) -> Vec<Arc<FilterOverrides>> {
    match &from.cluster_specifier {
        Some(Specifier::WeightedClusters(from)) => {
            weighted::overrides(cx, &at.field("weighted_clusters"), from, overrides, site)
        }
        _ => Vec::new(),
    }
}

fn path_rewrite(cx: &Context<'_>, at: &At<'_>, from: &pb::RouteAction) -> Option<PathRewrite> {
    let prefix = value::nonempty(&from.prefix_rewrite);
    match (prefix, &from.regex_rewrite) {
        (Some(_), Some(_)) => {
            cx.invalid(
                at,
                "only one of prefix_rewrite and regex_rewrite can be set",
            );
            None
        }
        (Some(prefix), None) => Some(PathRewrite::Prefix(prefix.into())),
        (None, Some(from)) => {
            let rewrite = matcher::regex_rewrite(cx, &at.field("regex_rewrite"), from)?;
            Some(PathRewrite::Regex(rewrite))
        }
        (None, None) => None,
    }
}

fn host_rewrite(cx: &Context<'_>, at: &At<'_>, from: &pb::RouteAction) -> Option<HostRewrite> {
    match from.host_rewrite_specifier.as_ref()? {
        HostRewriteSpecifier::HostRewriteLiteral(host) => {
            let at = at.field("host_rewrite_literal");
            let host = value::header_value(cx, &at, value::nonempty(host)?)?;
            Some(HostRewrite::Literal(host))
        }
        HostRewriteSpecifier::AutoHostRewrite(auto) => auto.value.then_some(HostRewrite::Auto),
        HostRewriteSpecifier::HostRewriteHeader(name) => {
            let name = value::header_name(cx, &at.field("host_rewrite_header"), name)?;
            Some(HostRewrite::Header(name))
        }
        HostRewriteSpecifier::HostRewritePathRegex(from) => {
            let rewrite = matcher::regex_rewrite(cx, &at.field("host_rewrite_path_regex"), from)?;
            Some(HostRewrite::PathRegex(rewrite))
        }
        // In the report: nothing runs without it.
        HostRewriteSpecifier::HostRewrite(_) => None,
    }
}
