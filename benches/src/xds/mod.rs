//! What new config costs: mesh-proxy beside Envoy, both fed by our own control plane; and what a thousand
//! clients cost that one.

mod admin;
mod clients;
mod probe;
mod resources;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use mesh_core::clock;
use mesh_xds::{
    server::{NodeId, SnapshotCache},
    transport::XdsService,
};
use serde_json::json;
use tokio_stream::wrappers::TcpListenerStream;

use crate::{
    Flags,
    load::process::{self, Cores, Process},
    table::Table,
};

use probe::{Probe, pause, runtime, upstream};
use resources::{NODE, Scale, World};

/// How long a proxy may take to acknowledge everything.
const SYNCED_MAX: Duration = Duration::from_secs(120);
/// What goes on after the last acknowledgement (old clusters leave, memory is given back) counts too.
const SETTLE: Duration = Duration::from_millis(500);

/// It has saved all that it took after this time.
const SAVED: Duration = Duration::from_secs(5);
/// How often it is started from its cache.
const STARTS: usize = 5;

/// How often each thing is done.
#[derive(Debug, Clone, Copy)]
struct Effort {
    full: usize,
    one: usize,
}

/// What was measured of one proxy.
struct Measured {
    name: &'static str,
    first: Duration,
    full: Vec<Duration>,
    one: Vec<Duration>,
    cpu_full_ms: f64,
    cpu_one_ms: f64,
    idle_mib: f64,
    first_mib: f64,
    last_mib: f64,
    requests: Vec<Duration>,
    /// The longest time that the worker went on without looking for events.
    loop_ms: f64,
    /// From the start to the first answer, with a config cache and no control plane.
    from_cache: Vec<Duration>,
}

pub(crate) fn run(flags: &Flags, out: &Path) -> Result<()> {
    let scale = Scale::FULL;
    let effort = if flags.quick {
        Effort { full: 3, one: 10 }
    } else {
        Effort { full: 10, one: 50 }
    };
    let cores = Cores::pick()?;
    process::pin(cores.load)?;
    process::raise_open_files()?;
    println!(
        "{} clusters with {} endpoints each, {} routes; {} full pushes, {} changes of one endpoint\n",
        scale.clusters, scale.endpoints, scale.routes, effort.full, effort.one
    );
    let wanted = |name: &str| flags.only.is_empty() || flags.only.iter().any(|only| only == name);
    let mut all = Vec::new();
    for (name, program) in [("envoy", &flags.envoy), ("mesh", &flags.mesh)] {
        if wanted(name) {
            let program = program.canonicalize().unwrap_or_else(|_| program.clone());
            let measured = measure(name, &program, cores, (scale, effort), out);
            all.push(measured.with_context(|| name.to_owned())?);
        }
    }
    if !all.is_empty() {
        print!("{}", table(&all));
    }
    let missed = missed_bars(&all);
    let mut json: Vec<_> = all.iter().map(Measured::json).collect();
    if wanted("clients") {
        let clients = clients::measure(flags.quick)?;
        println!("\n{clients}");
        json.push(clients.json());
    }
    let path = out.join("xds.json");
    fs::write(&path, format!("{:#}\n", json!(json)))?;
    println!("\nwritten: {}", path.display());
    for bar in &missed {
        println!("missed: {bar}");
    }
    if flags.check && !missed.is_empty() {
        bail!("{} bars were missed", missed.len());
    }
    Ok(())
}

/// A worker may go on for so long without looking for events, whatever is pushed.
const LOOP_MS_MAX: f64 = 2.0;
/// The first answer after a start from the cache.
const FROM_CACHE_MS_MAX: f64 = 200.0;
/// Shares of what Envoy takes: processor time of a change of one endpoint, and memory.
const ONE_CPU_SHARE_MAX: f64 = 0.5;
const MEMORY_SHARE_MAX: f64 = 0.25;

/// What mesh takes more of than it should. Shares need Envoy to have been measured too.
fn missed_bars(all: &[Measured]) -> Vec<String> {
    let of = |name| all.iter().find(|one| one.name == name);
    let Some(mesh) = of("mesh") else {
        return Vec::new();
    };
    let from_cache = percentile(&mesh.from_cache, 50);
    let mut bars = vec![
        ("longest loop of a worker, ms", mesh.loop_ms, LOOP_MS_MAX),
        (
            "first answer from the cache, ms",
            from_cache,
            FROM_CACHE_MS_MAX,
        ),
    ];
    if let Some(envoy) = of("envoy") {
        let cpu = ONE_CPU_SHARE_MAX * envoy.cpu_one_ms;
        bars.push(("CPU for one endpoint, ms", mesh.cpu_one_ms, cpu));
        let memory = MEMORY_SHARE_MAX * envoy.last_mib;
        bars.push(("memory, MiB", mesh.last_mib, memory));
    }
    let missed = bars.into_iter().filter(|(_, is, bar)| is > bar);
    missed
        .map(|(what, is, bar)| format!("{what}: {is:.2}, and the bar is {bar:.2}"))
        .collect()
}

