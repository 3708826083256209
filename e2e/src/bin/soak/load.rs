//! What is asked for. Each kind of client has a loop of its own, and each turn of it knows what it must get.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::client::Connection;
use e2e::http2;
use e2e::process::Proxy;
use e2e::tls;
use e2e::upstream::{Reply, Upstream};
use e2e::wait::WAIT_MAX;
use e2e::wire::field;

/// Failures that are told in full; the others are only counted.
const FAILURES_MAX: usize = 10;

/// Between two turns of a client, so that the machine is not busy with the load alone.
const PAUSE: Duration = Duration::from_millis(2);

/// Requests on one connection before the next.
const REQUESTS: usize = 50;

/// A body that takes several reads.
const LARGE: usize = 100_000;

const MESSAGE: &[u8] = b"one message of a stream";

/// What happened so far.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) turns: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    pub(crate) failures: Mutex<Vec<String>>,
}

impl Tally {
    fn note(&self, client: &str, result: Result<()>) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let Err(error) = result else { return };
        if self.failed.fetch_add(1, Ordering::Relaxed) < FAILURES_MAX {
            let mut failures = self.failures.lock().unwrap_or_else(|e| e.into_inner());
            failures.push(format!("{client}: {error:#}"));
        }
    }
}

/// Where the clients go.
pub(crate) struct Addresses {
    http: SocketAddr,
    tls: SocketAddr,
    tcp: SocketAddr,
    web: SocketAddr,
}

impl Addresses {
    pub(crate) fn of(proxy: &Proxy) -> Result<Self> {
        // What comes from the control plane was not there at the start.
        let all = proxy.admin().listeners()?;
        let at = |name: &str| {
            all.get(name)
                .copied()
                .with_context(|| format!("no listener {name}"))
        };
        Ok(Self {
            http: at("http")?,
            tls: at("tls")?,
            tcp: at("tcp")?,
            web: at("web")?,
        })
    }
}

type Client = fn(&Addresses, usize) -> Result<()>;

/// The clients, each on a thread of its own.
const CLIENTS: [(&str, Client); 8] = [
    ("HTTP/1.1", http1),
    ("HTTP/2", http2_requests),
    ("gRPC", calls),
    ("WebSocket", tunnel),
    ("TCP", tcp),
    ("TLS", over_tls),
    ("faults", faults),
    ("dynamic", dynamic),
];

/// Starts the clients; they work until `stop`.
pub(crate) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    addresses: &'scope Addresses,
    tally: &'scope Tally,
    stop: &'scope AtomicBool,
) {
    for (name, client) in CLIENTS {
        scope.spawn(move || {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                tally.note(name, client(addresses, turn));
                turn += 1;
                std::thread::park_timeout(PAUSE);
            }
        });
    }
}

/// What the origins answer.
pub(crate) fn script(upstream: &Upstream) {
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    let call = Reply::status(200).header("content-type", "application/grpc");
    for (path, reply) in [
        ("/one/large", Reply::ok(&"x".repeat(LARGE))),
        (
            "/two/large",
            Reply::ok(&"x".repeat(LARGE)).trailer("x-end", "yes"),
        ),
        ("/one/tunnel", Reply::raw(switched).then_echo()),
        ("/two/call", call.trailer("grpc-status", "0").then_echo()),
        ("/one/short", Reply::hang()),
        ("/two/short", Reply::hang()),
        ("/one/retried", Reply::status(503)),
        ("/two/retried", Reply::status(503)),
        ("/one/hang", Reply::hang()),
        ("/two/hang", Reply::hang()),
        ("/one/reset", Reply::reset()),
        ("/two/reset", Reply::reset_stream(2)),
        ("/one/part", Reply::raw(part).then_reset()),
        ("/two/part", Reply::ok("abc").then_reset_stream(2)),
        (
            "/one/garbage",
            Reply::raw("what is this\r\n\r\n").then_close(),
        ),
        ("/two/goaway", Reply::ok("bye").then_go_away(1 << 30, 0)),
    ] {
        upstream.on(path, [reply]);
    }
}

/// Sends back whatever comes, on any connection.
pub(crate) fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (&stream, &stream);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    Ok(address)
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: soak.example\r\n\r\n").into_bytes()
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: soak.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn http1(at: &Addresses, turn: usize) -> Result<()> {
    requests(Connection::open(at.http)?, turn)
}

/// Many requests on one connection, which then closes or is reset.
fn requests(mut connection: Connection, turn: usize) -> Result<()> {
    for number in 0..REQUESTS {
        let (request, length) = match number % 8 {
            0 => (get("/one/large"), LARGE),
            1 => (get("/two/large"), LARGE),
            2 => (post("/one/any", &vec![b'u'; LARGE]), 1),
            3 => (post("/two/any", &[b'u'; 1000]), 1),
            4 => (get("/direct"), 4),
            5 => (get("/two/any"), 1),
            _ => (get("/one/any"), 1),
        };
        connection.send(&request);
        let answer = connection.response(false);
        ensure!(
            answer.status == 200,
            "{number}: {} {:?}",
            answer.status,
            answer.missing
        );
        let got = answer.body.data.len();
        ensure!(
            got == length && answer.body.end.is_none(),
            "{number}: {got} bytes, {:?}",
            answer.body.end
        );
    }
    if turn.is_multiple_of(2) {
        connection.reset();
    }
    Ok(())
}

fn request(method: &str, path: &str) -> http2::Request {
    let pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ];
    http2::Request {
        fields: pseudo
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..http2::Request::default()
    }
}

