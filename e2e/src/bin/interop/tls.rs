//! mTLS between mesh-proxy and Envoy, in both directions, while leaf and issuer rotate under load; and what OpenSSL
//! makes of either as a server.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    client::Connection,
    process::{Binary, Proxy},
    tls::Client,
    upstream::{Reply, Upstream},
    wait::{self, Deadline},
};
use mesh_tls::{
    Certificate,
    dev_ca::{CA_LIFETIME, DevCa, DevLeaf},
};

/// Requests between two rotations, at least.
const REQUESTS: u32 = 100;
/// Connections that ask one request after the other.
const CLIENTS: usize = 2;
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Who takes a part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Mesh,
    Envoy,
}

pub(crate) fn run(mesh: &Path, envoy: &Path) -> Result<()> {
    let (mesh, envoy) = (Binary::new(mesh)?, Binary::new(envoy)?);
    let ways = [
        (
            "mesh-proxy to Envoy",
            (&mesh, Peer::Mesh),
            (&envoy, Peer::Envoy),
        ),
        (
            "Envoy to mesh-proxy",
            (&envoy, Peer::Envoy),
            (&mesh, Peer::Mesh),
        ),
        (
            "mesh-proxy to mesh-proxy",
            (&mesh, Peer::Mesh),
            (&mesh, Peer::Mesh),
        ),
    ];
    for (what, client, server) in ways {
        rotation(client, server).with_context(|| what.to_owned())?;
        println!("passed: mTLS, {what}, rotations under load");
    }
    openssl(&mesh, &envoy)?;
    println!("passed: mTLS, OpenSSL agrees with mesh-proxy as it does with Envoy");
    Ok(())
}

/// A CA, its files in a folder, and one certificate that never changes.
struct Pki {
    ca: DevCa,
    folder: PathBuf,
    probe: Client,
}

impl Pki {
    fn new(name: &str) -> Result<Self> {
        let now = mesh_core::clock::wall();
        let ca = DevCa::new("example.org".parse()?, now)?;
        let folder =
            std::env::temp_dir().join(format!("mesh-interop-{name}-{}", std::process::id()));
        let probe = ca.issue(DevLeaf::svid(&"spiffe://example.org/probe".parse()?, now))?;
        let this = Self {
            probe: Client::default().identity(probe.chain_pem(), probe.key_pem()),
            ca,
            folder,
        };
        this.renew()?;
        for name in ["cart", "shop"] {
            let own = this.folder.join(name);
            let own = own.display();
            let secret = format!(
                "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  name: own\n  \
                 tls_certificate: {{certificate_chain: {{filename: {own}/svid.pem}}, private_key: {{filename: {own}/key.pem}}, \
                 watched_directory: {{path: {own}}}}}\n"
            );
            fs::write(this.folder.join(format!("{name}.yaml")), secret)?;
        }
        Ok(this)
    }

    /// New leaves for both.
    fn renew(&self) -> Result<()> {
        let ids = [
            "spiffe://example.org/cart".parse()?,
            "spiffe://example.org/shop".parse()?,
        ];
        Ok(self
            .ca
            .write(&self.folder, &ids, mesh_core::clock::wall(), LIFETIME)?)
    }

    /// Another issuer, and new leaves of it.
    fn rotate_issuer(&mut self) -> Result<()> {
        let now = mesh_core::clock::wall();
        self.ca.rotate_intermediate(now, now + CA_LIFETIME)?;
        self.renew()
    }

    fn leaf(&self, name: &str) -> Result<Arc<Certificate>> {
        let pem = fs::read(self.folder.join(name).join("svid.pem"))?;
        Certificate::from_pem(&pem)?
            .first()
            .cloned()
            .context("no certificate")
    }

    /// `common_tls_context` of `name`: Envoy follows files only through SDS.
    fn common(&self, peer: Peer, name: &str, more: &str) -> String {
        let folder = self.folder.display();
        let own = match peer {
            Peer::Mesh => format!(
                "tls_certificates: [{{certificate_chain: {{filename: {folder}/{name}/svid.pem}}, \
                 private_key: {{filename: {folder}/{name}/key.pem}}, watched_directory: {{path: {folder}/{name}}}}}]"
            ),
            Peer::Envoy => format!(
                "tls_certificate_sds_secret_configs: [{{name: own, sds_config: {{path_config_source: {{path: {folder}/{name}.yaml}}}}}}]"
            ),
        };
        format!(
            "{{{own}, {more} validation_context: {{trusted_ca: {{filename: {folder}/bundle.pem}}}}}}"
        )
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// A listener with this transport socket in front of a cluster with that.
fn bootstrap(down: &str, manager: &str, up: &str, to: SocketAddr) -> String {
    format!(
        r#"
node: {{id: tls, cluster: tls}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    stat_prefix: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - {down}
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          {manager}
          http_filters:
          - {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: c}}}}]}}]}}
  clusters:
  - name: c
    {up}
    load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}
"#,
        port = to.port(),
    )
}

fn server(binary: &Binary, peer: Peer, pki: &Pki, upstream: &Upstream) -> Result<Proxy> {
    let common = pki.common(peer, "cart", "alpn_protocols: [h2, http/1.1],");
    let down = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.DownstreamTlsContext, require_client_certificate: true, \
         common_tls_context: {common}}}}}"
    );
    let manager = "forward_client_cert_details: SANITIZE_SET";
    Proxy::start(binary, &bootstrap(&down, manager, "", upstream.address()))
}

