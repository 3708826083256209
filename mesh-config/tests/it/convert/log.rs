//! Access logs: where, in which words, which requests.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderMap, Request, StatusCode};
use mesh_config::model::{AccessLogConfig, AccessLogOptions};
use mesh_core::{
    ConnectionInfo, RequestInfo, ResponseFlag, clock,
    format::{FormatContext, RequestView},
};
use mesh_telemetry::{LogFormat, Target};

use super::{assert_refused, indented, manager, manager_text, report};

const AT: &str =
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.access_log[0]";
const STDOUT: &str = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";

fn fields(name: &str, config: &str, filter: &str) -> String {
    format!(
        "access_log:\n- name: a\n{}  typed_config:\n    '@type': type.googleapis.com/{name}\n{}",
        indented(filter, 2),
        indented(config, 4)
    )
}

fn log(name: &str, config: &str) -> AccessLogConfig {
    manager(&fields(name, config, "")).access_log[0].clone()
}

fn file(config: &str) -> AccessLogConfig {
    log(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        &format!("path: /tmp/log\n{config}"),
    )
}

/// What a log writes about a GET of `/p`, answered with a 503 and the flag UO.
fn with_request<T>(look: impl FnOnce(&FormatContext<'_>) -> T) -> T {
    let request = Request::get("/p").header("x-a", "A").body(()).unwrap();
    let connection = Arc::new(ConnectionInfo::in_process());
    let info = RequestInfo::new(clock::now(), 5, connection, Arc::from("1"));
    info.flags.set(ResponseFlag::UpstreamOverflow);
    let headers = HeaderMap::new();
    let context = FormatContext::new(&info)
        .with_request(RequestView::of(&request))
        .with_response(StatusCode::SERVICE_UNAVAILABLE, &headers);
    look(&context)
}

fn line(format: &LogFormat) -> String {
    with_request(|context| {
        let mut line = String::new();
        context
            .info
            .with(|facts| format.write_with(context, facts, &mut line));
        line
    })
}

/// Whether that request passes a filter.
fn passes(filter: &str) -> bool {
    let log = manager(&fields(STDOUT, "", &format!("filter: {filter}"))).access_log[0].clone();
    let filter = log
        .filter
        .unwrap_or_else(|| panic!("no filter from {filter}"));
    with_request(|context| {
        context
            .info
            .with(|facts| filter.lets_through(context, facts))
    })
}

#[test]
fn each_target_is_known() {
    assert_eq!(file("").target, Target::File(PathBuf::from("/tmp/log")));
    assert_eq!(log(STDOUT, "").target, Target::Stdout);
    let stderr = log(
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        "log_format: {text_format: e}",
    );
    assert_eq!(
        (stderr.target, line(&stderr.format)),
        (Target::Stderr, "e".into())
    );
    let device = log(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path: /dev/stdout",
    );
    assert_eq!(device.target, Target::Stdout);
}

#[test]
fn each_way_to_write_a_format_is_read() {
    for (config, wanted) in [
        ("format: '%REQ(:PATH)% %REQ(x-b)%'", "/p -"),
        ("log_format: {text_format: '%REQ(:PATH)%'}", "/p"),
        (
            "log_format: {text_format_source: {inline_string: '%RESPONSE_CODE%'}}",
            "503",
        ),
        (
            "log_format: {text_format_source: {inline_string: '[%REQ(x-b)%]'}, omit_empty_values: true}",
            "[]",
        ),
        (
            "json_format: {b: '%RESPONSE_CODE%', a: '%REQ(x-b)%'}",
            "{\"a\":null,\"b\":503}\n",
        ),
        (
            "typed_json_format: {n: {l: ['%RESPONSE_FLAGS%', 1, true]}}",
            "{\"n\":{\"l\":[\"UO\",1,true]}}\n",
        ),
        (
            "log_format: {json_format: {a: '%REQ(x-b)%', b: c}, omit_empty_values: true}",
            "{\"b\":\"c\"}\n",
        ),
    ] {
        assert_eq!(line(&file(config).format), wanted, "{config}");
    }
}

#[test]
fn no_format_or_an_empty_one_is_envoys() {
    for config in ["", "format: ''", "log_format: {text_format: ''}"] {
        assert_eq!(file(config).format, LogFormat::envoy_default(), "{config}");
    }
    let empty = file("log_format: {text_format_source: {inline_string: ''}}");
    assert_eq!(line(&empty.format), "");
}

#[test]
fn a_format_that_makes_no_sense_is_refused() {
    let refused = |config: &str, path: &str, reason: &str| {
        let text = manager_text(&fields(STDOUT, config, ""));
        assert_refused(&text, "log_format", &format!("{AT}{path}"), reason);
    };
    let text = manager_text(&fields(STDOUT, "log_format: {text_format: '%NOPE%'}", ""));
    let refusal = super::refusal(&text);
    assert!(
        refusal.contains(&format!("{AT}.typed_config.log_format.text_format: ")),
        "{refusal}"
    );
    assert!(refusal.contains("NOPE"), "{refusal}");
    refused(
        "log_format: {text_format_source: {filename: /does/not/exist}}",
        ".typed_config.log_format.text_format_source.filename",
        "cannot read \"/does/not/exist\": No such file or directory (os error 2)",
    );
    let text = manager_text("access_log: [{name: a}]");
    assert_refused(&text, "access_log", AT, "typed_config is missing");
}

#[test]
fn each_filter_decides() {
    let code = |op: &str, value: u16| {
        format!(
            "{{status_code_filter: {{comparison: {{op: {op}, value: {{default_value: {value}, runtime_key: k}}}}}}}}"
        )
    };
    let yes = code("GE", 500);
    let no = code("EQ", 200);
    assert!(passes(&yes) && passes(&code("NE", 200)) && passes(&code("LE", 503)));
    assert!(!passes(&no));
    assert!(
        passes("{response_flag_filter: {flags: [UO]}}")
            && !passes("{response_flag_filter: {flags: [UH]}}")
    );
    assert!(passes("{response_flag_filter: {}}"));
    assert!(passes("{not_health_check_filter: {}}"));
    assert!(!passes(
        "{duration_filter: {comparison: {op: GE, value: {default_value: 1, runtime_key: k}}}}"
    ));
    assert!(passes(
        "{runtime_filter: {runtime_key: k, percent_sampled: {numerator: 6}}}"
    ));
    assert!(!passes(
        "{runtime_filter: {runtime_key: k, percent_sampled: {numerator: 5}}}"
    ));
    assert!(passes(
        "{header_filter: {header: {name: x-a, string_match: {exact: A}}}}"
    ));
    assert!(!passes("{header_filter: {header: {name: x-b}}}"));
    assert!(!passes("{traceable_filter: {}}"));
    assert!(passes("{grpc_status_filter: {statuses: [UNAVAILABLE]}}"));
    assert!(!passes(
        "{grpc_status_filter: {statuses: [UNAVAILABLE], exclude: true}}"
    ));
    assert!(passes(
        "{metadata_filter: {matcher: {filter: a, path: [{key: b}], value: {present_match: true}}}}"
    ));
    assert!(!passes(
        "{metadata_filter: {match_if_key_not_found: false}}"
    ));
    assert!(!passes("{log_type_filter: {types: [DownstreamEnd]}}"));
    assert!(passes("{log_type_filter: {types: [NotSet]}}"));
    assert!(passes(
        "{log_type_filter: {types: [TcpPeriodic], exclude: true}}"
    ));
    assert!(passes(&format!(
        "{{or_filter: {{filters: [{yes}, {no}]}}}}"
    )));
    assert!(!passes(&format!(
        "{{and_filter: {{filters: [{yes}, {no}]}}}}"
    )));
}

#[test]
fn logs_that_cannot_be_written_are_reported() {
    let grpc = "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig";
    let config = "common_config: {log_name: log, grpc_service: {envoy_grpc: {cluster_name: b}}}";
    let text = manager_text(&fields(grpc, config, ""));
    assert_eq!(report(&text), [(format!("{AT}.typed_config"), None, false)]);
    let text = manager_text(&fields(
        STDOUT,
        "log_format: {text_format: '%DOWNSTREAM_TLS_SESSION_ID%'}",
        "",
    ));
    let path = format!("{AT}.typed_config.log_format.text_format");
    assert_eq!(
        report(&text),
        [(path, Some("DOWNSTREAM_TLS_SESSION_ID".to_owned()), false)]
    );
}

#[test]
fn flags_that_are_never_set_are_reported_and_do_not_widen_a_filter() {
    let filter = |flags: &str| format!("{{response_flag_filter: {{flags: [{flags}]}}}}");
    let never = ["RFCF", "NFCF", "UDO"]
        .into_iter()
        .find(|flag| ResponseFlag::ALL.iter().all(|f| f.short() != *flag));
    let never = never.expect("a flag of Envoy's that is never set here");
    assert!(!passes(&filter(&format!("{never}, UH"))));
    let text = manager_text(&fields(STDOUT, "", &format!("filter: {}", filter(never))));
    let path = format!("{AT}.filter.response_flag_filter.flags[0]");
    assert_eq!(report(&text), [(path, Some(never.to_owned()), false)]);
    let log =
        manager(&fields(STDOUT, "", &format!("filter: {}", filter(never)))).access_log[0].clone();
    assert!(log.filter.is_none());
}

#[test]
fn operators_of_extensions_are_reported_and_leave_envoys_own_format() {
    let formatter = "formatters: [{name: f, typed_config: {'@type': type.googleapis.com/envoy.extensions.formatter.cel.v3.Cel}}]";
    for (format, wanted) in [
        ("%SOMETHING_ELSE(x)%", LogFormat::envoy_default()),
        ("%REQ(:PATH)%", LogFormat::text("%REQ(:PATH)%").unwrap()),
    ] {
        let config = format!(
            "log_format: {{text_format_source: {{inline_string: '{format}'}}, {formatter}}}"
        );
        assert_eq!(log(STDOUT, &config).format, wanted);
        let report = report(&manager_text(&fields(STDOUT, &config, "")));
        assert_eq!(
            report,
            [(
                format!("{AT}.typed_config.log_format.formatters[0].typed_config"),
                None,
                false
            )]
        );
    }
}

#[test]
fn a_filter_that_is_not_there_lets_everything_through() {
    let yes = "{not_health_check_filter: {}}";
    let unknown = "{extension_filter: {name: cel, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, expression: 'true'}}}";
    for filter in [
        unknown.to_owned(),
        format!("{{or_filter: {{filters: [{yes}, {unknown}]}}}}"),
    ] {
        let text = fields(STDOUT, "", &format!("filter: {filter}"));
        assert!(manager(&text).access_log[0].filter.is_none(), "{filter}");
        assert_eq!(report(&manager_text(&text)).len(), 1);
    }
    assert!(passes(&format!(
        "{{and_filter: {{filters: [{yes}, {unknown}]}}}}"
    )));
}

#[test]
fn lines_in_between_are_asked_for_in_two_ways() {
    let wanted = AccessLogOptions {
        flush_on_new_request: true,
        flush_interval: Some(Duration::from_secs(2)),
    };
    let fields = "access_log_flush_interval: 2s, flush_access_log_on_new_request: true";
    let new = manager(&format!("access_log_options: {{{fields}}}"));
    assert_eq!(new.access_log_options, wanted);
    let old = manager(&fields.replace(", ", "\n"));
    assert_eq!(old.access_log_options, wanted);
    let none = manager("").access_log_options;
    assert_eq!(none, AccessLogOptions::default());
}

#[test]
fn attempts_have_logs_of_their_own() {
    let log = format!("{{name: a, typed_config: {{'@type': type.googleapis.com/{STDOUT}}}}}");
    let router = format!(
        "'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, upstream_log: [{log}], \
         upstream_log_options: {{flush_upstream_log_on_upstream_stream: true, upstream_log_flush_interval: 2s}}"
    );
    let text = super::bare_manager_text(&format!(
        "stat_prefix: i\nhttp_filters: [{{name: router, typed_config: {{{router}}}}}]\nroute_config: {{}}"
    ));
    let config = super::config(&text);
    let router = &config.listeners[0].manager().unwrap().router;
    assert_eq!(router.upstream_log.len(), 1);
    assert_eq!(router.upstream_log[0].target, Target::Stdout);
    let options = router.upstream_log_options;
    assert!(options.flush_on_new_request);
    assert_eq!(options.flush_interval, Some(Duration::from_secs(2)));
    assert_eq!(report(&text), []);
}

#[test]
fn formatters_whose_operators_are_there_are_no_news() {
    for (name, format) in [
        ("metadata.v3.Metadata", "%METADATA(ROUTE:a:b)%"),
        (
            "req_without_query.v3.ReqWithoutQuery",
            "%REQ_WITHOUT_QUERY(:PATH)%",
        ),
    ] {
        let config = format!(
            "log_format: {{text_format_source: {{inline_string: '{format}'}}, formatters: [{{name: f, typed_config: {{'@type': type.googleapis.com/envoy.extensions.formatter.{name}}}}}]}}"
        );
        assert_eq!(report(&manager_text(&fields(STDOUT, &config, ""))), []);
        let wanted = LogFormat::text(format).unwrap();
        assert_eq!(log(STDOUT, &config).format, wanted);
    }
}
