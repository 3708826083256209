use std::{
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use proptest::prelude::*;

use super::{
    AccessLogType, Captures, DEFAULT_ACCESS_LOG, Format, FormatContext, RequestView, Value,
};
use crate::{
    ConnectionInfo, Decision, Endpoint, Metadata, MetadataValue, Reason, RequestInfo, ResponseFlag,
    clock,
};

fn info() -> RequestInfo {
    let connection = ConnectionInfo::new(
        7,
        Some("127.0.0.1:10000".parse().unwrap()),
        Some("[2001:db8:1:2::3]:5123".parse().unwrap()),
    );
    let mut info = RequestInfo::new(clock::now(), 9, Arc::new(connection), Arc::from("v3"));
    info.start_wall = UNIX_EPOCH + Duration::from_millis(1_795_196_515_176);
    info
}

fn request() -> Request<()> {
    Request::get("/a/b?x=1&y=two%20words&x=3&flag&%6b=%zz%4")
        .header("host", "Example.com")
        .header("user-agent", "curl/8")
        .header("x-request-id", "abc-123")
        .header("x-twice", "one")
        .header("x-twice", "two")
        .body(())
        .unwrap()
}

fn show(text: &str, context: &FormatContext<'_>) -> String {
    let mut out = String::new();
    Format::parse(text).unwrap().write(context, &mut out);
    out
}

#[test]
fn request_operators_read_headers_pseudo_headers_and_alternatives() {
    let (info, request) = (info(), request());
    let context = FormatContext::new(&info).with_request(RequestView::of(&request));
    for (format, expected) in [
        (
            "%REQ(:METHOD)% %REQ(:authority)% %REQ(Host)%",
            "GET Example.com Example.com",
        ),
        (
            "%REQ(:SCHEME)% %REQ(:PATH)%",
            "http /a/b?x=1&y=two%20words&x=3&flag&%6b=%zz%4",
        ),
        (
            "%REQ(X-Absent?USER-AGENT)% %REQ(X-Absent?X-Gone)%",
            "curl/8 -",
        ),
        ("%REQUEST_HEADER(user-agent):4%|", "curl|"),
        ("%REQ(X-TWICE)%", "one"),
        ("%REQ_WITHOUT_QUERY(:PATH)%", "/a/b"),
        (
            "%QUERY_PARAM(x)% %QUERY_PARAM(y):5% [%QUERY_PARAM(flag)%] %QUERY_PARAM(X)% %QUERY_PARAM(k)%",
            "1 two w [] - %zz%4",
        ),
        ("%PATH%", "/a/b?x=1&y=two%20words&x=3&flag&%6b=%zz%4"),
        ("%PATH(NQ)% %PATH(NQ:PATH):2% %PATH(NQ:ORIG)%", "/a/b /a -"),
        ("%QUERY_PARAMS%", "x=1&y=two%20words&x=3&flag&%6b=%zz%4"),
        ("%STREAM_ID%", "abc-123"),
        ("%RESP(X)% %TRAILER(X)% %RESPONSE_CODE%", "- - 0"),
        ("100%% of %PROTOCOL%", "100% of -"),
    ] {
        assert_eq!(show(format, &context), expected, "{format}");
    }
}

/// `{ns: {n: 7, text: abc}}`
fn stated() -> Metadata {
    let fields = [
        ("n", MetadataValue::Number(7.0)),
        ("text", MetadataValue::Text("abc".into())),
    ];
    let fields = fields.map(|(key, value)| (key.into(), value));
    Metadata::new([("ns".into(), MetadataValue::Struct(fields.into()))].into())
}

#[test]
fn fact_operators_read_what_happened() {
    let info = info();
    info.with(|facts| {
        let mut endpoint = Endpoint::standalone("10.0.0.1:80".parse().unwrap());
        endpoint.hostname = Arc::from("db.example:5432");
        endpoint.metadata = Arc::new([("stage".to_owned(), "blue".to_owned())].into());
        facts.endpoint = Some(Arc::new(endpoint));
        facts.cluster = Some(Arc::from("db"));
        facts.route_name = Some(Arc::from("r"));
        facts.attempts = 2;
        facts.details = Some("upstream reset: late".into());
        facts.transport_failure = Some("delayed_connect_error: Connection refused".into());
        facts.protocol = Some(Version::HTTP_11);
        facts.upstream_protocol = Some(Version::HTTP_2);
        facts.upstream_local = Some("10.0.0.9:4000".parse().unwrap());
        facts.upstream_connection_id = Some(12);
        facts.route_metadata = Some(Arc::new(stated()));
        facts.request_received = Some(info.start + Duration::from_millis(3));
        facts.response_started = Some(info.start + Duration::from_micros(10_250));
        facts
            .trace
            .push(Decision::new("retry", Reason::Retried, 1, 2));
    });
    info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
    info.flag(ResponseFlag::UpstreamConnectionFailure);
    info.add_received(5);
    info.add_sent(6);
    let mut headers = HeaderMap::new();
    headers.insert("server", HeaderValue::from_static("us"));
    let mut context = FormatContext::new(&info)
        .with_response(StatusCode::BAD_GATEWAY, &headers)
        .with_end(info.start + Duration::from_millis(50));
    context.log_type = AccessLogType::DownstreamEnd;
    context.local_reply_body = Some(b"gone");
    for (format, expected) in [
        (
            "%RESPONSE_CODE% %RESP(:STATUS)% %RESP(Server)%",
            "502 502 us",
        ),
        ("%BYTES_RECEIVED% %BYTES_SENT%", "5 6"),
        (
            "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
            "URX,UF UpstreamRetryLimitExceeded,UpstreamConnectionFailure",
        ),
        // `:status: 502`, `server: us`, and the date to come.
        ("%RESPONSE_HEADERS_BYTES% %RESPONSE_TRAILERS_BYTES%", "51 0"),
        ("%RESPONSE_CODE_DETAILS%", "upstream_reset:_late"),
        (
            "%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%",
            "upstream reset: late",
        ),
        (
            "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
            "delayed_connect_error:_Connection_refused",
        ),
        ("%PROTOCOL% %UPSTREAM_PROTOCOL%", "HTTP/1.1 HTTP/2"),
        (
            "%DURATION% %REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%",
            "50 3 10 39",
        ),
        (
            "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)% %REQUEST_TX_DURATION%",
            "10250 -",
        ),
        (
            "%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%",
            "10.0.0.1:80 10.0.0.1 80",
        ),
        (
            "%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%",
            "db.example:5432 db.example",
        ),
        (
            "%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_CLUSTER% %ROUTE_NAME%",
            "10.0.0.9:4000 db r",
        ),
        (
            "%UPSTREAM_METADATA(envoy.lb:stage)% %UPSTREAM_METADATA(x:y)%",
            "blue -",
        ),
        (
            "%CONNECTION_ID% %UPSTREAM_CONNECTION_ID% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            "7 12 2",
        ),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "[2001:db8:1:2::3]:5123"),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%",
            "2001:db8:1:2::3 5123",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(48)%",
            "2001:db8:1::/48",
        ),
        (
            "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(8)% %DOWNSTREAM_LOCAL_PORT%",
            "127.0.0.0/8 10000",
        ),
        ("%ACCESS_LOG_TYPE% %LOCAL_REPLY_BODY%", "DownstreamEnd gone"),
        (
            "%MESH_DECISIONS% %MESH_CONFIG_VERSION%",
            "retry:retried 1/2 v3",
        ),
        (
            "%START_TIME% %START_TIME(%s.%3f)%",
            "2026-11-20T17:41:55.176Z 1795196515.176",
        ),
        (
            "%REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(SNI_ONLY)% %UPSTREAM_TLS_VERSION% %UPSTREAM_PEER_CERT_V_END%",
            "- - - -",
        ),
        ("%DYNAMIC_METADATA(a:b)% %DOWNSTREAM_TLS_VERSION%", "- -"),
        (
            "%METADATA(ROUTE:ns:text)% %METADATA(ROUTE:ns:text):2% %METADATA(ROUTE:ns)%",
            "abc ab {\"n\":7,\"text\":\"abc\"}",
        ),
        (
            "%METADATA(ROUTE:ns:none)% %METADATA(CLUSTER:ns:n)% %CLUSTER_METADATA(ns)%",
            "- - -",
        ),
    ] {
        assert_eq!(show(format, &context), expected, "{format}");
    }
}

