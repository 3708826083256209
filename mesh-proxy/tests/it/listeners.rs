//! Where connections come in, and which filter chain takes them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
};

use e2e::{
    client::Connection,
    process::Proxy,
    upstream::{Reply, Upstream},
    wait::{Deadline, WAIT_MAX, until},
};
use socket2::{Domain, Socket, Type};

use crate::support::{Plain, binary, get, plain_cluster, start};

/// An HTTP connection manager that answers with `body`.
fn answering(body: &str) -> String {
    format!(
        "{{name: hcm, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, http_filters: [{{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], \
         route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}]}}]}}}}}}"
    )
}

fn chain(matches: &str, body: &str) -> String {
    format!(
        "{{filter_chain_match: {{{matches}}}, filters: [{}]}}",
        answering(body)
    )
}

fn body(connection: &mut Connection) -> String {
    connection.send(&get("/"));
    String::from_utf8(connection.response(false).body.data).unwrap()
}

/// What a client at `from` reads, who asks nothing but for `/`.
fn ask_from(from: &str, to: SocketAddr) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::new(from.parse().unwrap(), 0).into())
        .unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    // A connection that no chain takes may be reset, since its request is never read.
    let _ = stream.read_to_string(&mut answer);
    answer
        .rsplit("\r\n\r\n")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn the_source_says_which_chain_takes_a_connection() {
    let chains = [
        chain(
            "source_prefix_ranges: [{address_prefix: 127.0.0.2, prefix_len: 32}]",
            "two",
        ),
        chain(
            "source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 30}]",
            "few",
        ),
    ];
    let mut listener = Plain {
        chains: &chains.join(", "),
        ..Plain::default()
    };
    let proxy = start(&listener.bootstrap());
    let address = proxy.listener("ingress").unwrap();
    assert_eq!(ask_from("127.0.0.2", address), "two");
    assert_eq!(ask_from("127.0.0.3", address), "few");
    assert_eq!(ask_from("127.0.0.9", address), "");
    let unmatched = format!(
        "listener.127.0.0.1_{}.no_filter_chain_match",
        address.port()
    );
    assert_eq!(proxy.admin().stat(&unmatched).unwrap(), 1);
    let rest = format!("default_filter_chain: {{filters: [{}]}}", answering("rest"));
    listener.listener = &rest;
    let proxy = start(&listener.bootstrap());
    let address = proxy.listener("ingress").unwrap();
    assert_eq!(ask_from("127.0.0.9", address), "rest");
    assert_eq!(ask_from("127.0.0.2", address), "two");
}

#[test]
fn a_connection_limit_closes_what_is_too_much_and_lets_others_in_afterwards() {
    let limit = "{name: limit, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: l, max_connections: 1}}";
    let filters = format!("{limit}, {}", answering("in"));
    let listener = Plain {
        filters: &filters,
        ..Plain::default()
    };
    let proxy = start(&listener.bootstrap());
    let address = proxy.listener("ingress").unwrap();
    let mut first = Connection::open(address).unwrap();
    assert_eq!(body(&mut first), "in");
    let mut second = Connection::open(address).unwrap();
    assert!(second.closes());
    let stat = |name| proxy.admin().stat(name).unwrap();
    assert_eq!(stat("connection_limit.l.limited_connections"), 1);
    assert_eq!(stat("connection_limit.l.active_connections"), 1);
    drop(first);
    let free = until(Deadline::default(), || {
        (stat("connection_limit.l.active_connections") == 0).then_some(())
    });
    assert!(free.is_some());
    assert_eq!(body(&mut Connection::open(address).unwrap()), "in");
}

