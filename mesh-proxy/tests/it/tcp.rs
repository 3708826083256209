//! TCP proxying through real processes.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use e2e::{
    process::Proxy,
    wait::{Deadline, WAIT_MAX, until},
};
use rustix::process::Signal;

use crate::support::{Plain, binary, plain_cluster, signal, start};

/// A listener that proxies to `clusters`; `fields` are further fields of the proxy.
fn proxying(fields: &str, clusters: &str) -> String {
    Plain {
        filters: &Plain::tcp_proxy(fields),
        clusters,
        ..Plain::default()
    }
    .bootstrap()
}

fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(proxy: &Proxy) -> TcpStream {
    patient(TcpStream::connect(proxy.listener("ingress").unwrap()).unwrap())
}

/// A broken proxy must fail the test, not hang it.
fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream
}

/// Both ends of a proxied connection.
fn pair(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = connect(proxy);
    (client, patient(listener.accept().unwrap().0))
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

fn log_line(proxy: &Proxy) -> String {
    let lines = proxy.stdout().take_through(|line| line.starts_with("LOG"));
    lines.unwrap().pop().unwrap()
}

fn stat(proxy: &Proxy, name: &str) -> i64 {
    proxy.admin().stat(name).unwrap()
}

fn reset(stream: TcpStream) {
    let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.unwrap();
}

fn is_reset(stream: &mut TcpStream) -> bool {
    let read = stream.read(&mut [0]);
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn each_direction_ends_by_itself_and_the_log_counts_both() {
    let (listener, address) = server();
    let proxy = start(&proxying("", &plain_cluster("upstream", &[address], "")));
    for client_ends_first in [true, false] {
        let (mut client, mut server) = pair(&proxy, &listener);
        let (first, second) = if client_ends_first {
            (&mut client, &mut server)
        } else {
            (&mut server, &mut client)
        };
        first.write_all(b"to the end").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(second), b"to the end");
        second.write_all(b"and back").unwrap();
        second.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(first), b"and back");
        let (received, sent) = if client_ends_first { (10, 8) } else { (8, 10) };
        assert_eq!(
            log_line(&proxy),
            format!("LOG - upstream {address} {received} {sent} 1 TcpConnectionEnd")
        );
    }
    for (name, value) in [
        ("tcp.t.downstream_cx_total", 2),
        ("tcp.t.downstream_cx_rx_bytes_total", 18),
        ("tcp.t.downstream_cx_tx_bytes_total", 18),
        ("cluster.upstream.upstream_cx_total", 2),
        ("cluster.upstream.upstream_cx_rx_bytes_total", 18),
        ("cluster.upstream.upstream_cx_tx_bytes_total", 18),
        ("cluster.upstream.upstream_cx_active", 0),
    ] {
        let seen = until(Deadline::default(), || {
            (stat(&proxy, name) == value).then_some(())
        });
        assert!(seen.is_some(), "{name} is {}", stat(&proxy, name));
    }
}

#[test]
fn a_long_transfer_arrives_whole_both_ways_at_once() {
    const BYTES: usize = 8 << 20;
    let (listener, address) = server();
    let proxy = start(&proxying("", &plain_cluster("upstream", &[address], "")));
    let (client, server) = pair(&proxy, &listener);
    let pattern = |seed: usize| (0..BYTES).map(move |n| ((n / 7) ^ (n >> 9) ^ seed) as u8);
    std::thread::scope(|scope| {
        for (stream, own, other) in [(&client, 1, 2), (&server, 2, 1)] {
            scope.spawn(move || {
                let mut writer = stream;
                writer
                    .write_all(&pattern(own).collect::<Vec<u8>>())
                    .unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let got = rest(&mut patient(stream.try_clone().unwrap()));
                assert!(got.into_iter().eq(pattern(other)), "to {own}");
            });
        }
    });
}

#[test]
fn a_reset_of_one_side_resets_the_other() {
    let (listener, address) = server();
    let proxy = start(&proxying("", &plain_cluster("upstream", &[address], "")));
    for client_resets in [true, false] {
        let (mut client, mut server) = pair(&proxy, &listener);
        // A reset that comes while the proxy is connecting is a failure to connect.
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        let (one, mut other) = if client_resets {
            (client, server)
        } else {
            (server, client)
        };
        reset(one);
        assert!(is_reset(&mut other), "by the client: {client_resets}");
    }
}

#[test]
fn sigterm_lets_connections_go_on_and_takes_no_more() {
    let (listener, address) = server();
    let yaml = proxying("", &plain_cluster("upstream", &[address], ""));
    let flags = ["--concurrency", "1", "--drain-min-time-s", "0"];
    let mut proxy = Proxy::start_with(&binary(), &yaml, flags).unwrap();
    let (mut client, mut server) = pair(&proxy, &listener);
    let front = proxy.listener("ingress").unwrap();
    signal(&proxy, Signal::TERM);
    let refused = until(Deadline::default(), || {
        TcpStream::connect(front).map(reset).err()
    });
    assert!(refused.is_some());
    client.write_all(b"still here").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut server), b"still here");
    drop(server);
    assert_eq!(rest(&mut client), b"");
    assert!(proxy.ended().unwrap().success());
}