#[test]
fn the_default_line_of_a_refused_request_has_a_dash_for_each_unknown() {
    let info = info();
    let line = show(DEFAULT_ACCESS_LOG, &FormatContext::new(&info));
    assert_eq!(
        line,
        "[2026-11-20T17:41:55.176Z] \"- - -\" 0 - 0 0 - - \"-\" \"-\" \"-\" \"-\" \"-\"\n"
    );
}

#[test]
fn captured_headers_stand_in_for_a_request_that_is_gone() {
    let mut first = Format::parse("%REQ(:METHOD)% %REQ(X-Absent?:PATH)% %PATH(NQ)%").unwrap();
    let mut second =
        Format::parse("%REQ(HOST)% %REQ(USER-AGENT)% %QUERY_PARAM(x)% %REQ(:SCHEME)%").unwrap();
    let mut captures = Captures::default();
    captures.bind(&mut first);
    captures.bind(&mut second);
    let names: Vec<String> = captures.fields().iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            ":method",
            "x-absent",
            ":path",
            "x-envoy-original-path",
            ":authority",
            "user-agent",
            ":scheme"
        ]
    );

    let (info, request) = (info(), request());
    let (mut line, mut unbound) = (String::new(), String::new());
    info.with(|facts| facts.captured = captures.capture(&RequestView::of(&request)));
    drop(request);
    first.write(&FormatContext::new(&info), &mut line);
    line.push(' ');
    second.write(&FormatContext::new(&info), &mut line);
    assert_eq!(
        line,
        "GET /a/b?x=1&y=two%20words&x=3&flag&%6b=%zz%4 /a/b Example.com curl/8 1 http"
    );
    Format::parse("%REQ(:METHOD)%")
        .unwrap()
        .write(&FormatContext::new(&info), &mut unbound);
    assert_eq!(unbound, "-");
}

