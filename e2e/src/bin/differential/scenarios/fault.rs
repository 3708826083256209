//! Injected faults.

use anyhow::Result;
use e2e::{upstream::Reply, wait::now};

use crate::ask::{Ask, get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
const ALWAYS: &str = "percentage: {numerator: 100}";

/// A listener with the filter: name and fields.
fn listeners() -> Vec<(&'static str, String)> {
    vec![
        ("abort", format!("abort: {{http_status: 418, {ALWAYS}}}")),
        ("grpc", format!("abort: {{grpc_status: 8, {ALWAYS}}}")),
        (
            "never",
            "abort: {http_status: 418}, delay: {fixed_delay: 5s}".to_owned(),
        ),
        ("delay", format!("delay: {{fixed_delay: 0.2s, {ALWAYS}}}")),
        (
            "both",
            format!(
                "delay: {{fixed_delay: 0.1s, {ALWAYS}}}, abort: {{http_status: 503, {ALWAYS}}}"
            ),
        ),
        (
            "headers",
            format!(
                "delay: {{header_delay: {{}}, {ALWAYS}}}, abort: {{header_abort: {{}}, {ALWAYS}}}, response_rate_limit: {{header_limit: {{}}, {ALWAYS}}}"
            ),
        ),
        (
            "some",
            format!(
                "abort: {{http_status: 418, {ALWAYS}}}, headers: [{{name: x-chaos, string_match: {{exact: 'yes'}}}}], downstream_nodes: [n1]"
            ),
        ),
        (
            "cluster",
            format!("abort: {{http_status: 418, {ALWAYS}}}, upstream_cluster: b"),
        ),
        (
            "none",
            format!(
                "max_active_faults: 0, abort: {{http_status: 418, {ALWAYS}}}, delay: {{fixed_delay: 1s, {ALWAYS}}}"
            ),
        ),
        (
            "slow",
            format!("response_rate_limit: {{fixed_limit: {{limit_kbps: 1}}, {ALWAYS}}}"),
        ),
        (
            "text",
            format!("abort: {{http_status: 500, {ALWAYS}, response_body: broken}}"),
        ),
    ]
}

pub(super) fn groups() -> Vec<Group> {
    let own = |fields: &str| format!("typed_per_filter_config: {{fault: {{{TYPE}, {fields}}}}}");
    let routes = format!(
        "
        virtual_hosts:
        - name: all
          domains: ['*']
          response_headers_to_add: [{{header: {{key: x-host, value: all}}}}]
          routes:
          - {{match: {{prefix: /own}}, route: {{cluster: a}}, {}}}
          - {{match: {{prefix: /free}}, route: {{cluster: a}}, {}}}
          - {{match: {{prefix: /b}}, route: {{cluster: b}}}}
          - {{match: {{prefix: /direct}}, direct_response: {{status: 200}}}}
          - {{match: {{prefix: /}}, route: {{cluster: a}}}}
        ",
        own(&format!("abort: {{http_status: 409, {ALWAYS}}}")),
        own("abort: {http_status: 409, percentage: {numerator: 0, denominator: MILLION}}"),
    );
    let mut bootstrap = Bootstrap::default()
        .cluster("a", &["a"], "")
        .cluster("b", &["b"], "");
    for (name, fields) in listeners() {
        bootstrap = bootstrap.listener(&Hcm {
            name,
            filters: &format!("- {{name: fault, typed_config: {{{TYPE}, {fields}}}}}"),
            routes: &routes,
            fields: "use_remote_address: false",
            ..Hcm::default()
        });
    }
    vec![group(
        bootstrap,
        [
            ("fault/abort", abort),
            ("fault/abort_grpc", abort_grpc),
            ("fault/never_by_default", never),
            ("fault/delay", delay),
            ("fault/delay_then_abort", delay_then_abort),
            ("fault/headers_ask", headers_ask),
            ("fault/who_is_meant", who_is_meant),
            ("fault/upstream_cluster", upstream_cluster),
            ("fault/max_active_faults", max_active_faults),
            ("fault/response_rate_limit", response_rate_limit),
            ("fault/per_route", per_route),
        ],
    )]
}

fn stats(run: &mut Run<'_>, listener: &str) -> Result<()> {
    let names = [
        "aborts_injected",
        "delays_injected",
        "faults_overflow",
        "response_rl_injected",
        "active_faults",
    ];
    let names = names.map(|stat| format!("http.{listener}.fault.{stat}"));
    run.counters(&names.each_ref().map(String::as_str))
}

/// Sends a request, and notes whether the answer took longer than so many milliseconds.
fn timed(run: &mut Run<'_>, ask: Ask, millis: u128) -> Result<()> {
    let label = format!("{} takes {millis} ms", ask.label);
    let began = now();
    run.send(ask)?;
    run.note(&label, (began.elapsed().as_millis() >= millis).to_string());
    Ok(())
}

fn abort(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/").on("abort").expect(418).fate())?;
    run.send(request("HEAD", "/").on("abort").expect(418))?;
    run.send(request("POST", "/").body("hello").on("abort").expect(418))?;
    run.send(get("/").on("text").expect(500))?;
    run.counters(&["http.abort.downstream_rq_4xx"])?;
    stats(run, "abort")
}

fn abort_grpc(run: &mut Run<'_>) -> Result<()> {
    for listener in ["grpc", "abort"] {
        let ask = request("POST", "/").header("content-type", "application/grpc");
        run.send(ask.body("x").on(listener).expect(200))?;
    }
    run.send(get("/").on("grpc").expect(200))?;
    stats(run, "grpc")
}

fn never(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/").on("never").expect(200))?;
    stats(run, "never")
}

fn delay(run: &mut Run<'_>) -> Result<()> {
    timed(run, get("/").on("delay").expect(200), 200)?;
    timed(run, get("/direct").on("delay").expect(200), 200)?;
    stats(run, "delay")
}

fn delay_then_abort(run: &mut Run<'_>) -> Result<()> {
    timed(run, get("/").on("both").expect(503), 100)?;
    stats(run, "both")
}

fn headers_ask(run: &mut Run<'_>) -> Result<()> {
    let ask = |name: &str, value: &str| get("/").header(name, value).on("headers");
    run.send(get("/").on("headers").expect(200))?;
    run.send(ask("x-envoy-fault-abort-request", "503").expect(503))?;
    run.send(ask("x-envoy-fault-abort-request", "600").expect(200))?;
    run.send(ask("x-envoy-fault-abort-request", "x").expect(200))?;
    run.send(ask("x-envoy-fault-abort-grpc-request", "5").expect(200))?;
    let both = ask("x-envoy-fault-abort-request", "503");
    run.send(
        both.clone()
            .header("x-envoy-fault-abort-grpc-request", "5")
            .expect(503),
    )?;
    let never = both.header("x-envoy-fault-abort-request-percentage", "0");
    run.send(never.expect(200))?;
    timed(
        run,
        ask("x-envoy-fault-delay-request", "150").expect(200),
        150,
    )?;
    run.send(ask("x-envoy-fault-throughput-response", "100").expect(200))?;
    stats(run, "headers")
}

fn who_is_meant(run: &mut Run<'_>) -> Result<()> {
    let node = |value| {
        get("/")
            .header("x-envoy-downstream-service-node", value)
            .on("some")
    };
    run.send(node("n1").header("x-chaos", "yes").expect(418))?;
    run.send(node("n2").header("x-chaos", "yes").expect(200))?;
    run.send(node("n1").header("x-chaos", "no").expect(200))?;
    run.send(get("/").header("x-chaos", "yes").on("some").expect(200))?;
    stats(run, "some")
}

fn upstream_cluster(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/").on("cluster").expect(200))?;
    run.send(get("/b").on("cluster").expect(418))?;
    run.send(get("/direct").on("cluster").expect(200))?;
    stats(run, "cluster")
}

fn max_active_faults(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/").on("none").expect(200))?;
    stats(run, "none")
}

fn response_rate_limit(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/kib", [Reply::ok(&"x".repeat(600))]);
    timed(run, get("/kib").on("slow").expect(200), 500)?;
    stats(run, "slow")
}

fn per_route(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/own").on("abort").expect(409))?;
    run.send(get("/free").on("abort").expect(200))?;
    run.send(get("/").on("abort").expect(418))?;
    stats(run, "abort")
}
