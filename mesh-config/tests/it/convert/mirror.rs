//! Mirrors of every level, and internal redirects.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, StatusCode};
use mesh_core::{FractionalPercent, format::Format};
use mesh_route::{
    Action, AppendAction, HeaderAdd, HeaderMutation, InternalRedirectPolicy, MirrorCluster,
    MirrorHost, MirrorPolicy, RedirectPredicate, RouteAction,
};

use super::{assert_refused, config, route, route_text, routes_text};

const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route";

fn action(fields: &str) -> RouteAction {
    let text = format!("match: {{prefix: /}}\nroute: {{cluster: b, {fields}}}");
    match route(&text).action().clone() {
        Action::Route(action) => *action,
        other => panic!("{other:?}"),
    }
}

fn refused(fields: &str, path: &str, reason: &str) {
    let fields = format!("match: {{prefix: /}}\nroute: {{cluster: b, {fields}}}");
    let needle = fields.lines().last().unwrap().to_owned();
    assert_refused(
        &route_text(&fields),
        &needle,
        &format!("{AT}{path}"),
        reason,
    );
}

#[test]
fn every_field_of_a_mirror_is_read() {
    let add = HeaderAdd::new("x-m", Format::parse("1").unwrap()).unwrap();
    let add = add.append_action(AppendAction::OverwriteIfExistsOrAdd);
    let mut full = MirrorPolicy::new(MirrorCluster::Named("b".into()));
    full.host = MirrorHost::Literal(HeaderValue::from_static("m.test"));
    full.mutations = vec![
        HeaderMutation::new(vec![], vec![HeaderName::from_static("x-gone")]).unwrap(),
        HeaderMutation::new(vec![add], vec![]).unwrap(),
    ];
    let mut named = MirrorPolicy::new(MirrorCluster::Header(HeaderName::from_static("x-to")));
    named.host = MirrorHost::Unchanged;
    let read = action(
        "request_mirror_policies: [{cluster: b, runtime_fraction: {default_value: {numerator: 7}, runtime_key: k}, \
         host_rewrite_literal: m.test, request_headers_mutations: [{remove: x-gone}, \
         {append: {header: {key: x-m, value: '1'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]}, \
         {cluster_header: x-to, disable_shadow_host_suffix_append: true}]",
    );
    let fraction = read.mirrors[0].runtime_fraction.clone().unwrap();
    assert_eq!(fraction.default, FractionalPercent::percent(7));
    assert_eq!(fraction.runtime_key.as_ref().unwrap().name(), "k");
    full.runtime_fraction = Some(fraction);
    assert_eq!(*read.mirrors, [full, named]);
}

#[test]
fn a_mirror_has_one_cluster_and_that_exists() {
    let list = ".request_mirror_policies[0]";
    let one = "exactly one of cluster and cluster_header must be set";
    refused("request_mirror_policies: [{}]", list, one);
    let both = "request_mirror_policies: [{cluster: b, cluster_header: x-a}]";
    refused(both, list, one);
    refused(
        "request_mirror_policies: [{cluster: nope}]",
        &format!("{list}.cluster"),
        "there is no cluster named \"nope\"",
    );
}

#[test]
fn a_level_without_mirrors_takes_those_above() {
    let routes = "routes: [{match: {prefix: /own}, route: {cluster: b, request_mirror_policies: [{cluster: b, disable_shadow_host_suffix_append: true}]}}, \
                  {match: {prefix: /}, route: {cluster: b}}]";
    let text = routes_text(&format!(
        "request_mirror_policies: [{{cluster_header: x-config}}]\nvirtual_hosts:\n\
         - {{name: own, domains: [own], request_mirror_policies: [{{cluster_header: x-host}}], {routes}}}\n\
         - {{name: none, domains: [none], {routes}}}"
    ));
    let config = config(&text);
    let mirrors = |index: usize| -> MirrorCluster {
        let route = config.listeners[0]
            .manager()
            .unwrap()
            .routes
            .routes()
            .nth(index);
        match route.unwrap().action() {
            Action::Route(action) => action.mirrors[0].cluster.clone(),
            other => panic!("{other:?}"),
        }
    };
    let header = |name| MirrorCluster::Header(HeaderName::from_static(name));
    let named = MirrorCluster::Named("b".into());
    assert_eq!([mirrors(0), mirrors(1)], [named.clone(), header("x-host")]);
    assert_eq!([mirrors(2), mirrors(3)], [named, header("x-config")]);
}

#[test]
fn internal_redirects_are_off_and_have_the_defaults_of_envoy() {
    assert_eq!(action("").internal_redirect, None);
    let read = action("internal_redirect_policy: {}").internal_redirect;
    assert_eq!(read.as_deref(), Some(&InternalRedirectPolicy::default()));
}

#[test]
fn every_field_of_an_internal_redirect_is_read() {
    let predicate = |name: &str, fields: &str| {
        format!(
            "{{name: p, typed_config: {{'@type': type.googleapis.com/envoy.extensions.internal_redirect.{name}, {fields}}}}}"
        )
    };
    let predicates = [
        predicate(
            "allow_listed_routes.v3.AllowListedRoutesConfig",
            "allowed_route_names: [a]",
        ),
        predicate("previous_routes.v3.PreviousRoutesConfig", ""),
        predicate("safe_cross_scheme.v3.SafeCrossSchemeConfig", ""),
    ];
    let read = action(&format!(
        "internal_redirect_policy: {{max_internal_redirects: 3, redirect_response_codes: [301, 307, 200], \
         predicates: [{}], allow_cross_scheme_redirect: true, response_headers_to_copy: [X-A]}}",
        predicates.join(", ")
    ));
    let mut wanted = InternalRedirectPolicy::default();
    wanted.max_internal_redirects = 3;
    let codes = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::TEMPORARY_REDIRECT,
    ];
    wanted.redirect_response_codes = codes.into();
    wanted.predicates = vec![
        RedirectPredicate::AllowListedRoutes(BTreeSet::from(["a".into()])),
        RedirectPredicate::PreviousRoutes,
        RedirectPredicate::SafeCrossScheme,
    ];
    wanted.allow_cross_scheme_redirect = true;
    wanted.response_headers_to_copy = vec![HeaderName::from_static("x-a")];
    assert_eq!(read.internal_redirect.as_deref(), Some(&wanted));
}

#[test]
fn what_belongs_to_the_request_is_not_copied() {
    for name in [":path", "host", "content-length"] {
        refused(
            &format!("internal_redirect_policy: {{response_headers_to_copy: ['{name}']}}"),
            ".internal_redirect_policy.response_headers_to_copy[0]",
            if name == "content-length" {
                "it frames the answer, and may not be copied"
            } else {
                "pseudo headers and host may not be copied"
            },
        );
    }
}
