//! Three services with a sidecar each, and one control plane, all of them processes: everything changes, and
//! no request fails.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use e2e::{
    admin::Admin,
    client::Connection,
    process::{Binary, Proxy, workspace_binary},
    upstream::{Reply, Upstream},
    wait::{self, Deadline},
};

/// The control plane as a process.
struct Control {
    child: Child,
    folder: PathBuf,
    xds: SocketAddr,
    admin: Admin,
}

impl Control {
    fn start(folder: &Path, listen: SocketAddr) -> Self {
        let (xds, admin) = (folder.join("xds"), folder.join("admin"));
        let _ = (fs::remove_file(&xds), fs::remove_file(&admin));
        let child = Command::new(env!("CARGO_BIN_EXE_mesh-control"))
            .args(["--listen", &listen.to_string(), "--admin", "127.0.0.1:0"])
            .arg("--mesh")
            .arg(folder.join("mesh.yaml"))
            .arg("--listen-address-path")
            .arg(&xds)
            .arg("--admin-address-path")
            .arg(&admin)
            .args(["--log-level", "warn", "--load-interval-s", "1"])
            .stdin(Stdio::null())
            .spawn()
            .expect("started");
        let address = |path: &Path| -> SocketAddr {
            let read = || fs::read_to_string(path).ok()?.parse().ok();
            wait::until(Deadline::default(), read).expect("an address")
        };
        let (xds, admin) = (address(&xds), Admin::new(address(&admin)));
        let ready = || admin.is_ready().then_some(());
        wait::until(Deadline::default(), ready).expect("ready");
        let folder = folder.to_owned();
        Self {
            child,
            folder,
            xds,
            admin,
        }
    }

    /// Publishes another mesh, and waits until these proxies have acknowledged it.
    fn publish(&self, mesh: &str, proxies: usize) {
        let version = || {
            let page = self.admin.text("/services").ok()?;
            let line = page.lines().next()?.strip_prefix("version ")?;
            line.parse::<u64>().ok()
        };
        let before = version().expect("a version");
        write(&self.folder, mesh);
        let newer = || version().filter(|version| *version > before);
        wait::until(Deadline::default(), newer)
            .unwrap_or_else(|| panic!("{:?}", self.admin.text("/services")));
        self.synced(proxies);
    }

