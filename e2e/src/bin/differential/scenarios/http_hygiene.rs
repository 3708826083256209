//! What must never reach an upstream as it came: ambiguous framing, odd targets, odd bytes.

use anyhow::Result;

use crate::ask::{get, head, raw};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

pub(super) fn groups() -> Vec<Group> {
    let bootstrap = Bootstrap::default()
        .listener(&Hcm::default())
        .listener(&Hcm {
            name: "small",
            fields: "
                max_request_headers_kb: 2
                common_http_protocol_options: {max_headers_count: 10}
            ",
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "reject",
            fields: "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}",
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "drop",
            fields: "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}",
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "relative",
            fields: "http_protocol_options: {allow_absolute_url: false}",
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "lenient",
            fields: "http_protocol_options: {allow_chunked_length: true}",
            ..Hcm::default()
        })
        .cluster("a", &["a"], "");
    vec![group(
        bootstrap,
        [
            ("http/content_length", content_length),
            ("http/transfer_encoding", transfer_encoding),
            ("http/length_and_chunked", length_and_chunked),
            (
                "http/length_and_chunked_allowed",
                length_and_chunked_allowed,
            ),
            ("http/bad_chunks", bad_chunks),
            ("http/host", host),
            ("http/absolute_form", absolute_form),
            ("http/absolute_form_is_refused", absolute_form_is_refused),
            ("http/control_characters", control_characters),
            ("http/bare_line_feeds", bare_line_feeds),
            ("http/methods", methods),
            ("http/targets", targets),
            ("http/header_size", header_size),
            ("http/header_count", header_count),
            ("http/header_names", header_names),
            ("http/header_values", header_values),
            ("http/folded_lines", folded_lines),
            ("http/underscores", underscores),
        ],
    )]
}

/// Sends `head + tail` for each pair and expects its status.
fn try_tails(run: &mut Run<'_>, method: &str, tails: &[(&str, u16)]) -> Result<()> {
    for (tail, status) in tails {
        run.send(raw(head(method, "/p") + tail).expect(*status))?;
    }
    Ok(())
}

