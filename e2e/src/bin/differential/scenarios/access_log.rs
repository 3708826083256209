//! Access logs: formats, filters, lines in between, lines of attempts.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{get, raw, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

/// An item of `access_log` that writes `format` for requests which pass `filter`.
fn log(format: &str, filter: &str) -> String {
    let filter = if filter.is_empty() {
        String::new()
    } else {
        format!("  filter: {filter}\n")
    };
    format!(
        "- name: envoy.access_loggers.stdout\n{filter}  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog\n    log_format: {format}\n"
    )
}

fn text(format: &str) -> String {
    format!("{{text_format_source: {{inline_string: \"+{format}\\n\"}}}}")
}

const ROUTES: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {name: direct, match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: direct}}}
      - name: retried
        match: {prefix: /retried}
        route: {cluster: a, retry_policy: {retry_on: '5xx,reset', num_retries: 2, retry_back_off: {base_interval: 0.001s}}}
      - {name: dead, match: {prefix: /dead}, route: {cluster: dead}}
      - {name: rewritten, match: {prefix: /rewritten}, route: {cluster: a, prefix_rewrite: /new, host_rewrite_literal: new.example}}
      - {name: short, match: {prefix: /short}, route: {cluster: a, timeout: 0.2s}}
      - name: with metadata
        match: {prefix: /metadata}
        metadata: {filter_metadata: {team: {name: web, size: 3, nested: {deep: [1, true, null, x]}}}}
        route: {cluster: a}
      - {name: plain, match: {prefix: /}, route: {cluster: a}}
"#;

const CLUSTER: &str = "
metadata: {filter_metadata: {team: {name: core}}}
load_assignment:
  cluster_name: a
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{a}}}}}
      metadata: {filter_metadata: {envoy.lb: {zone: z1}}}
";
const JSON: &str = r#"{json_format: {"+": json, method: "%REQ(:METHOD)%", code: "%RESPONSE_CODE%", flags: "%RESPONSE_FLAGS%", missing: "%REQ(X-MISSING)%", mixed: "%RESPONSE_CODE% %REQ(X-MISSING)%", evil: "%REQ(X-EVIL)%", nested: {sent: "%BYTES_SENT%", list: ["%PROTOCOL%", 7, true, null]}, status: "%RESP(:STATUS)%", attempts: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"}}"#;
const OMITTED: &str = r#"{omit_empty_values: true, json_format: {"+": omitted, missing: "%REQ(X-MISSING)%", mixed: "a%REQ(X-MISSING)%", nested: {missing: "%RESP(X-MISSING)%"}, code: "%RESPONSE_CODE%"}}"#;

const OPERATORS: &str = "ops %REQ(:SCHEME)% %REQ(:AUTHORITY)% %REQ(X-MISSING?USER-AGENT):5% %REQ(X-TWICE)% %RESP(X-ANSWER?SERVER)% %RESP(X-MISSING)% \
%PATH(NQ)% %PATH(WQ:PATH)% %PATH(NQ:ORIG)% %PATH(WQ:ORIG_OR_PATH):6% %QUERY_PARAM(k)% %QUERY_PARAM(missing)% %QUERY_PARAM(k):2% \
%RESPONSE_FLAGS_LONG% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% \
%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER% %ACCESS_LOG_TYPE% %ENVIRONMENT(NOT_THERE)% 100%%";
const UPSTREAM: &str = "up %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW% %UPSTREAM_PROTOCOL% %UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% \
%UPSTREAM_METADATA(envoy.lb:zone)% %CLUSTER_METADATA(team:name)% %CLUSTER_METADATA(team)% \
%METADATA(ROUTE:team:name)% %METADATA(ROUTE:team:size)% %METADATA(ROUTE:team:nested:deep)% %METADATA(ROUTE:team)% %METADATA(ROUTE:none:a)% %METADATA(CLUSTER:team:name)% \
%DYNAMIC_METADATA(a:b)% %FILTER_STATE(a)% %ROUTE_NAME% %BYTES_RECEIVED% %BYTES_SENT%";
const ADDRESSES: &str = "addr %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)% %REQUESTED_SERVER_NAME% %DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_SUBJECT% %TRACE_ID%";
const SIZES: &str =
    "size %RESPONSE_HEADERS_BYTES% %RESPONSE_TRAILERS_BYTES% %BYTES_RECEIVED% %BYTES_SENT%";

