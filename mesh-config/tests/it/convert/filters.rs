//! The chain of HTTP filters.

use mesh_config::model::{HttpFilterKind, RouteFilterKind};

use super::{ROUTER, assert_refused, bare_manager_text, config, report};

const AT: &str =
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters";
const LIMIT: &str = "{name: limit, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: s}}";
const RBAC: &str = "name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}";

fn with(filters: &str) -> String {
    bare_manager_text(&format!(
        "stat_prefix: i\nroute_config: {{name: r}}\nhttp_filters:\n{filters}"
    ))
}

#[test]
fn filters_keep_their_order_and_the_router_stands_apart() {
    let router = ROUTER
        .replace(
            "Router'",
            "Router', suppress_envoy_headers: true, respect_expected_rq_timeout: true",
        )
        .replace(
            "v3.Router}",
            "v3.Router, suppress_envoy_headers: true, respect_expected_rq_timeout: true}",
        );
    let second = LIMIT.replace("name: limit", "name: other");
    let config = config(&with(&format!(
        "- {LIMIT}\n- {second}\n- {LIMIT}\n- {router}"
    )));
    let manager = config.listeners[0].manager().unwrap();
    let names: Vec<&str> = manager
        .http_filters
        .iter()
        .map(|filter| &*filter.name)
        .collect();
    assert_eq!(names, ["limit", "other", "limit"]);
    let owners: Vec<&str> = manager
        .http_filters
        .iter()
        .map(|filter| &*filter.owner)
        .collect();
    assert_eq!(
        owners,
        [
            "listener/l/filter/limit",
            "listener/l/filter/other",
            "listener/l/filter/limit#2"
        ]
    );
    assert!(manager.router.suppress_envoy_headers && manager.router.respect_expected_rq_timeout);
}

#[test]
fn the_router_comes_last_and_once() {
    let unreachable = "the router must be the last filter: nothing would get here";
    assert_refused(
        &with(&format!("- {ROUTER}\n- {LIMIT}")),
        LIMIT,
        &format!("{AT}[1]"),
        unreachable,
    );
    assert_refused(
        &with(&format!("- {ROUTER}\n- {LIMIT}\n- {ROUTER}")),
        LIMIT,
        &format!("{AT}[1]"),
        unreachable,
    );
    assert_refused(
        &with(&format!("- {LIMIT}")),
        "http_filters:",
        AT,
        "the last filter must be the router, envoy.filters.http.router",
    );
    let disabled = ROUTER.replace("name: router", "name: router, disabled: true");
    assert_refused(
        &with(&format!("- {disabled}")),
        "disabled",
        &format!("{AT}[0].disabled"),
        "the router cannot be disabled",
    );
}

#[test]
fn a_filter_needs_a_config_of_a_filter() {
    assert_refused(
        &with(&format!("- {{name: a}}\n- {ROUTER}")),
        "{name: a}",
        &format!("{AT}[0]"),
        "typed_config is missing",
    );
    let empty = "{name: a, typed_config: {'@type': type.googleapis.com/google.protobuf.Empty}}";
    assert_refused(
        &with(&format!("- {empty}\n- {ROUTER}")),
        empty,
        &format!("{AT}[0].typed_config"),
        "google.protobuf.Empty is not the config of an HTTP filter",
    );
}

#[test]
fn a_filter_that_is_not_there_is_about_security() {
    let rbac = (format!("{AT}[0].typed_config"), None, true);
    assert_eq!(report(&with(&format!("- {{{RBAC}}}\n- {ROUTER}"))), [rbac]);
}

#[test]
fn a_filter_that_is_optional_or_disabled_guards_nothing() {
    for word in ["is_optional", "disabled"] {
        let text = with(&format!("- {{{RBAC}, {word}: true}}\n- {ROUTER}"));
        assert_eq!(
            report(&text),
            [(format!("{AT}[0].typed_config"), None, false)]
        );
        assert!(
            config(&text).listeners[0]
                .manager()
                .unwrap()
                .http_filters
                .is_empty()
        );
    }
}

