//! Clients that go away, at every stage of a request.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use e2e::{
    client::Connection,
    http2::{self, HEADERS},
    upstream::{Reply, Upstream},
    wait::WAIT_MAX,
};

use super::rig::{BOTH, Client, Http, Kind, Rig, socket};

/// HTTP/2's reason for a stream that nobody wants any more.
const CANCEL: u32 = 8;

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It takes its connection with it.
    Connection,
    /// It resets its stream, which only HTTP/2 can.
    Stream,
}

/// How far the request has come then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// All of it was sent, or a part where the kind has a body.
    Waiting,
    /// The answer has begun.
    Answering,
}

fn upstream() -> Upstream {
    let upstream = Upstream::start("a").unwrap();
    let part = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    for (path, reply) in [
        ("/one/Waiting", Reply::hang()),
        ("/two/Waiting", Reply::hang()),
        ("/one/Answering", Reply::raw(part).early().then_hang()),
        ("/two/Answering", Reply::ok("abc").early().then_hang()),
        ("/one/tunnel", Reply::raw(switched).then_echo()),
        ("/two/tunnel", Reply::status(200).then_echo()),
    ] {
        upstream.on(path, [reply]);
    }
    upstream
}

fn go(rig: &Rig, client: Client, way: Way) {
    match (way, client) {
        (Way::Stream, Client::Two(client, stream)) => {
            client.writer().reset(stream, CANCEL);
            // The end of the connection must not overtake it.
            rig.becomes("http.d.downstream_rq_active", 0);
        }
        (_, client) => client.reset(),
    }
}

/// What is told of a client that went, by the status that it had got.
fn expected(status: u16, up: Http, way: Way) -> String {
    let down = match way {
        Way::Connection => "DC downstream_remote_disconnect d.remote_active=1 d.rx_reset=1",
        Way::Stream => "DR http2.remote_reset d.rx_reset=1",
    };
    let up = match up {
        // There is no other way to end a request.
        Http::One => "u.local_active=1 u.active=1",
        Http::Two => "u.tx_reset=1",
    };
    format!("{status} {down} {up}")
}

/// Every pair of protocols, and the ways to go that the client's one has.
fn pairs() -> impl Iterator<Item = (Http, Http, Way)> {
    let ways = BOTH.into_iter().flat_map(|down| {
        let ways = [Way::Connection, Way::Stream].into_iter();
        ways.filter(move |way| down == Http::Two || *way == Way::Connection)
            .map(move |way| (down, way))
    });
    ways.flat_map(|(down, way)| BOTH.map(|up| (down, up, way)))
}

/// One client goes, nothing is left of it, and the next is served.
fn goes(rig: &mut Rig, upstream: &Upstream, kind: Kind, stage: Stage) {
    for (down, up, way) in pairs() {
        let name = match kind {
            Kind::WebSocket => "tunnel".to_owned(),
            _ => format!("{stage:?}"),
        };
        let path = rig.path(up, &format!("/{name}/{kind:?}{down:?}{way:?}"));
        let mut client = Client::open(rig, down);
        let before = upstream.seen().requests;
        let part = if kind == Kind::Upload { "abc" } else { "" };
        client.send(&path, kind, part);
        assert!(upstream.wait(|seen| seen.requests > before), "{path}");
        let status = match (kind, stage) {
            (Kind::WebSocket, _) => {
                client.begins(0);
                101
            }
            (_, Stage::Waiting) => 0,
            (_, Stage::Answering) => {
                client.begins(3);
                200
            }
        };
        go(rig, client, way);
        let told = rig.told(&path, up.cluster());
        assert_eq!(told, expected(status, up, way), "{path}");
        rig.serves(down, up);
    }
}

#[test]
fn a_client_goes_while_it_waits_for_the_answer() {
    let upstream = upstream();
    let mut rig = Rig::new(&[socket(upstream.address())], "");
    goes(&mut rig, &upstream, Kind::Get, Stage::Waiting);
    goes(&mut rig, &upstream, Kind::Grpc, Stage::Waiting);
}

#[test]
fn a_client_goes_in_the_middle_of_its_body() {
    let upstream = upstream();
    let mut rig = Rig::new(&[socket(upstream.address())], "");
    goes(&mut rig, &upstream, Kind::Upload, Stage::Waiting);
    goes(&mut rig, &upstream, Kind::Upload, Stage::Answering);
}

#[test]
fn a_client_goes_in_the_middle_of_the_answer() {
    let upstream = upstream();
    let mut rig = Rig::new(&[socket(upstream.address())], "");
    goes(&mut rig, &upstream, Kind::Get, Stage::Answering);
    goes(&mut rig, &upstream, Kind::Grpc, Stage::Answering);
}

#[test]
fn a_client_goes_out_of_a_tunnel() {
    let upstream = upstream();
    let mut rig = Rig::new(&[socket(upstream.address())], "");
    goes(&mut rig, &upstream, Kind::WebSocket, Stage::Answering);
}

#[test]
fn a_client_goes_in_the_middle_of_its_head() {
    let upstream = upstream();
    let mut rig = Rig::new(&[socket(upstream.address())], "");
    let address = rig.proxy.listener("http").unwrap();
    for down in BOTH {
        match down {
            Http::One => {
                let mut connection = Connection::open(address).unwrap();
                connection.send(b"GET /one/x HTTP/1.1\r\nHost: a\r\nX-Half");
                rig.opened(down, 1);
                connection.reset();
            }
            Http::Two => {
                let mut client = http2::Client::open(address, &[]).unwrap();
                client.settings();
                // A head that is not at its end: its first field is a whole one.
                client.writer().frame(HEADERS, 0, 1, &[0x82]);
                rig.opened(down, 1);
                client.writer().linger_no_more();
            }
        }
        rig.settles();
        assert_eq!(rig.moved("one"), "", "{down:?}");
        assert_eq!(upstream.seen().requests, 0);
        let mut connection = Connection::open(address).unwrap();
        connection.send(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.response(false).status, 404);
        drop(connection);
        rig.told("/none", "one");
    }
}

/// Both ends of a TCP connection through the proxy.
fn pair(rig: &Rig, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(rig.proxy.listener("tcp").unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    }
    (client, server)
}

fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn either_end_of_a_tcp_connection_goes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new(&[socket(listener.local_addr().unwrap())], "");
    for client_goes in [true, false] {
        let (mut client, mut server) = pair(&rig, &listener);
        client.write_all(b"there").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        server.write_all(b"back").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        let (goes, mut stays) = if client_goes {
            (client, server)
        } else {
            (server, client)
        };
        reset(goes);
        let error = stays.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        drop(stays);
        let expected = if client_goes {
            "0 - - t.total=1 u.local_active=1 u.active=1"
        } else {
            "0 UR - t.total=1 u.remote_active=1 u.active=1"
        };
        assert_eq!(rig.told("tcp", "tcp"), expected);
    }
}
