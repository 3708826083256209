//! Upstreams with a script, and bootstraps around them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use mesh_client::{ClientError, MeshClient};
use mesh_config::{LoadOptions, language::Source, model::Config};
use mesh_core::{Body, Error, RequestInfo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// An upstream that answers its `n`th request with the `n`th status of its script, then with the last.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// Status 0 closes the connection without an answer.
    pub(crate) async fn start(script: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, log) = (Arc::clone(&requests), Arc::clone(&heads));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (count, log) = (Arc::clone(&count), Arc::clone(&log));
                tokio::spawn(async move {
                    while let Some(head) = read_head(&mut stream).await {
                        log.lock().unwrap().push(head);
                        let n = count.fetch_add(1, Ordering::SeqCst);
                        let status = script[n.min(script.len() - 1)];
                        if status == 0 {
                            return;
                        }
                        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, requests, heads }
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

/// A bootstrap of one listener; `routes` and `clusters` are YAML lists in flow style.
pub(crate) fn bootstrap(routes: &str, clusters: &str) -> Config {
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
          http_filters:
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
    let request = Request::get(format!("http://mesh.test{path}")).body(Body::empty()).unwrap();
    let future = client.send(request);
    let info = Arc::clone(future.info().unwrap());
    (read(future.await).await, info)
}

async fn read(result: Result<Response<Body>, Error>) -> Result<(u16, String), Error> {
    let (parts, body) = result?.into_parts();
    let bytes = body.collect().await?.to_bytes();
    Ok((parts.status.as_u16(), String::from_utf8(bytes.to_vec()).unwrap()))
}

pub(crate) fn decisions(info: &RequestInfo) -> String {
    info.with(|facts| facts.trace.to_string())
}