#[test]
fn a_client_cannot_forge_a_log_line() {
    let info = info();
    let mut request = request();
    let evil = HeaderValue::from_bytes(b"a\tb\x80\xc2\x85\xc3\xa9").unwrap();
    request.headers_mut().insert("x-evil", evil);
    let context = FormatContext::new(&info).with_request(RequestView::of(&request));
    assert_eq!(show("%REQ(X-EVIL)%", &context), "a\\x09b\\x80\\xc2\\x85é");
    assert_eq!(show("%REQ(X-EVIL):7%", &context), "a\\x09b\\x80\\xc2\\x85");
    let mut bytes = Vec::new();
    Format::parse("%REQ(X-EVIL)%")
        .unwrap()
        .write(&context, &mut bytes);
    assert_eq!(bytes, b"a\tb\x80\xc2\x85\xc3\xa9");

    let mut context = FormatContext::new(&info);
    context.local_reply_body = Some(b"one\r\n[2026] two");
    assert_eq!(
        show("%LOCAL_REPLY_BODY%", &context),
        "one\\x0d\\x0a[2026] two"
    );
}

#[test]
fn a_single_operator_keeps_its_type() {
    let info = info();
    let mut scratch = String::new();
    let mut value = |text: &str| {
        let format = Format::parse(text).unwrap();
        info.with(|facts| {
            match format.value_with(&FormatContext::new(&info), facts, &mut scratch) {
                Value::Unset => "unset".to_owned(),
                Value::Number(number) => format!("number {number}"),
                Value::Json(text) => format!("json {text}"),
                Value::Text(text) => format!("text {text}"),
            }
        })
    };
    assert_eq!(value("%BYTES_SENT%"), "number 0");
    assert_eq!(value("%CONNECTION_ID% "), "text 7 ");
    assert_eq!(value("%DURATION%"), "unset");
    assert_eq!(value("%REQ(X)%"), "unset");
    assert_eq!(value("%RESPONSE_FLAGS%"), "text -");
    assert_eq!(value("%DURATION% %REQ(X)%"), "text - -");
    assert_eq!(value("plain"), "text plain");
    info.with(|facts| facts.route_metadata = Some(Arc::new(stated())));
    let object = r#"json {"n":7,"text":"abc"}"#;
    for (format, expected) in [
        ("%METADATA(ROUTE:ns)%", object),
        ("%METADATA(ROUTE:ns:n)%", "json 7"),
        ("%METADATA(ROUTE:ns:text)%", "text abc"),
        ("%METADATA(ROUTE:ns:none)%", "unset"),
        ("%METADATA(ROUTE:ns:n)%!", "text 7!"),
    ] {
        assert_eq!(value(format), expected, "{format}");
    }
}

