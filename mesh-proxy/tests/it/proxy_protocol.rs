//! PROXY protocol in front of listeners.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use e2e::{
    process::Proxy,
    wait::{WAIT_MAX, now},
};

use crate::support::{Plain, plain_cluster, start};

/// An answer that says who asked whom.
const HCM: &str = "{name: hcm, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
    stat_prefix: h, use_remote_address: true, http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}], \
    route_config: {virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 200}, \
    response_headers_to_add: [{header: {key: who, value: '%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%'}}]}]}]}}}";

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 5 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\0\x05\0\x50";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn filter(fields: &str) -> String {
    format!(
        "listener_filters: [{{name: pp, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, {fields}}}}}]"
    )
}

fn proxy(fields: &str, listener: &str) -> Proxy {
    let listener = format!("{}\n    {listener}", filter(fields));
    let plain = Plain {
        listener: &listener,
        filters: HCM,
        ..Plain::default()
    };
    start(&plain.bootstrap())
}

fn open(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.listener("ingress").unwrap()).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The `who` of the answer; empty when there is none.
fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    // A connection that is closed before its request was read is reset.
    let _ = stream.read_to_string(&mut text);
    let who = text.lines().find_map(|line| line.strip_prefix("who: "));
    who.unwrap_or_default().to_owned()
}

fn ask(proxy: &Proxy, header: &[u8]) -> String {
    let mut stream = open(proxy);
    stream.write_all(&[header, GET].concat()).unwrap();
    answer(&mut stream)
}

fn stat(proxy: &Proxy, name: &str) -> i64 {
    proxy.admin().stat(name).unwrap()
}

#[test]
fn headers_of_both_versions_say_who_connects_and_where_to() {
    let proxy = proxy("stat_prefix: x", "");
    let who = "192.0.2.1:5 198.51.100.2:80 127.0.0.1";
    assert_eq!(ask(&proxy, V1), who);
    assert_eq!(ask(&proxy, V2), who);
    let front = proxy.listener("ingress").unwrap();
    for local in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let own = ask(&proxy, local);
        assert!(
            own.starts_with("127.0.0.1:") && own.contains(&front.to_string()),
            "{own}"
        );
    }
    assert_eq!(stat(&proxy, "proxy_proto.x.versions.v1.found"), 2);
    assert_eq!(stat(&proxy, "proxy_proto.x.versions.v2.found"), 2);
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let proxy = proxy("", "");
    for header in [V1, V2] {
        let mut stream = open(&proxy);
        for byte in header {
            stream.write_all(&[*byte]).unwrap();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        stream.write_all(GET).unwrap();
        assert!(answer(&mut stream).starts_with("192.0.2.1:5 "));
    }
}

#[test]
fn a_connection_without_a_header_is_closed_unless_it_is_allowed() {
    let refusing = proxy("", "");
    assert_eq!(ask(&refusing, b""), "");
    assert_eq!(stat(&refusing, "proxy_proto.not_found_disallowed"), 1);
    let allowing = proxy("allow_requests_without_proxy_protocol: true", "");
    assert!(ask(&allowing, b"").starts_with("127.0.0.1:"));
    assert!(ask(&allowing, V2).starts_with("192.0.2.1:5 "));
    assert_eq!(stat(&allowing, "proxy_proto.not_found_allowed"), 1);
}

#[test]
fn malformed_and_disallowed_headers_are_refused() {
    let proxy = proxy("disallowed_versions: [V1]", "");
    assert_eq!(ask(&proxy, V1), "");
    assert_eq!(ask(&proxy, b"PROXY nonsense\r\n"), "");
    let mut broken = V2.to_vec();
    broken[12] = 0x31;
    assert_eq!(ask(&proxy, &broken), "");
    assert!(ask(&proxy, V2).starts_with("192.0.2.1:5 "));
    assert_eq!(stat(&proxy, "proxy_proto.versions.v1.disallowed"), 1);
    assert_eq!(stat(&proxy, "proxy_proto.versions.v1.error"), 1);
    assert_eq!(stat(&proxy, "proxy_proto.versions.v2.error"), 1);
}

