//! Envoy, and mesh-proxy in its place, take LDS, RDS, CDS and EDS from our server.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    client::Connection,
    process::{Binary, Proxy},
    upstream::{Reply, Upstream},
    wait::{self, Deadline},
};
use mesh_xds::{
    ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration},
    Variant,
    server::{ConfigStatus, Entry, NodeId, Row, Snapshot, SnapshotCache},
};

use e2e::{
    control::Control,
    resources::{broken_cluster, cluster, endpoints, listener, routes},
};

const NODE: &str = "interop";

pub(crate) fn run(envoy: &Path, variant: Variant) -> Result<()> {
    let (old, new) = (upstream("old")?, upstream("new")?);
    let cache = SnapshotCache::new(NodeId, "mesh");
    cache.set_snapshot(NODE, state(&[&old]));
    let control = Control::start(cache.clone(), SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let binary = Binary::new(envoy)?;
    let proxy = Proxy::start(&binary, &bootstrap(variant, control.address))?;
    let address = proxy
        .listener("web")
        .with_context(|| proxy.stderr().all().join("\n"))?;
    ensure!(get(address)? == "200 old");
    synced(&cache)?;

    // One snapshot swaps the cluster for another, while requests run.
    let load = Load::start(address);
    cache.set_snapshot(NODE, state(&[&new]));
    becomes(address, "200 new").with_context(|| format!("{:?}", rows(&cache)))?;
    synced(&cache)?;
    rejection(&cache, &new)?;
    let control = restart(&cache, control, &new, &old)?;
    becomes(address, "200 old")?;
    synced(&cache)?;
    load.stop()?;

    // A listener that is gone takes no more connections.
    cache.set_snapshot(NODE, Snapshot::new().with(Cluster, vec![cluster("old")]));
    let gone = wait::until(Deadline::default(), || {
        Connection::open(address).is_err().then_some(())
    });
    gone.context("the listener is still there")?;
    drop(control);
    Ok(())
}

/// Envoy rejects one cluster by name, and takes the one beside it.
fn rejection(cache: &SnapshotCache, new: &Upstream) -> Result<()> {
    let clusters = vec![cluster("new"), cluster("beside"), broken_cluster("broken")];
    let dead = SocketAddr::from(([127, 0, 0, 1], 1));
    let assignments = vec![
        endpoints("new", new.address()),
        endpoints("beside", dead),
        endpoints("broken", dead),
    ];
    let bad = state(&[new])
        .with(Cluster, clusters)
        .with(Endpoints, assignments);
    cache.set_snapshot(NODE, bad);
    let error = wait::until(Deadline::default(), || {
        let row = rows(cache)
            .into_iter()
            .find(|row| row.status == ConfigStatus::Error)?;
        Some((row.name, row.error?.1))
    });
    let (name, message) = error.context("nothing was rejected")?;
    ensure!(&*name == "broken", "{name} was blamed: {message}");
    ensure!(message.contains("eds_cluster_config"), "{message}");
    // Endpoints of the cluster beside it were asked for: it was taken.
    let taken = wait::until(Deadline::default(), || {
        let taken = |row: &Row| row.ty == Endpoints && &*row.name == "beside";
        rows(cache).iter().any(taken).then_some(())
    });
    taken.context("the good cluster was not taken")?;
    cache.set_snapshot(NODE, state(&[new]));
    synced(cache)
}

/// The control plane goes away and comes back with another config.
fn restart(
    cache: &SnapshotCache,
    control: Control,
    new: &Upstream,
    old: &Upstream,
) -> Result<Control> {
    let address = control.address;
    drop(control);
    let left = wait::until(Deadline::default(), || {
        cache.clients().is_empty().then_some(())
    });
    left.context("the stream is still there")?;
    cache.set_snapshot(NODE, state(&[old, new]));
    Control::start(cache.clone(), address)
}

fn upstream(name: &str) -> Result<Upstream> {
    let upstream = Upstream::start(name)?;
    upstream.on("/", [Reply::ok(name)]);
    Ok(upstream)
}

/// Clusters named after their upstreams; everything goes to the first.
fn state(upstreams: &[&Upstream]) -> Snapshot {
    let all = |make: &dyn Fn(&Upstream) -> Entry| upstreams.iter().map(|u| make(u)).collect();
    Snapshot::new()
        .with(Cluster, all(&|u| cluster(u.name())))
        .with(Endpoints, all(&|u| endpoints(u.name(), u.address())))
        .with(Listener, vec![listener("web", "web")])
        .with(RouteConfiguration, vec![routes("web", upstreams[0].name())])
}

fn rows(cache: &SnapshotCache) -> Vec<Row> {
    cache
        .clients()
        .into_iter()
        .flat_map(|client| client.rows)
        .collect()
}

/// Envoy has acknowledged all that is published.
fn synced(cache: &SnapshotCache) -> Result<()> {
    let done = || {
        let rows = rows(cache);
        let types = [Cluster, Endpoints, Listener, RouteConfiguration];
        let all = types.iter().all(|ty| rows.iter().any(|row| row.ty == *ty));
        (all && rows.iter().all(|row| row.status == ConfigStatus::Synced)).then_some(())
    };
    match wait::until(Deadline::default(), done) {
        Some(()) => Ok(()),
        None => bail!("not acknowledged: {:?}", rows(cache)),
    }
}

fn get(address: SocketAddr) -> Result<String> {
    let mut connection = Connection::open(address)?;
    connection.send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let response = connection.response(false);
    let text = String::from_utf8_lossy(&response.body.data);
    Ok(format!("{} {text}", response.status))
}

fn becomes(address: SocketAddr, wanted: &str) -> Result<()> {
    let got = wait::until(Deadline::default(), || {
        (get(address).ok()? == wanted).then_some(())
    });
    got.with_context(|| format!("it does not answer {wanted:?}"))
}

/// Requests one after the other, each of which must be answered with 200.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut answered = 0;
            while !stopped.load(Ordering::Relaxed) {
                let answer = get(address)?;
                ensure!(
                    answer.starts_with("200 "),
                    "after {answered} requests: {answer}"
                );
                answered += 1;
            }
            Ok(answered)
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(answered) => {
                println!("  {} requests during the changes, all answered", answered?);
                Ok(())
            }
            Err(_) => bail!("the load panicked"),
        }
    }
}

fn bootstrap(variant: Variant, control: SocketAddr) -> String {
    let api_type = match variant {
        Variant::StateOfTheWorld => "GRPC",
        Variant::Delta => "DELTA_GRPC",
    };
    let port = control.port();
    format!(
        r#"
node: {{id: {NODE}, cluster: tests}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: xds, retry_policy: {{retry_back_off: {{base_interval: 0.05s, max_interval: 0.2s}}}}}}}}]
  cds_config: {{resource_api_version: V3, ads: {{}}}}
  lds_config: {{resource_api_version: V3, ads: {{}}}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
"#
    )
}
