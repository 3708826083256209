//! One config, two shapes, the same decisions.
//!
//! The same Envoy YAML serves the same 240 seeded requests twice: in process, through `MeshClient`, and as a
//! sidecar, through sockets. Each writes a log of what was decided about every request, why, and on which
//! numbers; the two logs must be equal. Then the sidecar runs once more with one number of the config
//! changed, and the logs must differ: otherwise this program would prove nothing.
//!
//! ```sh
//! cargo run -p examples --example both_shapes
//! ```

use std::{
    future::{Ready, ready},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mesh_client::{Manager, Mesh, MeshClient, Worker};
use mesh_config::{LoadOptions, language::Source, model::Config};
use mesh_core::{Address, Body, ConnectionInfo, Error, Rng, stats::Registry};
use mesh_http::{
    Handler, reply,
    server::{Connection, ServerConfig},
};
use mesh_net::{BindOptions, Listener, TcpConnector};
use mesh_telemetry::LogWriterConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const REQUESTS: usize = 240;
const SEED: u64 = 20_261;

const YAML: &str = r#"
node: {id: both, cluster: both}
static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: LOG_PATH
              log_format:
                text_format_source:
                  inline_string: "%REQ(X-NUMBER)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %ROUTE_NAME% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %MESH_DECISIONS%\n"
          http_filters:
          - name: envoy.filters.http.local_ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: ingress
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: both
            virtual_hosts:
            - name: all
              domains: ["*"]
              include_request_attempt_count: true
              routes:
              - name: hello
                match: {prefix: /hello}
                direct_response: {status: 200, body: {inline_string: "hello\n"}}
              - name: gone
                match: {prefix: /gone}
                route: {cluster: nobody}
              - name: limited
                match: {prefix: /limited}
                route: {cluster: both}
                typed_per_filter_config:
                  envoy.filters.http.local_ratelimit:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                    stat_prefix: limited
                    token_bucket: {max_tokens: 10, tokens_per_fill: 1, fill_interval: 86400s}
                    filter_enabled: {default_value: {numerator: 100}}
                    filter_enforced: {default_value: {numerator: 100}}
              - name: retried
                match: {prefix: /retried}
                route:
                  cluster: both
                  retry_policy:
                    retry_on: 5xx,connect-failure
                    num_retries: NUM_RETRIES
                    retry_back_off: {base_interval: 0.001s}
              - name: weighted
                match: {prefix: /}
                route:
                  weighted_clusters:
                    clusters: [{name: both, weight: 70}, {name: other, weight: 30}]
  clusters:
  - name: nobody
    type: STATIC
    load_assignment: {cluster_name: nobody}
  - name: both
    type: STATIC
    lb_policy: LEAST_REQUEST
    outlier_detection: {consecutive_5xx: 3, max_ejection_percent: 50, base_ejection_time: 600s}
    load_assignment:
      cluster_name: both
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT_A}}}
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT_B}}}
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT_C}}}
  - name: other
    type: STATIC
    load_assignment:
      cluster_name: other
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT_A}}}
"#;

/// Answers each attempt with the status that the request's script names for it: `503,200`.
#[derive(Clone)]
struct Upstream;

impl Handler for Upstream {
    type Body = Body;
    type Exchange = Ready<Response<Body>>;

    fn call(&mut self, request: Request<Body>) -> Self::Exchange {
        let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
        let attempt: usize = text("x-envoy-attempt-count")
            .and_then(|n| n.parse().ok())
            .unwrap_or(1);
        let script = text("x-script").unwrap_or("200");
        let status = script
            .split(',')
            .nth(attempt - 1)
            .or_else(|| script.split(',').next_back());
        let status: u16 = status.and_then(|s| s.parse().ok()).unwrap_or(200);
        let mut response = Response::new(Body::from("answer"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        ready(response)
    }

    fn reject(&mut self, error: Error) -> Response<Body> {
        reply::response(error, None, reply::ReplyContext::default())
    }
}

/// Listens on a port of the kernel's choice, and serves each connection with what `handler` makes.
fn serve<H: Handler>(
    handler: impl Fn(ConnectionInfo) -> H + Send + 'static,
) -> anyhow::Result<u16> {
    let any = Address::Socket(([127, 0, 0, 1], 0).into());
    let mut socket = mesh_net::bind(&any, 1, &BindOptions::default())?;
    let socket = socket.pop().context("no socket")?;
    let Address::Socket(bound) = socket.local_address()? else {
        anyhow::bail!("no port")
    };
    let listener = Listener::from_std(socket)?;
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let connection = ConnectionInfo::accepted(stream.local_addr(), peer);
            let config = Arc::new(ServerConfig::default());
            tokio::spawn(Connection::new(stream, handler(connection), config));
        }
    });
    Ok(bound.port())
}

