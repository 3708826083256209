//! Route configurations and virtual hosts.

use mesh_core::format::RequestView;
use mesh_route::{Found, RequireTls};

use super::{assert_refused, config, paths, routes_text, vhost_text};

const AT: &str =
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config";

#[test]
fn everything_that_a_configuration_says_is_kept() {
    let config = config(&routes_text(
        "name: main\ninternal_only_headers: [x-secret]\nmost_specific_header_mutations_wins: true\n\
         ignore_port_in_host_matching: true\nignore_path_parameters_in_path_matching: true\nvhost_header: x-host\n\
         response_headers_to_add: [{header: {key: a, value: '%REQ(x)%'}}]\nmetadata: {filter_metadata: {a: {b: c}}}\n\
         virtual_hosts:\n- name: v\n  domains: [a.com]\n  require_tls: ALL\n  include_attempt_count_in_response: true\n  \
         routes: [{match: {path: /p}, non_forwarding_action: {}}]",
    ));
    assert!(config.report.is_empty(), "{:?}", config.report);
    let manager = config.listeners[0].manager().unwrap();
    assert_eq!(&*manager.route_config_name, "main");
    assert_eq!(manager.edge.internal_only_headers[0], "x-secret");
    assert_eq!(manager.captures.fields().len(), 1);
    let route = manager.routes.routes().next().unwrap();
    let host = route.virtual_host();
    assert_eq!(
        (&**host.name(), &**host.route_configuration()),
        ("v", "main")
    );
    assert_eq!(host.require_tls(), RequireTls::All);
    assert!(host.include_attempt_count_in_response() && !host.include_request_attempt_count());

    let ask = |header: &str, target: &str| {
        let request = http::Request::get(target)
            .header("host", "other")
            .header("x-host", header);
        let request = request
            .header("x-forwarded-proto", "https")
            .body(())
            .unwrap();
        let found = manager.routes.find(&RequestView::of(&request), 0);
        matches!(found, Ok(Found::Route(_)))
    };
    assert!(ask("A.com:80", "/p;x=1?q"));
    assert!(!ask("other", "/p"));
    assert!(!ask("a.com", "/q"));
}

#[test]
fn names_and_domains_appear_once() {
    assert_refused(
        &routes_text(
            "name: m\nvirtual_hosts:\n- {name: v, domains: [a]}\n- {name: v, domains: [b]}",
        ),
        "[b]",
        &format!("{AT}.virtual_hosts[1].name"),
        "there is another virtual host named \"v\"",
    );
    assert_refused(
        &routes_text(
            "name: m\nvirtual_hosts:\n- {name: v, domains: [a.com]}\n- {name: w, domains: [b, A.com]}",
        ),
        "A.com",
        &format!("{AT}.virtual_hosts[1].domains[1]"),
        "the domain \"A.com\" appears more than once",
    );
    let refusal = super::refusal(&routes_text(
        "name: m\nvirtual_hosts:\n- {name: v, domains: ['a*b']}",
    ));
    assert!(
        refusal.contains("must be a host with at most one wildcard, at either end"),
        "{refusal}"
    );
}

#[test]
fn clusters_may_be_missing_if_the_config_says_so() {
    let route = "routes: [{match: {prefix: /}, route: {cluster: nope}}]";
    assert_refused(
        &vhost_text(route),
        "nope",
        &format!("{AT}.virtual_hosts[0].routes[0].route.cluster"),
        "there is no cluster named \"nope\"",
    );
    let text = routes_text(&format!(
        "validate_clusters: false\nvirtual_hosts: [{{name: v, domains: '*', {route}}}]"
    ));
    let config = config(&text);
    let names: Vec<&str> = config.listeners[0]
        .manager()
        .unwrap()
        .routes
        .clusters()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["nope"]);
}

#[test]
fn bodies_of_direct_responses_have_the_limit_of_the_configuration() {
    let routes = "virtual_hosts: [{name: v, domains: '*', routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: abc}}}]}]";
    let text = routes_text(&format!("max_direct_response_body_size_bytes: 2\n{routes}"));
    assert_refused(
        &text,
        "inline_string",
        &format!("{AT}.virtual_hosts[0].routes[0].direct_response"),
        "direct response body is 3 bytes, more than the 2 allowed",
    );
}

#[test]
fn a_matcher_in_place_of_routes_is_about_security() {
    let text = vhost_text(
        "matcher: {on_no_match: {action: {name: a, typed_config: {'@type': type.googleapis.com/envoy.config.route.v3.Route, match: {prefix: /}, non_forwarding_action: {}}}}}",
    );
    let report = config(&text).report;
    assert!(report.entries[0].security, "{report:?}");
    assert_eq!(
        report.entries[0].path,
        format!("{AT}.virtual_hosts[0].matcher")
    );
}

#[test]
fn what_is_not_done_is_reported() {
    let text = vhost_text("virtual_clusters: [{name: c, headers: [{name: a}]}]\ncors: {}");
    assert_eq!(
        paths(&text),
        ["virtual_clusters", "cors"].map(|path| format!("{AT}.virtual_hosts[0].{path}"))
    );
}