#[test]
fn an_endpoint_that_refuses_is_tried_as_often_as_allowed() {
    let (dead, refuses) = server();
    drop(dead);
    let attempts = |n: u32| {
        let yaml = proxying(
            &format!("max_connect_attempts: {n}"),
            &plain_cluster("upstream", &[refuses], ""),
        );
        let proxy = start(&yaml);
        assert_eq!(rest(&mut connect(&proxy)), b"");
        let line = log_line(&proxy);
        assert_eq!(
            line,
            format!("LOG UF,URX upstream {refuses} 0 0 {n} TcpConnectionEnd")
        );
        let fails = stat(&proxy, "cluster.upstream.upstream_cx_connect_fail");
        assert_eq!(fails, i64::from(n));
        let exceeded = "cluster.upstream.upstream_cx_connect_attempts_exceeded";
        assert_eq!(stat(&proxy, exceeded), 1);
    };
    attempts(1);
    attempts(3);
    let (listener, answers) = server();
    let yaml = proxying(
        "max_connect_attempts: 2",
        &plain_cluster("upstream", &[refuses, answers], ""),
    );
    let proxy = start(&yaml);
    for _ in 0..2 {
        let (mut client, mut server) = pair(&proxy, &listener);
        server.write_all(b"hello").unwrap();
        drop(server);
        assert_eq!(rest(&mut client), b"hello");
    }
}

#[test]
fn a_full_cluster_closes_at_once() {
    let (listener, address) = server();
    let limits = "circuit_breakers: {thresholds: [{max_connections: 1}]}";
    let proxy = start(&proxying(
        "",
        &plain_cluster("upstream", &[address], limits),
    ));
    let (mut client, server) = pair(&proxy, &listener);
    assert_eq!(rest(&mut connect(&proxy)), b"");
    assert_eq!(log_line(&proxy), "LOG UO upstream - 0 0 0 TcpConnectionEnd");
    assert_eq!(stat(&proxy, "cluster.upstream.upstream_cx_overflow"), 1);
    drop(server);
    assert_eq!(rest(&mut client), b"");
    drop(client);
    let room = until(Deadline::default(), || {
        (stat(&proxy, "cluster.upstream.upstream_cx_active") == 0).then_some(())
    });
    assert!(room.is_some());
    pair(&proxy, &listener);
}

#[test]
fn connect_failures_eject_an_endpoint() {
    let (dead, refuses) = server();
    drop(dead);
    let outlier = "outlier_detection: {consecutive_5xx: 2, max_ejection_percent: 100}";
    let cluster =
        format!("{outlier}\n    common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}");
    let proxy = start(&proxying(
        "",
        &plain_cluster("upstream", &[refuses], &cluster),
    ));
    for flags in ["UF,URX", "UF,URX", "UH"] {
        assert_eq!(rest(&mut connect(&proxy)), b"");
        let line = log_line(&proxy);
        assert!(line.starts_with(&format!("LOG {flags} ")), "{line}");
    }
    assert_eq!(stat(&proxy, "cluster.upstream.upstream_cx_none_healthy"), 1);
}

#[test]
fn silence_ends_a_connection_and_traffic_keeps_it() {
    let (listener, address) = server();
    let proxy = start(&proxying(
        "idle_timeout: 0.3s",
        &plain_cluster("upstream", &[address], ""),
    ));
    let (mut client, mut server) = pair(&proxy, &listener);
    let began = e2e::wait::now();
    while began.elapsed() < Duration::from_millis(600) {
        server.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(stat(&proxy, "tcp.t.idle_timeout"), 0);
    assert_eq!(rest(&mut client), b"");
    assert_eq!(rest(&mut server), b"");
    assert_eq!(stat(&proxy, "tcp.t.idle_timeout"), 1);
}

#[test]
fn connections_are_shared_by_weight() {
    let (listener, address) = server();
    let (dead, refuses) = server();
    drop(dead);
    let clusters = plain_cluster("a", &[address], "") + &plain_cluster("b", &[refuses], "");
    let weights = "weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 1}]}";
    let yaml = Plain {
        filters: &Plain::tcp_proxy_to(weights, ""),
        clusters: &clusters,
        ..Plain::default()
    };
    let proxy = start(&yaml.bootstrap());
    let mut seen = [0; 2];
    for _ in 0..40 {
        let client = connect(&proxy);
        client.shutdown(Shutdown::Write).unwrap();
        listener.set_nonblocking(true).unwrap();
        let line = until(Deadline::default(), || {
            if let Ok((server, _)) = listener.accept() {
                drop(server);
            }
            let all = proxy.stdout().all();
            all.iter().any(|line| line.starts_with("LOG")).then_some(())
        });
        assert!(line.is_some());
        seen[usize::from(log_line(&proxy).contains(" b "))] += 1;
    }
    assert!(seen.iter().all(|n| *n > 5), "{seen:?}");
}
