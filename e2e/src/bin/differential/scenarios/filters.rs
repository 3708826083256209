//! Filters in general (order, levels, switches), and those that have only a few scenarios.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const BUFFER: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";
const MUTATE: &str =
    "'@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const WRAPPER: &str = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig";

/// Of everything but health checks.
const LOG: &str = "
- name: f
  filter: {not_health_check_filter: {}}
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
    log_format: {text_format_source: {inline_string: \"+ no check: %REQ(:PATH)% %RESPONSE_CODE%\\n\"}}
";

pub(super) fn groups() -> Vec<Group> {
    let routes = format!(
        "
        typed_per_filter_config:
          switched: {{{WRAPPER}, disabled: true}}
          change: {{{MUTATE}PerRoute, mutations: {{request_mutations: [{set}], response_mutations: [{set}]}}}}
        virtual_hosts:
        - name: all
          domains: ['*']
          typed_per_filter_config:
            change: {{{MUTATE}PerRoute, mutations: {{request_mutations: [{host}, {trace}], response_mutations: [{host}]}}}}
          routes:
          - match: {{prefix: /small}}
            route: {{cluster: a}}
            typed_per_filter_config:
              buffer: {{{BUFFER}PerRoute, buffer: {{max_request_bytes: 3}}}}
              change: {{{MUTATE}PerRoute, mutations: {{request_mutations: [{route}, {trace_route}], response_mutations: [{route}]}}}}
          - match: {{prefix: /free}}
            route: {{cluster: a}}
            typed_per_filter_config: {{buffer: {{{BUFFER}PerRoute, disabled: true}}}}
          - match: {{prefix: /passed}}
            route: {{cluster: a}}
            typed_per_filter_config: {{buffer: {{{WRAPPER}, disabled: true}}, change: {{{WRAPPER}, disabled: true}}}}
          - match: {{prefix: /on}}
            route: {{cluster: a}}
            typed_per_filter_config: {{switched: {{{WRAPPER}, config: {{}}}}}}
          - match: {{prefix: /weighted}}
            route: {{weighted_clusters: {{clusters: [{{name: a, weight: 1, typed_per_filter_config: {{buffer: {{{BUFFER}PerRoute, buffer: {{max_request_bytes: 2}}}}}}}}]}}}}
          - {{match: {{prefix: /direct}}, direct_response: {{status: 200, body: {{inline_string: hi}}}}}}
          - {{match: {{prefix: /}}, route: {{cluster: a}}}}
        ",
        set = set("x-level", "config"),
        host = set("x-level", "host"),
        route = set("x-level", "route"),
        trace = append("x-trace", "host"),
        trace_route = append("x-trace", "route"),
    );
    let changes = format!(
        "request_mutations: [{}, {}, {{remove: x-gone}}, {}, {{remove_on_match: {{key_matcher: {{prefix: x-bad-}}}}}}, {}], response_mutations: [{}, {}, {{remove: x-up}}]",
        append("x-trace", "filter"),
        append("x-new", "%REQ(x-in)%-%REQ(x-gone)%"),
        append("x-after", "%REQ(x-gone)%-%REQ(x-new)%"),
        set("x-path", "%REQ(:PATH)%"),
        append("x-quoted", "%REQ(x-in)%"),
        set("x-status", "%RESPONSE_CODE%"),
    );
    let chain = |wins: bool| {
        format!(
            "- {{name: buffer, typed_config: {{{BUFFER}, max_request_bytes: 5}}}}
             - {{name: switched, disabled: true, typed_config: {{{BUFFER}, max_request_bytes: 1}}}}
             - {{name: change, typed_config: {{{MUTATE}, mutations: {{{changes}}}, most_specific_header_mutations_wins: {wins}}}}}"
        )
    };
    let (plain, specific) = (chain(false), chain(true));
    let bootstrap = Bootstrap::default()
        .cluster("a", &["a"], "")
        .listener(&Hcm {
            filters: &flat(&plain),
            routes: &routes,
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "specific",
            filters: &flat(&specific),
            routes: &routes,
            ..Hcm::default()
        });
    let health = "'@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, headers: [{name: ':path', string_match: {exact: /health}}]";
    let check = |fields: &str| format!("- {{name: health, typed_config: {{{health}, {fields}}}}}");
    let bootstrap = [
        ("answer", "pass_through_mode: false"),
        ("pass", "pass_through_mode: true"),
        ("cached", "pass_through_mode: true, cache_time: 600s"),
        ("well", "pass_through_mode: false, cluster_min_healthy_percentages: {a: {value: 100}}"),
        ("none", "pass_through_mode: false, cluster_min_healthy_percentages: {a: {value: 1}, nobody: {value: 1}}"),
        ("empty", "pass_through_mode: false, cluster_min_healthy_percentages: {e: {value: 1}}"),
        ("emptyfine", "pass_through_mode: false, cluster_min_healthy_percentages: {e: {value: 0}}"),
    ]
    .into_iter()
    .fold(bootstrap.cluster_with("e", ""), |bootstrap, (name, fields)| {
        bootstrap.listener(&Hcm {
            name,
            filters: &check(fields),
            logs: LOG,
            ..Hcm::default()
        })
    });
    vec![group(
        bootstrap,
        [
            ("filters/health_check", health_check),
            ("filters/health_check_passes_through", health_check_passes),
            ("filters/health_check_of_clusters", health_check_clusters),
            ("filters/buffer", buffer),
            ("filters/buffer_per_route", buffer_per_route),
            ("filters/disabled_until_a_route_enables", disabled),
            ("filters/header_mutation", header_mutation),
            ("filters/header_mutation_levels", header_mutation_levels),
        ],
    )]
}

/// One item per line, without the shape of the source.
fn flat(items: &str) -> String {
    items
        .lines()
        .map(|line| format!("{}\n", line.trim()))
        .collect()
}

fn set(key: &str, value: &str) -> String {
    format!(
        "{{append: {{header: {{key: '{key}', value: '{value}'}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}}}"
    )
}

fn append(key: &str, value: &str) -> String {
    format!("{{append: {{header: {{key: '{key}', value: '{value}'}}}}}}")
}

fn buffer(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/").expect(200))?;
    run.send(request("POST", "/").body("12345").expect(200))?;
    run.send(request("POST", "/").chunked("12345").expect(200))?;
    run.send(request("POST", "/").body("123456").expect(413).fate())?;
    run.send(request("POST", "/").chunked("123456").expect(413).fate())?;
    run.send(request("POST", "/").chunked("").expect(200))?;
    run.counters(&[
        "http.main.downstream_rq_too_large",
        "http.main.downstream_rq_4xx",
    ])
}

fn buffer_per_route(run: &mut Run<'_>) -> Result<()> {
    for (path, body, expected) in [
        ("/small", "123", 200),
        ("/small", "1234", 413),
        ("/free", "123456789", 200),
        ("/passed", "123456789", 200),
        ("/weighted", "12", 200),
        ("/weighted", "123", 413),
    ] {
        run.send(request("POST", path).body(body).expect(expected))?;
        run.send(request("POST", path).chunked(body).expect(expected))?;
    }
    Ok(())
}

fn disabled(run: &mut Run<'_>) -> Result<()> {
    for (path, expected) in [("/", 200), ("/on", 413)] {
        run.send(request("POST", path).body("12").expect(expected))?;
    }
    Ok(())
}

fn header_mutation(run: &mut Run<'_>) -> Result<()> {
    let ask = get("/?a=b")
        .header("x-in", "1")
        .header("x-gone", "2")
        .header("x-bad-one", "3")
        .header("x-bad-two", "4")
        .header("x-trace", "client");
    run.send(ask.clone().expect(200))?;
    run.send(get("/passed").header("x-gone", "2").expect(200))?;
    run.send(get("/direct").header("x-in", "1").expect(200))?;
    // The filter before it refuses.
    run.send(request("POST", "/").body("123456").expect(413))?;
    Ok(())
}

fn header_mutation_levels(run: &mut Run<'_>) -> Result<()> {
    for listener in ["main", "specific"] {
        for path in ["/", "/small"] {
            run.send(get(path).on(listener).expect(200))?;
        }
    }
    Ok(())
}

fn health_check(run: &mut Run<'_>) -> Result<()> {
    for ask in [get("/health"), request("HEAD", "/health"), get("/other")] {
        run.send(ask.on("answer").expect(200))?;
    }
    run.send(
        request("POST", "/health")
            .body("hello")
            .on("answer")
            .expect(200),
    )?;
    Ok(())
}

fn health_check_passes(run: &mut Run<'_>) -> Result<()> {
    for listener in ["pass", "cached"] {
        run.up["a"].on("/health", [Reply::status(503), Reply::ok("well")]);
        run.send(get("/health").on(listener).expect(503))?;
        let again = if listener == "pass" { 200 } else { 503 };
        run.send(get("/health").on(listener).expect(again))?;
    }
    Ok(())
}

fn health_check_clusters(run: &mut Run<'_>) -> Result<()> {
    for (listener, status) in [
        ("well", 200),
        ("none", 503),
        ("empty", 503),
        ("emptyfine", 200),
    ] {
        run.send(get("/health").on(listener).expect(status))?;
    }
    Ok(())
}