fn measure(
    name: &'static str,
    program: &Path,
    cores: Cores,
    (scale, effort): (Scale, Effort),
    out: &Path,
) -> Result<Measured> {
    let upstreams = [("a", upstream("a")?), ("b", upstream("b")?)];
    let cache = SnapshotCache::new(NodeId, "bench");
    let (server, stop, thread) = runtime("control")?;
    let xds = serve(&server, &cache)?;
    let mut world = World {
        scale,
        listen: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
        version: 0,
        probed: upstreams[0].1,
    };
    let config = out.join(format!("xds-{name}.yaml"));
    fs::write(&config, bootstrap(xds))?;
    let admin = out.join(format!("xds-{name}.admin"));
    let cache_folder = out.join(format!("xds-{name}.cache"));
    let mut command = Command::new(program);
    command
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"])
        .arg("--admin-address-path")
        .arg(&admin)
        .arg("-c")
        .arg(&config);
    let log = out.join(format!("xds-{name}.out"));
    let mut proxy = Process::start(&command, cores, &log)?;
    let connected = wait(|| !cache.clients().is_empty());
    connected.with_context(|| format!("it does not connect; see {}", log.display()))?;
    let idle_mib = mib(&proxy)?;

    let mut probe = Probe::new(world.listen);
    let since = publish(&cache, &world);
    let first = probe.until("/version", "0", since, || proxy.check())?;
    probe.until("/probe", "a", since, || proxy.check())?;
    synced(&cache)?;
    pause(SETTLE);
    let first_mib = mib(&proxy)?;
    probe.latencies.clear();

    let mut full = Vec::new();
    for _ in 0..effort.full {
        world.version += 1;
        let since = publish(&cache, &world);
        let wanted = world.version.to_string();
        full.push(probe.until("/version", &wanted, since, || proxy.check())?);
        synced(&cache)?;
    }
    let mut one = Vec::new();
    for n in 0..effort.one {
        let (name, address) = upstreams[(n + 1) % 2];
        world.probed = address;
        let since = publish(&cache, &world);
        one.push(probe.until("/probe", name, since, || proxy.check())?);
        synced(&cache)?;
    }
    let requests = std::mem::take(&mut probe.latencies);
    drop(probe);
    // CPU is counted while nobody asks.
    let cpu_full_ms = cpu(&proxy, effort.full, || {
        world.version += 1;
        publish(&cache, &world);
        synced(&cache)
    })?;
    let cpu_one_ms = cpu(&proxy, effort.one, || {
        let other = upstreams
            .iter()
            .find(|(_, address)| *address != world.probed);
        world.probed = other.map_or(world.probed, |(_, address)| *address);
        publish(&cache, &world);
        synced(&cache)
    })?;
    pause(SETTLE);
    let last_mib = mib(&proxy)?;
    let loop_ms = admin::longest_loop(&admin)?;
    drop(proxy);
    let caches = name == "mesh";
    if caches {
        let _ = fs::remove_dir_all(&cache_folder);
        command.arg("--config-cache").arg(&cache_folder);
        fill_cache(&command, cores, &log, &world)?;
    }
    drop(stop);
    let _ = thread.join();
    let from_cache = match caches {
        true => start_from_cache(&command, cores, &log, &world)?,
        false => Vec::new(),
    };
    Ok(Measured {
        name,
        first,
        full,
        one,
        cpu_full_ms,
        cpu_one_ms,
        idle_mib,
        first_mib,
        last_mib,
        requests,
        loop_ms,
        from_cache,
    })
}

/// Lets a proxy take all from the control plane, and keep it.
fn fill_cache(command: &Command, cores: Cores, log: &Path, world: &World) -> Result<()> {
    let mut proxy = Process::start(command, cores, log)?;
    let mut probe = Probe::new(world.listen);
    let wanted = world.version.to_string();
    probe.until("/version", &wanted, clock::now(), || proxy.check())?;
    pause(SAVED);
    Ok(())
}

/// How long it takes from the start to the first answer when nobody but the cache knows the config.
fn start_from_cache(
    command: &Command,
    cores: Cores,
    log: &Path,
    world: &World,
) -> Result<Vec<Duration>> {
    let start = || {
        let since = clock::now();
        let mut proxy = Process::start(command, cores, log)?;
        let mut probe = Probe::new(world.listen);
        let wanted = world.version.to_string();
        probe.until("/version", &wanted, since, || proxy.check())
    };
    (0..STARTS).map(|_| start()).collect()
}