fn content_length(run: &mut Run<'_>) -> Result<()> {
    try_tails(
        run,
        "POST",
        &[
            ("Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 400),
            ("Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", 400),
            ("Content-Length: 2, 2\r\n\r\nhi", 400),
            ("Content-Length: 2, 3\r\n\r\nhi", 400),
            ("Content-Length: -1\r\n\r\n", 400),
            ("Content-Length: +2\r\n\r\nhi", 400),
            ("Content-Length: 0x2\r\n\r\nhi", 400),
            ("Content-Length: 2 \r\n\r\nhi", 200),
            ("Content-Length: \r\n\r\n", 400),
            ("Content-Length: 00002\r\n\r\nhi", 200),
            ("Content-Length: 2a\r\n\r\nhi", 400),
            ("Content-Length: 99999999999999999999999\r\n\r\n", 400),
            ("Content-Length: 0\r\n\r\n", 200),
            ("\r\n", 200),
        ],
    )?;
    run.counters(&[
        "http.main.downstream_cx_protocol_error",
        "http.main.downstream_rq_4xx",
    ])
}

fn transfer_encoding(run: &mut Run<'_>) -> Result<()> {
    const END: &str = "\r\n\r\n0\r\n\r\n";
    for (value, status) in [
        ("chunked", 200),
        ("Chunked", 200),
        ("identity", 501),
        ("gzip", 501),
        ("gzip, chunked", 501),
        ("chunked, gzip", 501),
        ("chunked, chunked", 501),
        ("xchunked", 501),
        ("\tchunked", 200),
        ("", 501),
    ] {
        let ask = raw(head("POST", "/p") + "Transfer-Encoding: " + value + END);
        run.send(ask.expect(status))?;
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    run.send(raw(head("POST", "/p") + twice + END).expect(501))?;
    let spaced = "Transfer-Encoding : chunked";
    run.send(raw(head("POST", "/p") + spaced + END).expect(400))?;
    run.send(raw(head("GET", "/p") + "Transfer-Encoding: chunked" + END).expect(200))?;
    Ok(())
}

const BOTH: &str = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
const BOTH_REVERSED: &str = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";

fn length_and_chunked(run: &mut Run<'_>) -> Result<()> {
    try_tails(run, "POST", &[(BOTH, 400), (BOTH_REVERSED, 400)])
}

fn length_and_chunked_allowed(run: &mut Run<'_>) -> Result<()> {
    for tail in [BOTH, BOTH_REVERSED] {
        run.send(raw(head("POST", "/p") + tail).on("lenient").expect(200))?;
    }
    Ok(())
}

fn bad_chunks(run: &mut Run<'_>) -> Result<()> {
    let start = head("POST", "/p") + "Transfer-Encoding: chunked\r\n\r\n";
    for (body, status) in [
        ("g\r\nabc\r\n0\r\n\r\n", 400),
        ("-3\r\nabc\r\n0\r\n\r\n", 400),
        ("0x3\r\nabc\r\n0\r\n\r\n", 400),
        (" 3\r\nabc\r\n0\r\n\r\n", 400),
        ("\r\nabc\r\n0\r\n\r\n", 400),
        ("ffffffffffffffff1\r\nabc\r\n0\r\n\r\n", 400),
        ("3\r\nabcX\r\n0\r\n\r\n", 200),
        ("3\nabc\n0\n\n", 400),
    ] {
        run.send(raw(start.clone() + body).whole().expect(status))?;
    }
    Ok(())
}

fn host(run: &mut Run<'_>) -> Result<()> {
    for (fields, status) in [
        ("", 400),
        ("Host:\r\n", 200),
        ("Host: a.example\r\nHost: a.example\r\n", 200),
        ("Host: a.example\r\nHost: b.example\r\n", 200),
        ("Host: a.example, b.example\r\n", 400),
        ("Host: a.example b.example\r\n", 400),
        ("Host: a.example/path\r\n", 400),
        ("Host: user@a.example\r\n", 200),
        ("Host: a.example:80:80\r\n", 200),
        ("Host: a.example:port\r\n", 200),
        ("Host: a.example:99999\r\n", 200),
        ("Host: a_b.example\r\n", 200),
        ("Host: [::1]:80\r\n", 200),
        ("Host: [::1\r\n", 200),
        ("Host: A.Example:8080\r\n", 200),
        ("Host: a.example\"<>\r\n", 400),
    ] {
        run.send(raw(format!("GET /h HTTP/1.1\r\n{fields}\r\n")).expect(status))?;
    }
    Ok(())
}

fn absolute_form(run: &mut Run<'_>) -> Result<()> {
    for (target, status) in [
        ("http://test.example/a?b=c", 200),
        ("http://other.example/a", 200),
        ("http://other.example:8080/a", 200),
        ("http://other.example", 200),
        ("http://other.example?q", 404),
        ("https://other.example/a", 200),
        ("HTTP://Other.Example/a", 200),
        ("http://user:pw@other.example/a", 200),
        ("http:///a", 400),
        ("http://", 400),
        ("ftp://other.example/a", 400),
        ("test.example/a", 400),
        ("//other.example/a", 200),
    ] {
        run.send(raw(head("GET", target) + "\r\n").expect(status))?;
    }
    run.send(raw("GET http://other.example/a HTTP/1.1\r\n\r\n").expect(200))?;
    Ok(())
}

fn absolute_form_is_refused(run: &mut Run<'_>) -> Result<()> {
    for target in ["http://test.example/a", "http://other.example"] {
        run.send(raw(head("GET", target) + "\r\n").on("relative").expect(404))?;
    }
    run.counters(&["http.relative.downstream_rq_non_relative_path"])
}

fn control_characters(run: &mut Run<'_>) -> Result<()> {
    for (bytes, status) in [
        (&b"x-a: a\0b\r\n\r\n"[..], 400),
        (b"x-a: a\x01b\r\n\r\n", 400),
        (b"x-a: a\x7fb\r\n\r\n", 400),
        (b"x-a: a\tb\r\n\r\n", 200),
        (b"x-a: a\rb\r\n\r\n", 200),
        (b"x-a: \xc3\xa9\r\n\r\n", 200),
        (b"x-a: \xff\xfe\r\n\r\n", 200),
        (b"x\0a: b\r\n\r\n", 400),
        (b"x\xc3\xa9: b\r\n\r\n", 400),
    ] {
        let mut request = head("GET", "/p").into_bytes();
        request.extend_from_slice(bytes);
        run.send(raw(request).expect(status))?;
    }
    for (target, status) in [
        (&b"/a\0b"[..], 400),
        (b"/a\x01b", 400),
        (b"/a\x7fb", 400),
        (b"/\xc3\xa9", 400),
        (b"/a\tb", 400),
    ] {
        let mut request = b"GET ".to_vec();
        request.extend_from_slice(target);
        request.extend_from_slice(b" HTTP/1.1\r\nHost: test.example\r\n\r\n");
        run.send(raw(request).expect(status))?;
    }
    Ok(())
}

fn bare_line_feeds(run: &mut Run<'_>) -> Result<()> {
    for (request, status) in [
        ("GET /p HTTP/1.1\nHost: test.example\n\n", 200),
        ("GET /p HTTP/1.1\r\nHost: test.example\nx-a: b\r\n\r\n", 200),
        ("GET /p HTTP/1.1\rHost: test.example\r\r", 0),
        ("\r\n\r\nGET /p HTTP/1.1\r\nHost: test.example\r\n\r\n", 200),
        ("\nGET /p HTTP/1.1\r\nHost: test.example\r\n\r\n", 200),
    ] {
        if status == 0 {
            // Nothing but a complete line can be judged: this one is only kept from going further.
            let mut connection = run.open("main")?;
            connection.send(request.as_bytes());
            connection.finish();
            let response = connection.response(false);
            run.note("carriage returns only", response.status.to_string());
            let step = run.step("carriage returns only");
            run.settle(&step)?;
            continue;
        }
        run.send(raw(request).expect(status))?;
    }
    Ok(())
}

fn methods(run: &mut Run<'_>) -> Result<()> {
    for (method, status) in [
        ("PUT", 200),
        ("DELETE", 200),
        ("PATCH", 200),
        ("OPTIONS", 200),
        ("TRACE", 200),
        ("PROPFIND", 200),
        ("PURGE", 200),
        ("FOO", 400),
        ("get", 400),
        ("G@T", 400),
        ("", 400),
    ] {
        run.send(raw(head(method, "/m") + "\r\n").expect(status))?;
    }
    Ok(())
}

fn targets(run: &mut Run<'_>) -> Result<()> {
    for (target, status) in [
        ("/", 200),
        ("/a?b=c&d=%20e", 200),
        ("/a?", 200),
        ("/a;v=1,2", 200),
        ("/a|b\\c^d`e{f}\"<>", 200),
        ("/%zz", 200),
        ("/a#fragment", 400),
        ("/a b", 400),
        ("*", 400),
        ("a", 400),
        ("?a=b", 400),
    ] {
        run.send(raw(head("GET", target) + "\r\n").expect(status))?;
    }
    run.send(raw(head("OPTIONS", "*") + "\r\n").expect(404))?;
    let long = "/".to_owned() + &"a".repeat(8000);
    run.send(raw(head("GET", &long) + "\r\n").expect(200))?;
    run.counters(&["http.main.downstream_rq_non_relative_path"])
}

fn header_size(run: &mut Run<'_>) -> Result<()> {
    let value = |length: usize| "a".repeat(length);
    run.send(
        get("/fits")
            .header("x-a", &value(59_000))
            .expect(200)
            .fate(),
    )?;
    run.send(get("/big").header("x-a", &value(62_000)).expect(431).fate())?;
    run.send(
        get("/fits")
            .header("x-a", &value(1500))
            .on("small")
            .expect(200)
            .fate(),
    )?;
    run.send(
        get("/big")
            .header("x-a", &value(2100))
            .on("small")
            .expect(431)
            .fate(),
    )?;
    let long = "/".to_owned() + &value(2100);
    run.send(get(&long).on("small").expect(431).fate())?;
    run.counters(&[
        "http.main.downstream_rq_4xx",
        "http.main.downstream_cx_protocol_error",
        "http.small.downstream_rq_4xx",
    ])
}

fn header_count(run: &mut Run<'_>) -> Result<()> {
    let with = |mut ask: crate::ask::Ask, count: usize| {
        for number in 0..count {
            ask = ask.header(&format!("x-{number}"), "v");
        }
        ask.fate()
    };
    run.send(with(get("/99"), 95).expect(200))?;
    run.send(with(get("/101"), 101).expect(431))?;
    run.send(with(get("/10"), 9).on("small").expect(200))?;
    run.send(with(get("/11"), 10).on("small").expect(431))?;
    Ok(())
}

fn header_names(run: &mut Run<'_>) -> Result<()> {
    try_tails(
        run,
        "GET",
        &[
            ("x-a : b\r\n\r\n", 400),
            (" x-a: b\r\n\r\n", 400),
            ("x a: b\r\n\r\n", 400),
            (": b\r\n\r\n", 400),
            ("x-a\r\n\r\n", 400),
            ("x-a:b\r\n\r\n", 200),
            ("X-CaSe: b\r\n\r\n", 200),
            ("x(a): b\r\n\r\n", 400),
            ("x!#$%&'*+-.^`|~1: b\r\n\r\n", 200),
            (":path: /other\r\n\r\n", 400),
        ],
    )
}

fn header_values(run: &mut Run<'_>) -> Result<()> {
    try_tails(
        run,
        "GET",
        &[
            ("x-a:\r\n\r\n", 200),
            ("x-a:   b  \t\r\n\r\n", 200),
            ("x-a: b\r\nx-a: c\r\nX-A: d\r\n\r\n", 200),
            ("cookie: a=1\r\ncookie: b=2\r\n\r\n", 200),
            ("x-a: a, b ,c\r\n\r\n", 200),
            ("accept: a\r\naccept: b\r\n\r\n", 200),
        ],
    )
}

fn folded_lines(run: &mut Run<'_>) -> Result<()> {
    try_tails(
        run,
        "GET",
        &[
            ("x-a: b\r\n c\r\n\r\n", 200),
            ("x-a: b\r\n\tc\r\n\r\n", 200),
        ],
    )
}

fn underscores(run: &mut Run<'_>) -> Result<()> {
    for (listener, status) in [("main", 200), ("reject", 400), ("drop", 200)] {
        let ask = get("/u").header("x_a", "b").header("x-a", "c").on(listener);
        run.send(ask.expect(status).fate())?;
    }
    run.counters(&[
        "http1.dropped_headers_with_underscores",
        "http1.requests_rejected_with_underscores_in_headers",
    ])
}
