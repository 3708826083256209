//! `RouteAction.HashPolicy`, which routes and clusters have.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::route::v3::route_action::{
    HashPolicy as Message,
    hash_policy::{Cookie, Header, PolicySpecifier},
};
use mesh_core::format::RequestField;
use mesh_route::{HashPolicies, HashPolicy, HashSource, SessionCookie};

use super::{context::Context, matcher, value};
use crate::language::{At, MessageSupport, Support::Enforced};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.HashPolicy",
        fields: &[
            ("header", Enforced),
            ("cookie", Enforced),
            ("connection_properties", Enforced),
            ("query_parameter", Enforced),
            ("filter_state", Enforced),
            ("terminal", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.HashPolicy.Header",
        fields: &[("header_name", Enforced), ("regex_rewrite", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.HashPolicy.Cookie",
        fields: &[
            ("name", Enforced),
            ("ttl", Enforced),
            ("path", Enforced),
            ("attributes", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute",
        fields: &[("name", Enforced), ("value", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties",
        fields: &[("source_ip", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter",
        fields: &[("name", Enforced)],
    },
];

pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: &[Message]) -> HashPolicies {
    let policies = from.iter().enumerate();
    let policies: Vec<HashPolicy> = policies
        .filter_map(|(index, from)| {
            Some(HashPolicy {
                source: source(cx, &at.index(index), from.policy_specifier.as_ref()?)?,
                terminal: from.terminal,
            })
        })
        .collect();
    Arc::from(policies)
}

fn source(cx: &Context<'_>, at: &At<'_>, from: &PolicySpecifier) -> Option<HashSource> {
    match from {
        PolicySpecifier::Header(from) => header(cx, &at.field("header"), from),
        PolicySpecifier::Cookie(from) => {
            let at = at.field("cookie");
            cookie(cx, &at, from).map(HashSource::Cookie)
        }
        // Without the only property that there is, nothing is hashed.
        PolicySpecifier::ConnectionProperties(from) => {
            from.source_ip.then_some(HashSource::SourceIp)
        }
        PolicySpecifier::QueryParameter(from) => {
            Some(HashSource::QueryParameter(from.name.as_str().into()))
        }
        PolicySpecifier::FilterState(_) => {
            let reason =
                "no filter leaves any state: requests would go to other endpoints than they should";
            cx.invalid(&at.field("filter_state"), reason);
            None
        }
    }
}

fn header(cx: &Context<'_>, at: &At<'_>, from: &Header) -> Option<HashSource> {
    let name = &from.header_name;
    let Some(field) = RequestField::from_name(name) else {
        let reason = format!("{name:?} is not a header name");
        cx.invalid(&at.field("header_name"), reason);
        return None;
    };
    let rewrite = match &from.regex_rewrite {
        Some(from) => Some(matcher::regex_rewrite(
            cx,
            &at.field("regex_rewrite"),
            from,
        )?),
        None => None,
    };
    Some(HashSource::Header { field, rewrite })
}

fn cookie(cx: &Context<'_>, at: &At<'_>, from: &Cookie) -> Option<SessionCookie> {
    let ttl: Option<Duration> = value::duration(cx, &at.field("ttl"), from.ttl.as_ref());
    let attributes = from.attributes.iter();
    let attributes = attributes.map(|attribute| (&*attribute.name, &*attribute.value));
    cx.ok(
        at,
        SessionCookie::new(&from.name, ttl, &from.path, attributes),
    )
}