#[test]
fn what_will_be_quoted_keeps_its_control_characters() {
    let info = info();
    let request = Request::get("/").header("x", "a\tb").body(()).unwrap();
    let context = FormatContext::new(&info).with_request(RequestView::of(&request));
    let mut scratch = String::new();
    let format = Format::parse("%REQ(X)%").unwrap();
    let value =
        info.with(|facts| format.value_with(&context, facts, &mut scratch) == Value::Text("a\tb"));
    assert!(value);
    assert_eq!(show("%REQ(X)%", &context), "a\\x09b");
}

#[test]
fn empty_values_may_be_omitted() {
    let info = info();
    let format = Format::parse("[%REQ(X)%]").unwrap().omit_empty_values(true);
    let mut out = String::new();
    format.write(&FormatContext::new(&info), &mut out);
    assert_eq!(out, "[]");
}

#[test]
fn grpc_status_is_read_from_trailers_then_headers_then_the_http_status() {
    let info = info();
    let mut request = request();
    let (mut headers, mut trailers) = (HeaderMap::new(), HeaderMap::new());
    let status = |request: &Request<()>, headers: &HeaderMap, trailers: &HeaderMap| {
        let context = FormatContext::new(&info)
            .with_request(RequestView::of(request))
            .with_response(StatusCode::SERVICE_UNAVAILABLE, headers)
            .with_trailers(Some(trailers));
        show(
            "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%",
            &context,
        )
    };
    assert_eq!(status(&request, &headers, &trailers), "- - -");
    request.headers_mut().insert(
        "content-type",
        HeaderValue::from_static("application/grpc-web"),
    );
    assert_eq!(status(&request, &headers, &trailers), "- - -");
    request.headers_mut().insert(
        "content-type",
        HeaderValue::from_static("application/grpc+proto"),
    );
    assert_eq!(
        status(&request, &headers, &trailers),
        "Unavailable UNAVAILABLE 14"
    );
    headers.insert("grpc-status", HeaderValue::from_static("1"));
    assert_eq!(
        status(&request, &headers, &trailers),
        "Canceled CANCELLED 1"
    );
    trailers.insert("grpc-status", HeaderValue::from_static("99"));
    assert_eq!(status(&request, &headers, &trailers), "99 99 99");
    trailers.insert("grpc-status", HeaderValue::from_static("x"));
    assert_eq!(status(&request, &headers, &trailers), "-1 -1 -1");
}

#[test]
fn a_unique_id_is_a_uuid_and_the_same_for_one_request() {
    let info = info();
    let id = show("%UNIQUE_ID%", &FormatContext::new(&info));
    assert_eq!(id, show("%UNIQUE_ID%", &FormatContext::new(&info)));
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
    assert_eq!(&id[14..15], "4", "{id}");
    assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
}

