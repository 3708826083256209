//! How do two services become a mesh? A control plane, two sidecars and two applications, all in this process.
//!
//! ```sh
//! cargo run -p examples --example two_services             # tells the story, and ends
//! cargo run -p examples --example two_services -- --stay   # stays, for you to play with
//! ```
//!
//! `shop` asks its own sidecar for `http://users/`; that one finds an endpoint, proves in TLS who it is, and reaches
//! the sidecar of `users`, which hands the request to the application. Then the mesh file changes while it runs,
//! and at last the control plane goes away.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    body::{Bytes, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use mesh_control::{Control, Settings, registry::MeshFile, serve};
use mesh_core::stats::Registry;
use mesh_tls::dev_ca::DevCa;
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(30);

/// An application that says its name, and who asks: its sidecar has put that into a header.
async fn app(name: &'static str, listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        let answer = move |request: Request<Incoming>| async move {
            let caller = request.headers().get("x-forwarded-client-cert");
            let caller = caller
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let who = caller.split(';').find_map(|part| part.strip_prefix("URI="));
            let text = format!("{name} says hello to {}", who.unwrap_or("somebody"));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
        };
        tokio::spawn(async move {
            let connection = server::conn::http1::Builder::new();
            let _ = connection
                .serve_connection(TokioIo::new(socket), service_fn(answer))
                .await;
        });
    }
}

/// What `shop` gets when it asks its own sidecar for `users`.
async fn ask(sidecar: SocketAddr) -> Result<String> {
    let socket = TcpStream::connect(sidecar).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "users")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(
        status == 200,
        "{status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// A sidecar on a thread of its own, which knows nothing but its name and the control plane's address.
fn sidecar(service: &str, control: SocketAddr) {
    let bootstrap = format!(
        r#"
node: {{id: {service}-1, cluster: {service}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]
  cds_config: {{resource_api_version: V3, ads: {{}}}}
  lds_config: {{resource_api_version: V3, ads: {{}}}}
static_resources:
  clusters:
  - name: control
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: control
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
"#,
        port = control.port()
    );
    let arguments = [
        "mesh-proxy",
        "--concurrency",
        "1",
        "-l",
        "error",
        "--config-yaml",
        &bootstrap,
    ];
    let arguments = arguments.map(std::ffi::OsString::from);
    std::thread::spawn(move || mesh_proxy::main(arguments));
}

/// The mesh, with so many of a hundred requests to `users` for its second version.
struct Mesh {
    folder: PathBuf,
    outbound: SocketAddr,
    inbound: SocketAddr,
    users: SocketAddr,
    users_v2: SocketAddr,
}

impl Mesh {
    fn write(&self, shifted: u32) -> Result<()> {
        let Self {
            outbound,
            inbound,
            users,
            users_v2,
            ..
        } = self;
        let folder = self.folder.display();
        let kept = 100 - shifted;
        let text = format!(
            "
mtls:
  trust_domain: example.org
  certificate_chain: {folder}/{{service}}/svid.pem
  private_key: {folder}/{{service}}/key.pem
  trusted_ca: {folder}/bundle.pem
services:
  shop:
    sidecar: {{outbound: '{outbound}'}}
  users:
    endpoints: ['{inbound}']
    sidecar: {{inbound: '{inbound}', app: '{users}'}}
    timeout: 2s
    retry_policy: {{retry_on: connect-failure, num_retries: 2}}
    routes:
    - to: {{users: {kept}, users-v2: {shifted}}}
  users-v2:
    endpoints: ['{users_v2}']
"
        );
        // Moved into place, so that nobody reads half of it.
        let beside = self.folder.join("mesh.yaml.new");
        std::fs::write(&beside, text)?;
        Ok(std::fs::rename(beside, self.path())?)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("mesh.yaml")
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(StdListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn start_app(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(app(name, listener));
    Ok(address)
}

fn identities(folder: &Path) -> Result<()> {
    let now = SystemTime::now();
    let ca = DevCa::new("example.org".parse()?, now)?;
    let services = ["spiffe://example.org/shop", "spiffe://example.org/users"];
    let services = [services[0].parse()?, services[1].parse()?];
    ca.write(folder, &services, now, Duration::from_secs(24 * 3600))?;
    Ok(())
}

/// Asks until the answer is from `name`.
async fn until(sidecar: SocketAddr, name: &str) -> Result<String> {
    let asking = async {
        loop {
            if let Ok(answer) = ask(sidecar).await
                && answer.starts_with(&format!("{name} says"))
            {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let answer = tokio::time::timeout(DEADLINE, asking).await;
    answer.with_context(|| format!("no answer of {name}"))
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("two-services-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    identities(&folder)?;
    let mesh = Mesh {
        folder,
        outbound: free_address()?,
        inbound: free_address()?,
        users: start_app("users").await?,
        users_v2: start_app("users-v2").await?,
    };
    mesh.write(0)?;

    let file = MeshFile::new(mesh.path())?;
    let control = Control::start(Settings::default(), vec![Box::new(file)], Registry::new())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let plane =
        tokio::spawn(async move { serve(&control, listener, None, std::future::pending()).await });
    for service in ["shop", "users"] {
        sidecar(service, address);
    }

    println!("shop:    {}", until(mesh.outbound, "users").await?);
    println!("-- the mesh file sends half of the requests to users-v2");
    mesh.write(50)?;
    until(mesh.outbound, "users-v2").await?;
    let mut counts = [0, 0];
    for _ in 0..40 {
        counts[usize::from(ask(mesh.outbound).await?.starts_with("users-v2"))] += 1;
    }
    println!(
        "shop:    {} answers of users, {} of users-v2",
        counts[0], counts[1]
    );
    ensure!(
        counts.iter().all(|count| *count > 0),
        "one of them got nothing"
    );

    if std::env::args().any(|argument| argument == "--stay") {
        println!(
            "\nTry:  curl http://users/ --proxy http://{}\nEdit: {}\nCtrl-C ends it.",
            mesh.outbound,
            mesh.path().display()
        );
        tokio::signal::ctrl_c().await?;
    } else {
        println!("-- the control plane is gone");
        plane.abort();
        println!("shop:    {}", ask(mesh.outbound).await?);
    }
    std::fs::remove_dir_all(&mesh.folder)?;
    Ok(())
}
