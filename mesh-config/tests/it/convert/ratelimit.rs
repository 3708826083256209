//! Local rate limits: the filter's config, those of routes, and rules.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, Request, StatusCode};
use mesh_config::model::{Config, FilterOverrides, HttpFilterKind, RouteFilterKind, RoutePolicies};
use mesh_core::{ConnectionInfo, RequestInfo, clock};
use mesh_ratelimit::{
    LocalRateLimitConfig, RateLimitRule, RateLimits, RequestView, TokenBucketConfig,
    XRateLimitHeaders,
};

use super::{ROUTER, assert_refused, bare_manager_text, config, indented, report};

const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
const TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const WRAPPER: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
const BUCKET: &str = "token_bucket: {max_tokens: 1, fill_interval: 1s}";

/// A manager with a limit named `limit` and these routes.
fn text(limit: &str, routes: &str) -> String {
    bare_manager_text(&format!(
        "stat_prefix: i\nhttp_filters:\n- name: limit\n  typed_config:\n    '@type': {TYPE}\n    stat_prefix: s\n{}- {ROUTER}\n\
         route_config:\n  name: main\n{}",
        indented(limit, 4),
        indented(routes, 2)
    ))
}

fn of(config: &Config) -> Arc<LocalRateLimitConfig> {
    let HttpFilterKind::LocalRateLimit(limit) =
        &config.listeners[0].manager().unwrap().http_filters[0].kind
    else {
        panic!("another filter")
    };
    Arc::clone(&limit.config)
}

fn limit(fields: &str) -> Arc<LocalRateLimitConfig> {
    of(&config(&text(fields, "")))
}

fn policies(limit: &str, routes: &str) -> Vec<Arc<RoutePolicies>> {
    let config = config(&text(limit, routes));
    let routes = &config.listeners[0].manager().unwrap().routes;
    routes
        .routes()
        .map(|route| Arc::clone(route.policy()))
        .collect()
}

fn refused(fields: &str, path: &str, reason: &str) {
    let path = format!("{AT}.http_filters[0].typed_config{path}");
    let needle = fields.lines().last().unwrap();
    assert_refused(&text(fields, ""), needle, &path, reason);
}

