//! Routes: what they match and what they do.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};
use mesh_core::{
    FractionalPercent, Priority,
    format::{Format, RequestField},
    runtime::RuntimeKey,
};
use mesh_route::{
    Action, AppendAction, ClusterSpecifier, DirectResponse, HashPolicy, HashSource, HeaderAdd,
    HeaderMatch, HeaderMatcher, HostRewrite, MaxStreamDuration, PathMatch, PathRedirect,
    PathRewrite, PathSeparatedPrefix, QueryMatch, QueryParameterMatcher, RedirectAction,
    RegexRewrite, RouteAction, RouteMatch, SafeRegex, SchemeRedirect, StringMatcher,
    WeightedCluster, WeightedClusters,
};

use super::{assert_refused, config, report, route, route_text};

const AT: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0]";

fn matches(fields: &str) -> RouteMatch {
    route(&format!("match: {{{fields}}}\nnon_forwarding_action: {{}}"))
        .matches()
        .clone()
}

fn action(fields: &str) -> Action {
    route(&format!("match: {{prefix: /}}\n{fields}"))
        .action()
        .clone()
}

fn route_action(fields: &str) -> RouteAction {
    match action(&format!("route: {{{fields}}}")) {
        Action::Route(action) => *action,
        other => panic!("{other:?}"),
    }
}

fn refused(fields: &str, path: &str, reason: &str) {
    let text = route_text(fields);
    let needle = fields.lines().last().unwrap();
    assert_refused(&text, needle, &format!("{AT}{path}"), reason);
}

#[test]
fn each_way_to_match_a_path_is_read() {
    let regex = SafeRegex::new("/a.*").unwrap();
    let separated = PathSeparatedPrefix::new("/a").unwrap();
    for (fields, path) in [
        ("prefix: /a", PathMatch::Prefix("/a".into())),
        ("path: /a", PathMatch::Path("/a".into())),
        ("safe_regex: {regex: '/a.*'}", PathMatch::SafeRegex(regex)),
        (
            "path_separated_prefix: /a",
            PathMatch::PathSeparatedPrefix(separated),
        ),
        ("connect_matcher: {}", PathMatch::Connect),
    ] {
        assert_eq!(matches(fields), RouteMatch::new(path), "{fields}");
    }
}

#[test]
fn everything_else_that_a_match_asks_for_is_read() {
    let found = matches(
        "prefix: /, case_sensitive: false, grpc: {}, \
         runtime_fraction: {default_value: {numerator: 5, denominator: TEN_THOUSAND}, runtime_key: k}, \
         headers: [{name: a}, {name: b, present_match: false}, {name: c, range_match: {start: -1, end: 5}, invert_match: true}, \
         {name: d, string_match: {suffix: X, ignore_case: true}, treat_missing_header_as_empty: true}, {name: e, exact_match: f}, \
         {name: g, prefix_match: h}, {name: i, suffix_match: j}, {name: k, contains_match: l}, {name: m, safe_regex_match: {regex: o}}], \
         query_parameters: [{name: q}, {name: r, present_match: false}, {name: s, string_match: {contains: t}}]",
    );
    let header = |name: &str, test| HeaderMatcher::new(name, test).unwrap();
    let text = |name: &str, matcher| header(name, HeaderMatch::Text(matcher));
    let mut wanted = RouteMatch::prefix("/");
    wanted.case_sensitive = false;
    wanted.grpc = true;
    wanted.headers = vec![
        header("a", HeaderMatch::Present(true)),
        header("b", HeaderMatch::Present(false)),
        header("c", HeaderMatch::Range { start: -1, end: 5 }).inverted(true),
        text(
            "d",
            StringMatcher::suffix("X")
                .unwrap()
                .ignore_case(true)
                .unwrap(),
        )
        .missing_as_empty(true),
        text("e", StringMatcher::exact("f")),
        text("g", StringMatcher::prefix("h").unwrap()),
        text("i", StringMatcher::suffix("j").unwrap()),
        text("k", StringMatcher::contains("l").unwrap()),
        text("m", StringMatcher::safe_regex(SafeRegex::new("o").unwrap())),
    ];
    let query = |name: &str, test| QueryParameterMatcher::new(name, test).unwrap();
    wanted.query_parameters = vec![
        query("q", QueryMatch::Present(true)),
        query("r", QueryMatch::Present(false)),
        query("s", QueryMatch::Text(StringMatcher::contains("t").unwrap())),
    ];
    let fraction = found.runtime_fraction.clone().unwrap();
    assert_eq!(fraction.default, FractionalPercent::ten_thousandth(5));
    assert_eq!(
        fraction.runtime_key.as_ref().map(RuntimeKey::name),
        Some("k")
    );
    wanted.runtime_fraction = Some(fraction);
    assert_eq!(found, wanted);
}

