//! The chain of HTTP filters.

use mesh_config::model::HttpFilterKind;

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
fn a_disabled_limit_limits_nothing() {
    let limit = LIMIT.replace(
        "stat_prefix: s",
        "stat_prefix: s, token_bucket: {max_tokens: 1, fill_interval: 1s}, filter_enabled: {default_value: {numerator: 100}}",
    );
    for (disabled, works) in [("false", true), ("true", false)] {
        let limit = limit.replace("name: limit", &format!("name: limit, disabled: {disabled}"));
        let config = config(&with(&format!("- {limit}\n- {ROUTER}")));
        let HttpFilterKind::LocalRateLimit(limit) =
            &config.listeners[0].manager().unwrap().http_filters[0].kind
        else {
            panic!("another filter")
        };
        assert_eq!(limit.token_bucket.is_some(), works);
        assert_eq!(limit.filter_enabled.includes(0), works);
        assert_eq!(&*limit.stat_prefix, "s");
    }
}
