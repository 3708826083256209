//! `InternalRedirectPolicy`: whether redirects of upstreams are followed.

use envoy_types::pb::envoy::{
    config::{core::v3::TypedExtensionConfig, route::v3 as pb},
    extensions::internal_redirect::{
        allow_listed_routes::v3::AllowListedRoutesConfig,
        previous_routes::v3::PreviousRoutesConfig, safe_cross_scheme::v3::SafeCrossSchemeConfig,
    },
};
use http::{HeaderName, StatusCode, header};
use mesh_route::{InternalRedirectPolicy, RedirectPredicate};

use crate::{
    convert::{
        context::{Context, type_name},
        value,
    },
    language::{At, MessageSupport, Support::Enforced},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.InternalRedirectPolicy",
        fields: &[
            ("max_internal_redirects", Enforced),
            ("redirect_response_codes", Enforced),
            ("predicates", Enforced),
            ("allow_cross_scheme_redirect", Enforced),
            ("response_headers_to_copy", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
        fields: &[("allowed_route_names", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig",
        fields: &[],
    },
];

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::InternalRedirectPolicy,
) -> InternalRedirectPolicy {
    let mut policy = InternalRedirectPolicy::default();
    if let Some(most) = value::number(from.max_internal_redirects) {
        policy.max_internal_redirects = most;
    }
    if !from.redirect_response_codes.is_empty() {
        // Envoy ignores what is no redirect.
        let codes = from.redirect_response_codes.iter();
        let codes = codes.filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308));
        policy.redirect_response_codes = codes
            .filter_map(|&code| StatusCode::from_u16(u16::try_from(code).ok()?).ok())
            .collect();
    }
    let list = at.field("predicates");
    let predicates = from.predicates.iter().enumerate();
    policy.predicates = predicates
        .filter_map(|(index, from)| predicate(cx, &list.index(index), from))
        .collect();
    policy.allow_cross_scheme_redirect = from.allow_cross_scheme_redirect;
    let list = at.field("response_headers_to_copy");
    let names = from.response_headers_to_copy.iter().enumerate();
    policy.response_headers_to_copy = names
        .filter_map(|(index, name)| copied(cx, &list.index(index), name))
        .collect();
    policy
}

fn predicate(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &TypedExtensionConfig,
) -> Option<RedirectPredicate> {
    let at = at.field("typed_config");
    let Some(any) = &from.typed_config else {
        cx.invalid(&at, "typed_config is missing");
        return None;
    };
    if let Some(listed) = cx.unpack::<AllowListedRoutesConfig>(any) {
        let names = listed.allowed_route_names.iter();
        let names = names.map(|name| name.as_str().into()).collect();
        return Some(RedirectPredicate::AllowListedRoutes(names));
    }
    if cx.unpack::<PreviousRoutesConfig>(any).is_some() {
        return Some(RedirectPredicate::PreviousRoutes);
    }
    if cx.unpack::<SafeCrossSchemeConfig>(any).is_some() {
        return Some(RedirectPredicate::SafeCrossScheme);
    }
    let reason = format!("{} is not the config of a predicate", type_name(any));
    cx.invalid(&at, reason);
    None
}

/// What frames a message, or says where it goes, belongs to the request.
fn copied(cx: &Context<'_>, at: &At<'_>, name: &str) -> Option<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        cx.invalid(at, "pseudo headers and host may not be copied");
        return None;
    }
    let name = value::header_name(cx, at, name)?;
    if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(&name) {
        cx.invalid(at, "it frames the answer, and may not be copied");
        return None;
    }
    Some(name)
}