fn http2_requests(at: &Addresses, turn: usize) -> Result<()> {
    let mut client = http2::Client::open(at.http, &[])?;
    for _ in 0..REQUESTS / 4 {
        let upload = http2::Request {
            body: vec![b'u'; 10_000],
            ..request("POST", "/two/any")
        };
        let asked = [
            (request("GET", "/two/large"), LARGE),
            (upload, 1),
            (request("GET", "/one/any"), 1),
            (request("GET", "/two/goaway"), 3),
        ];
        let streams = asked.map(|(request, length)| (client.send(&request), length));
        for (stream, length) in streams {
            let answer = client.response(stream);
            ensure!(
                answer.status == 200,
                "{} {:?}",
                answer.status,
                answer.missing
            );
            let got = answer.body.data.len();
            ensure!(
                got == length && answer.body.end.is_none(),
                "{got} bytes, {:?}",
                answer.body.end
            );
        }
    }
    if turn.is_multiple_of(2) {
        client.writer().linger_no_more();
    }
    Ok(())
}

/// A call with messages both ways, and one that its client cancels.
fn calls(at: &Addresses, _: usize) -> Result<()> {
    let mut client = http2::Client::open(at.http, &[])?;
    let mut call = request("POST", "/two/call");
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        call.fields.push((name.to_owned(), value.to_owned()));
    }
    call.open = true;
    let (stream, cancelled) = (client.send(&call), client.send(&call));
    for number in 1..=20 {
        client.writer().data(stream, MESSAGE, false);
        let back = client.body(stream, number * MESSAGE.len());
        ensure!(back.is_some(), "message {number} does not come back");
    }
    client.writer().reset(cancelled, 8);
    client.writer().data(stream, &[], true);
    let answer = client.response(stream);
    let status = field(&answer.body.trailers, "grpc-status");
    ensure!(status == Some("0"), "{status:?} {:?}", answer.body.end);
    Ok(())
}

fn tunnel(at: &Addresses, turn: usize) -> Result<()> {
    let mut connection = Connection::open(at.http)?;
    connection.send(
        b"GET /one/tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = connection.head().ok().context("no answer")?;
    ensure!(head.start.starts_with("HTTP/1.1 101"), "{}", head.start);
    for _ in 0..20 {
        connection.send(MESSAGE);
        ensure!(connection.bytes(MESSAGE.len()) == MESSAGE);
    }
    if turn.is_multiple_of(2) {
        connection.reset();
    }
    Ok(())
}

fn tcp(at: &Addresses, turn: usize) -> Result<()> {
    let stream = TcpStream::connect(at.tcp)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    let bytes = if turn.is_multiple_of(8) {
        10 * LARGE
    } else {
        LARGE
    };
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| -> Result<()> {
            (&stream).write_all(&vec![b't'; bytes])?;
            Ok(stream.shutdown(Shutdown::Write)?)
        });
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back)?;
        ensure!(
            back.len() == bytes,
            "{} of {bytes} bytes came back",
            back.len()
        );
        writing
            .join()
            .map_err(|_| anyhow::anyhow!("writing failed"))?
    })
}

fn over_tls(at: &Addresses, turn: usize) -> Result<()> {
    let client = tls::Client::default()
        .sni("soak.example")
        .alpn(&["http/1.1"]);
    let client = if turn.is_multiple_of(4) {
        client.tls12()
    } else {
        client
    };
    requests(client.connect(at.tls)?, turn)
}

/// What goes wrong on purpose, and how that must look.
fn faults(at: &Addresses, turn: usize) -> Result<()> {
    let expected = [
        ("/one/short", 504),
        ("/two/short", 504),
        ("/one/reset", 503),
        ("/two/reset", 503),
        ("/one/retried", 503),
        ("/two/retried", 503),
        ("/one/garbage", 502),
        ("/none", 404),
    ];
    for (path, status) in expected {
        let mut connection = Connection::open(at.http)?;
        connection.send(&get(path));
        let answer = connection.response(false);
        ensure!(
            answer.status == status,
            "{path}: {} {:?}",
            answer.status,
            answer.missing
        );
    }
    for path in ["/one/part", "/two/part"] {
        let mut connection = Connection::open(at.http)?;
        connection.send(&get(path));
        let answer = connection.response(false);
        // A reset may overtake what was sent before it.
        let broken = answer.body.end.is_some() || answer.status == 503;
        ensure!(broken, "{path} looks whole");
    }
    leave(at, turn)
}

/// Goes away in the middle of things.
fn leave(at: &Addresses, turn: usize) -> Result<()> {
    let path = ["/one/hang", "/two/hang"][turn % 2];
    let mut connection = Connection::open(at.http)?;
    match turn % 3 {
        0 => connection.send(b"GET /one/any HTTP/1.1\r\nHos"),
        1 => connection.send(&get(path)),
        _ => connection.send(&post(path, b"abc")[..60]),
    }
    connection.reset();
    let mut client = http2::Client::open(at.http, &[])?;
    let stream = client.send(&request("GET", path));
    client.writer().reset(stream, 8);
    client.send(&request("GET", path));
    client.writer().linger_no_more();
    Ok(())
}

/// Through what the control plane says, whatever that is at the moment.
fn dynamic(at: &Addresses, _: usize) -> Result<()> {
    let mut connection = Connection::open(at.web)?;
    for _ in 0..REQUESTS {
        connection.send(&get("/any"));
        let answer = connection.response(false);
        ensure!(
            answer.status == 200,
            "{} {:?}",
            answer.status,
            answer.missing
        );
    }
    Ok(())
}