#[test]
fn a_match_that_makes_no_sense_is_refused() {
    let refused = |fields: &str, path: &str, reason: &str| {
        let text = route_text(&format!("non_forwarding_action: {{}}\nmatch: {{{fields}}}"));
        assert_refused(&text, "match:", &format!("{AT}.match{path}"), reason);
    };
    refused(
        "prefix: /, headers: [{name: a b}]",
        ".headers[0].name",
        "\"a b\" is not a header name",
    );
    refused(
        "prefix: /, headers: [{name: a, string_match: {safe_regex: {regex: a}, ignore_case: true}}]",
        ".headers[0].string_match.ignore_case",
        "ignore_case has no effect for safe_regex",
    );
    let text = route_text("non_forwarding_action: {}\nmatch: {safe_regex: {regex: '('}}");
    let refusal = super::refusal(&text);
    assert!(
        refusal.contains(&format!("{AT}.match.safe_regex.regex: ")),
        "{refusal}"
    );
}

#[test]
fn a_match_that_would_let_in_more_is_about_security() {
    for (fields, path) in [
        ("cookies: [{name: a, string_match: {exact: b}}]", "cookies"),
        ("tls_context: {presented: true}", "tls_context"),
        (
            "dynamic_metadata: [{filter: f, path: [{key: k}], value: {present_match: true}}]",
            "dynamic_metadata",
        ),
        (
            "filter_state: [{key: k, string_match: {exact: b}}]",
            "filter_state",
        ),
    ] {
        let text = route_text(&format!(
            "match: {{prefix: /, {fields}}}\nnon_forwarding_action: {{}}"
        ));
        assert_eq!(report(&text), [(format!("{AT}.match.{path}"), None, true)]);
    }
}

#[test]
fn an_action_has_envoys_defaults() {
    assert_eq!(route_action("cluster: b"), RouteAction::to("b"));
    assert_eq!(route_action("cluster: b").timeout, Duration::from_secs(15));
}

#[test]
fn everything_that_an_action_says_is_kept() {
    let found = route_action(
        "cluster_header: x-to, cluster_not_found_response_code: NOT_FOUND, prefix_rewrite: /p, host_rewrite_literal: h, \
         append_x_forwarded_host: true, timeout: 0s, idle_timeout: 2s, priority: HIGH, hash_policy: [{header: {header_name: a}}]",
    );
    let mut wanted = RouteAction::new(ClusterSpecifier::ClusterHeader("x-to".parse().unwrap()));
    wanted.cluster_not_found_response_code = StatusCode::NOT_FOUND;
    wanted.path_rewrite = Some(PathRewrite::Prefix("/p".into()));
    wanted.host_rewrite = Some(HostRewrite::Literal(HeaderValue::from_static("h")));
    wanted.append_x_forwarded_host = true;
    wanted.timeout = Duration::ZERO;
    wanted.idle_timeout = Some(Duration::from_secs(2));
    wanted.priority = Priority::High;
    let by_header = HashSource::Header {
        field: RequestField::from_name("a").unwrap(),
        rewrite: None,
    };
    wanted.hash = Arc::from([HashPolicy {
        source: by_header,
        terminal: false,
    }]);
    assert_eq!(found, wanted);
}

