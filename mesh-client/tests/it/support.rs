//! Upstreams with a script, and bootstraps around them.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use mesh_client::{ClientError, MeshClient};
use mesh_config::{LoadOptions, language::Source, model::Config};
use mesh_core::{Body, Error, RequestInfo, stats::Value};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    sync::{mpsc, watch},
};

/// An upstream that answers its `n`th request with the `n`th status of its script, then with the last.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    /// Their bodies, as far as they came.
    pub(crate) bodies: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// Status 0 closes the connection without an answer.
    pub(crate) async fn start(script: &'static [u16]) -> Self {
        Self::answering(|n, _| {
            let status = script[n.min(script.len() - 1)];
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
            (status != 0).then_some(answer)
        })
        .await
    }

    /// Answers what `answer` makes of the number and the head of a request; on `None` the connection closes
    /// without an answer.
    pub(crate) async fn answering(
        answer: impl Fn(usize, &str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&bodies);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, heads) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (count, log) = (Arc::clone(&requests), Arc::clone(&heads));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (count, log) = (Arc::clone(&count), Arc::clone(&log));
                let (answer, read) = (Arc::clone(&answer), Arc::clone(&read));
                tokio::spawn(async move {
                    while let Some(head) = read_head(&mut stream).await {
                        let body = read_body(&mut stream, &head).await;
                        log.lock().unwrap().push(head.clone());
                        read.lock().unwrap().push(body);
                        let n = count.fetch_add(1, Ordering::SeqCst);
                        let Some(answer) = answer(n, &head) else {
                            return;
                        };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            port,
            requests,
            heads,
            bodies,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn read_head(stream: &mut tokio::net::TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(seen).ok()
}

/// What came of the body, chunked or with a length.
async fn read_body(stream: &mut tokio::net::TcpStream, head: &str) -> String {
    let mut seen = Vec::new();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let chunked = head.contains("transfer-encoding: chunked");
    let whole = |seen: &[u8]| match length {
        Some(length) => seen.len() >= length,
        None => !chunked || seen.ends_with(b"\r\n0\r\n\r\n"),
    };
    while !whole(&seen) {
        match stream.read_u8().await {
            Ok(byte) => seen.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(seen).unwrap()
}

/// A bootstrap of one listener; `routes` and `clusters` are YAML lists in flow style.
pub(crate) fn bootstrap(routes: &str, clusters: &str) -> Config {
    bootstrap_with("", routes, clusters)
}

/// `fields` of the connection manager in flow style, each on a line of its own.
pub(crate) fn bootstrap_with(fields: &str, routes: &str, clusters: &str) -> Config {
    text_with(fields, "", routes, clusters)
}

/// With one more filter in front of the router.
pub(crate) fn bootstrap_with_filters(filter: &str, routes: &str, clusters: &str) -> Config {
    text_with("", &format!("- {filter}"), routes, clusters)
}

fn text_with(fields: &str, filter: &str, routes: &str, clusters: &str) -> Config {
    let text = format!(
        r#"
static_resources:
  listeners:
  - name: ingress
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          {fields}
          http_filters:
          {filter}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: {routes}}}
  clusters: {clusters}
"#
    );
    mesh_config::load(&Source::text("test.yaml", text), &LoadOptions::default()).unwrap()
}

/// One static cluster; `more` is further fields in flow style, each followed by a comma.
pub(crate) fn cluster(name: &str, ports: &[u16], more: &str) -> String {
    let endpoints: Vec<String> = ports
        .iter()
        .map(|port| format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"))
        .collect();
    format!(
        "{{name: {name}, type: STATIC, {more} load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}}}",
        endpoints.join(", ")
    )
}

pub(crate) async fn client(config: Config) -> Result<MeshClient, ClientError> {
    MeshClient::builder(config).seed(1).start().await
}

/// What came of one GET: status and body, and what is known about it.
pub(crate) async fn get(
    client: &MeshClient,
    path: &str,
) -> (Result<(u16, String), Error>, Arc<RequestInfo>) {
    let request = Request::get(format!("http://mesh.test{path}"))
        .body(Body::empty())
        .unwrap();
    let future = client.send(request);
    let info = Arc::clone(future.info().unwrap());
    (read(future.await).await, info)
}

async fn read(result: Result<Response<Body>, Error>) -> Result<(u16, String), Error> {
    let (parts, body) = result?.into_parts();
    let bytes = body.collect().await?.to_bytes();
    Ok((
        parts.status.as_u16(),
        String::from_utf8(bytes.to_vec()).unwrap(),
    ))
}

pub(crate) fn decisions(info: &RequestInfo) -> String {
    info.with(|facts| facts.trace.to_string())
}

/// A `STRICT_DNS` cluster: one endpoint per port, all of the same name.
pub(crate) fn dns_cluster(
    name: &str,
    host: &str,
    ports: &[u16],
    server: u16,
    more: &str,
) -> String {
    let endpoints: Vec<String> = ports
        .iter()
        .map(|port| format!("{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}"))
        .collect();
    let resolver = format!(
        r#"{{name: cares, typed_config: {{"@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: [{{socket_address: {{address: 127.0.0.1, port_value: {server}}}}}], dns_resolver_options: {{no_default_search_domain: true}}}}}}"#
    );
    format!(
        "{{name: {name}, type: STRICT_DNS, dns_lookup_family: V4_ONLY, typed_dns_resolver_config: {resolver}, {more} load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}}}",
        endpoints.join(", ")
    )
}

/// A name server to which every name is 127.0.0.1, or another such address, and which may hold its answers
/// back.
pub(crate) struct NameServer {
    pub(crate) port: u16,
    pub(crate) last_octet: Arc<AtomicUsize>,
    pub(crate) answers: watch::Sender<bool>,
}

impl NameServer {
    pub(crate) async fn start(answering: bool) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let (answers, mut answering) = watch::channel(answering);
        let last_octet = Arc::new(AtomicUsize::new(1));
        let octet = Arc::clone(&last_octet);
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((n, peer)) = socket.recv_from(&mut question).await {
                if answering.wait_for(|answering| *answering).await.is_err() {
                    return;
                }
                let answer = loopback(&question[..n], octet.load(Ordering::SeqCst) as u8);
                socket.send_to(&answer, peer).await.unwrap();
            }
        });
        Self {
            port,
            last_octet,
            answers,
        }
    }
}

fn loopback(question: &[u8], last_octet: u8) -> Vec<u8> {
    let mut end = 12;
    while question[end] != 0 {
        end += 1 + usize::from(question[end]);
    }
    let mut answer = question[..2].to_vec();
    // An answer; one question, one record.
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(&question[12..end + 5]);
    // The name of the question, A, IN, a minute, four bytes.
    answer.extend([
        0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, last_octet,
    ]);
    answer
}

/// Waits for a condition that nothing announces.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("it never happened");
}

/// A counter; one that nothing was counted with may not be there yet.
pub(crate) fn counter(client: &MeshClient, name: &str) -> u64 {
    match stat(client, name) {
        Some(Value::Counter(count)) => count,
        None => 0,
        _ => panic!("{name} is no counter"),
    }
}

pub(crate) fn gauge(client: &MeshClient, name: &str) -> u64 {
    match stat(client, name) {
        Some(Value::Gauge(now)) => now,
        _ => panic!("{name} is no gauge"),
    }
}

fn stat(client: &MeshClient, name: &str) -> Option<Value> {
    let stats = client.mesh().registry().snapshot();
    let found = stats.into_iter().find(|stat| stat.name == name);
    found.map(|stat| stat.value)
}

/// A body that comes when the test says so.
pub(crate) struct Dripping(pub(crate) mpsc::UnboundedReceiver<&'static str>);

impl http_body::Body for Dripping {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
        let next = std::task::ready!(self.0.poll_recv(cx));
        Poll::Ready(next.map(|text| Ok(http_body::Frame::data(text.into()))))
    }
}
