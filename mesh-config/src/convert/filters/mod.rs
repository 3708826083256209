//! `http_filters`: what requests pass on their way to the router.

mod buffer;
mod compressor;
mod cors;
mod decompressor;
mod fault;
mod header_mutation;
mod health_check;
mod local_ratelimit;
mod registry;

use std::{collections::HashSet, sync::Arc};

use envoy_types::pb::envoy::extensions::filters::{
    http::router::v3::Router,
    network::http_connection_manager::v3::{self as pb, http_filter::ConfigType},
};

use super::{
    access_log,
    context::{Context, type_name},
    listener::Surroundings,
    value,
};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
        is_security_type,
    },
    model::{AccessLogOptions, HttpFilter, RouteFilterKind, RouterConfig},
};

pub(super) use registry::{ROWS, RouteSays, is_filter, route};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        fields: &[
            ("name", Enforced),
            ("typed_config", Enforced),
            ("is_optional", Enforced),
            ("disabled", Enforced),
            ("config_discovery", Security),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.router.v3.Router",
        fields: &[
            ("suppress_envoy_headers", Enforced),
            ("respect_expected_rq_timeout", Enforced),
            ("upstream_http_filters", Enforced),
            ("upstream_log", Enforced),
            ("upstream_log_options", Enforced),
            // CONNECT is refused.
            ("reject_connect_request_early_data", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.router.v3.Router.UpstreamAccessLogOptions",
        fields: &[
            ("flush_upstream_log_on_upstream_stream", Enforced),
            ("upstream_log_flush_interval", Enforced),
        ],
    },
];

/// The filters of a connection manager.
pub(super) struct Chain {
    /// In order, without the router.
    pub(super) filters: Vec<HttpFilter>,
    /// Every name there is, known filter or not.
    pub(super) names: HashSet<String>,
    /// `None` when there is none; then either something is wrong or nothing runs.
    pub(super) router: Option<RouterConfig>,
}

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::HttpConnectionManager,
    around: &Surroundings<'_>,
) -> Chain {
    let list = at.field("http_filters");
    let mut chain = Chain {
        filters: Vec::new(),
        names: HashSet::new(),
        router: None,
    };
    let mut unknown = false;
    for (index, filter) in from.http_filters.iter().enumerate() {
        let at = list.index(index);
        let unique = chain.names.insert(filter.name.clone());
        if chain.router.is_some() {
            let reason = "the router must be the last filter: nothing would get here";
            cx.invalid(&at, reason);
            break;
        }
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else {
            if filter.config_type.is_none() {
                cx.invalid(&at, "typed_config is missing");
            }
            unknown = true;
            continue;
        };
        let at_config = at.field("typed_config");
        if let Some(router) = cx.unpack::<Router>(any) {
            if filter.disabled {
                cx.invalid(&at.field("disabled"), "the router cannot be disabled");
            }
            chain.router = Some(convert_router(cx, &at_config, &router));
        } else if let Some(known) = registry::filter(cx, &at_config, any, around) {
            chain.filters.extend(known.map(|kind| HttpFilter {
                name: Arc::from(filter.name.as_str()),
                owner: owner(around, &filter.name, index, unique).into(),
                // It is still there for routes that enable it.
                disabled: filter.disabled,
                kind,
            }));
        } else {
            unknown = true;
            let type_name = type_name(any);
            if filter.is_optional || filter.disabled {
                cx.harmless(&at);
            } else if !is_security_type(type_name) {
                cx.invalid(
                    &at_config,
                    format!("{type_name} is not the config of an HTTP filter"),
                );
            }
        }
    }
    if chain.router.is_none() && !unknown {
        let reason = "the last filter must be the router, envoy.filters.http.router";
        cx.invalid(
            if from.http_filters.is_empty() {
                at
            } else {
                &list
            },
            reason,
        );
    }
    chain
}

fn convert_router(cx: &Context<'_>, at: &At<'_>, from: &Router) -> RouterConfig {
    let mut upstream_log_options = AccessLogOptions::default();
    if let Some(options) = &from.upstream_log_options {
        let at = at.field("upstream_log_options");
        let at = at.field("upstream_log_flush_interval");
        let interval = options.upstream_log_flush_interval.as_ref();
        upstream_log_options = AccessLogOptions {
            flush_on_new_request: options.flush_upstream_log_on_upstream_stream,
            flush_interval: value::timeout(cx, &at, interval, None),
        };
    }
    RouterConfig {
        suppress_envoy_headers: from.suppress_envoy_headers,
        respect_expected_rq_timeout: from.respect_expected_rq_timeout,
        upstream_log: access_log::convert(cx, &at.field("upstream_log"), &from.upstream_log),
        upstream_log_options,
    }
}

impl Chain {
    /// Whether a filter of that name heeds what a route says.
    pub(super) fn listens(&self, name: &str, says: &RouteFilterKind) -> bool {
        let mut named = self.filters.iter().filter(|filter| &*filter.name == name);
        named.any(|filter| says.fits(&filter.kind))
    }
}

/// What the filter's state belongs to, from config to config.
fn owner(around: &Surroundings<'_>, name: &str, index: usize, unique: bool) -> String {
    let chain = &around.owner;
    if unique {
        format!("{chain}/filter/{name}")
    } else {
        format!("{chain}/filter/{name}#{index}")
    }
}