#[test]
fn each_rewrite_is_read() {
    let regex =
        |fields: &str| format!("{fields}: {{pattern: {{regex: '^/a(.*)'}}, substitution: '\\1'}}");
    let rewrite = RegexRewrite::new("^/a(.*)", "\\1").unwrap();
    let found = route_action(&format!("cluster: b, {}", regex("regex_rewrite")));
    assert_eq!(
        found.path_rewrite,
        Some(PathRewrite::Regex(rewrite.clone()))
    );
    for (fields, host) in [
        (
            "auto_host_rewrite: true".to_owned(),
            Some(HostRewrite::Auto),
        ),
        ("auto_host_rewrite: false".to_owned(), None),
        (
            "host_rewrite_header: x-h".to_owned(),
            Some(HostRewrite::Header("x-h".parse().unwrap())),
        ),
        (
            regex("host_rewrite_path_regex"),
            Some(HostRewrite::PathRegex(rewrite)),
        ),
    ] {
        assert_eq!(
            route_action(&format!("cluster: b, {fields}")).host_rewrite,
            host,
            "{fields}"
        );
    }
}

#[test]
fn clusters_may_share_a_route() {
    let found = route_action(
        "weighted_clusters: {header_name: x-n, total_weight: 9, clusters: [{name: b, weight: 3, host_rewrite_literal: h, \
         request_headers_to_add: [{header: {key: x-c, value: one}}]}, {cluster_header: x-to, weight: 1}]}",
    );
    let ClusterSpecifier::WeightedClusters(clusters) = &found.cluster else {
        panic!("{found:?}")
    };
    let [first, second] = clusters.clusters() else {
        panic!("{clusters:?}")
    };
    assert_eq!((first.name(), first.weight), (Some("b"), 3));
    assert_eq!(first.host_rewrite_literal.as_ref().unwrap(), "h");
    assert_eq!(first.mutations.request.added()[0].name(), "x-c");
    assert_eq!(
        *second,
        WeightedCluster::by_header("x-to".parse().unwrap(), 1)
    );
    let plain = vec![first.clone(), second.clone()];
    let wanted = WeightedClusters::new(plain)
        .unwrap()
        .by_header("x-n".parse().unwrap());
    assert_eq!(*clusters, wanted);
}

#[test]
fn weights_that_make_no_sense_are_refused() {
    let refused = |clusters: &str, path: &str, reason: &str| {
        refused(
            &format!(
                "match: {{prefix: /}}\nroute: {{weighted_clusters: {{clusters: [{clusters}]}}}}"
            ),
            &format!(".route.weighted_clusters.clusters{path}"),
            reason,
        );
    };
    refused("{name: b}", "[0]", "weight is missing");
    refused(
        "{weight: 1}",
        "[0]",
        "one of name and cluster_header must be set",
    );
    refused(
        "{name: b, cluster_header: a, weight: 1}",
        "[0]",
        "only one of name and cluster_header can be set",
    );
    refused(
        "{name: b, weight: 0}",
        "",
        "the sum of weights in weighted_clusters must be at least 1",
    );
    refused(
        "{name: nope, weight: 1}",
        "[0].name",
        "there is no cluster named \"nope\"",
    );
}

#[test]
fn redirects_are_read() {
    let redirect = |fields: &str| match action(&format!("redirect: {{{fields}}}")) {
        Action::Redirect(redirect) => *redirect,
        other => panic!("{other:?}"),
    };
    assert_eq!(redirect(""), RedirectAction::default());
    let wanted = RedirectAction::default()
        .scheme(SchemeRedirect::Https)
        .and_then(|redirect| redirect.host("h"))
        .and_then(|redirect| redirect.port(8443))
        .and_then(|redirect| redirect.path(PathRedirect::To("/p".into())))
        .and_then(|redirect| redirect.response_code(StatusCode::PERMANENT_REDIRECT))
        .unwrap()
        .strip_query(true);
    assert_eq!(
        redirect(
            "https_redirect: true, host_redirect: h, port_redirect: 8443, path_redirect: /p, response_code: PERMANENT_REDIRECT, strip_query: true"
        ),
        wanted
    );
    let wanted = RedirectAction::default()
        .scheme(SchemeRedirect::To("ftp".into()))
        .and_then(|redirect| redirect.path(PathRedirect::Rewrite(PathRewrite::Prefix("/x".into()))))
        .unwrap();
    assert_eq!(redirect("scheme_redirect: ftp, prefix_rewrite: /x"), wanted);
}

