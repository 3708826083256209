//! The end of a process under mixed load: whatever was asked for is answered.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
};

use e2e::{
    client::Connection,
    http2,
    upstream::{Reply, Upstream},
    wait::{Deadline, WAIT_MAX, until},
    wire::End,
};
use rustix::process::Signal;

use super::rig::{self, BOTH, Kind, Rig, head, socket};
use crate::support::{get, signal};

/// Clients of each kind.
const CLIENTS: usize = 3;

/// Requests that are answered before the process is told to end.
const WARM: usize = 200;

/// Messages on each stream and tunnel in each [`Stage`].
const MESSAGES: usize = 20;

const MESSAGE: &[u8] = b"0123456789";

/// How far the end has come.
const STAGES: usize = 3;

/// What the load has to say, and what it waits for.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    told_to_go: AtomicUsize,
    /// Running, draining, and no longer accepting.
    stage: AtomicUsize,
    /// Streams and tunnels that are through with a stage.
    through: AtomicUsize,
}

impl Load {
    fn waits_for(what: &AtomicUsize, count: usize) {
        let seen = until(Deadline::default(), || {
            (what.load(Ordering::Relaxed) >= count).then_some(())
        });
        assert!(seen.is_some(), "{what:?} of {count}");
    }

    /// Has `exchange` send messages and receive them again, in each stage.
    fn talk(&self, mut exchange: impl FnMut()) {
        for stage in 0..STAGES {
            Self::waits_for(&self.stage, stage);
            for _ in 0..MESSAGES {
                exchange();
            }
            self.through.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends requests over one connection after the other until nobody accepts any more.
fn http1(address: SocketAddr, load: &Load) {
    while let Ok(mut connection) = Connection::open(address) {
        loop {
            connection.send(&get("/one/any"));
            let answer = connection.response(false);
            assert_eq!(answer.status, 200, "HTTP/1.1: {:?}", answer.missing);
            load.answered.fetch_add(1, Ordering::Relaxed);
            if answer.head.lists("connection", "close") {
                load.told_to_go.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
}

/// The same over HTTP/2, two at a time. What the peer says it does not look at would be asked again elsewhere.
fn http2(address: SocketAddr, load: &Load) {
    while let Ok(mut client) = http2::Client::open(address, &[]) {
        while !client.was_told_to_go() {
            let streams = [(); 2].map(|()| client.send(&rig::request("/two/any", Kind::Get, "")));
            for stream in streams {
                let answer = client.response(stream);
                if answer.missing == Some(End::GoAway(0)) {
                    continue;
                }
                assert_eq!(answer.status, 200, "HTTP/2: {:?}", answer.missing);
                load.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        load.told_to_go.fetch_add(1, Ordering::Relaxed);
    }
}

/// A call whose messages are sent back.
fn call(address: SocketAddr, load: &Load) {
    let mut client = http2::Client::open(address, &[]).unwrap();
    let stream = client.send(&rig::request("/two/stream", Kind::Stream, ""));
    let mut sent = 0;
    load.talk(|| {
        client.writer().data(stream, MESSAGE, false);
        sent += MESSAGE.len();
        assert!(client.body(stream, sent).is_some(), "after {sent}");
    });
    client.writer().data(stream, &[], true);
    let answer = client.response(stream);
    assert_eq!((answer.status, answer.body.end), (200, None));
    assert_eq!(answer.body.data.len(), sent);
    let status = e2e::wire::field(&answer.body.trailers, "grpc-status");
    assert_eq!(status, Some("0"));
    assert!(client.was_told_to_go());
}

/// A tunnel, through whatever listens there.
fn tunnel(address: SocketAddr, load: &Load) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream
        .write_all(&head("/one/tunnel", Kind::WebSocket, ""))
        .unwrap();
    let mut granted = Vec::new();
    while !granted.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        granted.push(byte[0]);
    }
    assert!(granted.starts_with(b"HTTP/1.1 101"));
    load.talk(|| {
        stream.write_all(MESSAGE).unwrap();
        let mut back = [0; MESSAGE.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, MESSAGE);
    });
}

fn upstream() -> Upstream {
    let upstream = Upstream::start("a").unwrap();
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    upstream.on("/one/tunnel", [Reply::raw(switched).then_echo()]);
    let call = Reply::status(200).header("content-type", "application/grpc");
    upstream.on(
        "/two/stream",
        [call.trailer("grpc-status", "0").then_echo()],
    );
    upstream
}

/// Waits until all talk in this stage is done, and goes on to the next.
fn next_stage(load: &Load, stage: usize) {
    Load::waits_for(&load.through, stage * 3 * CLIENTS);
    load.stage.store(stage, Ordering::Relaxed);
}

#[test]
fn sigterm_under_mixed_load_loses_nothing() {
    let upstream = upstream();
    let arguments = [
        "--concurrency",
        "2",
        "--drain-min-time-s",
        "1",
        "--drain-time-s",
        "60",
    ];
    let mut rig = Rig::with(&[socket(upstream.address())], "", &arguments);
    let (http, tcp) = (
        rig.proxy.listener("http").unwrap(),
        rig.proxy.listener("tcp").unwrap(),
    );
    let load = Load::default();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| http1(http, &load));
            scope.spawn(|| http2(http, &load));
            scope.spawn(|| call(http, &load));
            scope.spawn(|| tunnel(http, &load));
            scope.spawn(|| tunnel(tcp, &load));
        }
        Load::waits_for(&load.answered, WARM);
        Load::waits_for(&load.through, 3 * CLIENTS);
        signal(&rig.proxy, Signal::TERM);
        until(Deadline::default(), || {
            (!rig.proxy.admin().is_ready()).then_some(())
        })
        .expect("it does not drain");
        next_stage(&load, 1);
        until(Deadline::default(), || TcpStream::connect(http).err()).expect("it still accepts");
        next_stage(&load, 2);
    });
    assert!(rig.proxy.ended().unwrap().success());
    assert!(load.told_to_go.load(Ordering::Relaxed) >= 2 * CLIENTS);
    // Everything that an upstream saw was answered, and without a flag.
    let lines = rig.proxy.stdout().all();
    let of = |path: &str, told: &str| {
        let line = format!("LOG {path} {told}");
        lines.iter().filter(|l| **l == line).count()
    };
    let answered = BOTH.map(|up| of(&rig.path(up, "/any"), "200 - via_upstream"));
    assert_eq!(
        answered.iter().sum::<usize>(),
        load.answered.load(Ordering::Relaxed)
    );
    assert_eq!(of("/two/stream", "200 - via_upstream"), CLIENTS);
    assert_eq!(of("tcp", "0 - -"), CLIENTS);
}