#[test]
fn a_disabled_filter_is_there_for_routes_that_enable_it() {
    for disabled in [false, true] {
        let limit = LIMIT.replace("name: limit", &format!("name: limit, disabled: {disabled}"));
        let config = config(&with(&format!("- {limit}\n- {ROUTER}")));
        let filter = &config.listeners[0].manager().unwrap().http_filters[0];
        assert_eq!(filter.disabled, disabled);
        assert!(matches!(filter.kind, HttpFilterKind::LocalRateLimit(_)));
    }
}

const WRAPPER: &str = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig";
const BUFFER: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";

/// A disabled buffer, and what the virtual host and the route say to it.
fn levels(host: &str, route: &str) -> String {
    bare_manager_text(&format!(
        "stat_prefix: i\nhttp_filters:\n- {{name: buffer, disabled: true, typed_config: {{{BUFFER}, max_request_bytes: 9}}}}\n\
         - {LIMIT}\n- {ROUTER}\nroute_config:\n  virtual_hosts:\n  - name: v\n    domains: '*'\n    \
         typed_per_filter_config: {{buffer: {{{host}}}}}\n    \
         routes: [{{match: {{prefix: /}}, route: {{cluster: b}}, typed_per_filter_config: {{buffer: {{{route}}}}}}}]"
    ))
}

/// Whether the buffer is passed by, and the limit that a level says.
fn effective(host: &str, route: &str) -> (bool, Option<u32>) {
    let config = config(&levels(host, route));
    let route = config.listeners[0]
        .manager()
        .unwrap()
        .routes
        .routes()
        .next()
        .unwrap();
    let found = &route.policy().filters["buffer"];
    let limit = found.config.as_ref().map(|(_, says)| match says {
        RouteFilterKind::Buffer(buffer) => buffer.max_request_bytes.get(),
        other => panic!("{other:?}"),
    });
    (found.disabled, limit)
}

#[test]
fn each_level_says_whether_a_filter_works_and_how() {
    let own = |bytes: u32| format!("{BUFFER}PerRoute, buffer: {{max_request_bytes: {bytes}}}");
    let off = format!("{WRAPPER}, disabled: true");
    let on = format!("{WRAPPER}, config: {{}}");
    let wrapped = format!("{WRAPPER}, config: {{{}}}", own(3));
    assert_eq!(effective(&own(1), &own(2)), (false, Some(2)));
    assert_eq!(effective(&own(1), &off), (true, Some(1)));
    // What is switched on again is what the level above has said.
    assert_eq!(effective(&own(1), &on), (false, Some(1)));
    assert_eq!(effective(&off, &on), (false, None));
    assert_eq!(effective(&off, &wrapped), (false, Some(3)));
    assert_eq!(
        effective(&own(1), &format!("{BUFFER}PerRoute, disabled: true")),
        (true, Some(1))
    );
}

#[test]
fn a_route_says_to_a_filter_what_that_understands() {
    let at = format!(
        "{}.route_config.virtual_hosts[0].typed_per_filter_config",
        AT.trim_end_matches(".http_filters")
    );
    let at = format!("{at}[\"buffer\"]");
    let own = format!("{BUFFER}, max_request_bytes: 1");
    assert_refused(
        &levels(&own, &format!("{WRAPPER}, config: {{}}")),
        "typed_per_filter_config: {buffer: {'@type': type.googleapis.com/envoy.extensions",
        &at,
        "envoy.extensions.filters.http.buffer.v3.Buffer is not what a route may say to an HTTP filter",
    );
    let other = "'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: s, token_bucket: {max_tokens: 1, fill_interval: 1s}";
    let text = levels(other, &format!("{WRAPPER}, config: {{}}"));
    assert_eq!(
        report(&text),
        [(
            at,
            Some("the filter of that name is another one".to_owned()),
            false
        )]
    );
}