pub(super) fn groups() -> Vec<Group> {
    vec![formats(), filters(), lines()]
}

fn formats() -> Group {
    let formats = [
        text(OPERATORS),
        text(UPSTREAM),
        text(ADDRESSES),
        JSON.into(),
        OMITTED.into(),
    ];
    let mut logs: String = formats.iter().map(|format| log(format, "")).collect();
    // Of answers from elsewhere, the size changes with the time that they took.
    let direct = "{header_filter: {header: {name: ':path', string_match: {prefix: /direct}}}}";
    logs.push_str(&log(&text(SIZES), direct));
    let hcm = Hcm {
        routes: ROUTES,
        logs: &logs,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&hcm)
        .cluster_with("a", CLUSTER)
        .cluster("dead", &["dead"], "");
    group(
        bootstrap,
        [
            ("log/operators", operators),
            ("log/injection", injection),
            ("log/failures", failures),
            ("log/grpc", grpc),
        ],
    )
}

fn filters() -> Group {
    let line = |name: &str, filter: &str| {
        log(
            &text(&format!("{name} %REQ(:PATH)% %RESPONSE_CODE%")),
            filter,
        )
    };
    let at_least = |code: u16| {
        format!(
            "status_code_filter: {{comparison: {{op: GE, value: {{default_value: {code}, runtime_key: none}}}}}}"
        )
    };
    let logs = [
        line("status", &format!("{{{}}}", at_least(500))),
        line("header", "{header_filter: {header: {name: x-log, string_match: {exact: 'yes'}}}}"),
        line("not header", "{header_filter: {header: {name: x-log, string_match: {exact: 'yes'}, invert_match: true}}}"),
        line("rewritten", "{header_filter: {header: {name: ':path', string_match: {prefix: /new}}}}"),
        line("flag", "{response_flag_filter: {flags: [UF, UT]}}"),
        line("any flag", "{response_flag_filter: {}}"),
        line("grpc", "{grpc_status_filter: {statuses: [OK, NOT_FOUND]}}"),
        line("grpc else", "{grpc_status_filter: {statuses: [OK, UNKNOWN], exclude: true}}"),
        line("metadata", "{metadata_filter: {matcher: {filter: a, path: [{key: b}], value: {present_match: true}}}}"),
        line("no metadata", "{metadata_filter: {matcher: {filter: a, path: [{key: b}], value: {present_match: true}}, match_if_key_not_found: false}}"),
        line("type", "{log_type_filter: {types: [DownstreamEnd]}}"),
        line("other type", "{log_type_filter: {types: [DownstreamEnd], exclude: true}}"),
        line("both", &format!("{{and_filter: {{filters: [{{{}}}, {{header_filter: {{header: {{name: x-log}}}}}}]}}}}", at_least(500))),
        line("either", &format!("{{or_filter: {{filters: [{{{}}}, {{header_filter: {{header: {{name: x-log}}}}}}]}}}}", at_least(500))),
        line("traced", "{traceable_filter: {}}"),
        line("never", "{runtime_filter: {runtime_key: none, percent_sampled: {numerator: 0}}}"),
        line("always", "{runtime_filter: {runtime_key: none, percent_sampled: {numerator: 100}}}"),
        line("slow", "{duration_filter: {comparison: {op: GE, value: {default_value: 150, runtime_key: none}}}}"),
        line("healthy", "{not_health_check_filter: {}}"),
    ]
    .concat();
    let hcm = Hcm {
        routes: ROUTES,
        logs: &logs,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&hcm)
        .cluster("a", &["a"], "")
        .cluster("dead", &["dead"], "");
    group(bootstrap, [("log/filters", filtered)])
}

