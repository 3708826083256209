//! One proxy in front of one origin, over every pair of protocols.

use std::net::SocketAddr;

use e2e::{
    admin::Stats,
    client::{Connection, Response},
    http2,
    process::{Binary, Proxy},
    wait::{Deadline, until},
};

use crate::support::binary;

/// What a cluster may have at once, of everything.
const ROOM: i64 = 100;

/// The stats that a case tells, with their short names.
const TOLD: [(&str, &str); 19] = [
    (
        "http.d.downstream_cx_destroy_remote_active_rq",
        "d.remote_active",
    ),
    (
        "http.d.downstream_cx_destroy_local_active_rq",
        "d.local_active",
    ),
    ("http.d.downstream_cx_protocol_error", "d.protocol_error"),
    ("http.d.downstream_rq_rx_reset", "d.rx_reset"),
    ("http.d.downstream_rq_tx_reset", "d.tx_reset"),
    ("tcp.d.downstream_cx_total", "t.total"),
    ("upstream_cx_connect_fail", "u.connect_fail"),
    ("upstream_cx_protocol_error", "u.protocol_error"),
    (
        "upstream_cx_destroy_remote_with_active_rq",
        "u.remote_active",
    ),
    ("upstream_cx_destroy_local_with_active_rq", "u.local_active"),
    ("upstream_rq_cancelled", "u.cancelled"),
    ("upstream_rq_rx_reset", "u.rx_reset"),
    ("upstream_rq_tx_reset", "u.tx_reset"),
    ("upstream_rq_timeout", "u.timeout"),
    ("upstream_rq_per_try_timeout", "u.try_timeout"),
    ("upstream_rq_retry", "u.retry"),
    ("upstream_rq_pending_failure_eject", "u.pending_eject"),
    ("upstream_cx_connect_timeout", "u.connect_timeout"),
    ("upstream_cx_destroy_with_active_rq", "u.active"),
];

/// A protocol of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Http {
    One,
    Two,
}

pub(super) const BOTH: [Http; 2] = [Http::One, Http::Two];

impl Http {
    /// The cluster that speaks it.
    pub(super) fn cluster(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
        }
    }
}

pub(super) struct Rig {
    pub(super) proxy: Proxy,
    before: Stats,
}

impl Rig {
    /// In front of origins at these addresses, each a field of an endpoint; `route` are further fields of its
    /// routes.
    pub(super) fn new(origins: &[String], route: &str) -> Self {
        Self::with(origins, route, &["--concurrency", "1"])
    }

    /// The same with arguments of the caller's choice.
    pub(super) fn with(origins: &[String], route: &str, arguments: &[&str]) -> Self {
        let yaml = bootstrap(origins, route);
        let proxy = Proxy::start_with(&subject(), &yaml, arguments).unwrap();
        let before = proxy.admin().stats().unwrap();
        Self { proxy, before }
    }

    /// The next request is served, over a connection of its own.
    pub(super) fn serves(&mut self, down: Http, up: Http) {
        let path = self.path(up, "/next");
        let mut client = Client::open(self, down);
        client.send(&path, Kind::Get, "");
        assert_eq!(client.response().status, 200, "the next request");
        drop(client);
        assert_eq!(self.told(&path, up.cluster()), "200 - via_upstream");
    }

    pub(super) fn path(&self, up: Http, path: &str) -> String {
        format!("/{}{path}", up.cluster())
    }

    /// Waits until nothing is held, and tells the log line of the request with this path together with what moved
    /// since the last time.
    pub(super) fn told(&mut self, path: &str, cluster: &str) -> String {
        self.settles();
        let start = format!("LOG {path} ");
        let lines = self
            .proxy
            .stdout()
            .take_through(|line| line.starts_with(&start));
        let line = lines.expect("no log line").pop().unwrap();
        let told = format!("{} {}", &line[start.len()..], self.moved(cluster));
        told.trim_end().to_owned()
    }

