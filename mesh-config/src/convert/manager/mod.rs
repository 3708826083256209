//! `HttpConnectionManager`: what happens to the requests of a listener.

mod edge;
mod server;

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    self as pb, http_connection_manager::RouteSpecifier,
};
use mesh_core::format::Captures;

use super::{
    access_log,
    context::Context,
    filters::{self, Chain},
    listener::Surroundings,
    route, upgrade, value,
};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::{AccessLogOptions, ConnectionManager, RoutePlace},
};

pub(super) use edge::SUPPORT as EDGE_SUPPORT;
pub(super) use server::SUPPORT as SERVER_SUPPORT;
pub(super) use server::{count_limit, nonzero};

/// The message, which [`edge`] and [`server`] have further rows of.
const MESSAGE: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("stat_prefix", Enforced),
            ("route_config", Enforced),
            ("rds", Enforced),
            ("scoped_routes", Enforced),
            ("http_filters", Enforced),
            ("access_log", Enforced),
            ("access_log_options", Enforced),
            ("access_log_flush_interval", Enforced),
            ("flush_access_log_on_new_request", Enforced),
            ("upgrade_configs", Enforced),
            // Without PROXY protocol there is nothing to add.
            ("add_proxy_protocol_connection_state", Meaningless),
            // Without an overload manager there is nothing to say.
            ("append_local_overload", Meaningless),
            ("path_normalization_options", Security),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        fields: &[("config_source", Enforced), ("route_config_name", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.HcmAccessLogOptions",
        fields: &[
            ("access_log_flush_interval", Enforced),
            ("flush_access_log_on_new_request", Enforced),
        ],
    },
];

/// How long a client that was told to go may stay, when the config does not say.
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::HttpConnectionManager,
    around: &Surroundings<'_>,
) -> Option<ConnectionManager> {
    let chain = filters::convert(cx, at, from, around);
    let logs = at.field("access_log");
    let access_log = access_log::convert(cx, &logs, &from.access_log);
    let common = from.common_http_protocol_options.as_ref();
    let longest = common.and_then(|common| common.max_stream_duration.as_ref());
    let at_common = at.field("common_http_protocol_options");
    let at_longest = at_common.field("max_stream_duration");
    let max_stream_duration = value::timeout(cx, &at_longest, longest, None);
    let leave_at = at.field("drain_timeout");
    let drain_timeout = value::duration(cx, &leave_at, from.drain_timeout.as_ref());
    let longest = common.and_then(|common| common.max_connection_duration.as_ref());
    let at_longest = at_common.field("max_connection_duration");
    let max_connection_duration = value::timeout(cx, &at_longest, longest, None);
    let access_log_options = access_log_options(cx, at, from);
    let server = server::convert(cx, at, from);
    let from_elsewhere;
    let route_config = match &from.route_specifier {
        Some(RouteSpecifier::RouteConfig(route_config)) => route_config,
        Some(RouteSpecifier::Rds(rds)) => {
            from_elsewhere = route::from_elsewhere(cx, &at.field("rds"), rds)?;
            &from_elsewhere
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            cx.invalid(
                &at.field("scoped_routes"),
                "scoped routes are not supported",
            );
            return None;
        }
        // The protos' own rules have refused this already.
        None => return None,
    };
    let upgrades = at.field("upgrade_configs");
    let upgrades = upgrade::of_manager(cx, &upgrades, &from.upgrade_configs);
    let edge = edge::convert(cx, at, from, around.node, route_config);
    let mut captures = Captures::default();
    let at = at.field("route_config");
    let routes = route::convert(cx, &at, route_config, around, &chain, &mut captures);
    let place = RoutePlace {
        owner: Arc::clone(&around.owner),
        buffer_limit: around.buffer_limit,
        filters: chain.names,
    };
    Some(ConnectionManager {
        place: Arc::new(place),
        stat_prefix: Arc::from(from.stat_prefix.as_str()),
        server: Arc::new(server),
        edge: Arc::new(edge),
        routes: Arc::new(routes?),
        route_config_name: Arc::from(route_config.name.as_str()),
        rds: matches!(from.route_specifier, Some(RouteSpecifier::Rds(_))),
        captures,
        upgrades,
        http_filters: chain.filters,
        // Without a known router nothing runs: something is wrong, or in the report.
        router: chain.router.unwrap_or_default(),
        access_log,
        max_stream_duration,
        max_connection_duration,
        drain_timeout: drain_timeout.unwrap_or(DRAIN_TIMEOUT_DEFAULT),
        access_log_options,
    })
}

/// `manager`, whose routes come on their own, with these: nothing else of it is converted again.
pub(super) fn with_routes(
    cx: &Context<'_>,
    at: &At<'_>,
    manager: &ConnectionManager,
    mut routes: RouteConfiguration,
    around: &Surroundings<'_>,
) -> Option<ConnectionManager> {
    let name = Arc::clone(&manager.route_config_name);
    route::come_from_elsewhere(&mut routes, &name);
    let chain = Chain {
        filters: manager.http_filters.clone(),
        names: manager.place.filters.clone(),
        router: None,
    };
    let mut edge = (*manager.edge).clone();
    edge.internal_only_headers = edge::internal_only_headers(cx, at, &routes);
    let mut captures = Captures::default();
    let table = route::convert(cx, at, &routes, around, &chain, &mut captures)?;
    Some(ConnectionManager {
        routes: Arc::new(table),
        edge: Arc::new(edge),
        captures,
        ..manager.clone()
    })
}

/// The options; the older fields of the same names count without them.
#[expect(deprecated, reason = "configs still use them")]
fn access_log_options(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::HttpConnectionManager,
) -> AccessLogOptions {
    let (at, interval, start) = match &from.access_log_options {
        Some(options) => (
            at.field("access_log_options"),
            options.access_log_flush_interval.as_ref(),
            options.flush_access_log_on_new_request,
        ),
        None => (
            *at,
            from.access_log_flush_interval.as_ref(),
            from.flush_access_log_on_new_request,
        ),
    };
    let at = at.field("access_log_flush_interval");
    AccessLogOptions {
        flush_on_new_request: start,
        flush_interval: value::timeout(cx, &at, interval, None),
    }
}