#[test]
fn direct_responses_are_read() {
    let text = route_text(
        "match: {prefix: /}\ndirect_response: {status: 418, body: {inline_string: tea}}",
    );
    let config = config(&text);
    let route = config.listeners[0]
        .manager()
        .unwrap()
        .routes
        .routes()
        .next()
        .unwrap();
    let wanted = DirectResponse::new(418, "tea", 4096).unwrap();
    assert_eq!(*route.action(), Action::DirectResponse(wanted));
    refused(
        &format!(
            "match: {{prefix: /}}\ndirect_response: {{status: 200, body: {{inline_string: {}}}}}",
            "x".repeat(4097)
        ),
        ".direct_response",
        "direct response body is 4097 bytes, more than the 4096 allowed",
    );
    refused(
        "match: {prefix: /}\ndirect_response: {status: 200, body: {filename: /does/not/exist}}",
        ".direct_response.body.filename",
        "cannot read \"/does/not/exist\": No such file or directory (os error 2)",
    );
    refused(
        "match: {prefix: /}\ndirect_response: {status: 200, body: {environment_variable: MESH_NOT_SET}}",
        ".direct_response.body.environment_variable",
        "the environment variable \"MESH_NOT_SET\" is not set",
    );
}

#[test]
fn headers_are_added_and_removed() {
    let text = route_text(
        "name: r\nmatch: {prefix: /}\nroute: {cluster: b}\n\
         request_headers_to_add: [{header: {key: x-a, value: '%REQ(x-b)%'}, append_action: ADD_IF_ABSENT}, {header: {key: x-c, raw_value: YQ==}, append: false}]\n\
         request_headers_to_remove: [x-d]\n\
         response_headers_to_add: [{header: {key: x-e, value: '%REQ(x-f)%'}, keep_empty_value: true}]",
    );
    let config = config(&text);
    let manager = config.listeners[0].manager().unwrap();
    assert_eq!(&**manager.routes.routes().next().unwrap().name(), "r");
    // What a response header quotes of the request is captured.
    assert_eq!(manager.captures.fields().len(), 1);
    let refused = |fields: &str, path: &str, reason: &str| {
        refused(
            &format!("match: {{prefix: /}}\nroute: {{cluster: b}}\n{fields}"),
            path,
            reason,
        );
    };
    refused(
        "request_headers_to_add: [{header: {key: a, value: b}, append: true, append_action: ADD_IF_ABSENT}]",
        ".request_headers_to_add[0].append",
        "append and append_action cannot both be set",
    );
    refused(
        "response_headers_to_remove: ['Host']",
        ".response_headers_to_remove[0]",
        "pseudo headers and host may not be removed",
    );
    refused(
        "request_headers_to_add: [{header: {key: ':path', value: b}}]",
        ".request_headers_to_add[0].header",
        "\":path\": pseudo headers may not be modified",
    );
}