#[test]
fn listener_filters_have_their_time() {
    for (go_on, served) in [("false", ""), ("true", "127.0.0.1:")] {
        let proxy = proxy(
            "",
            &format!(
                "listener_filters_timeout: 0.2s\n    continue_on_listener_filters_timeout: {go_on}"
            ),
        );
        let mut stream = open(&proxy);
        let began = now();
        let name = format!(
            "listener.127.0.0.1_{}.downstream_pre_cx_timeout",
            proxy.listener("ingress").unwrap().port()
        );
        let timed_out = e2e::wait::until(e2e::wait::Deadline::default(), || {
            (stat(&proxy, &name) == 1).then_some(())
        });
        assert!(timed_out.is_some() && began.elapsed() > Duration::from_millis(150));
        // Who closed has reset the connection by now, or will.
        let _ = stream.write_all(GET);
        assert!(answer(&mut stream).starts_with(served));
        assert!(!served.is_empty() || answer(&mut stream).is_empty());
    }
}

#[test]
fn what_the_header_says_chooses_the_filter_chain() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = server.local_addr().unwrap();
    let chains = format!(
        "{{filter_chain_match: {{destination_port: 80, source_prefix_ranges: [{{address_prefix: 192.0.2.0, prefix_len: 24}}], \
         direct_source_prefix_ranges: [{{address_prefix: 127.0.0.0, prefix_len: 8}}]}}, filters: [{}]}}",
        Plain::tcp_proxy("")
    );
    let plain = Plain {
        listener: &filter(""),
        chains: &chains,
        clusters: &plain_cluster("upstream", &[address], ""),
        ..Plain::default()
    };
    let proxy = start(&plain.bootstrap());
    let mut client = open(&proxy);
    client.write_all(&[V2, b"payload"].concat()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = Vec::new();
    let (mut seen, _) = server.accept().unwrap();
    seen.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"payload");
    let mut other = open(&proxy);
    other.write_all(&[LOCAL, b"payload"].concat()).unwrap();
    assert_eq!(answer(&mut other), "");
}

/// A cluster at `address` that is told who is behind each connection.
fn announced(address: SocketAddr, version: &str) -> String {
    let socket = format!(
        "transport_socket: {{name: pp, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
         config: {{version: {version}}}, transport_socket: {{name: raw, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}}}"
    );
    plain_cluster("upstream", &[address], &socket)
}

/// Reads up to the end of a request's head, and answers it.
fn serve(upstream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let mut byte = [0];
    while !got.ends_with(b"\r\n\r\n") {
        upstream.read_exact(&mut byte).unwrap();
        got.extend_from_slice(&byte);
    }
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    upstream.write_all(ok).unwrap();
    String::from_utf8(got).unwrap()
}

#[test]
fn an_announced_connection_serves_its_client_only_and_goes_with_it() {
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let hcm = HCM.replace(
        "direct_response: {status: 200}",
        "route: {cluster: upstream}",
    );
    let plain = Plain {
        filters: &hcm,
        clusters: &announced(server.local_addr().unwrap(), "V1"),
        ..Plain::default()
    };
    let proxy = start(&plain.bootstrap());
    let mut pairs: Vec<(TcpStream, TcpStream)> = Vec::new();
    for _ in 0..2 {
        let mut client = open(&proxy);
        client.write_all(GET).unwrap();
        let (mut upstream, _) = server.accept().unwrap();
        upstream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        let (own, front) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let line = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nGET / ",
            own.port(),
            front.port()
        );
        let got = serve(&mut upstream);
        assert!(got.starts_with(&line), "{got:?} {line:?}");
        pairs.push((client, upstream));
    }
    for (client, upstream) in pairs.iter_mut().rev() {
        client.write_all(GET).unwrap();
        let got = serve(upstream);
        assert!(got.starts_with("GET / "), "{got:?}");
    }
    let (client, mut upstream) = pairs.remove(0);
    drop(client);
    let mut rest = Vec::new();
    upstream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn connections_of_checks_are_our_own() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let checks = "\n    health_checks: [{timeout: 5s, interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]";
    let plain = Plain {
        filters: &Plain::tcp_proxy(""),
        clusters: &(announced(address, "V2") + checks),
        ..Plain::default()
    };
    let checked = std::thread::spawn(move || {
        let (mut upstream, _) = server.accept().unwrap();
        let mut header = [0; 16];
        upstream.read_exact(&mut header).unwrap();
        header
    });
    let _proxy = start(&plain.bootstrap());
    assert_eq!(checked.join().unwrap(), *LOCAL);
}
