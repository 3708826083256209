use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, Request, StatusCode};
use mesh_core::{
    ConnectionInfo, Decision, FractionalPercent, Reason, RequestInfo, ResponseFlag,
    RuntimeFraction, clock,
    format::{AccessLogType, Captures, FormatContext, RequestTest, RequestView},
    stats::Registry,
};
use mesh_telemetry::{
    AccessLog, AccessLogEntry, Comparison, ComparisonOp, Filter, JsonFormat, JsonTemplate,
    LogFormat, LogWriter, LogWriterConfig, Target,
};

use crate::temp::{SOON, TempDir, read};

fn info(random: u64) -> RequestInfo {
    let client = "127.0.0.1:4711".parse().ok();
    let connection = ConnectionInfo::new(2, "127.0.0.1:80".parse().ok(), client);
    let mut info = RequestInfo::new(clock::now(), random, Arc::new(connection), Arc::from("v1"));
    info.start_wall = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    info
}

/// One line in `format` about a request without headers of its own.
fn line(format: &LogFormat, info: &RequestInfo, status: u16, elapsed_ms: u64) -> String {
    let request = Request::get("/a\"b?c=d").body(()).unwrap();
    let (status, headers) = (StatusCode::from_u16(status).unwrap(), HeaderMap::new());
    let context = FormatContext::new(info)
        .with_request(RequestView::of(&request))
        .with_response(status, &headers)
        .with_end(info.start + Duration::from_millis(elapsed_ms));
    let mut out = String::new();
    info.with(|facts| format.write_with(&context, facts, &mut out));
    out
}

fn lets_through(filter: &Filter, info: &RequestInfo, status: u16, elapsed_ms: u64) -> bool {
    let headers = HeaderMap::new();
    let context = FormatContext::new(info)
        .with_response(StatusCode::from_u16(status).unwrap(), &headers)
        .with_end(info.start + Duration::from_millis(elapsed_ms));
    info.with(|facts| filter.lets_through(&context, facts))
}

fn json(text: &str) -> BTreeMap<String, JsonTemplate> {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    match template(&value) {
        JsonTemplate::Object(fields) => fields,
        other => panic!("{other:?}"),
    }
}

fn template(value: &serde_json::Value) -> JsonTemplate {
    match value {
        serde_json::Value::Null => JsonTemplate::Null,
        serde_json::Value::Bool(value) => JsonTemplate::Bool(*value),
        serde_json::Value::Number(value) => JsonTemplate::Number(value.as_f64().unwrap()),
        serde_json::Value::String(text) => JsonTemplate::String(text.clone()),
        serde_json::Value::Array(items) => JsonTemplate::List(items.iter().map(template).collect()),
        serde_json::Value::Object(fields) => JsonTemplate::Object(
            fields
                .iter()
                .map(|(key, value)| (key.clone(), template(value)))
                .collect(),
        ),
    }
}

#[test]
fn the_default_line_is_envoys() {
    let info = info(1);
    info.flag(ResponseFlag::UpstreamConnectionFailure);
    info.add_sent(98);
    assert_eq!(
        line(&LogFormat::default(), &info, 503, 7),
        "[2023-11-14T22:13:20.123Z] \"GET /a\"b?c=d -\" 503 UF 0 98 7 - \"-\" \"-\" \"-\" \"-\" \"-\"\n"
    );
}

/// What Envoy 1.40 printed for the same template.
const TEMPLATE: &str = r#"{
    "z": "%RESPONSE_CODE%", "a": "%REQ(X-NONE)%", "lit": "mesh", "num": 3, "yes": true, "nothing": null,
    "mixed": "<%REQ(X-NONE)%> %RESPONSE_CODE% \"q\"", "empty": "", "path": "%REQ(:PATH)%",
    "two": "%RESPONSE_CODE%%RESPONSE_CODE%", "dur": "%DURATION%", "trunc": "%REQ(:PATH):2%",
    "flags": "%RESPONSE_FLAGS%", "connid": "%CONNECTION_ID%", "grpc": "%GRPC_STATUS_NUMBER%",
    "list": ["%RESPONSE_CODE%", "%REQ(X-NONE)%", "x", {"k": "%REQ(X-NONE)%"}],
    "e1": {}, "e2": [], "l1": ["%REQ(X-NONE)%"],
    "obj": {"b": "%REQ(X-NONE)%", "a": {"q": "%REQ(X-NONE)%"}}
}"#;

#[test]
fn json_is_typed_and_sorted() {
    let format = LogFormat::Json(JsonFormat::new(&json(TEMPLATE), false).unwrap());
    assert_eq!(
        line(&format, &info(1), 503, 7),
        concat!(
            r#"{"a":null,"connid":2,"dur":7,"e1":{},"e2":[],"empty":"","flags":"-","grpc":null,"#,
            r#""l1":[null],"list":[503,null,"x",{"k":null}],"lit":"mesh","mixed":"<-> 503 \"q\"","#,
            r#""nothing":null,"num":3,"obj":{"a":{"q":null},"b":null},"path":"/a\"b?c=d","#,
            r#""trunc":"/a","two":"503503","yes":true,"z":503}"#,
            "\n"
        )
    );
}

