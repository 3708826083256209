//! CORS: what routes and virtual hosts say.

use std::sync::Arc;

use mesh_config::model::{CorsPolicy, RouteFilterKind};

use super::{ROUTER, assert_refused, bare_manager_text, config, report};

const SAYS: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";
const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0]";

/// What a virtual host and its route say.
fn text(host: &str, route: &str) -> String {
    let says = |policy: &str| format!("typed_per_filter_config: {{cors: {{{SAYS}, {policy}}}}}");
    bare_manager_text(&format!(
        "stat_prefix: i\nhttp_filters: [{{name: cors, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}}}, {ROUTER}]\n\
         route_config:\n  virtual_hosts:\n  - name: v\n    domains: ['*']\n    {}\n    routes:\n    - match: {{prefix: /}}\n      route: {{cluster: b}}\n      {}\n",
        says(host),
        says(route)
    ))
}

fn policy(host: &str, route: &str) -> Arc<CorsPolicy> {
    let text = text(host, route);
    assert_eq!(report(&text), []);
    let config = config(&text);
    let routes = &config.listeners[0].manager().unwrap().routes;
    let route = routes.routes().next().unwrap();
    let (_, says) = route.policy().filters["cors"].config.as_ref().unwrap();
    match says {
        RouteFilterKind::Cors(policy) => Arc::clone(policy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_arrives() {
    let policy = policy(
        "max_age: '9'",
        "allow_origin_string_match: [{exact: a}, {prefix: b}], allow_methods: GET, allow_headers: x-a, expose_headers: x-b, max_age: '5', \
         allow_credentials: true, allow_private_network_access: true, forward_not_matching_preflights: false, \
         filter_enabled: {default_value: {numerator: 3}}, shadow_enabled: {default_value: {numerator: 100}}",
    );
    let matches = |origin: &str| {
        policy
            .allow_origins
            .iter()
            .any(|o| o.matches(origin.as_bytes()))
    };
    assert!(matches("a") && matches("bb") && !matches("c"));
    let texts = [
        (&policy.allow_methods, "GET"),
        (&policy.allow_headers, "x-a"),
        (&policy.expose_headers, "x-b"),
        (&policy.max_age, "5"),
    ];
    for (text, wanted) in texts {
        assert_eq!(text.as_ref().unwrap(), wanted);
    }
    assert_eq!(policy.allow_credentials, Some(true));
    assert_eq!(policy.allow_private_network_access, Some(true));
    assert_eq!(policy.forward_not_matching_preflights, Some(false));
    let enabled = policy.filter_enabled.as_ref().unwrap();
    assert!(enabled.includes(2) && !enabled.includes(3));
    assert!(policy.shadow_enabled.as_ref().unwrap().includes(99));
}

#[test]
fn what_a_route_leaves_out_its_virtual_host_says_but_for_whether_it_counts() {
    let policy = policy(
        "allow_origin_string_match: [{exact: a}], allow_methods: GET, max_age: '5', allow_credentials: true, \
         filter_enabled: {default_value: {numerator: 0}}",
        "max_age: '6', allow_credentials: false",
    );
    assert_eq!(policy.allow_origins.len(), 1);
    assert_eq!(policy.allow_methods.as_ref().unwrap(), "GET");
    assert_eq!(policy.max_age.as_ref().unwrap(), "6");
    assert_eq!(policy.allow_credentials, Some(false));
    assert_eq!(policy.filter_enabled, None);
}

#[test]
fn a_header_that_cannot_be_sent_is_refused() {
    assert_refused(
        &text("max_age: '5'", "allow_methods: \"a\\u0001\""),
        "allow_methods",
        &format!("{AT}.routes[0].typed_per_filter_config[\"cors\"].allow_methods"),
        "holds characters that a header must not",
    );
}
