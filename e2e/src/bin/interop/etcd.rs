//! Endpoints that come from a real etcd: written, leased, expired, and kept while it is away.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::Connection,
    wait::{self, Deadline},
};
use envoy_types::pb::envoy::config::{
    core::v3::{address::Address as AddressKind, socket_address::PortSpecifier},
    endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
};
use mesh_config::language::Source;
use mesh_control::{
    Control, Settings,
    mesh::Mesh,
    registry::{Etcd, Knowledge, Next, PREFIX_DEFAULT, Registry},
};
use mesh_core::stats;
use mesh_xds::ResourceType;
use prost::Message;

const MESH: &str = "
services:
  shop: {sidecar: {outbound: '127.0.0.1:15001'}}
  users: {}
";

pub(crate) fn run(etcd: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut server = Server::start(etcd)?;
    server.put("users/one", "10.0.0.1:80", None)?;
    let registry = Etcd::new(&[server.uri()], PREFIX_DEFAULT).map_err(anyhow::Error::msg)?;
    let control = {
        let _inside = runtime.enter();
        let registries: Vec<Box<dyn Registry>> = vec![Box::new(Fixed(false)), Box::new(registry)];
        Control::start(Settings::default(), registries, stats::Registry::new())?
    };
    becomes(&control, &[("10.0.0.1:80", 1)])?;

    // Written, changed, removed.
    server.put("users/two", "{address: '10.0.0.2:80', weight: 3}", None)?;
    becomes(&control, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 3)])?;
    server.put("users/two", "{address: '10.0.0.2:80', weight: 4}", None)?;
    becomes(&control, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 4)])?;
    server.put("users/odd", "nowhere", None)?;
    server.delete("users/one")?;
    becomes(&control, &[("10.0.0.2:80", 4)])?;

    // Whoever does not keep his lease alive is gone.
    let lease = server.lease(1)?;
    server.put("users/leased", "10.0.0.3:80", Some(&lease))?;
    becomes(&control, &[("10.0.0.2:80", 4), ("10.0.0.3:80", 1)])?;
    becomes(&control, &[("10.0.0.2:80", 4)])?;

    // While etcd is away, what was known stays; what happened meanwhile is seen afterwards.
    server.kill();
    let fault = wait::until(Deadline::default(), || {
        let status = control.status();
        let status = status.borrow();
        status.registries.get(1)?.fault.clone()
    });
    fault.context("nobody has noticed that etcd is away")?;
    ensure!(endpoints(&control)? == [("10.0.0.2:80".to_owned(), 4)]);
    server.again()?;
    server.put("users/four", "10.0.0.4:80", None)?;
    becomes(&control, &[("10.0.0.2:80", 4), ("10.0.0.4:80", 1)])?;

    // History is forgotten, and the watch goes on.
    server.compact()?;
    server.delete("users/two")?;
    becomes(&control, &[("10.0.0.4:80", 1)])?;
    drop(control);
    Ok(())
}

/// The mesh, which never changes here.
struct Fixed(bool);

impl Registry for Fixed {
    fn name(&self) -> &str {
        "fixed"
    }

    fn next(&mut self) -> Next<'_> {
        let told = std::mem::replace(&mut self.0, true);
        Box::pin(async move {
            if told {
                return std::future::pending().await;
            }
            Ok(Knowledge::Mesh(Arc::new(Mesh::read(&Source::text(
                "mesh.yaml",
                MESH,
            ))?)))
        })
    }
}

/// The endpoints of users as the sidecar of shop gets them, with their weights.
fn endpoints(control: &Control) -> Result<Vec<(String, u32)>> {
    let snapshot = control.cache().snapshot("shop").context("no snapshot")?;
    let users = snapshot.set(ResourceType::Endpoints).get("users");
    let users = ClusterLoadAssignment::decode(users.context("no endpoints")?.body.clone())?;
    let mut endpoints = BTreeMap::new();
    for endpoint in users.endpoints.iter().flat_map(|l| &l.lb_endpoints) {
        let Some(HostIdentifier::Endpoint(inner)) = &endpoint.host_identifier else {
            continue;
        };
        let address = inner.address.as_ref().and_then(|a| a.address.as_ref());
        let Some(AddressKind::SocketAddress(socket)) = address else {
            continue;
        };
        let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
            continue;
        };
        let weight = endpoint
            .load_balancing_weight
            .map_or(0, |weight| weight.value);
        endpoints.insert(format!("{}:{port}", socket.address), weight);
    }
    Ok(endpoints.into_iter().collect())
}

