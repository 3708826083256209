//! `RedirectAction` and `DirectResponseAction`: routes that answer themselves.

use envoy_types::pb::envoy::config::route::v3::{
    self as pb,
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
};
use http::StatusCode;
use mesh_route::{DirectResponse, PathRedirect, PathRewrite, RedirectAction, SchemeRedirect};

use crate::{
    convert::{context::Context, matcher, value},
    language::{At, MessageSupport, Support::Enforced},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.RedirectAction",
        fields: &[
            ("https_redirect", Enforced),
            ("scheme_redirect", Enforced),
            ("host_redirect", Enforced),
            ("port_redirect", Enforced),
            ("path_redirect", Enforced),
            ("prefix_rewrite", Enforced),
            ("regex_rewrite", Enforced),
            ("response_code", Enforced),
            ("strip_query", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.DirectResponseAction",
        fields: &[("status", Enforced), ("body", Enforced)],
    },
];

pub(super) fn redirect(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RedirectAction,
) -> Option<RedirectAction> {
    let (scheme_field, scheme) = match &from.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => {
            ("https_redirect", SchemeRedirect::Https)
        }
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => (
            "scheme_redirect",
            SchemeRedirect::To(scheme.as_str().into()),
        ),
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => {
            ("https_redirect", SchemeRedirect::Keep)
        }
    };
    let path = match &from.path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(path)) => PathRedirect::To(path.as_str().into()),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            PathRedirect::Rewrite(PathRewrite::Prefix(prefix.as_str().into()))
        }
        Some(PathRewriteSpecifier::RegexRewrite(from)) => {
            let rewrite = matcher::regex_rewrite(cx, &at.field("regex_rewrite"), from)?;
            PathRedirect::Rewrite(PathRewrite::Regex(rewrite))
        }
        // In the report.
        Some(PathRewriteSpecifier::PathRewrite(_)) | None => PathRedirect::Keep,
    };
    let code = match from.response_code() {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    let redirect = RedirectAction::default().strip_query(from.strip_query);
    let redirect = cx.ok(&at.field(scheme_field), redirect.scheme(scheme))?;
    let host = redirect.host(from.host_redirect.as_str());
    let redirect = cx.ok(&at.field("host_redirect"), host)?;
    let redirect = cx.ok(
        &at.field("port_redirect"),
        redirect.port(from.port_redirect),
    )?;
    let redirect = cx.ok(&at.field("path_redirect"), redirect.path(path))?;
    cx.ok(&at.field("response_code"), redirect.response_code(code))
}

pub(super) fn direct_response(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::DirectResponseAction,
    body_max: usize,
) -> Option<DirectResponse> {
    let body = match &from.body {
        Some(body) => value::data_source(cx, &at.field("body"), body)?,
        None => Vec::new(),
    };
    cx.ok(at, DirectResponse::new(from.status, body, body_max))
}