#[test]
fn json_leaves_out_what_is_empty_when_told() {
    let format = LogFormat::Json(JsonFormat::new(&json(TEMPLATE), true).unwrap());
    assert_eq!(
        line(&format, &info(1), 503, 7),
        concat!(
            r#"{"connid":2,"dur":7,"e2":[],"empty":"","flags":"-","l1":[],"list":[503,"x"],"lit":"mesh","#,
            r#""mixed":"<> 503 \"q\"","num":3,"path":"/a\"b?c=d","trunc":"/a","two":"503503","#,
            r#""yes":true,"z":503}"#,
            "\n"
        )
    );
    let nothing = JsonFormat::new(&json(r#"{"a":{"b":null}}"#), true).unwrap();
    assert_eq!(line(&LogFormat::Json(nothing), &info(1), 200, 0), "{}\n");
}

#[test]
fn a_faulty_json_format_is_refused_with_its_path() {
    let error = JsonFormat::new(&json(r#"{"a":{"b":["x","%NO_SUCH%"]}}"#), false).unwrap_err();
    assert_eq!(error.path(), "a.b.1");
    assert!(error.to_string().starts_with("a.b.1: "), "{error}");
    let deep = (0..40).fold(JsonTemplate::Null, |inner, _| {
        JsonTemplate::List(vec![inner])
    });
    let error = JsonFormat::new(&BTreeMap::from([("a".to_owned(), deep)]), false).unwrap_err();
    assert!(error.reason().contains("deeper than 32"), "{error}");
}

#[test]
fn filters_compare_as_envoys_do() {
    let info = info(10);
    let status = |op, value| Filter::StatusCode(Comparison::new(op, value));
    assert!(lets_through(
        &status(ComparisonOp::Equal, 503),
        &info,
        503,
        0
    ));
    assert!(!lets_through(
        &status(ComparisonOp::NotEqual, 503),
        &info,
        503,
        0
    ));
    assert!(lets_through(
        &status(ComparisonOp::AtLeast, 503),
        &info,
        503,
        0
    ));
    assert!(!lets_through(
        &status(ComparisonOp::AtLeast, 504),
        &info,
        503,
        0
    ));
    assert!(lets_through(
        &status(ComparisonOp::AtMost, 503),
        &info,
        503,
        0
    ));
    assert!(!lets_through(
        &status(ComparisonOp::AtMost, 502),
        &info,
        503,
        0
    ));

    let slow = Filter::Duration(Comparison::new(ComparisonOp::AtLeast, 100));
    assert!(lets_through(&slow, &info, 200, 100));
    assert!(!lets_through(&slow, &info, 200, 99));
    let unfinished = FormatContext::new(&info);
    let any = Filter::Duration(Comparison::new(ComparisonOp::AtLeast, 0));
    assert!(!info.with(|facts| any.lets_through(&unfinished, facts)));
    let none = status(ComparisonOp::Equal, 0);
    assert!(info.with(|facts| none.lets_through(&unfinished, facts)));
}

#[test]
fn filters_look_at_flags_shares_and_each_other() {
    let info = info(10);
    let any_flag = Filter::ResponseFlag(Vec::new());
    let overflow = Filter::ResponseFlag(vec![ResponseFlag::UpstreamOverflow]);
    assert!(!lets_through(&any_flag, &info, 200, 0));
    info.flag(ResponseFlag::RateLimited);
    assert!(lets_through(&any_flag, &info, 200, 0));
    assert!(!lets_through(&overflow, &info, 200, 0));

    let share = |n| Filter::Runtime(RuntimeFraction::fixed(FractionalPercent::percent(n)));
    assert!(!lets_through(&share(10), &info, 200, 0));
    assert!(lets_through(&share(11), &info, 200, 0));

    assert!(lets_through(&Filter::NotHealthCheck, &info, 200, 0));
    info.with(|facts| facts.health_check = true);
    assert!(!lets_through(&Filter::NotHealthCheck, &info, 200, 0));
    let never = Filter::Predicate(Arc::new(|_, _| false));
    assert!(!lets_through(
        &Filter::And(vec![any_flag.clone(), never.clone()]),
        &info,
        200,
        0
    ));
    assert!(lets_through(
        &Filter::Or(vec![never, any_flag]),
        &info,
        200,
        0
    ));
    assert!(!lets_through(&Filter::Or(vec![]), &info, 200, 0));
    assert!(lets_through(&Filter::And(vec![]), &info, 200, 0));
}

#[test]
fn each_log_gets_its_own_words_about_the_requests_it_wants() {
    let dir = TempDir::new();
    let (all, failed) = (dir.path("all"), dir.path("failed"));
    let writer = LogWriter::new(LogWriterConfig::default(), &Registry::new().scope(""));
    let text = "%REQ(USER-AGENT)% %RESPONSE_CODE%\n";
    let fields = json(r#"{"agent":"%REQ(USER-AGENT)%","why":"%MESH_DECISIONS%"}"#);
    let mut log = AccessLog::new(vec![
        AccessLogEntry::new(writer.open(&Target::path(&all)).unwrap())
            .format(LogFormat::text(text).unwrap()),
        AccessLogEntry::new(writer.open(&Target::path(&failed)).unwrap())
            .format(LogFormat::Json(JsonFormat::new(&fields, false).unwrap()))
            .filter(Filter::StatusCode(Comparison::new(
                ComparisonOp::AtLeast,
                500,
            ))),
    ]);
    let mut captures = Captures::default();
    log.bind(&mut captures);

    for (agent, status) in [("good", 200), ("bad\u{7f}", 500)] {
        let info = info(1);
        let agent = HeaderValue::from_bytes(agent.replace('\u{7f}', "\u{a0}").as_bytes()).unwrap();
        let request = Request::get("/")
            .header("user-agent", agent)
            .body(())
            .unwrap();
        let captured = captures.capture(&RequestView::of(&request));
        info.with(|facts| facts.captured = captured);
        info.decide(Decision::new("retry", Reason::Retried, 1, 2));
        // The request itself is long gone when the line is written.
        drop(request);
        let headers = HeaderMap::new();
        let status = StatusCode::from_u16(status).unwrap();
        log.log(&FormatContext::new(&info).with_response(status, &headers));
    }
    assert!(writer.flush(SOON));
    assert_eq!(read(&all), "good 200\nbad\u{a0} 500\n");
    assert_eq!(
        read(&failed),
        "{\"agent\":\"bad\u{a0}\",\"why\":\"retry:retried 1/2\"}\n"
    );
    assert!(AccessLog::default().is_empty() && !log.is_empty());
}

#[test]
fn operators_that_are_never_set_are_named() {
    let format = LogFormat::text("%RESPONSE_CODE% %DOWNSTREAM_WIRE_BYTES_SENT%").unwrap();
    assert_eq!(format.always_unset(), ["DOWNSTREAM_WIRE_BYTES_SENT"]);
}

#[test]
fn filters_know_a_request_that_is_gone() {
    let test = RequestTest::new(|request| request.headers.contains_key("x-log"));
    let folder = TempDir::new();
    let path = folder.path("log");
    let writer = LogWriter::new(LogWriterConfig::default(), &Registry::new().scope(""));
    let sink = writer.open(&Target::path(&path)).unwrap();
    let filter = Filter::And(vec![Filter::Request(test), Filter::NotHealthCheck]);
    let entry = AccessLogEntry::new(sink)
        .format(LogFormat::text("%REQ(X-ID)%\n").unwrap())
        .filter(filter);
    let mut log = AccessLog::new(vec![entry]);
    let mut captures = Captures::default();
    log.bind(&mut captures);
    for (id, name) in [("1", "x-log"), ("2", "x-other")] {
        let info = info(1);
        let request = Request::get("/").header("x-id", id).header(name, "");
        let request = request.body(()).unwrap();
        let view = RequestView::of(&request);
        let (captured, passed) = (captures.capture(&view), captures.test(&view));
        info.with(|facts| {
            facts.captured = captured;
            facts.passed = passed;
        });
        drop(request);
        log.log(&FormatContext::new(&info));
    }
    assert!(writer.flush(SOON));
    assert_eq!(read(&path), "1\n");
}

#[test]
fn the_grpc_status_is_that_of_trailers_then_headers_then_http() {
    let only = |exclude| Filter::GrpcStatus {
        statuses: vec![0, 5],
        exclude,
    };
    let info = info(0);
    let headers = |status: Option<&str>| {
        let values = status.map(|status| ("grpc-status".parse().unwrap(), status.parse().unwrap()));
        HeaderMap::from_iter(values)
    };
    for (head, trailer, http, passes) in [
        (None, Some("0"), 200, true),
        (Some("5"), None, 200, true),
        (Some("5"), Some("3"), 200, false),
        (None, None, 404, false),
        (Some("word"), None, 200, false),
    ] {
        let (head, trailers) = (headers(head), headers(trailer));
        let context = FormatContext::new(&info)
            .with_response(StatusCode::from_u16(http).unwrap(), &head)
            .with_trailers(Some(&trailers));
        let ask = |filter: &Filter| info.with(|facts| filter.lets_through(&context, facts));
        assert_eq!(ask(&only(false)), passes, "{head:?} {trailers:?} {http}");
        assert_eq!(ask(&only(true)), !passes, "{head:?} {trailers:?} {http}");
    }
}

#[test]
fn lines_are_told_apart_by_why_they_are_written() {
    let info = info(0);
    let mut context = FormatContext::new(&info);
    context.log_type = AccessLogType::DownstreamStart;
    for (types, exclude, passes) in [
        (vec![AccessLogType::DownstreamStart], false, true),
        (vec![AccessLogType::DownstreamEnd], false, false),
        (vec![AccessLogType::DownstreamEnd], true, true),
        (vec![], false, false),
    ] {
        let filter = Filter::LogType { types, exclude };
        let passed = info.with(|facts| filter.lets_through(&context, facts));
        assert_eq!(passed, passes, "{filter:?}");
    }
}