/// Each request has a connection and a full handshake of its own.
fn client(binary: &Binary, peer: Peer, pki: &Pki, server: &Proxy) -> Result<Proxy> {
    let common = pki.common(
        peer,
        "shop",
        "tls_params: {tls_maximum_protocol_version: TLSv1_3},",
    );
    let up = format!(
        "max_requests_per_connection: 1\n    transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.UpstreamTlsContext, \
         sni: localhost, max_session_keys: 0, common_tls_context: {common}}}}}"
    );
    Proxy::start(
        binary,
        &bootstrap("name: plain", "", &up, server.listener("main")?),
    )
}

fn rotation(client_of: (&Binary, Peer), server_of: (&Binary, Peer)) -> Result<()> {
    let mut pki = Pki::new("rotation")?;
    let upstream = Upstream::start("a")?;
    upstream.on("/", [Reply::ok("ok")]);
    let server = server(server_of.0, server_of.1, &pki, &upstream)?;
    let client = client(client_of.0, client_of.1, &pki, &server)?;
    let load = Load::start(client.listener("main")?);
    load.goes_on()?;
    in_use(&pki, &server, &upstream)?;
    pki.renew()?;
    in_use(&pki, &server, &upstream).context("after the leaves rotated")?;
    load.goes_on()?;
    pki.rotate_issuer()?;
    in_use(&pki, &server, &upstream).context("after the issuer rotated")?;
    load.goes_on()?;
    let answered = load.stop()?;
    println!("  {answered} requests, each over a handshake of its own, all answered");
    Ok(())
}

/// Waits until the server shows its newest certificate, and gets the client's.
fn in_use(pki: &Pki, server: &Proxy, upstream: &Upstream) -> Result<()> {
    let (cart, shop) = (pki.leaf("cart")?, pki.leaf("shop")?);
    let address = server.listener("main")?;
    let shown = wait::until(Deadline::default(), || {
        let connection = pki.probe.connect(address).ok()?;
        let chain = connection.agreed()?.chain;
        (chain.first()? == cart.der()).then_some(())
    });
    shown.context("the server does not show its new certificate")?;
    let mut hash = String::from("Hash=");
    for byte in shop.sha256() {
        let _ = write!(hash, "{byte:02x}");
    }
    let seen = wait::until(Deadline::default(), || {
        let requests = upstream.take_requests();
        let has = |head: &e2e::wire::Head| {
            let xfcc = head.field("x-forwarded-client-cert");
            xfcc.is_some_and(|xfcc| xfcc.contains(&hash))
        };
        requests
            .iter()
            .any(|request| has(&request.head))
            .then_some(())
    });
    seen.context("the client does not show its new certificate")
}

/// Clients that ask until they are stopped; every answer must be 200.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let threads = (0..CLIENTS).map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut connection = Connection::open(address)?;
                while !stop.load(Ordering::Relaxed) {
                    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    let response = connection.response(false);
                    ensure!(
                        response.status == 200,
                        "request {}: {} {:?} {}",
                        answered.load(Ordering::Relaxed),
                        response.status,
                        response.missing,
                        String::from_utf8_lossy(&response.body.data)
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            answered,
        }
    }

    /// Waits for some more answers.
    fn goes_on(&self) -> Result<()> {
        let target = self.answered.load(Ordering::Relaxed) + REQUESTS;
        let reached = wait::until(Deadline::default(), || {
            let failed = self.threads.iter().any(JoinHandle::is_finished);
            (failed || self.answered.load(Ordering::Relaxed) >= target).then_some(!failed)
        });
        match reached {
            Some(true) => Ok(()),
            Some(false) => bail!("a request failed"),
            None => bail!("the load does not go on"),
        }
    }

    fn stop(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("the load panicked"),
            }
        }
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

/// OpenSSL tells the same of both servers, and what it must.
fn openssl(mesh: &Binary, envoy: &Binary) -> Result<()> {
    let pki = Pki::new("openssl")?;
    let upstream = Upstream::start("a")?;
    let ours = server(mesh, Peer::Mesh, &pki, &upstream)?;
    let theirs = server(envoy, Peer::Envoy, &pki, &upstream)?;
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let ours = s_client(&pki, ours.listener("main")?, flag)?;
        let theirs = s_client(&pki, theirs.listener("main")?, flag)?;
        ensure!(ours == theirs, "mesh-proxy: {ours:#?}\nEnvoy: {theirs:#?}");
        for wanted in [version, "ALPN protocol: h2", "Verify return code: 0 (ok)"] {
            ensure!(
                ours.iter().any(|line| line.contains(wanted)),
                "no {wanted}: {ours:#?}"
            );
        }
    }
    Ok(())
}

/// What it says of version, protocol, chain and verdict.
fn s_client(pki: &Pki, address: SocketAddr, flag: &str) -> Result<Vec<String>> {
    let shop = pki.folder.join("shop");
    let output = Command::new("openssl")
        .args([
            "s_client",
            flag,
            "-servername",
            "localhost",
            "-alpn",
            "h2,http/1.1",
        ])
        .args([
            "-connect",
            &address.to_string(),
            "-verify_hostname",
            "localhost",
        ])
        .arg("-CAfile")
        .arg(pki.folder.join("bundle.pem"))
        .arg("-cert")
        .arg(shop.join("svid.pem"))
        .arg("-cert_chain")
        .arg(shop.join("svid.pem"))
        .arg("-key")
        .arg(shop.join("key.pem"))
        .stdin(Stdio::null())
        .output()
        .context("running openssl (it must be on the path)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = [
        " s:",
        "i:",
        "Protocol",
        "New, ",
        "ALPN protocol",
        "Verif",
        "Peer signature",
    ];
    // Which of two ciphers that a server likes equally is its own affair.
    let text = text.replace("Cipher is", "\nCipher is");
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| wanted.iter().any(|part| line.contains(part)));
    Ok(lines.map(str::to_owned).collect())
}
