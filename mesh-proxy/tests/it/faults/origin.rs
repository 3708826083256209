//! Origins that break: answers by script, and processes that are killed and stopped.

use e2e::{
    client::Response,
    upstream::{Reply, Upstream},
    wire::End,
};

use super::rig::{BOTH, Client, Http, Kind, Rig, socket};

/// How an answer breaks, and what is told of it.
struct Case {
    name: &'static str,
    reply: Reply,
    told: &'static str,
}

/// The ways to break in HTTP/1.1.
fn one() -> Vec<Case> {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n";
    let gone = "503 UC upstream_reset_before_response_started{connection_termination} \
        u.remote_active=1 u.active=1";
    let case = |name, reply, told| Case { name, reply, told };
    vec![
        case("closes", Reply::close(), gone),
        case("resets", Reply::reset(), gone),
        case(
            "closes_in_the_head",
            Reply::raw("HTTP/1.1 200 OK\r\nConte").then_close(),
            "502 UPE upstream_reset_before_response_started{protocol_error} \
             u.protocol_error=1 u.remote_active=1 u.active=1",
        ),
        case(
            "garbage",
            Reply::raw("\0\0\0 what is this\r\n\r\n").then_hang(),
            "502 UPE upstream_reset_before_response_started{protocol_error} \
             u.protocol_error=1 u.local_active=1 u.active=1",
        ),
        case(
            "closes_in_the_body",
            Reply::raw(length).then_close(),
            "200 UPE upstream_reset_after_response_started{protocol_error} \
             d.rx_reset=1 d.tx_reset=1 u.protocol_error=1 u.remote_active=1 u.active=1",
        ),
        // Envoy calls this a protocol error.
        case(
            "resets_in_the_body",
            Reply::raw(length).then_reset(),
            "200 UC upstream_reset_after_response_started{connection_termination} \
             d.rx_reset=1 d.tx_reset=1 u.remote_active=1 u.active=1",
        ),
        case(
            "garbage_in_the_body",
            Reply::raw(chunks).then_hang(),
            "200 UPE upstream_reset_after_response_started{protocol_error} \
             d.rx_reset=1 d.tx_reset=1 u.protocol_error=1 u.local_active=1 u.active=1",
        ),
    ]
}

/// The ways to break in HTTP/2.
fn two() -> Vec<Case> {
    let gone = "503 UC upstream_reset_before_response_started{connection_termination} \
        u.remote_active=1 u.pending_eject=1 u.active=1";
    let gone_later = "200 UC upstream_reset_after_response_started{connection_termination} \
        d.rx_reset=1 d.tx_reset=1 u.remote_active=1 u.pending_eject=1 u.active=1";
    let refused = "503 UR upstream_reset_before_response_started{remote_refused_stream_reset}";
    let case = |name, reply, told| Case { name, reply, told };
    vec![
        case("closes", Reply::close(), gone),
        case("resets", Reply::reset(), gone),
        case(
            "closes_in_the_head",
            Reply::raw([0, 0, 9, 1, 0, 0, 0]).then_close(),
            gone,
        ),
        case(
            "garbage",
            Reply::raw("what is this? what is this? what is this?").then_hang(),
            "502 UPE upstream_reset_before_response_started{protocol_error} \
             u.protocol_error=1 u.tx_reset=1",
        ),
        case(
            "resets_the_stream",
            Reply::reset_stream(2),
            "503 UR upstream_reset_before_response_started{remote_reset} u.rx_reset=1",
        ),
        case("refuses_the_stream", Reply::reset_stream(7), refused),
        case("goes_away", Reply::go_away(0, 0), refused),
        case(
            "closes_in_the_body",
            Reply::ok("abc").then_close(),
            gone_later,
        ),
        case(
            "resets_in_the_body",
            Reply::ok("abc").then_reset(),
            gone_later,
        ),
        case(
            "resets_the_stream_in_the_body",
            Reply::ok("abc").then_reset_stream(2),
            "200 UR upstream_reset_after_response_started{remote_reset} \
             d.rx_reset=1 d.tx_reset=1 u.rx_reset=1",
        ),
    ]
}

/// What the client of a broken answer gets: a local reply in its own language, or an answer that breaks off.
fn assert_heard(answer: &Response, told: &str, kind: Kind, down: Http) {
    if told.starts_with("200") {
        let end = match down {
            Http::One => End::Closed,
            Http::Two => End::Reset(2),
        };
        assert_eq!(answer.body.end, Some(end));
    } else if kind == Kind::Grpc {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.head.field("grpc-status"), Some("14"));
    } else {
        assert!(told.starts_with(&answer.status.to_string()));
        assert_eq!(answer.body.end, None);
    }
}

/// Each case, from either protocol, for a plain request and a call.
fn breaks(up: Http, cases: Vec<Case>) {
    let upstream = Upstream::start("a").unwrap();
    let mut rig = Rig::new(&[socket(upstream.address())], "");
    for Case { name, reply, told } in cases {
        for (down, kind) in BOTH
            .into_iter()
            .flat_map(|down| [(down, Kind::Post), (down, Kind::Grpc)])
        {
            let path = rig.path(up, &format!("/{name}/{down:?}{kind:?}"));
            upstream.on(&path, [reply.clone()]);
            let mut client = Client::open(&rig, down);
            client.send(&path, kind, "");
            let answer = client.response();
            assert_heard(&answer, told, kind, down);
            drop(client);
            let logged = match kind {
                // The log has the status that was sent.
                Kind::Grpc => format!("200{}", &told[3..]),
                _ => told.to_owned(),
            };
            assert_eq!(rig.told(&path, up.cluster()), logged, "{path}");
            rig.serves(down, up);
        }
    }
}

#[test]
fn an_answer_breaks_in_http1() {
    breaks(Http::One, one());
}

#[test]
fn an_answer_breaks_in_http2() {
    breaks(Http::Two, two());
}