    /// What moved since the last time.
    pub(super) fn moved(&mut self, cluster: &str) -> String {
        let now = self.proxy.admin().stats().unwrap();
        let mut text = Vec::new();
        for (name, short) in TOLD {
            let name = match name.split_once('.') {
                Some(_) => name.to_owned(),
                None => format!("cluster.{cluster}.{name}"),
            };
            let at = |stats: &Stats| stats.get(&name).copied().unwrap_or(0);
            let moved = at(&now) - at(&self.before);
            if moved != 0 {
                text.push(format!("{short}={moved}"));
            }
        }
        self.before = now;
        text.join(" ")
    }

    /// Waits until so many clients are here and each has said something.
    pub(super) fn opened(&self, down: Http, clients: i64) {
        let number = match down {
            Http::One => 1,
            Http::Two => 2,
        };
        self.becomes(
            &format!("http.d.downstream_cx_http{number}_active"),
            clients,
        );
    }

    /// Waits until a gauge has this value.
    pub(super) fn becomes(&self, name: &str, value: i64) {
        let became = until(Deadline::default(), || {
            (self.proxy.admin().stat(name).ok()? == value).then_some(())
        });
        assert!(became.is_some(), "{name} is not {value}");
    }

    /// Waits until nothing is held: no request, no client, no permit.
    pub(super) fn settles(&self) {
        let mut held = Vec::new();
        let settled = until(Deadline::default(), || {
            held = held_by(&self.proxy.admin().stats().ok()?);
            held.is_empty().then_some(())
        });
        assert!(settled.is_some(), "still held: {held:?}");
    }
}

/// Whatever is still in use, apart from idle connections to the origin.
fn held_by(stats: &Stats) -> Vec<String> {
    let mut held = Vec::new();
    for (name, value) in stats {
        let own = name.contains("admin") || name.starts_with("listener_manager");
        let gauge = name.ends_with("_active") && !name.ends_with("upstream_cx_active");
        if gauge && !own && *value != 0 {
            held.push(format!("{name} {value}"));
        }
        if name.ends_with("remaining_cx") {
            let cluster = name.split(".circuit_breakers").next().unwrap();
            let active = stats.get(&format!("{cluster}.upstream_cx_active"));
            if name.contains("default") && value + active.unwrap_or(&0) != ROOM {
                held.push(format!("{name} {value} with {active:?}"));
            }
        } else if name.contains("default.remaining_")
            && !name.ends_with("cx_pools")
            && *value != ROOM
        {
            held.push(format!("{name} {value}"));
        }
    }
    held
}

/// An address as a field of an endpoint.
pub(super) fn socket(address: SocketAddr) -> String {
    format!(
        "{{socket_address: {{address: 127.0.0.1, port_value: {}}}}}",
        address.port()
    )
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    /// Nothing that may be sent twice.
    Post,
    Grpc,
    /// A call whose messages come later; HTTP/2 only.
    Stream,
    /// A body of 10 bytes is announced.
    Upload,
    WebSocket,
}

/// A client with one request.
pub(super) enum Client {
    One(Connection),
    Two(Box<http2::Client>, u32),
}

impl Client {
    pub(super) fn open(rig: &Rig, down: Http) -> Self {
        let address = rig.proxy.listener("http").unwrap();
        match down {
            Http::One => Self::One(Connection::open(address).unwrap()),
            Http::Two => {
                let mut client = http2::Client::open(address, &[]).unwrap();
                client.settings();
                Self::Two(Box::new(client), 0)
            }
        }
    }

    /// Sends a request, or as much of it as there is.
    pub(super) fn send(&mut self, path: &str, kind: Kind, body: &str) {
        match self {
            Self::One(connection) => connection.send(&head(path, kind, body)),
            Self::Two(client, stream) => {
                *stream = client.send(&request(path, kind, body));
            }
        }
    }

    pub(super) fn response(&mut self) -> Response {
        match self {
            Self::One(connection) => connection.response(false),
            Self::Two(client, stream) => client.response(*stream),
        }
    }

    /// Waits for the head of the answer, and so many bytes of its body.
    pub(super) fn begins(&mut self, bytes: usize) {
        match self {
            Self::One(connection) => {
                connection.head().unwrap();
                assert_eq!(connection.bytes(bytes).len(), bytes);
            }
            Self::Two(client, stream) => {
                assert!(client.status(*stream).is_some());
                assert!(client.body(*stream, bytes).is_some());
            }
        }
    }

