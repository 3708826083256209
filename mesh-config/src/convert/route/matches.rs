//! `RouteMatch`: which requests a route is for.

use envoy_types::pb::envoy::config::route::v3::{self as pb, route_match::PathSpecifier};
use mesh_route::{PathMatch, PathSeparatedPrefix, RouteMatch};

use crate::{
    convert::{context::Context, matcher, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Security},
    },
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.RouteMatch",
        fields: &[
            ("prefix", Enforced),
            ("path", Enforced),
            ("safe_regex", Enforced),
            ("connect_matcher", Enforced),
            ("path_separated_prefix", Enforced),
            ("case_sensitive", Enforced),
            ("runtime_fraction", Enforced),
            ("headers", Enforced),
            ("query_parameters", Enforced),
            ("grpc", Enforced),
            // A route that asks for less than it should lets in more than it should.
            ("path_match_policy", Security),
            ("cookies", Security),
            ("tls_context", Security),
            ("dynamic_metadata", Security),
            ("filter_state", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteMatch.ConnectMatcher",
        fields: &[],
    },
];

pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: &pb::RouteMatch) -> Option<RouteMatch> {
    let headers = matcher::headers(cx, &at.field("headers"), &from.headers);
    let list = at.field("query_parameters");
    let query_parameters = matcher::query_parameters(cx, &list, &from.query_parameters);
    let path = match from.path_specifier.as_ref()? {
        PathSpecifier::Prefix(prefix) => PathMatch::Prefix(prefix.as_str().into()),
        PathSpecifier::Path(path) => PathMatch::Path(path.as_str().into()),
        PathSpecifier::SafeRegex(regex) => {
            PathMatch::SafeRegex(matcher::regex(cx, &at.field("safe_regex"), regex)?)
        }
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            let at = at.field("path_separated_prefix");
            let prefix = PathSeparatedPrefix::new(prefix.as_str());
            PathMatch::PathSeparatedPrefix(cx.ok(&at, prefix)?)
        }
        PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
        // In the report: nothing runs without it.
        PathSpecifier::PathMatchPolicy(_) => return None,
    };
    let mut matches = RouteMatch::new(path);
    matches.case_sensitive = value::flag(from.case_sensitive, true);
    matches.headers = headers;
    matches.query_parameters = query_parameters;
    let fraction = from.runtime_fraction.as_ref();
    matches.runtime_fraction = fraction.map(|from| value::runtime_fraction(cx, from));
    matches.grpc = from.grpc.is_some();
    Some(matches)
}
