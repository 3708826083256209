//! `RateLimit`: how a request's descriptors are built.

use std::{num::NonZeroU32, sync::Arc};

use envoy_types::pb::{
    envoy::config::route::v3::RateLimit,
    envoy::config::route::v3::rate_limit::{
        Action as ActionMessage,
        action::{ActionSpecifier, HeaderValueMatch, QueryParameterValueMatch},
    },
};
use mesh_core::format;
use mesh_ratelimit::{Action, RateLimitRule, RequestView};

use crate::{
    convert::{context::Context, matcher, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit",
        fields: &[
            ("stage", Enforced),
            ("disable_key", Enforced),
            ("actions", Enforced),
            ("hits_addend", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.HitsAddend",
        fields: &[("number", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action",
        fields: &[
            ("source_cluster", Enforced),
            ("destination_cluster", Enforced),
            ("request_headers", Enforced),
            ("query_parameters", Enforced),
            ("remote_address", Enforced),
            ("masked_remote_address", Enforced),
            ("generic_key", Enforced),
            ("header_value_match", Enforced),
            ("query_parameter_value_match", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.SourceCluster",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.DestinationCluster",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.RemoteAddress",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.RequestHeaders",
        fields: &[
            ("header_name", Enforced),
            ("descriptor_key", Enforced),
            ("skip_if_absent", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.QueryParameters",
        fields: &[
            ("query_parameter_name", Enforced),
            ("descriptor_key", Enforced),
            ("skip_if_absent", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.MaskedRemoteAddress",
        fields: &[
            ("v4_prefix_mask_len", Enforced),
            ("v6_prefix_mask_len", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.GenericKey",
        fields: &[
            ("descriptor_value", Enforced),
            ("descriptor_key", Enforced),
            // For values that turn out empty, which a fixed one never does.
            ("default_value", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.HeaderValueMatch",
        fields: &[
            ("descriptor_value", Enforced),
            ("descriptor_key", Enforced),
            ("expect_match", Enforced),
            ("headers", Enforced),
            ("default_value", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RateLimit.Action.QueryParameterValueMatch",
        fields: &[
            ("descriptor_value", Enforced),
            ("descriptor_key", Enforced),
            ("expect_match", Enforced),
            ("query_parameters", Enforced),
            ("default_value", Meaningless),
        ],
    },
];

const MESSAGE: &str = "envoy.config.route.v3.RateLimit";

/// A rule, and the stage whose filters it is for.
pub(in crate::convert) struct StagedRule {
    pub(in crate::convert) stage: u32,
    pub(in crate::convert) rule: RateLimitRule,
}

/// The rules that can be; one with an action that is not supported builds no descriptor at all, as an
/// action does that says no.
pub(in crate::convert) fn rules(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[RateLimit],
    node_cluster: &str,
) -> Vec<StagedRule> {
    let rules = from.iter().enumerate().filter_map(|(index, from)| {
        let at = at.index(index);
        let list = at.field("actions");
        let actions = from.actions.iter().enumerate();
        let actions: Option<Vec<Action>> = actions
            .map(|(index, from)| action(cx, &list.index(index), from, node_cluster))
            .collect();
        let rule = RateLimitRule {
            actions: actions?,
            hits_addend: hits_addend(cx, &at, from),
        };
        // Envoy's local rate limit passes over rules that a runtime key could disable.
        let applies = from.disable_key.is_empty() && !from.apply_on_stream_done;
        applies.then_some(StagedRule {
            stage: value::number(from.stage).unwrap_or(0),
            rule,
        })
    });
    rules.collect()
}

fn hits_addend(cx: &Context<'_>, at: &At<'_>, from: &RateLimit) -> NonZeroU32 {
    let Some(addend) = &from.hits_addend else {
        return NonZeroU32::MIN;
    };
    let number = addend.number.map_or(1, |number| number.value);
    let hits = u32::try_from(number).ok().and_then(NonZeroU32::new);
    hits.unwrap_or_else(|| {
        let at = at.field("hits_addend");
        let field = format!("{MESSAGE}.HitsAddend.number");
        cx.unsupported(&at.field("number"), &field, Some(&number.to_string()));
        NonZeroU32::MIN
    })
}

fn action(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ActionMessage,
    node_cluster: &str,
) -> Option<Action> {
    let text = |text: &str| Arc::from(text);
    Some(match from.action_specifier.as_ref()? {
        ActionSpecifier::SourceCluster(_) => Action::SourceCluster(text(node_cluster)),
        ActionSpecifier::DestinationCluster(_) => Action::DestinationCluster,
        ActionSpecifier::RequestHeaders(from) => {
            let at = at.field("request_headers");
            Action::RequestHeaders {
                header_name: cx.ok(&at.field("header_name"), from.header_name.parse())?,
                descriptor_key: text(&from.descriptor_key),
                skip_if_absent: from.skip_if_absent,
            }
        }
        ActionSpecifier::QueryParameters(from) => Action::QueryParameters {
            query_parameter_name: text(&from.query_parameter_name),
            descriptor_key: text(&from.descriptor_key),
            skip_if_absent: from.skip_if_absent,
        },
        ActionSpecifier::RemoteAddress(_) => Action::RemoteAddress,
        ActionSpecifier::MaskedRemoteAddress(from) => Action::MaskedRemoteAddress {
            v4_prefix_mask_len: mask(from.v4_prefix_mask_len, 32),
            v6_prefix_mask_len: mask(from.v6_prefix_mask_len, 128),
        },
        ActionSpecifier::GenericKey(from) => Action::GenericKey {
            descriptor_key: text(value::nonempty(&from.descriptor_key).unwrap_or("generic_key")),
            descriptor_value: text(&from.descriptor_value),
        },
        ActionSpecifier::HeaderValueMatch(from) => {
            header_value_match(cx, &at.field("header_value_match"), from)?
        }
        ActionSpecifier::QueryParameterValueMatch(from) => {
            query_value_match(cx, &at.field("query_parameter_value_match"), from)?
        }
        // The support table leaves these out, so that the report names them.
        _ => return None,
    })
}

fn mask(from: Option<envoy_types::pb::google::protobuf::UInt32Value>, default: u8) -> u8 {
    value::number(from).map_or(default, |length| u8::try_from(length).unwrap_or(u8::MAX))
}

fn header_value_match(cx: &Context<'_>, at: &At<'_>, from: &HeaderValueMatch) -> Option<Action> {
    let matchers = matcher::headers(cx, &at.field("headers"), &from.headers);
    if matchers.len() < from.headers.len() {
        return None;
    }
    let matches = move |request: &RequestView<'_>| {
        let view = format::RequestView::new(request.method, request.uri, request.headers);
        matchers
            .iter()
            .all(|matcher| matcher.matches_request(&view))
    };
    Some(Action::ValueMatch {
        descriptor_key: Arc::from(value::nonempty(&from.descriptor_key).unwrap_or("header_match")),
        descriptor_value: Arc::from(from.descriptor_value.as_str()),
        expect_match: value::flag(from.expect_match, true),
        matches: Arc::new(matches),
    })
}

fn query_value_match(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &QueryParameterValueMatch,
) -> Option<Action> {
    let list = at.field("query_parameters");
    let matchers = matcher::query_parameters(cx, &list, &from.query_parameters);
    if matchers.len() < from.query_parameters.len() {
        return None;
    }
    let matches = move |request: &RequestView<'_>| {
        let query = request.uri.query();
        matchers.iter().all(|matcher| matcher.matches(query))
    };
    Some(Action::ValueMatch {
        descriptor_key: Arc::from(value::nonempty(&from.descriptor_key).unwrap_or("query_match")),
        descriptor_value: Arc::from(from.descriptor_value.as_str()),
        expect_match: value::flag(from.expect_match, true),
        matches: Arc::new(matches),
    })
}