#[test]
fn unix_sockets_on_both_sides() {
    let folder = std::env::temp_dir().join(format!("mesh-unix-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (front, back) = (folder.join("front"), folder.join("back"));
    let server = UnixListener::bind(&back).unwrap();
    let pipe = |path: &std::path::Path| format!("{{pipe: {{path: '{}'}}}}", path.display());
    let listener = Plain {
        address: &pipe(&front),
        filters: &Plain::tcp_proxy(""),
        clusters: &format!(
            "\n  - {{name: upstream, load_assignment: {{cluster_name: upstream, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}}}",
            pipe(&back)
        ),
        ..Plain::default()
    };
    let proxy = start(&listener.bootstrap());
    let mut client = UnixStream::connect(&front).unwrap();
    client.set_read_timeout(Some(WAIT_MAX)).unwrap();
    client.write_all(b"over").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (mut seen, _) = server.accept().unwrap();
    let mut text = String::new();
    seen.read_to_string(&mut text).unwrap();
    seen.write_all(b"and out").unwrap();
    drop(seen);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!((&*text, &*answer), ("over", "and out"));
    drop(proxy);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A proxy that listens on an IPv6 address and logs who came; `None` where there is no IPv6.
fn on_ipv6(address: &str) -> Option<(Proxy, TcpListener)> {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("there is no IPv6 here");
        return None;
    }
    let server = TcpListener::bind("[::1]:0").unwrap();
    let upstream = plain_cluster("upstream", &[server.local_addr().unwrap()], "");
    let listener = Plain {
        address,
        filters: &Plain::tcp_proxy(""),
        clusters: &upstream,
        ..Plain::default()
    };
    Some((start(&listener.bootstrap()), server))
}

fn pass(to: SocketAddr, server: &TcpListener) -> bool {
    let Ok(mut client) = TcpStream::connect(to) else {
        return false;
    };
    client.write_all(b"x").unwrap();
    let (mut seen, _) = server.accept().unwrap();
    seen.set_read_timeout(Some(WAIT_MAX)).unwrap();
    seen.read_exact(&mut [0]).is_ok()
}

#[test]
fn ipv6_on_both_sides_and_ipv4_only_where_it_is_asked_for() {
    let socket = |rest: &str| format!("{{socket_address: {{address: '::', port_value: 0{rest}}}}}");
    for (rest, with_v4) in [("", false), (", ipv4_compat: true", true)] {
        let Some((proxy, server)) = on_ipv6(&socket(rest)) else {
            return;
        };
        let port = proxy.listener("ingress").unwrap().port();
        assert!(pass(
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
            &server
        ));
        let v4 = SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(pass(v4, &server), with_v4);
    }
}

/// A cluster whose endpoints are where clients mean to go.
fn original(fields: &str) -> String {
    format!(
        "\n  - {{name: upstream, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, cleanup_interval: 0.1s{fields}}}"
    )
}

#[test]
fn a_request_header_says_where_an_original_destination_is() {
    let hcm = "{name: hcm, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
        stat_prefix: h, http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}], \
        route_config: {virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: upstream}}]}]}}}";
    let listener = Plain {
        filters: hcm,
        clusters: &original(", original_dst_lb_config: {use_http_header: true}"),
        ..Plain::default()
    };
    let proxy = start(&listener.bootstrap());
    let upstreams = ["one", "two"].map(|name| Upstream::start(name).unwrap());
    for upstream in &upstreams {
        upstream.on("/", std::iter::repeat_n(Reply::ok(upstream.name()), 2));
    }
    let ask = |meant: &str| {
        let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{meant}\r\n");
        connection.send(request.as_bytes());
        let response = connection.response(false);
        (
            response.status,
            String::from_utf8(response.body.data).unwrap(),
        )
    };
    for _ in 0..2 {
        for upstream in &upstreams {
            let header = format!("x-envoy-original-dst-host: {}\r\n", upstream.address());
            assert_eq!(ask(&header), (200, upstream.name().to_owned()));
        }
    }
    assert_eq!(ask("").0, 503);
    assert_eq!(ask("x-envoy-original-dst-host: nowhere\r\n").0, 503);
    let stat = |name: &str| {
        proxy
            .admin()
            .stat(&format!("cluster.upstream.{name}"))
            .unwrap()
    };
    assert_eq!(stat("original_dst_host_invalid"), 1);
    assert_eq!(stat("upstream_cx_none_healthy"), 2);
    // Those with idle connections stay; with them, the endpoints go.
    assert_eq!(stat("membership_total"), 2);
    drop(upstreams);
    let forgotten = until(Deadline::default(), || {
        (stat("membership_total") == 0).then_some(())
    });
    assert!(forgotten.is_some());
}

#[test]
fn a_proxy_header_says_where_an_original_destination_is() {
    let listener = Plain {
        listener: "listener_filters: [{name: pp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}, {name: od, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]",
        filters: &Plain::tcp_proxy(""),
        clusters: &original(""),
        ..Plain::default()
    };
    let proxy = start(&listener.bootstrap());
    for _ in 0..2 {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let meant = server.local_addr().unwrap();
        let mut client = TcpStream::connect(proxy.listener("ingress").unwrap()).unwrap();
        let (ip, port) = (meant.ip(), meant.port());
        write!(client, "PROXY TCP4 192.0.2.1 {ip} 5 {port}\r\nthere").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let (mut seen, _) = server.accept().unwrap();
        let mut text = String::new();
        seen.read_to_string(&mut text).unwrap();
        assert_eq!(text, "there");
    }
}

#[test]
fn each_connection_goes_to_the_worker_with_the_fewest() {
    const WORKERS: usize = 3;
    let listener = format!(
        "{{name: main, stat_prefix: main, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, enable_reuse_port: false, \
         connection_balance_config: {{exact_balance: {{}}}}, filter_chains: [{}]}}",
        chain("", "x")
    );
    let yaml = format!(
        "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}\nstatic_resources: {{listeners: [{listener}]}}"
    );
    let proxy = Proxy::start_with(&binary(), &yaml, ["--concurrency", "3"]).unwrap();
    let address = proxy.listener("main").unwrap();
    let active = |worker: usize| {
        let stats = proxy.admin().stats().unwrap();
        let name = format!("listener.main.worker_{worker}.downstream_cx_active");
        stats.get(&name).copied().unwrap_or_default()
    };
    let mut open = Vec::new();
    for round in 1..=4 {
        for _ in 0..WORKERS {
            let mut connection = Connection::open(address).unwrap();
            assert_eq!(body(&mut connection), "x");
            open.push(connection);
        }
        for worker in 0..WORKERS {
            assert_eq!(active(worker), round, "worker {worker}");
        }
    }
    // Whoever loses some gets the next.
    open.retain_mut(|_| false);
    let none = until(Deadline::default(), || {
        (0..WORKERS).all(|worker| active(worker) == 0).then_some(())
    });
    assert!(none.is_some());
}