/// The requests, the same for both shapes.
struct Ask {
    path: &'static str,
    script: &'static str,
}

fn requests() -> Vec<Ask> {
    let rng = Rng::seeded(SEED);
    let paths = [
        "/retried",
        "/retried",
        "/weighted",
        "/limited",
        "/hello",
        "/gone",
    ];
    let scripts = ["200", "200", "503,200", "503,503,200", "503", "404"];
    (0..REQUESTS)
        .map(|_| Ask {
            path: paths[rng.below(paths.len() as u64) as usize],
            script: scripts[rng.below(scripts.len() as u64) as usize],
        })
        .collect()
}

fn config(log: &Path, ports: [u16; 3], num_retries: u32) -> anyhow::Result<Config> {
    let text = YAML
        .replace("LOG_PATH", &log.display().to_string())
        .replace("NUM_RETRIES", &num_retries.to_string())
        .replace("PORT_A", &ports[0].to_string())
        .replace("PORT_B", &ports[1].to_string())
        .replace("PORT_C", &ports[2].to_string());
    Ok(mesh_config::load(
        &Source::text("both_shapes.yaml", text),
        &LoadOptions::default(),
    )?)
}

async fn in_process(config: Config) -> anyhow::Result<()> {
    let client = MeshClient::builder(config)
        .seed(SEED)
        .start()
        .await?
        .with_local_replies();
    for (number, ask) in requests().iter().enumerate() {
        let request = Request::get(format!("http://mesh.test{}", ask.path))
            .header("x-number", number)
            .header("x-script", ask.script)
            .body(Body::empty())?;
        client.send(request).await?.into_body().collect().await?;
    }
    ensure!(
        client.mesh().writer().flush(Duration::from_secs(10)),
        "the log was not written"
    );
    Ok(())
}

async fn as_a_sidecar(config: Config) -> anyhow::Result<()> {
    let mesh = Mesh::new(
        Registry::new(),
        Rng::seeded(SEED),
        LogWriterConfig::default(),
        Arc::new(TcpConnector),
    );
    mesh.apply(&config)?;
    let worker = Worker::new(mesh.clone(), Arc::new(TcpConnector));
    let manager = config.listeners[0].manager().context("no manager")?;
    let manager = Manager::new(&worker, manager, &config.version)?;
    let port = serve(move |connection| manager.connection(Arc::new(connection)))?;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    for (number, ask) in requests().iter().enumerate() {
        let head = format!(
            "GET {} HTTP/1.1\r\nhost: mesh.test\r\nx-number: {number}\r\nx-script: {}\r\n\r\n",
            ask.path, ask.script
        );
        stream.write_all(head.as_bytes()).await?;
        read_answer(&mut stream).await?;
    }
    ensure!(
        mesh.writer().flush(Duration::from_secs(10)),
        "the log was not written"
    );
    Ok(())
}

/// Reads one answer with a `content-length`.
async fn read_answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.context("no content-length")?.trim().parse()?];
    stream.read_exact(&mut body).await?;
    Ok(())
}

fn read(log: &Path) -> anyhow::Result<Vec<String>> {
    let lines: Vec<String> = std::fs::read_to_string(log)?
        .lines()
        .map(str::to_owned)
        .collect();
    ensure!(
        lines.len() == REQUESTS,
        "{} lines for {REQUESTS} requests",
        lines.len()
    );
    Ok(lines)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let dir: PathBuf = std::env::temp_dir().join(format!("both-shapes-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let ports = [
        serve(|_| Upstream)?,
        serve(|_| Upstream)?,
        serve(|_| Upstream)?,
    ];
    let logs = ["library", "sidecar", "planted"].map(|name| dir.join(name));

    in_process(config(&logs[0], ports, 2)?).await?;
    as_a_sidecar(config(&logs[1], ports, 2)?).await?;
    as_a_sidecar(config(&logs[2], ports, 1)?).await?;

    let [library, sidecar, planted] = [read(&logs[0])?, read(&logs[1])?, read(&logs[2])?];
    for (number, (a, b)) in library.iter().zip(&sidecar).enumerate() {
        ensure!(
            a == b,
            "request {number} was decided differently:\n  library {a}\n  sidecar {b}"
        );
    }
    ensure!(library != planted, "a planted difference was not noticed");
    let decided = library.iter().filter(|line| !line.ends_with(" -")).count();
    ensure!(
        decided > REQUESTS / 4,
        "only {decided} requests were decided about: the script is too tame"
    );
    std::fs::remove_dir_all(&dir)?;
    println!(
        "{REQUESTS} requests in both shapes: equal decision logs, {decided} with decisions; \
         the planted difference was noticed"
    );
    println!(
        "for instance:\n  {}",
        library
            .iter()
            .find(|l| l.contains("retried"))
            .map_or("", |l| l)
    );
    Ok(())
}
