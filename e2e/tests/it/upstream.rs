use e2e::client::{Connection, Response};
use e2e::upstream::{DeadPort, Reply, Upstream};
use e2e::wire::End;

fn ask(upstream: &Upstream, request: &str) -> Response {
    let mut connection = Connection::open(upstream.address()).unwrap();
    connection.send(request.as_bytes());
    connection.response(request.starts_with("HEAD"))
}

fn get(upstream: &Upstream, path: &str) -> Response {
    ask(upstream, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

#[test]
fn replies_come_in_turn_and_the_last_one_for_ever() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", [Reply::status(503), Reply::ok("fine")]);
    let statuses = [(); 3].map(|()| get(&upstream, "/x").status);
    assert_eq!(statuses, [503, 200, 200]);
    assert_eq!(get(&upstream, "/other").body.data, b"a");
}

#[test]
fn the_latest_rule_for_a_path_wins() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", [Reply::status(500)]);
    upstream.on("/x", [Reply::status(404)]);
    assert_eq!(get(&upstream, "/x/y?z").status, 404);
}

#[test]
fn requests_are_recorded_byte_by_byte() {
    let upstream = Upstream::start("a").unwrap();
    let request =
        "POST /p?q HTTP/1.1\r\nHost: a\r\nX-Odd:  spaced \r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nx-end: 1\r\n\r\n";
    assert_eq!(ask(&upstream, &format!("{request}{body}")).status, 200);
    let [recorded] = &upstream.take_requests()[..] else {
        panic!("one request was sent");
    };
    assert_eq!(recorded.head.raw, request.as_bytes());
    assert_eq!(recorded.head.field("x-odd"), Some("spaced"));
    assert_eq!(recorded.body.data, b"abcde");
    assert_eq!(recorded.body.trailers, [("x-end".into(), "1".into())]);
    assert!(recorded.complete);
}

#[test]
fn connections_and_positions_tell_reuse_from_a_new_one() {
    let upstream = Upstream::start("a").unwrap();
    let mut connection = Connection::open(upstream.address()).unwrap();
    for _ in 0..2 {
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.response(false).status, 200);
    }
    get(&upstream, "/");
    let places: Vec<_> = upstream
        .take_requests()
        .iter()
        .map(|r| (r.connection, r.position))
        .collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0)]);
}

#[test]
fn half_a_request_is_recorded_as_incomplete() {
    let upstream = Upstream::start("a").unwrap();
    let mut connection = Connection::open(upstream.address()).unwrap();
    connection.send(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf");
    assert!(upstream.wait(|seen| seen.requests == 1));
    drop(connection);
    assert!(upstream.wait(|seen| seen.open == 0));
    let requests = upstream.take_requests();
    assert!(!requests[0].complete);
    assert_eq!(requests[0].body.data, b"half");
}

#[test]
fn closing_and_resetting_leave_no_response() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/close", [Reply::close()]);
    upstream.on("/reset", [Reply::reset()]);
    for path in ["/close", "/reset"] {
        assert_eq!(get(&upstream, path).missing, Some(End::Closed), "{path}");
    }
    assert!(upstream.wait(|seen| seen.open == 0 && seen.accepted == 2));
}

#[test]
fn a_response_can_break_off() {
    let upstream = Upstream::start("a").unwrap();
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    upstream.on("/x", [Reply::raw(part).then_close()]);
    let response = get(&upstream, "/x");
    assert_eq!(response.status, 200);
    assert_eq!(response.body.data, b"half");
    assert_eq!(response.body.end, Some(End::Closed));
}

#[test]
fn a_held_reply_waits_for_its_word() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", [Reply::ok("late").after("go")]);
    let mut connection = Connection::open(upstream.address()).unwrap();
    connection.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(upstream.wait(|seen| seen.requests == 1));
    connection.set_deadline(std::time::Duration::from_millis(50));
    assert_eq!(connection.response(false).missing, Some(End::TimedOut));
    upstream.release("go");
    connection.set_deadline(e2e::wait::WAIT_MAX);
    assert_eq!(connection.response(false).body.data, b"late");
}

#[test]
fn a_hanging_reply_ends_when_the_peer_leaves() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", [Reply::hang()]);
    let mut connection = Connection::open(upstream.address()).unwrap();
    connection.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(upstream.wait(|seen| seen.requests == 1 && seen.open == 1));
    drop(connection);
    assert!(upstream.wait(|seen| seen.open == 0));
}

#[test]
fn chunks_trailers_and_interim_responses_are_sent() {
    let upstream = Upstream::start("a").unwrap();
    let reply = Reply::ok("hello").trailer("x-end", "1");
    upstream.on("/x", [reply.first("HTTP/1.1 103 Early Hints\r\n\r\n")]);
    let response = get(&upstream, "/x");
    assert_eq!(response.interim[0].start, "HTTP/1.1 103 Early Hints");
    assert_eq!(response.body.data, b"hello");
    assert_eq!(response.body.trailers, [("x-end".into(), "1".into())]);
}

#[test]
fn starting_afresh_forgets_the_script_and_keeps_connections() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/", [Reply::status(500)]);
    let mut connection = Connection::open(upstream.address()).unwrap();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response(false).status, 500);
    upstream.reset();
    assert!(upstream.take_requests().is_empty());
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response(false).status, 200);
}

#[test]
fn dead_ports_refuse_or_stay_silent() {
    let refusing = DeadPort::refusing().unwrap();
    let error = std::net::TcpStream::connect(refusing.address()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let silent = DeadPort::silent().unwrap();
    let soon = std::time::Duration::from_millis(100);
    let error = std::net::TcpStream::connect_timeout(&silent.address(), soon).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