fn serve(server: &tokio::runtime::Handle, cache: &SnapshotCache) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let service = XdsService::builder(cache.clone()).build();
    let _inside = server.enter();
    let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
    server.spawn(service.serve(incoming, std::future::pending()));
    Ok(address)
}

/// The moment at which the world is published; making the resources does not count.
fn publish(cache: &SnapshotCache, world: &World) -> Instant {
    let snapshot = world.snapshot();
    let now = clock::now();
    cache.set_snapshot(NODE, snapshot);
    now
}

fn wait(condition: impl Fn() -> bool) -> Result<()> {
    let end = clock::now() + SYNCED_MAX;
    while !condition() {
        if clock::now() > end {
            bail!("not within {SYNCED_MAX:?}");
        }
        pause(Duration::from_millis(2));
    }
    Ok(())
}

/// Everything that is published was acknowledged.
fn synced(cache: &SnapshotCache) -> Result<()> {
    let done = || {
        let clients = cache.clients();
        !clients.is_empty() && clients.iter().all(|c| !c.rows.is_empty() && c.is_synced())
    };
    wait(done).with_context(|| {
        let clients = cache.clients();
        let rows = clients.iter().flat_map(|client| &client.rows);
        let open = rows.filter(|row| row.status != mesh_xds::server::ConfigStatus::Synced);
        format!(
            "not acknowledged, for example: {:?}",
            open.take(3).collect::<Vec<_>>()
        )
    })
}

/// Milliseconds of CPU for one of `times`, and what comes after it.
fn cpu(proxy: &Process, times: usize, mut change: impl FnMut() -> Result<()>) -> Result<f64> {
    pause(SETTLE);
    let before = proxy.cpu()?;
    for _ in 0..times {
        change()?;
    }
    pause(SETTLE);
    let ran = proxy.cpu()?.since(&before).ran;
    Ok(ran as f64 / 1e6 / times as f64)
}

fn mib(proxy: &Process) -> Result<f64> {
    Ok(proxy.resident_kib()? as f64 / 1_024.0)
}

/// The value below which `percent` of a hundred are.
fn percentile(values: &[Duration], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted
        .get(rank)
        .map_or(0.0, |value| value.as_secs_f64() * 1e3)
}

impl Measured {
    fn json(&self) -> serde_json::Value {
        json!({
            "proxy": self.name,
            "first_ms": self.first.as_secs_f64() * 1e3,
            "full_ms": {"p50": percentile(&self.full, 50), "p99": percentile(&self.full, 99)},
            "one_ms": {"p50": percentile(&self.one, 50), "p99": percentile(&self.one, 99)},
            "cpu_full_ms": self.cpu_full_ms,
            "cpu_one_ms": self.cpu_one_ms,
            "rss_mib": {"idle": self.idle_mib, "first": self.first_mib, "last": self.last_mib},
            "request_ms": {
                "p50": percentile(&self.requests, 50),
                "p99": percentile(&self.requests, 99),
                "max": percentile(&self.requests, 100),
            },
            "loop_max_ms": self.loop_ms,
            "from_cache_ms": percentile(&self.from_cache, 50),
        })
    }
}

fn table(all: &[Measured]) -> Table {
    let mut table = Table::new([
        "proxy",
        "first config ms",
        "full push p50 / p99 ms",
        "CPU ms",
        "one endpoint p50 / p99 ms",
        "CPU ms ",
        "RSS MiB idle / first / last",
        "request p50 / p99 / max ms",
        "longest loop ms",
        "from cache ms",
    ]);
    for of in all {
        table.row([
            of.name.to_owned(),
            format!("{:.0}", of.first.as_secs_f64() * 1e3),
            format!(
                "{:.0} / {:.0}",
                percentile(&of.full, 50),
                percentile(&of.full, 99)
            ),
            format!("{:.0}", of.cpu_full_ms),
            format!(
                "{:.1} / {:.1}",
                percentile(&of.one, 50),
                percentile(&of.one, 99)
            ),
            format!("{:.2}", of.cpu_one_ms),
            format!(
                "{:.0} / {:.0} / {:.0}",
                of.idle_mib, of.first_mib, of.last_mib
            ),
            format!(
                "{:.2} / {:.1} / {:.0}",
                percentile(&of.requests, 50),
                percentile(&of.requests, 99),
                percentile(&of.requests, 100)
            ),
            format!("{:.1}", of.loop_ms),
            match of.from_cache.is_empty() {
                true => "-".to_owned(),
                false => format!("{:.0}", percentile(&of.from_cache, 50)),
            },
        ]);
    }
    table
}

fn bootstrap(xds: SocketAddr) -> String {
    include_str!("../../config/xds.yaml")
        .replace("@NODE@", NODE)
        .replace("@XDS_PORT@", &xds.port().to_string())
}
