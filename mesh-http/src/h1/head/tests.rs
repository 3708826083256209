use bytes::BytesMut;
use http::Method;
use proptest::prelude::*;

use super::{
    BodyLength, HeadLimits, HeadScan, Malformed, RequestHead, parse_request, parse_response,
};

fn request(text: &str) -> Result<Option<RequestHead>, Malformed> {
    parse_request(&mut BytesMut::from(text), HeadLimits::default())
}

fn refused(text: &str) -> u16 {
    match request(text) {
        Err(malformed) => malformed.status.as_u16(),
        other => panic!("{text:?} was read as {other:?}"),
    }
}

#[test]
fn reads_a_request_and_leaves_what_follows() {
    let mut buf =
        BytesMut::from("POST /a?b=c HTTP/1.1\r\nHost: x:80\r\nContent-Length: 3\r\n\r\nabcGET");
    let head = parse_request(&mut buf, HeadLimits::default())
        .unwrap()
        .unwrap();
    assert_eq!(head.request.method(), Method::POST);
    assert_eq!(head.request.uri().to_string(), "/a?b=c");
    assert_eq!(head.request.headers()["host"], "x:80");
    assert_eq!(
        (head.length, head.keep_alive),
        (BodyLength::Length(3), true)
    );
    assert_eq!(&buf[..], b"abcGET");
}

#[test]
fn an_absolute_target_replaces_the_host() {
    let head = request("GET HTTP://other:81/p?q HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap()
        .unwrap();
    assert_eq!(head.request.headers()["host"], "other:81");
    assert_eq!(head.request.uri().to_string(), "/p?q");
    let head = request("GET http://other?q HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap()
        .unwrap();
    assert_eq!(head.request.uri().to_string(), "/?q");
    assert_eq!(
        refused("GET http://u@other/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        400
    );
    assert_eq!(refused("GET ftp://other/ HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
    assert_eq!(refused("GET http:///p HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
}

#[test]
fn refuses_what_could_be_read_in_two_ways() {
    for (text, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 426),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n", 426),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        ("\u{16}\u{3}\u{1}\u{2}\0", 400),
    ] {
        assert_eq!(refused(text), status, "{text:?}");
    }
}

#[test]
fn limits_are_answered_with_431() {
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(100)
    );
    assert_eq!(refused(&many), 431);
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "y".repeat(61 * 1024)
    );
    assert_eq!(refused(&large), 431);
    assert_eq!(refused(&large[..large.len() - 4]), 431);
}

#[test]
fn responses_say_where_they_end() {
    let parse = |text: &str, method: Method| {
        parse_response(&mut BytesMut::from(text), HeadLimits::default(), &method)
            .map(|head| head.map(|head| (head.length, head.keep_alive)))
    };
    let get = |text| parse(text, Method::GET);
    assert_eq!(
        get("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap(),
        Some((BodyLength::Length(3), true))
    );
    assert_eq!(
        get("HTTP/1.1 200 OK\r\n\r\n").unwrap(),
        Some((BodyLength::UntilClose, false))
    );
    assert_eq!(
        get("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap(),
        Some((BodyLength::Length(3), false))
    );
    assert_eq!(
        get("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n").unwrap(),
        Some((BodyLength::Empty, true))
    );
    let head = parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Method::HEAD);
    assert_eq!(head.unwrap(), Some((BodyLength::Empty, true)));
    assert_eq!(get("HTTP/1.1 20").unwrap(), None);
    for bad in [
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 700 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        assert!(get(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_trickled_head_is_not_read_again_with_every_byte() {
    let text = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "y".repeat(1000)
    );
    let mut scan = HeadScan::default();
    let tries: Vec<usize> = (1..=text.len())
        .filter(|&n| scan.ripe(&text.as_bytes()[..n]))
        .collect();
    assert!(tries.len() <= 12, "{tries:?}");
    assert_eq!(tries.last(), Some(&text.len()), "the end was seen");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_request(&mut BytesMut::from(&input[..]), HeadLimits::default());
        let _ = parse_response(&mut BytesMut::from(&input[..]), HeadLimits::default(), &Method::GET);
    }

    #[test]
    fn what_is_read_has_one_host_and_a_rooted_target(host in "[a-z:@, ]{0,6}", target in "[/a:*?#%. ]{1,8}") {
        let text = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        if let Ok(Some(head)) = request(&text) {
            prop_assert_eq!(head.request.headers().get_all("host").iter().count(), 1);
            prop_assert!(head.request.uri().to_string().starts_with('/'));
        }
    }
}