#[test]
fn a_header_is_added_as_the_config_says() {
    let added = |fields: &str| {
        let action = route_action(&format!(
            "weighted_clusters: {{clusters: [{{name: b, weight: 1, request_headers_to_add: [{{header: {{key: a, value: v}}, {fields}}}]}}]}}"
        ));
        let ClusterSpecifier::WeightedClusters(clusters) = action.cluster else {
            panic!("one cluster")
        };
        clusters.clusters()[0].mutations.request.added()[0].clone()
    };
    let wanted = |action| {
        HeaderAdd::new("a", Format::literal("v"))
            .unwrap()
            .append_action(action)
    };
    for (fields, action) in [
        ("append: true", AppendAction::AppendIfExistsOrAdd),
        ("append: false", AppendAction::OverwriteIfExistsOrAdd),
        (
            "append_action: APPEND_IF_EXISTS_OR_ADD",
            AppendAction::AppendIfExistsOrAdd,
        ),
        ("append_action: ADD_IF_ABSENT", AppendAction::AddIfAbsent),
        (
            "append_action: OVERWRITE_IF_EXISTS",
            AppendAction::OverwriteIfExists,
        ),
        (
            "append_action: OVERWRITE_IF_EXISTS_OR_ADD",
            AppendAction::OverwriteIfExistsOrAdd,
        ),
    ] {
        assert_eq!(added(fields), wanted(action), "{fields}");
    }
    let kept = wanted(AppendAction::AppendIfExistsOrAdd).keep_empty_value(true);
    assert_eq!(added("keep_empty_value: true"), kept);
}

#[test]
fn what_cannot_be_done_is_refused() {
    refused(
        "match: {prefix: /}\nroute: {cluster: nope}",
        ".route.cluster",
        "there is no cluster named \"nope\"",
    );
    refused(
        "match: {prefix: /}\nroute: {cluster: b, prefix_rewrite: /a, regex_rewrite: {pattern: {regex: a}, substitution: b}}",
        ".route",
        "only one of prefix_rewrite and regex_rewrite can be set",
    );
    refused(
        "match: {prefix: /}\nroute: {cluster: b, timeout: -1s}",
        ".route.timeout",
        "a duration must not be negative",
    );
    refused(
        "match: {prefix: /}\nroute: {cluster: b, timeout: 9223372037s}",
        ".route.timeout",
        "a duration must be at most 9223372036s",
    );
    refused(
        "match: {prefix: /}\nroute: {cluster: b, request_mirror_policies: [{cluster: nope}]}",
        ".route.request_mirror_policies[0].cluster",
        "there is no cluster named \"nope\"",
    );
    refused(
        "match: {prefix: /}\nroute: {cluster_specifier_plugin: p}",
        ".route",
        "plugins that choose clusters are not supported",
    );
    refused(
        "match: {prefix: /}\nfilter_action: {}",
        ".filter_action",
        "actions of filters are not supported",
    );
}

#[test]
fn the_longest_stream_replaces_the_timeout() {
    let fields = "cluster: b, timeout: 7s, max_stream_duration: ";
    let empty = route_action(&format!("{fields}{{}}"));
    assert_eq!(empty.timeout, Duration::ZERO);
    assert_eq!(empty.max_stream_duration, MaxStreamDuration::default());
    let full = route_action(&format!(
        "{fields}{{max_stream_duration: 1s, grpc_timeout_header_max: 2s, grpc_timeout_header_offset: 3s}}"
    ));
    let seconds = |n| Some(Duration::from_secs(n));
    let wanted = MaxStreamDuration {
        max_stream_duration: seconds(1),
        grpc_timeout_header_max: seconds(2),
        grpc_timeout_header_offset: seconds(3),
    };
    assert_eq!(full.max_stream_duration, wanted);
}

#[test]
fn what_is_not_done_is_reported() {
    let text = route_text(
        "match: {prefix: /}\ndecorator: {operation: o}\nstat_prefix: s\n\
         route: {cluster: b, request_mirror_policies: [{cluster: b, trace_sampled: true}], \
         metadata_match: {filter_metadata: {envoy.lb: {a: b}}}, path_rewrite: '/x'}",
    );
    let entries: Vec<(String, bool)> = report(&text)
        .into_iter()
        .map(|(path, _, security)| (path, security))
        .collect();
    let wanted = [
        (".route.metadata_match", false),
        (".route.request_mirror_policies[0].trace_sampled", false),
        (".route.path_rewrite", true),
        (".decorator", false),
        (".stat_prefix", false),
    ];
    assert_eq!(
        entries,
        wanted.map(|(path, security)| (format!("{AT}{path}"), security))
    );
}