    /// Resets the whole connection.
    pub(super) fn reset(self) {
        match self {
            Self::One(connection) => connection.reset(),
            Self::Two(client, _) => client.writer().linger_no_more(),
        }
    }
}

/// A request in HTTP/2.
pub(super) fn request(path: &str, kind: Kind, body: &str) -> http2::Request {
    http2::Request {
        fields: fields(path, kind),
        body: body.as_bytes().to_vec(),
        open: matches!(kind, Kind::Upload | Kind::WebSocket | Kind::Stream),
        ..http2::Request::default()
    }
}

/// The same in HTTP/1.1.
pub(super) fn head(path: &str, kind: Kind, body: &str) -> Vec<u8> {
    let (method, more) = match kind {
        Kind::Get => ("GET", ""),
        Kind::Post => ("POST", "Content-Length: 0\r\n"),
        Kind::Grpc | Kind::Stream => (
            "POST",
            "Content-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 0\r\n",
        ),
        Kind::Upload => ("POST", "Content-Length: 10\r\n"),
        Kind::WebSocket => (
            "GET",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n{body}").into_bytes()
}

fn fields(path: &str, kind: Kind) -> http2::Fields {
    let (method, more): (_, &[(&str, &str)]) = match kind {
        Kind::Get => ("GET", &[]),
        Kind::Post => ("POST", &[]),
        Kind::Grpc | Kind::Stream => (
            "POST",
            &[("content-type", "application/grpc"), ("te", "trailers")],
        ),
        Kind::Upload => ("POST", &[("content-length", "10")]),
        Kind::WebSocket => ("CONNECT", &[(":protocol", "websocket")]),
    };
    let pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ];
    let (protocol, fields): (Vec<_>, Vec<_>) =
        more.iter().partition(|(name, _)| name.starts_with(':'));
    let all = pseudo.iter().chain(protocol).chain(fields);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// To see what Envoy does, name its binary in `FAULTS_SUBJECT`.
fn subject() -> Binary {
    match std::env::var("FAULTS_SUBJECT") {
        Ok(path) => Binary::new(path).unwrap(),
        Err(_) => binary(),
    }
}

fn bootstrap(origins: &[String], route: &str) -> String {
    let log = "access_log: [{name: log, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, \
        log_format: {text_format_source: {inline_string: \"LOG %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n\"}}}}]";
    let comma = if route.is_empty() { "" } else { ", " };
    let clusters: String = [("one", "{}"), ("two", "{allow_connect: true}"), ("tcp", "")]
        .into_iter()
        .map(|(name, http2)| cluster(name, origins, http2))
        .collect();
    format!(
        "
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: http
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: d
          {log}
          upgrade_configs: [{{upgrade_type: websocket}}]
          http2_protocol_options: {{allow_connect: true}}
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - {{match: {{prefix: /one/short}}, route: {{cluster: one, timeout: 0.2s}}}}
              - {{match: {{prefix: /two/short}}, route: {{cluster: two, timeout: 0.2s}}}}
              - {{match: {{prefix: /one}}, route: {{cluster: one{comma}{route}}}}}
              - {{match: {{prefix: /two}}, route: {{cluster: two{comma}{route}}}}}
  - name: tcp
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: d
          cluster: tcp
          {tcp_log}
  clusters:{clusters}
",
        tcp_log = log.replace("%REQ(:PATH)%", "tcp"),
    )
}

fn cluster(name: &str, origins: &[String], http2: &str) -> String {
    let endpoints: Vec<_> = origins
        .iter()
        .map(|origin| format!("{{endpoint: {{address: {origin}}}}}"))
        .collect();
    let options = if name == "two" {
        format!(
            "
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {http2}}}"
        )
    } else {
        String::new()
    };
    let limits = [
        "max_connections",
        "max_pending_requests",
        "max_requests",
        "max_retries",
    ]
    .map(|name| format!("{name}: {ROOM}"))
    .join(", ");
    format!(
        "
  - name: {name}
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{{limits}, track_remaining: true}}]}}
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}{options}",
        endpoints = endpoints.join(", "),
    )
}
