use e2e::client::Connection;
use e2e::upstream::{Reply, Upstream};
use e2e::wire::{End, printable};

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

fn answer(reply: Reply) -> (Upstream, Connection) {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", [reply]);
    let mut connection = Connection::open(upstream.address()).unwrap();
    connection.send(GET);
    (upstream, connection)
}

#[test]
fn a_kept_connection_is_told_from_a_closed_one() {
    let (_upstream, mut connection) = answer(Reply::ok("kept"));
    assert_eq!(connection.response(false).status, 200);
    assert!(connection.is_kept(GET));

    let (_upstream, mut connection) = answer(Reply::ok("closed").then_close());
    assert_eq!(connection.response(false).status, 200);
    assert!(!connection.is_kept(GET));

    let announced = Reply::ok("x").header("Connection", "close").then_close();
    let (_upstream, mut connection) = answer(announced);
    assert_eq!(connection.response(false).status, 200);
    assert!(!connection.is_kept(GET));
}

#[test]
fn a_close_that_was_announced_and_did_not_come_counts_as_kept() {
    let (_upstream, mut connection) = answer(Reply::ok("x").header("connection", "close"));
    assert_eq!(connection.response(false).status, 200);
    connection.set_deadline(std::time::Duration::from_millis(100));
    assert!(connection.is_kept(GET));
}

#[test]
fn a_body_without_framing_lasts_until_the_close() {
    let (_upstream, mut connection) =
        answer(Reply::raw("HTTP/1.1 200 OK\r\n\r\nall of it").then_close());
    let response = connection.response(false);
    assert_eq!(response.body.data, b"all of it");
    assert_eq!(response.body.end, None);
}

#[test]
fn a_response_to_head_has_no_body_whatever_it_says() {
    let (_upstream, mut connection) =
        answer(Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"));
    let response = connection.response(true);
    assert!(response.body.data.is_empty());
    assert_eq!(response.body.end, None);
}

#[test]
fn garbage_is_reported_as_such() {
    for bytes in ["who are you\r\n\r\n", "HTTP/1.1 2\r\n\r\n"] {
        let (_upstream, mut connection) = answer(Reply::raw(bytes).then_close());
        assert_eq!(
            connection.response(false).missing,
            Some(End::Garbage),
            "{bytes}"
        );
    }
    let bad_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let (_upstream, mut connection) = answer(Reply::raw(bad_chunk).then_close());
    assert_eq!(connection.response(false).body.end, Some(End::Garbage));
}

#[test]
fn repeated_fields_keep_their_order_and_case() {
    let reply = Reply::ok("x").header("X-A", "1").header("x-a", "2");
    let (_upstream, mut connection) = answer(reply);
    let fields = connection.response(false).head.fields;
    assert_eq!(fields[0], ("X-A".to_owned(), "1".to_owned()));
    assert_eq!(fields[1], ("x-a".to_owned(), "2".to_owned()));
}

#[test]
fn different_bytes_never_print_alike() {
    let samples: [&[u8]; 5] = [b"a\x00b", b"a\\0b", b"a\xffb", "a\u{ff}b".as_bytes(), b"ab"];
    for (at, one) in samples.iter().enumerate() {
        for other in &samples[at + 1..] {
            assert_ne!(printable(one), printable(other));
        }
    }
}
