//! A thousand clients of one control plane.

use std::{
    fmt, fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use envoy_types::pb::envoy::config::core::v3::Node;
use mesh_core::{Rng, clock};
use mesh_xds::{
    Accept, Event, Reconnect, Rejection, ResourceType, Subscriber, SubscriberConfig, Variant,
    server::SnapshotCache,
    transport::{Commands, Driver, Handler, Interest, Stream},
};

use super::{
    probe::runtime,
    resources::{NODE, Scale, World},
    serve, wait,
};

const CLIENTS: usize = 1_000;
/// Each of them gets so much; what one sidecar of a middling mesh has.
const SCALE: Scale = Scale {
    clusters: 100,
    endpoints: 10,
    routes: 500,
};

/// What the server costs.
pub(super) struct Clients {
    clients: usize,
    connect: Duration,
    kib_per_client: f64,
    full: Duration,
    full_cpu_ms: f64,
    one: Duration,
    one_cpu_ms: f64,
    tasks_per_client: f64,
}

/// Takes everything, and counts.
struct Counting(Arc<AtomicUsize>);

impl Accept for Counting {
    fn accept(&mut self, _: ResourceType, _: &str, _: &bytes::Bytes) -> Result<(), Rejection> {
        Ok(())
    }
}

impl Handler for Counting {
    fn on_events(&mut self, _: Instant, events: Vec<Event>, interest: &mut Interest) {
        for event in events {
            if let Event::Updated { ty, resource } = event {
                self.0.fetch_add(1, Ordering::Relaxed);
                match ty {
                    ResourceType::Cluster => {
                        interest.subscribe(ResourceType::Endpoints, resource.name);
                    }
                    ResourceType::Listener => {
                        interest.subscribe(ResourceType::RouteConfiguration, "web".to_owned());
                    }
                    _ => {}
                }
            }
        }
    }
}

fn client(uri: &str, count: &Arc<AtomicUsize>, seed: u64) -> Result<Commands> {
    let node = Node {
        id: NODE.to_owned(),
        ..Node::default()
    };
    let variant = Variant::Delta;
    let mut subscriber = Subscriber::new(SubscriberConfig::new(node, variant));
    for ty in [ResourceType::Cluster, ResourceType::Listener] {
        subscriber.subscribe_all(clock::now(), ty);
    }
    let stream = Stream::aggregated(variant, [uri])?;
    let reconnect = Reconnect::new(1)?;
    let handler = Counting(Arc::clone(count));
    let (driver, commands) = Driver::new(subscriber, handler, stream, reconnect, Rng::seeded(seed));
    tokio::spawn(driver.run());
    Ok(commands)
}

pub(super) fn measure(quick: bool) -> Result<Clients> {
    let cache = SnapshotCache::new(mesh_xds::server::NodeId, "bench");
    let mut world = World {
        scale: SCALE,
        listen: ([127, 0, 0, 1], 1).into(),
        version: 0,
        probed: ([127, 0, 0, 1], 2).into(),
    };
    cache.set_snapshot(NODE, world.snapshot());
    let clients = if quick { CLIENTS / 4 } else { CLIENTS };
    let (server, stop_server, server_thread) = runtime("control")?;
    let (outside, stop_outside, outside_thread) = runtime("clients")?;
    let uri = format!("http://{}", serve(&server, &cache)?);
    let count = Arc::<AtomicUsize>::default();
    let each = 2 * SCALE.clusters + 2;
    let all_have = |more: usize, since: usize| {
        wait(|| count.load(Ordering::Relaxed) >= since + clients * more)
    };
    let before = resident_kib()?;
    let began = clock::now();
    let commands: Vec<Commands> = {
        let _inside = outside.enter();
        let each = (0..clients).map(|n| client(&uri, &count, n as u64));
        each.collect::<Result<_>>()?
    };
    all_have(each, 0).context("not everybody gets everything")?;
    let connect = clock::now() - began;
    // By now it has its name.
    let thread = thread_id("control")?;
    let tasks = server.metrics().num_alive_tasks();
    // Both ends of each connection are in this process: it is an upper bound of the server's.
    let grown = resident_kib()?.saturating_sub(before);

    let change = |world: &World, more: usize| -> Result<(Duration, f64)> {
        let (seen, cpu) = (count.load(Ordering::Relaxed), cpu_ms(&thread)?);
        let snapshot = world.snapshot();
        let began = clock::now();
        cache.set_snapshot(NODE, snapshot);
        all_have(more, seen)?;
        Ok((clock::now() - began, cpu_ms(&thread)? - cpu))
    };
    world.version += 1;
    let (full, full_cpu_ms) = change(&world, 2 * SCALE.clusters + 1)?;
    world.probed = ([127, 0, 0, 1], 3).into();
    let (one, one_cpu_ms) = change(&world, 1)?;
    drop((commands, stop_outside, stop_server));
    let _ = (outside_thread.join(), server_thread.join());
    Ok(Clients {
        clients,
        connect,
        kib_per_client: grown as f64 / clients as f64,
        full,
        full_cpu_ms,
        one,
        one_cpu_ms,
        tasks_per_client: tasks as f64 / clients as f64,
    })
}

impl Clients {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "clients": self.clients,
            "connect_ms": self.connect.as_secs_f64() * 1e3,
            "kib_per_client_both_ends": self.kib_per_client,
            "full_ms": self.full.as_secs_f64() * 1e3,
            "full_cpu_ms": self.full_cpu_ms,
            "one_ms": self.one.as_secs_f64() * 1e3,
            "one_cpu_ms": self.one_cpu_ms,
            "tasks_per_client": self.tasks_per_client,
        })
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        writeln!(
            f,
            "{} clients of one server, {} clusters and {} routes each:",
            self.clients, SCALE.clusters, SCALE.routes
        )?;
        writeln!(f, "  all connected and served: {:.0} ms", ms(self.connect))?;
        writeln!(
            f,
            "  memory, both ends: {:.0} KiB per client",
            self.kib_per_client
        )?;
        writeln!(
            f,
            "  tasks of the server: {:.1} per client",
            self.tasks_per_client
        )?;
        writeln!(
            f,
            "  full push: {:.0} ms until the last has it, {:.0} ms of the server's CPU",
            ms(self.full),
            self.full_cpu_ms
        )?;
        write!(
            f,
            "  one endpoint: {:.0} ms until the last has it, {:.0} ms of the server's CPU",
            ms(self.one),
            self.one_cpu_ms
        )
    }
}

/// The folder of the last thread with that name.
fn thread_id(name: &str) -> Result<String> {
    let mut found = None;
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if comm.trim() == name {
            found = found.max(Some(path.display().to_string()));
        }
    }
    found.with_context(|| format!("no thread {name}"))
}

fn cpu_ms(thread: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("{thread}/schedstat"))?;
    let ran = text.split_ascii_whitespace().next().unwrap_or_default();
    Ok(ran.parse::<u64>()? as f64 / 1e6)
}

fn resident_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    number.context("no Rss")
}
