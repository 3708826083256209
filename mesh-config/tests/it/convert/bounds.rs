//! Whatever the config, the conversion costs little and loses nothing that guards something.

use super::{
    ADDRESS, ROUTER, bare_manager_text, config, indented, listener_text, manager_text, refusal,
    route_text,
};

const RBAC: &str =
    "typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}";
const LIMIT: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: s";
const BUCKET: &str = "token_bucket: {max_tokens: 1, fill_interval: 1s}";

#[test]
fn what_is_switched_off_cannot_hide_what_is_not() {
    let off = format!("- {{name: a, is_optional: true, {RBAC}}}\n").repeat(1_500);
    let text = |last: &str| {
        let filters = format!("{off}{last}- {ROUTER}\n");
        bare_manager_text(&format!(
            "stat_prefix: i\nroute_config: {{name: r}}\nhttp_filters:\n{filters}"
        ))
    };
    let report = config(&text(&format!("- {{name: b, {RBAC}}}\n"))).report;
    assert!(report.left_out > 0);
    assert_eq!(report.security().count(), 1);
    // As many as fit are told apart.
    let off = format!("- {{name: a, is_optional: true, {RBAC}}}\n").repeat(900);
    let filters = format!("{off}- {{name: b, {RBAC}}}\n- {ROUTER}\n");
    let few = bare_manager_text(&format!(
        "stat_prefix: i\nroute_config: {{name: r}}\nhttp_filters:\n{filters}"
    ));
    let report = config(&few).report;
    let security: Vec<&str> = report.security().map(|entry| entry.path.as_str()).collect();
    assert_eq!(security.len(), 1);
    assert!(
        security[0].ends_with("http_filters[900].typed_config"),
        "{security:?}"
    );
}

#[test]
fn settings_that_every_route_copies_are_counted() {
    let filters: String = (0..300)
        .map(|n| format!("- {{name: f{n}, typed_config: {{{LIMIT}}}}}\n"))
        .collect();
    let own = |n: usize| format!("f{n}: {{{LIMIT}, {BUCKET}}}");
    let all: Vec<String> = (0..300).map(own).collect();
    let routes = |own: &str| {
        format!("  - {{match: {{prefix: /}}, non_forwarding_action: {{}}{own}}}\n").repeat(1_000)
    };
    let text = |own: &str| {
        let routes = format!(
            "name: main\nvirtual_hosts:\n- name: v\n  domains: '*'\n  typed_per_filter_config: {{{}}}\n  routes:\n{}",
            all.join(", "),
            routes(own)
        );
        bare_manager_text(&format!(
            "stat_prefix: i\nhttp_filters:\n{filters}- {ROUTER}\nroute_config:\n{}",
            indented(&routes, 2)
        ))
    };
    let shared = config(&text(""));
    let policies: Vec<_> = shared.listeners[0]
        .manager()
        .unwrap()
        .routes
        .routes()
        .map(|route| route.policy())
        .collect();
    assert_eq!(policies[0].filters.len(), 300);
    assert!(std::sync::Arc::ptr_eq(
        &policies[0].filters,
        &policies[999].filters
    ));
    let refusal = refusal(&text(&format!(", typed_per_filter_config: {{{}}}", own(0))));
    assert!(
        refusal.ends_with("routes take over more than 200000 settings from above"),
        "{refusal}"
    );
}

#[test]
fn thousands_of_listeners_without_names_are_named_at_once() {
    let chain = "filter_chains: [{filters: [{name: a}]}]";
    let one = format!("  - {{{ADDRESS}, {chain}}}\n");
    let refusal = refusal(&format!(
        "static_resources:\n  listeners:\n{}",
        one.repeat(5_000)
    ));
    assert!(refusal.ends_with("and 4968 more problems"), "{refusal}");
}

#[test]
fn thousands_of_filter_chains_are_compared_at_once() {
    let chains: String = (0..5_000)
        .map(|port| {
            format!(
                "- {{filter_chain_match: {{source_ports: [{}]}}, filters: [{{name: a}}]}}\n",
                port + 1
            )
        })
        .collect();
    let refusal = refusal(&listener_text(&format!(
        "{ADDRESS}\nfilter_chains:\n{chains}"
    )));
    assert!(refusal.ends_with("and 4968 more problems"), "{refusal}");
    assert!(!refusal.contains("same filter_chain_match"), "{refusal}");
}

#[test]
fn files_are_read_only_if_they_end() {
    let body = |path: &str| {
        refusal(&route_text(&format!(
            "match: {{prefix: /}}\ndirect_response: {{status: 200, body: {{filename: {path}}}}}"
        )))
    };
    let refusal = body("/dev/zero");
    assert!(
        refusal.ends_with("cannot read \"/dev/zero\": it is not a regular file"),
        "{refusal}"
    );
}

#[test]
fn texts_from_elsewhere_have_a_bound_together() {
    let path = std::env::temp_dir().join(format!("mesh-config-bound-{}", std::process::id()));
    std::fs::write(&path, vec![b'x'; 1 << 20]).expect("a file");
    let log = format!(
        "- {{name: a, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, \
         log_format: {{text_format_source: {{filename: {}}}}}}}}}\n",
        path.display()
    );
    let refusal = refusal(&manager_text(&format!("access_log:\n{}", log.repeat(33))));
    std::fs::remove_file(&path).expect("the file");
    assert!(refusal.contains("access_log[32]"), "{refusal}");
    assert!(
        refusal.ends_with("have more than 33554432 bytes"),
        "{refusal}"
    );
}