fn lines() -> Group {
    let format = text(
        "%ACCESS_LOG_TYPE% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %ROUTE_NAME%",
    );
    let logs = log(&format, "");
    let upstream = text(
        "%ACCESS_LOG_TYPE% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %ROUTE_NAME% %PROTOCOL% %UPSTREAM_PROTOCOL% %RESP(X-ANSWER)%",
    );
    let upstream = format!("upstream_log:\n{}", log(&upstream, ""));
    let early =
        format!("{upstream}upstream_log_options: {{flush_upstream_log_on_upstream_stream: true}}");
    let with = |name: &'static str| Hcm {
        name,
        routes: ROUTES,
        logs: &logs,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            fields: "access_log_options: {flush_access_log_on_new_request: true}",
            ..with("start")
        })
        .listener(&Hcm {
            fields: "access_log_options: {access_log_flush_interval: 0.15s}",
            ..with("periodic")
        })
        .listener(&Hcm {
            router: &upstream,
            logs: "",
            ..with("attempts")
        })
        .listener(&Hcm {
            router: &early,
            logs: "",
            ..with("early")
        })
        .cluster("a", &["a"], "")
        .cluster("dead", &["dead"], "");
    group(
        bootstrap,
        [
            ("log/start", start),
            ("log/periodic", periodic),
            ("log/attempts", attempts),
            ("log/attempts_early", attempts_early),
        ],
    )
}

fn operators(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/", [Reply::ok("hello").header("x-answer", "42")]);
    let ask = get("/path?k=value&k=second").header("user-agent", "differential");
    run.send(ask.header("x-twice", "one").header("x-twice", "two"))?;
    run.send(request("POST", "/rewritten/x?k=v").body("body"))?;
    run.send(get("/metadata"))?;
    run.send(get("/direct"))?;
    run.send(request("HEAD", "/path"))?;
    Ok(())
}

fn injection(run: &mut Run<'_>) -> Result<()> {
    for value in [
        "quote\" and \\ slash",
        "tab\there",
        "caf\u{e9} \u{2028}",
        "</script>",
        "%REQ(X)% %%",
    ] {
        run.send(
            get("/x")
                .header("x-evil", value)
                .header("user-agent", value),
        )?;
    }
    run.send(get("/x?k=%0aforged%20line&k=2"))?;
    Ok(())
}

fn failures(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/x", [Reply::close()]);
    run.up["a"].on("/short", [Reply::hang()]);
    run.send(get("/dead").expect(503))?;
    run.send(request("POST", "/x").body("hello").expect(503))?;
    run.send(get("/short").expect(504))?;
    run.send(raw("BAD\r\n\r\n"))?;
    Ok(())
}

fn grpc(run: &mut Run<'_>) -> Result<()> {
    let answer = |status: &str| {
        Reply::ok("")
            .header("content-type", "application/grpc")
            .header("grpc-status", status)
    };
    run.up["a"].on("/g", ["0", "5", "99", "x"].map(answer));
    for _ in 0..4 {
        run.send(
            request("POST", "/g")
                .header("content-type", "application/grpc")
                .body("x"),
        )?;
    }
    run.send(
        request("POST", "/dead")
            .header("content-type", "application/grpc")
            .body("x"),
    )?;
    run.send(get("/g"))?;
    Ok(())
}

fn filtered(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/503", [Reply::status(503)]);
    run.up["a"].on("/404", [Reply::status(404)]);
    run.up["a"].on("/short", [Reply::hang()]);
    for path in [
        "/x",
        "/404",
        "/503",
        "/rewritten",
        "/dead",
        "/short",
        "/direct",
    ] {
        run.send(get(path))?;
    }
    run.send(get("/x").header("x-log", "yes"))?;
    run.send(get("/503").header("x-log", "no"))?;
    run.send(get("/503").header("x-log", "no").header("x-log", "yes"))?;
    Ok(())
}

fn start(run: &mut Run<'_>) -> Result<()> {
    for path in ["/x", "/direct", "/dead"] {
        run.send(get(path).on("start"))?;
    }
    Ok(())
}

fn periodic(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/short", [Reply::hang()]);
    run.send(get("/short").on("periodic").expect(504))?;
    run.send(get("/x").on("periodic").expect(200))?;
    Ok(())
}

fn attempts(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/retried",
        [
            Reply::status(503),
            Reply::close(),
            Reply::ok("done").header("x-answer", "1"),
        ],
    );
    run.up["a"].on("/short", [Reply::hang()]);
    run.send(
        request("POST", "/retried")
            .body("hello")
            .on("attempts")
            .expect(200),
    )?;
    run.send(get("/dead").on("attempts").expect(503))?;
    run.send(get("/short").on("attempts").expect(504))?;
    run.send(get("/direct").on("attempts").expect(200))?;
    run.send(get("/rewritten").on("attempts").expect(200))?;
    Ok(())
}

fn attempts_early(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/x").on("early").expect(200))?;
    run.send(get("/dead").on("early").expect(503))?;
    Ok(())
}