#[test]
fn a_limit_without_fractions_limits_nothing() {
    let limit = limit("");
    assert_eq!(&*limit.stat_prefix, "s");
    assert_eq!(limit.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(limit.token_bucket.is_none());
    assert!(!limit.filter_enabled.includes(0) && !limit.filter_enforced.includes(0));
    assert!(limit.always_consume_default_token_bucket);
    assert_eq!(limit.max_dynamic_descriptors.get(), 20);
}

#[test]
fn everything_that_a_limit_says_is_kept() {
    let limit = limit(
        "status: {code: ServiceUnavailable}\ntoken_bucket: {max_tokens: 10, tokens_per_fill: 5, fill_interval: 2s}\n\
         filter_enabled: {default_value: {numerator: 100}}\nfilter_enforced: {default_value: {numerator: 50}, runtime_key: k}\n\
         response_headers_to_add: [{header: {key: x-limited, value: 'yes'}}]\nenable_x_ratelimit_headers: DRAFT_VERSION_03\n\
         local_rate_limit_per_downstream_connection: true\nalways_consume_default_token_bucket: false\n\
         rate_limited_as_resource_exhausted: true\nmax_dynamic_descriptors: 3\n\
         descriptors: [{entries: [{key: a, value: b}, {key: c, value: d}], token_bucket: {max_tokens: 1, fill_interval: 0.05s}}]",
    );
    assert_eq!(limit.status, StatusCode::SERVICE_UNAVAILABLE);
    let bucket = TokenBucketConfig::new(10, 5, Duration::from_secs(2)).unwrap();
    assert_eq!(limit.token_bucket, Some(bucket));
    assert!(limit.filter_enabled.includes(99));
    assert!(limit.filter_enforced.includes(49) && !limit.filter_enforced.includes(50));
    assert_eq!(
        limit.enable_x_ratelimit_headers,
        XRateLimitHeaders::DraftVersion03
    );
    assert!(limit.local_rate_limit_per_downstream_connection);
    assert!(!limit.always_consume_default_token_bucket);
    assert!(limit.rate_limited_as_resource_exhausted);
    assert_eq!(limit.max_dynamic_descriptors.get(), 3);
    let [descriptor] = limit.descriptors.as_slice() else {
        panic!("{:?}", limit.descriptors)
    };
    assert_eq!(descriptor.entries.len(), 2);
    assert_eq!(
        (&*descriptor.entries[1].key, &*descriptor.entries[1].value),
        ("c", "d")
    );
    assert_eq!(added(&limit, &[]), [("x-limited", "yes")]);
}

/// The response headers that a refusal of a request with these headers gets, behind one that is there.
fn added(
    limit: &LocalRateLimitConfig,
    request: &[(&str, &str)],
) -> Vec<(&'static str, &'static str)> {
    let mut request = request
        .iter()
        .fold(Request::get("/"), |request, (k, v)| request.header(*k, *v))
        .body(())
        .unwrap();
    let connection = Arc::new(ConnectionInfo::in_process());
    let info = Arc::new(RequestInfo::new(
        clock::now(),
        1,
        connection,
        Arc::from("1"),
    ));
    RequestInfo::attach(&info, &mut request);
    let mut headers = HeaderMap::new();
    limit
        .response_headers_to_add
        .add(&RequestView::new(&request), &mut headers);
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    headers
        .iter()
        .map(|(k, v)| (leak(k.as_str()), leak(v.to_str().unwrap())))
        .collect()
}

#[test]
fn headers_of_a_refusal_may_quote_the_request() {
    let limit = limit(
        "response_headers_to_add: [{header: {key: x-who, value: '%REQ(x-user)%'}}, \
         {header: {key: x-fixed, value: a}, append_action: ADD_IF_ABSENT}, {header: {key: x-fixed, value: b}, append_action: ADD_IF_ABSENT}, \
         {header: {key: x-fixed, value: c}, append_action: OVERWRITE_IF_EXISTS}, {header: {key: x-other, value: d}, append_action: OVERWRITE_IF_EXISTS}]",
    );
    assert_eq!(
        added(&limit, &[("x-user", "me")]),
        [("x-who", "me"), ("x-fixed", "c")]
    );
    // What is empty is left out.
    assert_eq!(added(&limit, &[]), [("x-fixed", "c")]);
}

#[test]
fn what_envoy_refuses_is_refused() {
    refused(
        "token_bucket: {max_tokens: 1, fill_interval: 0.01s}",
        ".token_bucket",
        "fill_interval must be at least 50ms, not 10ms",
    );
    let one = "{entries: [{key: a, value: b}], token_bucket: {max_tokens: 1, fill_interval: 1s}}";
    refused(
        &format!("descriptors: [{one}, {one}]"),
        ".descriptors",
        "descriptors[1] repeats the entries of descriptors[0]",
    );
    for field in ["stage: 0", "disable_key: a"] {
        let name = field.split(':').next().unwrap();
        refused(
            &format!("rate_limits: [{{{field}, actions: [{{remote_address: {{}}}}]}}]"),
            &format!(".rate_limits[0].{name}"),
            "has no meaning for rules of the filter itself",
        );
    }
    let path = format!("{AT}.route_config.typed_per_filter_config[\"limit\"]");
    let own = |config: &str| text("", &format!("typed_per_filter_config: {{limit: {config}}}"));
    assert_refused(
        &own(&format!("{{'@type': {TYPE}, stat_prefix: r}}")),
        "typed_per",
        &path,
        "token_bucket is missing: a config of its own needs one",
    );
    assert_refused(
        &own(&format!("{{'@type': {WRAPPER}}}")),
        "typed_per",
        &path,
        "the config of the filter is missing",
    );
    assert_refused(
        &own("{'@type': type.googleapis.com/google.protobuf.Empty}"),
        "typed_per",
        &path,
        "google.protobuf.Empty is not what a route may say to an HTTP filter",
    );
}

fn overrides(overrides: &FilterOverrides) -> Vec<(&str, &str)> {
    let overrides = overrides.values().map(|found| {
        let Some((owner, RouteFilterKind::LocalRateLimit(limit))) = &found.config else {
            panic!("{found:?}")
        };
        (&**owner, &*limit.config.stat_prefix)
    });
    overrides.collect()
}

#[test]
fn the_most_specific_override_wins_and_is_named_by_its_owner() {
    let own = |prefix: &str| {
        format!(
            "typed_per_filter_config: {{limit: {{'@type': {TYPE}, stat_prefix: {prefix}, {BUCKET}}}}}"
        )
    };
    let routes = format!(
        "{}\nvirtual_hosts:\n- name: plain\n  domains: [a]\n  routes: [{{match: {{prefix: /}}, route: {{cluster: b}}}}]\n\
         - name: own\n  domains: [b]\n  {}\n  routes:\n  - {{match: {{prefix: /a}}, route: {{cluster: b}}}}\n  \
         - {{match: {{prefix: /b}}, route: {{cluster: b}}, {}}}\n  \
         - {{match: {{prefix: /c}}, route: {{weighted_clusters: {{clusters: [{{name: b, weight: 1}}, {{name: b, weight: 1, {}}}]}}}}}}",
        own("all"),
        own("host"),
        own("route"),
        own("weighted"),
    );
    let policies = policies("", &routes);
    let at = "listener/l/route_config/main";
    assert_eq!(
        overrides(&policies[0].filters),
        [(&*format!("{at}/filter/limit"), "all")]
    );
    let host = format!("{at}/vhost/own/filter/limit");
    assert_eq!(overrides(&policies[1].filters), [(&*host, "host")]);
    assert_eq!(
        overrides(&policies[2].filters),
        [(&*format!("{at}/vhost/own/route/1/filter/limit"), "route")]
    );
    assert_eq!(overrides(&policies[3].filters), [(&*host, "host")]);
    assert!(policies[2].weighted_filters.is_empty());
    let weighted: Vec<(&str, &str)> = policies[3]
        .weighted_filters
        .iter()
        .flat_map(|filters| overrides(filters))
        .collect();
    let own = format!("{at}/vhost/own/route/2/cluster/1/filter/limit");
    assert_eq!(weighted, [(&*host, "host"), (&*own, "weighted")]);
}

#[test]
fn a_route_may_turn_a_filter_off() {
    let routes = format!(
        "virtual_hosts: [{{name: v, domains: '*', routes: [{{match: {{prefix: /}}, route: {{cluster: b}}, \
         typed_per_filter_config: {{limit: {{'@type': {WRAPPER}, disabled: true}}}}}}]}}]"
    );
    let enabled = format!("{BUCKET}\nfilter_enabled: {{default_value: {{numerator: 100}}}}");
    let policies = policies(&enabled, &routes);
    let off = &policies[0].filters["limit"];
    assert!(off.disabled && off.config.is_none());
    let wrapped = routes.replace(
        "disabled: true",
        &format!("config: {{'@type': {TYPE}, stat_prefix: w, {BUCKET}}}"),
    );
    let policies = super::ratelimit::policies(&enabled, &wrapped);
    assert!(!policies[0].filters["limit"].disabled);
    assert_eq!(overrides(&policies[0].filters)[0].1, "w");
}

#[test]
fn overrides_for_nobody_are_reported() {
    let routes = format!(
        "typed_per_filter_config: {{nobody: {{'@type': {TYPE}, stat_prefix: r, {BUCKET}}}}}"
    );
    assert_eq!(
        report(&text("", &routes)),
        [(
            format!("{AT}.route_config.typed_per_filter_config[\"nobody\"]"),
            Some("there is no filter of that name".to_owned()),
            false
        )]
    );
    let rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    let routes = format!(
        "typed_per_filter_config: {{limit: {{'@type': {rbac}}}, nobody: {{'@type': {rbac}}}}}"
    );
    let security: Vec<bool> = report(&text("", &routes))
        .into_iter()
        .map(|(.., s)| s)
        .collect();
    assert_eq!(security, [true, false]);
}

/// The descriptors that rules build for a request, as text.
fn descriptors(rules: &[RateLimitRule]) -> Vec<String> {
    let mut request = Request::get("/p?q=1&q=2")
        .header("x-a", "A")
        .header("host", "h")
        .body(())
        .unwrap();
    let peer: SocketAddr = "10.1.2.3:4".parse().unwrap();
    let connection = Arc::new(ConnectionInfo::new(1, None, Some(peer)));
    let info = Arc::new(RequestInfo::new(
        clock::now(),
        1,
        connection,
        Arc::from("1"),
    ));
    info.with(|facts| facts.cluster = Some(Arc::from("b")));
    RequestInfo::attach(&info, &mut request);
    let view = RequestView::new(&request);
    let built = rules.iter().filter_map(|rule| {
        let entries = rule.descriptor(&view)?;
        let entries: Vec<String> = entries
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        Some(format!("{} x{}", entries.join(","), rule.hits_addend))
    });
    built.collect()
}

fn embedded(limit: &LocalRateLimitConfig) -> Vec<RateLimitRule> {
    match &limit.rate_limits {
        RateLimits::Fixed(rules) => rules.to_vec(),
        RateLimits::FromRequest(_) => panic!("not fixed"),
    }
}

#[test]
fn each_action_builds_its_entry() {
    let actions = |actions: &str| {
        let text = text(&format!("rate_limits: [{{actions: [{actions}]}}]"), "");
        let limit = of(&config(&format!("node: {{cluster: me}}\n{text}")));
        descriptors(&embedded(&limit)).pop()
    };
    for (action, entry) in [
        ("{source_cluster: {}}", Some("source_cluster=me")),
        ("{destination_cluster: {}}", Some("destination_cluster=b")),
        ("{remote_address: {}}", Some("remote_address=10.1.2.3")),
        (
            "{masked_remote_address: {v4_prefix_mask_len: 16}}",
            Some("masked_remote_address=10.1.0.0/16"),
        ),
        (
            "{generic_key: {descriptor_value: v}}",
            Some("generic_key=v"),
        ),
        (
            "{generic_key: {descriptor_value: v, descriptor_key: k}}",
            Some("k=v"),
        ),
        (
            "{request_headers: {header_name: X-A, descriptor_key: a}}",
            Some("a=A"),
        ),
        (
            "{request_headers: {header_name: ':path', descriptor_key: p}}",
            Some("p=/p?q=1&q=2"),
        ),
        (
            "{request_headers: {header_name: x-b, descriptor_key: a}}",
            None,
        ),
        (
            "{generic_key: {descriptor_value: v}}, {request_headers: {header_name: x-b, descriptor_key: a, skip_if_absent: true}}",
            Some("generic_key=v"),
        ),
        (
            "{query_parameters: {query_parameter_name: q, descriptor_key: k}}",
            Some("k=1"),
        ),
        (
            "{header_value_match: {descriptor_value: v, headers: [{name: x-a, string_match: {exact: A}}, {name: ':method', string_match: {exact: GET}}]}}",
            Some("header_match=v"),
        ),
        (
            "{header_value_match: {descriptor_value: v, expect_match: false, headers: [{name: x-a}]}}",
            None,
        ),
        (
            "{query_parameter_value_match: {descriptor_value: v, descriptor_key: k, query_parameters: [{name: q, string_match: {exact: '1'}}]}}",
            Some("k=v"),
        ),
        (
            "{query_parameter_value_match: {descriptor_value: v, query_parameters: [{name: z}]}}",
            None,
        ),
    ] {
        assert_eq!(
            actions(action),
            entry.map(|entry| format!("{entry} x1")),
            "{action}"
        );
    }
}

#[test]
fn rules_say_what_a_request_costs() {
    let rules = embedded(&limit(
        "rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 5}}]",
    ));
    assert_eq!(descriptors(&rules), ["remote_address=10.1.2.3 x5"]);
}

#[test]
fn rules_that_cannot_be_are_left_out_and_reported() {
    let fields = "rate_limits: [{actions: [{metadata: {descriptor_key: k, metadata_key: {key: f, path: [{key: p}]}}}, {remote_address: {}}]}, \
        {actions: [{remote_address: {}}], apply_on_stream_done: true}, {actions: [{remote_address: {}}], hits_addend: {number: 0}}]";
    let text = text(fields, "");
    assert_eq!(
        descriptors(&embedded(&of(&config(&text)))),
        ["remote_address=10.1.2.3 x1"]
    );
    let paths: Vec<String> = report(&text).into_iter().map(|(path, ..)| path).collect();
    let at = format!("{AT}.http_filters[0].typed_config.rate_limits");
    assert_eq!(
        paths,
        [
            "[0].actions[0].metadata",
            "[1].apply_on_stream_done",
            "[2].hits_addend.number"
        ]
        .map(|path| format!("{at}{path}"))
    );
}

const DESCRIPTORS: &str = "descriptors: [{entries: [{key: generic_key, value: r}], token_bucket: {max_tokens: 1, fill_interval: 1s}}]";

/// Which rules each route has for the filter.
fn rules(limit: &str, vhost: &str, route: &str) -> Vec<String> {
    let rule = |value: &str, stage| {
        format!("{{stage: {stage}, actions: [{{generic_key: {{descriptor_value: {value}}}}}]}}")
    };
    let routes = format!(
        "virtual_hosts: [{{name: v, domains: '*', rate_limits: [{}], routes: [{{match: {{prefix: /}}, route: {{cluster: b, rate_limits: [{}]{route}}}{vhost}}}]}}]",
        rule("v", 0),
        if route.starts_with('!') { String::new() } else { format!("{}, {}", rule("r", 0), rule("s", 3)) },
    )
    .replace("!", "");
    let policies = policies(&format!("{DESCRIPTORS}\n{limit}"), &routes);
    policies[0]
        .rate_limit_rules
        .get("limit")
        .map_or_else(Vec::new, |rules| descriptors(rules))
}

#[test]
fn rules_of_the_virtual_host_are_used_as_the_filter_says() {
    let (host, own) = ("generic_key=v x1".to_owned(), "generic_key=r x1".to_owned());
    assert_eq!(rules("", "", ""), std::slice::from_ref(&own));
    assert_eq!(rules("", "", "!"), std::slice::from_ref(&host));
    assert_eq!(
        rules("vh_rate_limits: INCLUDE", "", ""),
        [own.clone(), host.clone()]
    );
    assert_eq!(
        rules("vh_rate_limits: IGNORE", "", "!"),
        Vec::<String>::new()
    );
    assert_eq!(rules("", "", ", include_vh_rate_limits: true"), [own, host]);
    assert_eq!(rules("stage: 3", "", ""), ["generic_key=s x1"]);
    // The filter's own rules stand in for them.
    let embedded = "rate_limits: [{actions: [{remote_address: {}}]}]";
    assert_eq!(rules(embedded, "", ""), Vec::<String>::new());
}

#[test]
fn a_rule_that_a_runtime_key_could_disable_is_passed_over() {
    let routes = |more: &str| {
        format!(
            "virtual_hosts: [{{name: v, domains: '*', routes: [{{match: {{prefix: /}}, route: {{cluster: b, \
             rate_limits: [{{actions: [{{remote_address: {{}}}}]{more}}}]}}}}]}}]"
        )
    };
    let count = |more: &str| {
        policies(DESCRIPTORS, &routes(more))[0]
            .rate_limit_rules
            .len()
    };
    assert_eq!((count(""), count(", disable_key: key")), (1, 0));
}

#[test]
fn an_override_says_which_rules_its_route_uses() {
    let own = format!(
        ", typed_per_filter_config: {{limit: {{'@type': {TYPE}, stat_prefix: r, {BUCKET}, vh_rate_limits: INCLUDE, {DESCRIPTORS}}}}}"
    );
    assert_eq!(
        rules("", &own, ""),
        ["generic_key=r x1", "generic_key=v x1"]
    );
    let without = own.replace(&format!(", {DESCRIPTORS}"), "");
    assert_eq!(rules("", &without, ""), Vec::<String>::new());
}

#[test]
fn a_route_without_rules_shares_those_of_its_virtual_host_only_where_they_are_the_same() {
    let ignoring = "vh_rate_limits: IGNORE";
    let host = ["generic_key=v x1"];
    assert_eq!(rules(ignoring, "", "!, include_vh_rate_limits: true"), host);
    let own = format!(
        ", typed_per_filter_config: {{limit: {{'@type': {TYPE}, stat_prefix: r, {BUCKET}, {ignoring}, {DESCRIPTORS}}}}}"
    );
    assert_eq!(rules("", "", "!"), host);
    assert_eq!(rules("", &own, "!"), Vec::<String>::new());
}

#[test]
fn what_is_wrapped_may_be_off_or_optional() {
    let rbac =
        "config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}";
    let security = |more: &str| -> Vec<bool> {
        let routes =
            format!("typed_per_filter_config: {{limit: {{'@type': {WRAPPER}, {rbac}{more}}}}}");
        report(&text("", &routes))
            .into_iter()
            .map(|(.., s)| s)
            .collect()
    };
    assert_eq!(security(""), [true]);
    assert_eq!(security(", is_optional: true"), [false]);
    assert_eq!(security(", disabled: true"), [false; 0]);
}