fn becomes(control: &Control, wanted: &[(&str, u32)]) -> Result<()> {
    let wanted: Vec<(String, u32)> = wanted
        .iter()
        .map(|(address, weight)| ((*address).to_owned(), *weight))
        .collect();
    let same = || (endpoints(control).ok()? == wanted).then_some(());
    wait::until(Deadline::default(), same)
        .with_context(|| format!("{:?} instead of {wanted:?}", endpoints(control)))
}

/// An etcd of our own, spoken to through its JSON gateway: not through what is tested.
struct Server {
    binary: PathBuf,
    folder: PathBuf,
    clients: SocketAddr,
    peers: SocketAddr,
    child: Child,
}

impl Server {
    fn start(binary: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("mesh-etcd-{}", std::process::id()));
        let (clients, peers) = (free()?, free()?);
        let child = spawn(binary, &folder, clients, peers)?;
        let server = Self {
            binary: binary.to_owned(),
            folder,
            clients,
            peers,
            child,
        };
        server.ready()?;
        Ok(server)
    }

    fn ready(&self) -> Result<()> {
        let answers = || self.ask("/v3/kv/range", r#"{"key":"YQ=="}"#).ok().map(drop);
        wait::until(Deadline::default(), answers).context("etcd does not answer")
    }

    fn uri(&self) -> String {
        format!("http://{}", self.clients)
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn again(&mut self) -> Result<()> {
        self.child = spawn(&self.binary, &self.folder, self.clients, self.peers)?;
        self.ready()
    }

    fn put(&self, key: &str, value: &str, lease: Option<&str>) -> Result<()> {
        let lease = lease.map_or_else(String::new, |lease| format!(r#","lease":"{lease}""#));
        let key = base64(&format!("{PREFIX_DEFAULT}{key}"));
        let body = format!(r#"{{"key":"{key}","value":"{}"{lease}}}"#, base64(value));
        self.ask("/v3/kv/put", &body).map(drop)
    }

    fn delete(&self, key: &str) -> Result<()> {
        let key = base64(&format!("{PREFIX_DEFAULT}{key}"));
        self.ask("/v3/kv/deleterange", &format!(r#"{{"key":"{key}"}}"#))
            .map(drop)
    }

    fn lease(&self, seconds: u32) -> Result<String> {
        let answer = self.ask("/v3/lease/grant", &format!(r#"{{"TTL":"{seconds}"}}"#))?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let id = answer["ID"].as_str().context("no lease")?;
        Ok(id.to_owned())
    }

    fn compact(&self) -> Result<()> {
        let answer = self.ask("/v3/kv/range", r#"{"key":"YQ=="}"#)?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let revision = answer["header"]["revision"]
            .as_str()
            .context("no revision")?;
        let body = format!(r#"{{"revision":"{revision}"}}"#);
        self.ask("/v3/kv/compaction", &body).map(drop)
    }

    fn ask(&self, path: &str, body: &str) -> Result<String> {
        let mut connection = Connection::open(self.clients)?;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.send(request.as_bytes());
        let response = connection.response(false);
        let text = String::from_utf8_lossy(&response.body.data).into_owned();
        ensure!(response.status == 200, "{path}: {} {text}", response.status);
        Ok(text)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(binary: &Path, folder: &Path, clients: SocketAddr, peers: SocketAddr) -> Result<Child> {
    let (clients, peers) = (format!("http://{clients}"), format!("http://{peers}"));
    Command::new(binary)
        .args(["--name", "mesh", "--data-dir"])
        .arg(folder)
        .args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
        ])
        .args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ])
        .args([
            "--initial-cluster",
            &format!("mesh={peers}"),
            "--log-level",
            "error",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The standard alphabet, padded.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for index in 0..4 {
            if index <= chunk.len() {
                let letter = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
                out.push(char::from(letter));
            } else {
                out.push('=');
            }
        }
    }
    out
}
