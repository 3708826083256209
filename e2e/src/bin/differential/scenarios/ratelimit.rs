//! The local rate limit.

use anyhow::Result;
use e2e::wait::now;

use crate::ask::{get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const ON: &str = "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}";
/// A bucket that does not fill while a scenario runs.
const TWO: &str = "token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 1000s}";

/// A listener with the filter: name and fields.
fn listeners() -> Vec<(&'static str, String)> {
    vec![
        ("plain", format!("{TWO}, {ON}")),
        (
            "headers",
            format!("{TWO}, {ON}, enable_x_ratelimit_headers: DRAFT_VERSION_03"),
        ),
        ("untold", TWO.to_owned()),
        (
            "disabled",
            format!(
                "{TWO}, filter_enabled: {{default_value: {{numerator: 0}}}}, filter_enforced: {{default_value: {{numerator: 100}}}}"
            ),
        ),
        (
            "shadow",
            format!(
                "{TWO}, filter_enabled: {{default_value: {{numerator: 100}}}}, request_headers_to_add_when_not_enforced: [{{header: {{key: x-limited, value: 'yes'}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}], response_headers_to_add: [{{header: {{key: x-why, value: limit}}}}]"
            ),
        ),
        (
            "status",
            format!(
                "{TWO}, {ON}, status: {{code: ServiceUnavailable}}, response_headers_to_add: [{{header: {{key: x-why, value: limit}}}}]"
            ),
        ),
        ("low", format!("{TWO}, {ON}, status: {{code: OK}}")),
        (
            "connection",
            format!("{TWO}, {ON}, local_rate_limit_per_downstream_connection: true"),
        ),
        (
            "fast",
            format!(
                "token_bucket: {{max_tokens: 1, tokens_per_fill: 1, fill_interval: 0.2s}}, {ON}"
            ),
        ),
        (
            "smooth",
            format!(
                "token_bucket: {{max_tokens: 10, tokens_per_fill: 10, fill_interval: 5s}}, {ON}"
            ),
        ),
        (
            "routes",
            format!("{TWO}, {ON}, enable_x_ratelimit_headers: DRAFT_VERSION_03"),
        ),
        ("grpc", format!("{TWO}, {ON}")),
        (
            "exhausted",
            format!("{TWO}, {ON}, rate_limited_as_resource_exhausted: true"),
        ),
        ("unlimited", ON.to_owned()),
    ]
}

pub(super) fn groups() -> Vec<Group> {
    let route_config = |prefix: &str, fields: &str| {
        format!(
            "typed_per_filter_config: {{envoy.filters.http.local_ratelimit: {{'@type': {TYPE}, stat_prefix: {prefix}, {fields}}}}}"
        )
    };
    let one = "token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 1000s}";
    let own = route_config("own", &format!("{one}, {ON}"));
    let free = route_config(
        "free",
        &format!("{one}, filter_enabled: {{default_value: {{numerator: 0}}}}"),
    );
    let host = route_config("host", &format!("{one}, {ON}"));
    let routes = format!(
        "
        response_headers_to_add: [{{header: {{key: x-route-config, value: seen}}}}]
        virtual_hosts:
        - name: host
          domains: [host.example]
          {host}
          routes:
          - {{match: {{prefix: /own}}, route: {{cluster: a}}, {own}}}
          - {{match: {{prefix: /}}, route: {{cluster: a}}}}
        - name: all
          domains: ['*']
          routes:
          - {{match: {{prefix: /own}}, route: {{cluster: a}}, {own}}}
          - {{match: {{prefix: /free}}, route: {{cluster: a}}, {free}}}
          - {{match: {{prefix: /}}, route: {{cluster: a}}}}
        "
    );
    let mut bootstrap = Bootstrap::default().cluster("a", &["a"], "");
    for (name, fields) in listeners() {
        let filter = format!(
            "- {{name: envoy.filters.http.local_ratelimit, typed_config: {{'@type': {TYPE}, stat_prefix: {name}, {fields}}}}}"
        );
        bootstrap = bootstrap.listener(&Hcm {
            name,
            filters: &filter,
            routes: &routes,
            ..Hcm::default()
        });
    }
    vec![group(
        bootstrap,
        [
            ("ratelimit/local", local),
            ("ratelimit/headers", headers),
            ("ratelimit/off_by_default", |run| passes(run, "untold")),
            ("ratelimit/disabled", |run| passes(run, "disabled")),
            ("ratelimit/unlimited_without_a_bucket", |run| {
                passes(run, "unlimited")
            }),
            ("ratelimit/not_enforced", |run| passes(run, "shadow")),
            ("ratelimit/status", status),
            ("ratelimit/per_connection", per_connection),
            ("ratelimit/per_route", per_route),
            ("ratelimit/per_virtual_host", per_virtual_host),
            ("ratelimit/grpc", grpc),
            ("ratelimit/refill", refill),
            ("ratelimit/refill_is_smooth", refill_is_smooth),
        ],
    )]
}

fn stats(run: &mut Run<'_>, prefix: &str) -> Result<()> {
    let names = ["enabled", "ok", "rate_limited", "enforced"];
    let names = names.map(|stat| format!("{prefix}.http_local_rate_limit.{stat}"));
    run.counters(&names.each_ref().map(String::as_str))
}

fn local(run: &mut Run<'_>) -> Result<()> {
    for expected in [200, 200, 429, 429] {
        run.send(get("/").on("plain").expect(expected))?;
    }
    run.send(get("/").on("plain").expect(429).fate())?;
    run.send(request("HEAD", "/").on("plain").expect(429))?;
    run.send(request("POST", "/").body("hello").on("plain").expect(429))?;
    run.counters(&["http.plain.downstream_rq_4xx"])?;
    stats(run, "plain")
}

fn headers(run: &mut Run<'_>) -> Result<()> {
    for expected in [200, 200, 429] {
        run.send(get("/").on("headers").expect(expected))?;
    }
    stats(run, "headers")
}

fn passes(run: &mut Run<'_>, listener: &str) -> Result<()> {
    for _ in 0..4 {
        run.send(get("/").on(listener).expect(200))?;
    }
    stats(run, listener)
}

fn status(run: &mut Run<'_>) -> Result<()> {
    for (listener, limited) in [("status", 503), ("low", 429)] {
        for expected in [200, 200, limited] {
            run.send(get("/").on(listener).expect(expected))?;
        }
    }
    stats(run, "status")
}

fn per_connection(run: &mut Run<'_>) -> Result<()> {
    for _ in 0..2 {
        let mut connection = run.open("connection")?;
        for expected in [200, 200, 429] {
            connection = run.send_on(connection, get("/").expect(expected))?;
        }
    }
    stats(run, "connection")
}

fn per_route(run: &mut Run<'_>) -> Result<()> {
    for (path, expected) in [
        ("/own", 200),
        ("/own", 429),
        ("/free", 200),
        ("/free", 200),
        ("/free", 200),
        ("/", 200),
        ("/", 200),
        ("/", 429),
    ] {
        run.send(get(path).on("routes").expect(expected))?;
    }
    stats(run, "own")?;
    stats(run, "free")?;
    stats(run, "routes")
}

fn per_virtual_host(run: &mut Run<'_>) -> Result<()> {
    for (path, expected) in [("/", 200), ("/", 429), ("/own", 200), ("/own", 429)] {
        run.send(get(path).host("host.example").on("routes").expect(expected))?;
    }
    stats(run, "host")
}

fn grpc(run: &mut Run<'_>) -> Result<()> {
    for listener in ["grpc", "exhausted"] {
        for _ in 0..3 {
            let ask = request("POST", "/").header("content-type", "application/grpc");
            run.send(ask.body("x").on(listener).expect(200))?;
        }
    }
    Ok(())
}

fn refill(run: &mut Run<'_>) -> Result<()> {
    for expected in [200, 429] {
        run.send(get("/").on("fast").expect(expected))?;
    }
    run.await_status(&get("/").on("fast"), 200)
}

fn refill_is_smooth(run: &mut Run<'_>) -> Result<()> {
    for _ in 0..10 {
        run.send(get("/").on("smooth").expect(200))?;
    }
    // One token takes half a second; the whole filling would take ten times that.
    let began = now();
    run.await_status(&get("/").on("smooth"), 200)?;
    let soon = began.elapsed().as_secs() < 3;
    run.note("a token comes before the interval ends", soon.to_string());
    Ok(())
}