    fn synced(&self, proxies: usize) {
        let all = || {
            let page = self.admin.text("/proxies").ok()?;
            let synced = page.lines().filter(|line| line.contains(" synced: "));
            (synced.count() == proxies).then_some(())
        };
        wait::until(Deadline::default(), all)
            .unwrap_or_else(|| panic!("{}", self.admin.text("/proxies").unwrap_or_default()));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // On Unix this is SIGKILL: it has no time to say good-bye.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts the mesh file in place at once, as a careful editor does.
fn write(folder: &Path, mesh: &str) {
    let beside = folder.join("mesh.yaml.new");
    fs::write(&beside, mesh).expect("written");
    fs::rename(beside, folder.join("mesh.yaml")).expect("moved");
}

/// What can change about the mesh.
#[derive(Clone, Default)]
struct Mesh {
    /// Endpoints of users: the address, and its health.
    users: Vec<(SocketAddr, &'static str)>,
    /// How many of a hundred requests to users go to users-v2.
    shifted: u32,
    v2: Vec<SocketAddr>,
    orders: Vec<SocketAddr>,
    apps: [Option<SocketAddr>; 2],
    timeout: u32,
    log: bool,
}

impl Mesh {
    fn yaml(&self) -> String {
        let users = self
            .users
            .iter()
            .map(|(address, health)| format!("    - {{address: '{address}', health: {health}}}\n"));
        let plain = |addresses: &[SocketAddr]| {
            let lines = addresses.iter().map(|address| format!("    - {address}\n"));
            lines.collect::<String>()
        };
        let app = |index: usize| {
            self.apps[index].map_or_else(|| "127.0.0.1:1".to_owned(), |app| app.to_string())
        };
        let log = if self.log {
            ", access_log: /dev/null"
        } else {
            ""
        };
        format!(
            "
services:
  shop:
    sidecar: {{outbound: 127.0.0.1:0{log}}}
  users:
    timeout: {timeout}s
    endpoints:
{users}
    sidecar: {{inbound: 127.0.0.1:0, app: '{users_app}'}}
    routes:
    - to: {{users: {kept}, users-v2: {shifted}}}
  users-v2:
    endpoints:
{v2}
  orders:
    endpoints:
{orders}
    sidecar: {{inbound: 127.0.0.1:0, app: '{orders_app}', outbound: 127.0.0.1:0}}
",
            users = users.collect::<String>(),
            users_app = app(0),
            orders_app = app(1),
            kept = 100 - self.shifted,
            shifted = self.shifted,
            v2 = plain(&self.v2),
            orders = plain(&self.orders),
            timeout = self.timeout.max(1),
        )
    }
}

fn bootstrap(service: &str, control: SocketAddr) -> String {
    format!(
        r#"
node: {{id: {service}-1, cluster: {service}}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]
  cds_config: {{resource_api_version: V3, ads: {{}}}}
  lds_config: {{resource_api_version: V3, ads: {{}}}}
cluster_manager:
  load_stats_config: {{api_type: GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]}}
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
    )
}

fn app(name: &str) -> Upstream {
    let upstream = Upstream::start(name).expect("started");
    upstream.on("/", [Reply::ok(name)]);
    upstream
}

fn get(sidecar: SocketAddr, host: &str) -> String {
    let mut connection = Connection::open(sidecar).expect("connected");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    connection.send(request.as_bytes());
    let response = connection.response(false);
    let text = String::from_utf8_lossy(&response.body.data);
    format!("{} {text}", response.status)
}

/// Requests to two services, one after the other, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(sidecar: SocketAddr) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let failed = Arc::<Mutex<Vec<String>>>::default();
        let thread = |host: &'static str| {
            let (stop, done, failed) = (stop.clone(), done.clone(), failed.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(sidecar, host);
                    if !answer.starts_with("200 ") {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push(format!("{host}: {answer}"));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = ["users", "orders"].map(thread).into();
        Self {
            stop,
            done,
            failed,
            threads,
        }
    }

    /// Waits for so many more requests.
    fn more(&self, requests: usize) {
        let enough = self.done.load(Ordering::Relaxed) + requests;
        let there = || (self.done.load(Ordering::Relaxed) >= enough).then_some(());
        wait::until(Deadline::default(), there).expect("requests go on");
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the load ends");
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
    }
}

/// Waits until an upstream has got `requests` more.
fn reached(upstream: &Upstream, requests: usize) {
    let before = upstream.seen().requests;
    assert!(
        upstream.wait(|seen| seen.requests >= before + requests),
        "{} gets nothing",
        upstream.name()
    );
}

/// Sends requests until none of the last hundred has reached the upstream.
fn left(upstream: &Upstream, load: &Load) {
    let quiet = || {
        let before = upstream.seen().requests;
        load.more(100);
        (upstream.seen().requests == before).then_some(())
    };
    wait::until(Deadline::default(), quiet)
        .unwrap_or_else(|| panic!("{} still gets requests", upstream.name()));
}

#[test]
fn nothing_fails_while_everything_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let [users, second, v2, orders] = ["users", "second", "v2", "orders"].map(app);
    let mut mesh = Mesh {
        apps: [Some(users.address()), Some(orders.address())],
        v2: vec![v2.address()],
        ..Mesh::default()
    };
    write(folder.path(), &mesh.yaml());
    let control = Control::start(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let binary = workspace_binary("mesh-proxy")
        .and_then(Binary::new)
        .expect("mesh-proxy");
    let [shop, users_proxy, orders_proxy] = ["shop", "users", "orders"]
        .map(|service| Proxy::start(&binary, &bootstrap(service, control.xds)).expect("a sidecar"));
    let inbound = users_proxy.listener("inbound").expect("inbound");
    mesh.users = vec![(inbound, "healthy")];
    mesh.orders = vec![orders_proxy.listener("inbound").expect("inbound")];
    control.publish(&mesh.yaml(), 3);
    let outbound = shop.listener("outbound").expect("outbound");
    assert_eq!(get(outbound, "users"), "200 users");
    assert_eq!(get(outbound, "orders:8080"), "200 orders");
    assert!(get(outbound, "nobody").starts_with("404"));

    let load = Load::start(outbound);
    // An endpoint comes, without a sidecar; the other is drained, and goes.
    mesh.users.push((second.address(), "healthy"));
    control.publish(&mesh.yaml(), 3);
    reached(&second, 20);
    mesh.users[0].1 = "draining";
    control.publish(&mesh.yaml(), 3);
    left(&users, &load);
    // What sidecars send, and what they think of endpoints, is reported.
    let reported = || {
        let endpoints = control.admin.text("/endpoints").ok()?;
        let drained = format!("users {inbound}: 2 proxies");
        let drained = endpoints.lines().find(|line| line.starts_with(&drained))?;
        let load = control.admin.text("/load").ok()?;
        (drained.ends_with("2 say /eds_status_draining") && load.contains("\"orders/app\""))
            .then_some(())
    };
    wait::until(Deadline::default(), reported)
        .unwrap_or_else(|| panic!("{:?}", control.admin.text("/endpoints")));
    mesh.users.remove(0);
    control.publish(&mesh.yaml(), 3);
    load.more(50);

    // Five of a hundred, then all, then no endpoint is left behind.
    mesh.shifted = 5;
    control.publish(&mesh.yaml(), 3);
    reached(&v2, 3);
    mesh.shifted = 100;
    mesh.timeout = 3;
    control.publish(&mesh.yaml(), 3);
    left(&second, &load);

    // The listener changes: its connections drain, new ones meet the new one.
    mesh.log = true;
    control.publish(&mesh.yaml(), 3);
    load.more(100);

    // A bad file changes nothing.
    write(folder.path(), "services: {a: 1}\n");
    let told = || {
        let page = control.admin.text("/services").ok()?;
        page.contains("mesh.yaml:1:12: services.a: expected a map")
            .then_some(())
    };
    wait::until(Deadline::default(), told).expect("the fault is shown");
    load.more(50);
    write(folder.path(), &mesh.yaml());

    // The control plane is killed, stays away for a while, and comes back with other news.
    let address = control.xds;
    drop(control);
    load.more(300);
    mesh.shifted = 0;
    mesh.users = vec![(inbound, "healthy")];
    write(folder.path(), &mesh.yaml());
    let control = Control::start(folder.path(), address);
    reached(&users, 20);
    control.synced(3);
    load.stop();
}
