//! `envoy.filters.http.header_mutation`.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::common::mutation_rules::v3::{self as rules, header_mutation::Action},
    extensions::filters::http::header_mutation::v3::{
        HeaderMutation, HeaderMutationPerRoute, Mutations,
    },
};
use mesh_route::{HeaderChange, HeaderChanges, MessageChanges};

use super::registry::{Filter, RouteSays};
use crate::{
    convert::{context::Context, listener::Surroundings, matcher, mutation, value},
    language::{At, MessageSupport, Support::Enforced},
    model::{HeaderMutationConfig, HttpFilterKind, RouteFilterKind},
};

pub(super) struct HeaderMutationFilter;

impl Filter for HeaderMutationFilter {
    type Config = HeaderMutation;
    type Route = HeaderMutationPerRoute;

    const SUPPORT: &'static [MessageSupport] = &[
        MessageSupport {
            message: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            fields: &[
                ("mutations", Enforced),
                ("most_specific_header_mutations_wins", Enforced),
            ],
        },
        MessageSupport {
            message: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
            fields: &[("mutations", Enforced)],
        },
        MessageSupport {
            message: "envoy.extensions.filters.http.header_mutation.v3.Mutations",
            fields: &[
                ("request_mutations", Enforced),
                ("response_mutations", Enforced),
            ],
        },
        MessageSupport {
            message: "envoy.config.common.mutation_rules.v3.HeaderMutation",
            fields: &[
                ("remove", Enforced),
                ("append", Enforced),
                ("remove_on_match", Enforced),
            ],
        },
        MessageSupport {
            message: "envoy.config.common.mutation_rules.v3.HeaderMutation.RemoveOnMatch",
            fields: &[("key_matcher", Enforced)],
        },
    ];

    fn convert(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &HeaderMutation,
        _: &Surroundings<'_>,
    ) -> Option<HttpFilterKind> {
        let own = messages(cx, &at.field("mutations"), from.mutations.as_ref());
        Some(HttpFilterKind::HeaderMutation(Arc::new(
            HeaderMutationConfig {
                own: Arc::new(own),
                most_specific_wins: from.most_specific_header_mutations_wins,
            },
        )))
    }

    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &HeaderMutationPerRoute,
        _: &Surroundings<'_>,
        above: Option<&RouteFilterKind>,
    ) -> Option<RouteSays> {
        let own = messages(cx, &at.field("mutations"), from.mutations.as_ref());
        let above = match above {
            Some(RouteFilterKind::HeaderMutation(levels)) => &levels[..],
            _ => &[],
        };
        let levels = [&[Arc::new(own)], above].concat();
        Some(RouteSays::Config(RouteFilterKind::HeaderMutation(
            levels.into(),
        )))
    }
}

fn messages(cx: &Context<'_>, at: &At<'_>, from: Option<&Mutations>) -> MessageChanges {
    let Some(from) = from else {
        return MessageChanges::default();
    };
    let list = |field, list| changes(cx, &at.field(field), list);
    MessageChanges::new(
        list("request_mutations", &from.request_mutations),
        list("response_mutations", &from.response_mutations),
    )
}

fn changes(cx: &Context<'_>, at: &At<'_>, from: &[rules::HeaderMutation]) -> HeaderChanges {
    let list = from.iter().enumerate();
    let list = list.filter_map(|(index, from)| change(cx, &at.index(index), from));
    cx.ok(at, HeaderChanges::new(list.collect()))
        .unwrap_or_default()
}

fn change(cx: &Context<'_>, at: &At<'_>, from: &rules::HeaderMutation) -> Option<HeaderChange> {
    match from.action.as_ref()? {
        Action::Remove(name) => {
            let at = at.field("remove");
            if name.starts_with(':') {
                cx.invalid(&at, "pseudo headers and host may not be removed");
                return None;
            }
            let name = value::header_name(cx, &at, name)?;
            cx.ok(&at, HeaderChange::remove(name))
        }
        Action::RemoveOnMatch(from) => {
            let at = at.field("remove_on_match");
            let from = from.key_matcher.as_ref()?;
            let matcher = matcher::string(cx, &at.field("key_matcher"), from)?;
            Some(HeaderChange::RemoveMatching(matcher))
        }
        Action::Append(option) => {
            let at = at.field("append");
            let addition = mutation::addition(cx, &at, option)?;
            cx.ok(&at, HeaderChange::add(addition.into_header_add()))
        }
    }
}