#[test]
fn errors_name_the_place_and_the_reason() {
    for (text, expected) in [
        ("ab %FOO% c", "unknown command \"FOO\" at byte 3"),
        ("%%%REQ%", "REQ needs a parameter at byte 2"),
        ("%REQ()%", "REQ needs a parameter at byte 0"),
        ("%REQ(a b)%", "\"a b\" is not a header name at byte 0"),
        ("%REQ(a?b?c)%", "more than one alternative header at byte 0"),
        (
            "%REQ(a",
            "parameters without a closing parenthesis at byte 0",
        ),
        (
            "%REQ(a)",
            "operator without a closing percent sign at byte 0",
        ),
        ("%REQ(a):%", "\"\" is not a length at byte 0"),
        ("%REQ(a):+3%", "\"+3\" is not a length at byte 0"),
        (
            "50% off",
            "percent sign without a command (a literal one is written %%) at byte 2",
        ),
        ("%PROTOCOL(x)%", "PROTOCOL takes no parameters at byte 0"),
        ("%PROTOCOL:3%", "PROTOCOL takes no length at byte 0"),
        ("%DURATION(x)%", "DURATION takes no parameters at byte 0"),
        (
            "%protocol%",
            "percent sign without a command (a literal one is written %%) at byte 0",
        ),
        (
            "%START_TIME(%Q)%",
            "unknown time specifier \"%Q\" at byte 0",
        ),
        ("%PATH(X)%", "PATH takes WQ or NQ, not \"X\" at byte 0"),
        (
            "%COMMON_DURATION(a:b)%",
            "COMMON_DURATION needs START:END:PRECISION at byte 0",
        ),
        (
            "%DYNAMIC_METADATA%",
            "DYNAMIC_METADATA needs a parameter at byte 0",
        ),
        (
            "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(129)%",
            "\"129\" is not a prefix length at byte 0",
        ),
    ] {
        assert_eq!(
            Format::parse(text).unwrap_err().to_string(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn what_is_never_set_can_be_named() {
    let text = "%DYNAMIC_METADATA(a:b)% %DURATION% %COMMON_DURATION(DS_RX_BEG:X:ms)% %DOWNSTREAM_TLS_SESSION_ID%";
    let format = Format::parse(text).unwrap();
    let unset: Vec<&str> = format.always_unset().collect();
    assert_eq!(
        unset,
        [
            "DYNAMIC_METADATA(a:b)",
            "COMMON_DURATION(DS_RX_BEG:X:ms)",
            "DOWNSTREAM_TLS_SESSION_ID"
        ]
    );
}

#[test]
fn a_literal_is_not_parsed() {
    assert_eq!(Format::literal("50% off").as_literal(), Some("50% off"));
    assert_eq!(
        Format::parse("50%% off").unwrap().as_literal(),
        Some("50% off")
    );
    assert_eq!(Format::parse("%PROTOCOL%").unwrap().as_literal(), None);
}

/// What a slow machine can still do; the aim is one microsecond.
#[test]
fn the_default_line_takes_microseconds_and_reuses_its_buffer() {
    let mut format = Format::parse(DEFAULT_ACCESS_LOG).unwrap();
    let mut captures = Captures::default();
    captures.bind(&mut format);
    let (info, request) = (info(), request());
    info.with(|facts| facts.captured = captures.capture(&RequestView::of(&request)));
    let headers = HeaderMap::new();
    let context = FormatContext::new(&info).with_response(StatusCode::OK, &headers);
    let mut line = String::with_capacity(512);
    let began: Instant = clock::now();
    for _ in 0..10_000 {
        line.clear();
        format.write(&context, &mut line);
    }
    let each = began.elapsed() / 10_000;
    println!("{each:?} for {line}");
    assert_eq!(line.capacity(), 512);
    assert!(each < Duration::from_micros(200), "{each:?}");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "[%A-Z_a-z():?0-9 é]{0,40}") {
        let _ = Format::parse(&text);
    }

    #[test]
    fn text_without_percent_signs_is_itself(text in "[^%]*") {
        let format = Format::parse(&text).unwrap();
        prop_assert_eq!(format.as_literal(), Some(text.as_str()));
    }

    #[test]
    fn whatever_a_header_holds_a_line_has_no_control_characters(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        length in 0usize..60,
    ) {
        let info = info();
        let mut context = FormatContext::new(&info);
        context.local_reply_body = Some(&bytes);
        let line = show("%LOCAL_REPLY_BODY%", &context);
        prop_assert!(!line.chars().any(char::is_control));
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let mut headers = HeaderMap::new();
            headers.insert("x", value);
            let context = FormatContext::new(&info).with_response(StatusCode::OK, &headers);
            let mut raw = Vec::new();
            Format::parse(&format!("%RESP(x):{length}%")).unwrap().write(&context, &mut raw);
            prop_assert!(raw.len() <= length && bytes.starts_with(&raw));
        }
    }
}

#[test]
fn an_extension_method_is_captured_as_sent() {
    let mut format = Format::parse("%REQ(:METHOD)%").unwrap();
    let mut captures = Captures::default();
    captures.bind(&mut format);
    let mut request = request();
    *request.method_mut() = Method::from_bytes(b"PURGE").unwrap();
    let captured = captures.capture(&RequestView::of(&request));
    assert_eq!(captured[0].as_ref().unwrap(), "PURGE");
}
