//! `envoy.filters.http.cors`.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy as Message};
use http::HeaderValue;

use super::registry::{Filter, RouteSays};
use crate::{
    convert::{context::Context, listener::Surroundings, matcher, value},
    language::{At, MessageSupport, Support::Enforced},
    model::{CorsPolicy, HttpFilterKind, RouteFilterKind},
};

pub(super) struct CorsFilter;

impl Filter for CorsFilter {
    type Config = Cors;
    type Route = Message;

    const SUPPORT: &'static [MessageSupport] = &[
        MessageSupport {
            message: "envoy.extensions.filters.http.cors.v3.Cors",
            fields: &[],
        },
        MessageSupport {
            message: "envoy.extensions.filters.http.cors.v3.CorsPolicy",
            fields: &[
                ("allow_origin_string_match", Enforced),
                ("allow_methods", Enforced),
                ("allow_headers", Enforced),
                ("expose_headers", Enforced),
                ("max_age", Enforced),
                ("allow_credentials", Enforced),
                ("filter_enabled", Enforced),
                ("shadow_enabled", Enforced),
                ("allow_private_network_access", Enforced),
                ("forward_not_matching_preflights", Enforced),
            ],
        },
    ];

    fn convert(
        _: &Context<'_>,
        _: &At<'_>,
        _: &Cors,
        _: &Surroundings<'_>,
    ) -> Option<HttpFilterKind> {
        Some(HttpFilterKind::Cors)
    }

    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &Message,
        _: &Surroundings<'_>,
        above: Option<&RouteFilterKind>,
    ) -> Option<RouteSays> {
        let own = policy(cx, at, from);
        let merged = match above {
            Some(RouteFilterKind::Cors(above)) => own.over(above),
            _ => own,
        };
        Some(RouteSays::Config(RouteFilterKind::Cors(Arc::new(merged))))
    }
}

fn policy(cx: &Context<'_>, at: &At<'_>, from: &Message) -> CorsPolicy {
    let text = |field, text: &str| -> Option<HeaderValue> {
        value::header_value(cx, &at.field(field), value::nonempty(text)?)
    };
    let flag =
        |flag: Option<_>| flag.map(|flag: envoy_types::pb::google::protobuf::BoolValue| flag.value);
    let share = |from: &Option<_>| from.as_ref().map(|from| value::runtime_fraction(cx, from));
    let list = at.field("allow_origin_string_match");
    let origins = from.allow_origin_string_match.iter().enumerate();
    CorsPolicy {
        allow_origins: origins
            .filter_map(|(index, from)| matcher::string(cx, &list.index(index), from))
            .collect(),
        allow_methods: text("allow_methods", &from.allow_methods),
        allow_headers: text("allow_headers", &from.allow_headers),
        expose_headers: text("expose_headers", &from.expose_headers),
        max_age: text("max_age", &from.max_age),
        allow_credentials: flag(from.allow_credentials),
        allow_private_network_access: flag(from.allow_private_network_access),
        forward_not_matching_preflights: flag(from.forward_not_matching_preflights),
        filter_enabled: share(&from.filter_enabled),
        shadow_enabled: share(&from.shadow_enabled),
    }
}
