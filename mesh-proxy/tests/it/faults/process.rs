//! Origins that are processes, and are killed, stopped, and started again.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use e2e::{
    process::Proxy,
    upstream::{Reply, Upstream},
    wait::{Deadline, WAIT_MAX, until},
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::rig::{BOTH, Client, Http, Kind, Rig, socket};
use crate::support::{binary, bootstrap, signal};

/// A proxy as an origin. It listens on a path, where another one can take its place.
struct Origin {
    behind: Upstream,
    path: PathBuf,
    process: Option<Proxy>,
}

impl Origin {
    fn start() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mesh-origin-{}-{number}", std::process::id());
        let mut origin = Self {
            behind: Upstream::start("a").unwrap(),
            path: std::env::temp_dir().join(name),
            process: None,
        };
        for up in BOTH {
            let path = format!("/{}/held", up.cluster());
            origin.behind.on(&path, [Reply::hang()]);
        }
        origin.restart();
        origin
    }

    fn restart(&mut self) {
        let yaml = bootstrap(self.behind.address(), "", "");
        let any = "\n    address: {socket_address: {address: 127.0.0.1, port_value: 0}}";
        assert!(yaml.contains(any));
        let own = format!("\n    address: {{pipe: {{path: {:?}}}}}", self.path);
        let process = Proxy::start(&binary(), &yaml.replace(any, &own)).unwrap();
        self.process = Some(process);
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn signal(&self, which: Signal) {
        signal(self.process.as_ref().unwrap(), which);
    }

    /// Returns when none of its threads runs any more: until then they answer.
    fn stop(&self) {
        self.signal(Signal::STOP);
        let id = i32::try_from(self.process.as_ref().unwrap().id()).unwrap();
        let id = Pid::from_raw(id).unwrap();
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        until(Deadline::default(), || {
            waitid(WaitId::Pid(id), options).unwrap()
        })
        .unwrap();
    }

    fn address(&self) -> String {
        format!("{{pipe: {{path: {:?}}}}}", self.path)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn connect(rig: &Rig) -> TcpStream {
    let stream = TcpStream::connect(rig.proxy.listener("tcp").unwrap()).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream
}

/// A request over a TCP connection of its own; the first bytes of what comes back.
fn serves_tcp(rig: &mut Rig) {
    let mut stream = connect(rig);
    let request = b"GET /one/next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(stream);
    rig.told("tcp", "tcp");
}

/// What a request of this kind is told in the log, where the answer is made here.
fn status(kind: Kind, plain: u16) -> u16 {
    if kind == Kind::Grpc { 200 } else { plain }
}

#[test]
fn a_killed_origin_costs_what_it_was_doing_and_its_successor_serves() {
    let mut origin = Origin::start();
    let mut rig = Rig::new(&[origin.address()], "");
    for (down, up) in BOTH.into_iter().flat_map(|down| BOTH.map(|up| (down, up))) {
        for kind in [Kind::Post, Kind::Grpc] {
            let held = rig.path(up, &format!("/held/{down:?}{kind:?}"));
            let mut client = Client::open(&rig, down);
            let before = origin.behind.seen().requests;
            client.send(&held, kind, "");
            assert!(origin.behind.wait(|seen| seen.requests > before));
            origin.kill();
            assert_eq!(client.response().status, status(kind, 503));
            drop(client);
            let stream = match up {
                Http::One => "",
                Http::Two => " u.pending_eject=1",
            };
            let expected = format!(
                "{} UC upstream_reset_before_response_started{{connection_termination}} \
                 u.remote_active=1{stream} u.active=1",
                status(kind, 503)
            );
            assert_eq!(rig.told(&held, up.cluster()), expected, "{down:?} {up:?}");

            let nobody = rig.path(up, "/nobody");
            let mut client = Client::open(&rig, down);
            client.send(&nobody, kind, "");
            assert_eq!(client.response().status, status(kind, 503));
            drop(client);
            let told = rig.told(&nobody, up.cluster());
            let start = format!(
                "{} UF upstream_reset_before_response_started{{remote_connection_failure",
                status(kind, 503)
            );
            assert!(told.starts_with(&start), "{told}");
            let end = "u.connect_fail=1 u.pending_eject=1";
            assert!(told.ends_with(end), "{told}");

            origin.restart();
            rig.serves(down, up);
        }
    }
}

#[test]
fn a_killed_origin_ends_its_tcp_connections() {
    let mut origin = Origin::start();
    let mut rig = Rig::new(&[origin.address()], "");
    let mut stream = connect(&rig);
    stream
        .write_all(b"GET /one/held HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert!(origin.behind.wait(|seen| seen.requests == 1));
    origin.kill();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    drop(stream);
    let told = rig.told("tcp", "tcp");
    assert_eq!(told, "0 - - t.total=1 u.local_active=1 u.active=1");
    assert_eq!(connect(&rig).read_to_end(&mut Vec::new()).unwrap(), 0);
    let told = rig.told("tcp", "tcp");
    assert_eq!(told, "0 UF,URX - t.total=1 u.connect_fail=1");
    origin.restart();
    serves_tcp(&mut rig);
}

#[test]
fn a_stopped_origin_costs_a_timeout_and_serves_when_it_goes_on() {
    let origin = Origin::start();
    let mut rig = Rig::new(&[origin.address()], "");
    for (down, up) in BOTH.into_iter().flat_map(|down| BOTH.map(|up| (down, up))) {
        for kind in [Kind::Get, Kind::Grpc] {
            rig.serves(down, up);
            origin.stop();
            let path = rig.path(up, &format!("/short/{down:?}{kind:?}"));
            let mut client = Client::open(&rig, down);
            client.send(&path, kind, "");
            let answer = client.response();
            assert_eq!(answer.status, status(kind, 504));
            drop(client);
            let end = match up {
                Http::One => "u.local_active=1 u.timeout=1 u.active=1",
                Http::Two => "u.tx_reset=1 u.timeout=1",
            };
            let expected = format!("{} UT response_timeout {end}", status(kind, 504));
            assert_eq!(rig.told(&path, up.cluster()), expected, "{down:?} {kind:?}");
            origin.signal(Signal::CONT);
            rig.serves(down, up);
        }
    }
}

#[test]
fn a_stopped_origin_holds_nothing_of_a_tcp_client_that_leaves() {
    let origin = Origin::start();
    let mut rig = Rig::new(&[origin.address()], "");
    origin.stop();
    let mut stream = connect(&rig);
    stream.write_all(b"is anybody there?").unwrap();
    let linger = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    linger.unwrap();
    // The kernel takes connections and bytes for a process that stands still.
    until(Deadline::default(), || {
        let sent = "cluster.tcp.upstream_cx_tx_bytes_total";
        (rig.proxy.admin().stat(sent).ok()? == 17).then_some(())
    })
    .unwrap();
    drop(stream);
    let told = rig.told("tcp", "tcp");
    assert_eq!(told, "0 - - t.total=1 u.local_active=1 u.active=1");
    origin.signal(Signal::CONT);
    serves_tcp(&mut rig);
}

#[test]
fn a_flapping_origin_beside_a_steady_one_costs_no_request() {
    const FLAPS: usize = 5;
    let mut flapping = Origin::start();
    let steady = Upstream::start("steady").unwrap();
    let retry = "retry_policy: {retry_on: 'connect-failure,reset,refused-stream', num_retries: 3, \
        retry_back_off: {base_interval: 0.001s}, retry_host_predicate: \
        [{name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], \
        host_selection_retry_max_attempts: 10}";
    let origins = [flapping.address(), socket(steady.address())];
    let rig = Rig::new(&origins, retry);
    for _ in 0..FLAPS {
        for _ in 0..2 {
            for (down, up) in BOTH.into_iter().flat_map(|down| BOTH.map(|up| (down, up))) {
                let path = rig.path(up, "/any");
                for _ in 0..4 {
                    let mut client = Client::open(&rig, down);
                    client.send(&path, Kind::Get, "");
                    assert_eq!(client.response().status, 200);
                }
            }
            flapping.kill();
        }
        flapping.restart();
    }
    rig.settles();
    let stats = rig.proxy.admin().stats().unwrap();
    for up in BOTH {
        let name = |name: &str| format!("cluster.{}.{name}", up.cluster());
        assert_eq!(
            stats[&name("upstream_rq_200")],
            16 * i64::try_from(FLAPS).unwrap()
        );
        assert!(stats[&name("upstream_rq_retry")] > 0);
        assert_eq!(
            stats[&name("upstream_rq_retry")],
            stats[&name("upstream_rq_retry_success")]
        );
    }
    assert!(flapping.behind.seen().requests > 0 && steady.seen().requests > 0);
}
