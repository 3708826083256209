//! Mixed load for a while: nothing fails that is not meant to, and what the process holds at rest does not grow.
//! Run it with `cargo xtask soak`.

mod config;
mod load;
mod measure;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use e2e::control::Control;
use e2e::process::{Binary, Proxy};
use e2e::resources::{cluster, endpoints, listener, routes};
use e2e::upstream::Upstream;
use e2e::wait::{Deadline, now, until};
use mesh_tls::dev_ca::{DevCa, DevLeaf};
use mesh_xds::ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration};
use mesh_xds::server::{NodeId, Snapshot, SnapshotCache};

use load::{Addresses, Tally};
use measure::Held;

const USAGE: &str = "usage: soak MESH-PROXY [--minutes N]";

const MINUTES_DEFAULT: u64 = 10;
/// More is a mistake.
const MINUTES_MAX: u64 = 24 * 60;

/// The share of the time after which everything has been in use once, and its bounds.
const WARM_UP_SHARE: u32 = 5;
const WARM_UP_MAX: Duration = Duration::from_secs(120);

/// How often the config changes, and how often people look.
const TICK: Duration = Duration::from_secs(1);
const REPORT_TICKS: usize = 10;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(PathBuf, Duration)> {
    let mut words = std::env::args().skip(1);
    let mesh = words.next().context(USAGE)?;
    let mut minutes = MINUTES_DEFAULT;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--minutes" => minutes = words.next().context(USAGE)?.parse().context("--minutes")?,
            _ => bail!(USAGE),
        }
    }
    ensure!(
        (1..=MINUTES_MAX).contains(&minutes),
        "--minutes goes from 1 to {MINUTES_MAX}"
    );
    Ok((mesh.into(), Duration::from_secs(60 * minutes)))
}

/// Everything around the proxy.
struct World {
    upstream: Upstream,
    /// What the dynamic part leads to.
    origins: [Upstream; 2],
    cache: SnapshotCache,
    control: Control,
    pushes: usize,
}

impl World {
    fn start() -> Result<Self> {
        let cache = SnapshotCache::new(NodeId, "soak");
        let control = Control::start(cache.clone(), ([127, 0, 0, 1], 0).into())?;
        let mut world = Self {
            upstream: Upstream::start("u")?,
            origins: [Upstream::start("a")?, Upstream::start("b")?],
            cache,
            control,
            pushes: 0,
        };
        load::script(&world.upstream);
        for upstream in world.origins.iter().chain([&world.upstream]) {
            upstream.forget();
        }
        world.push();
        Ok(world)
    }

    /// Another cluster for the routes, and a listener and a cluster that nobody has seen before.
    fn push(&mut self) {
        let number = self.pushes;
        self.pushes += 1;
        let extra = format!("extra-{number}");
        let names = self.origins.iter().map(|o| (o.name(), o.address()));
        let names = names.chain([(&*extra, self.origins[0].address())]);
        let to = self.origins[number % 2].name();
        let snapshot = Snapshot::new()
            .with(Cluster, names.clone().map(|(n, _)| cluster(n)).collect())
            .with(Endpoints, names.map(|(n, at)| endpoints(n, at)).collect())
            .with(
                Listener,
                vec![listener("web", "web"), listener(&extra, "web")],
            )
            .with(RouteConfiguration, vec![routes("web", to)]);
        self.cache.set_snapshot(config::NODE, snapshot);
    }
}

fn run() -> Result<()> {
    let (mesh, time) = arguments()?;
    let mut world = World::start()?;
    let issued = certificate()?;
    let yaml = config::bootstrap(&config::Places {
        upstream: world.upstream.address(),
        echo: load::echo()?,
        control: world.control.address,
        chain: issued.chain_pem(),
        key: issued.key_pem(),
    });
    let flags = [
        "--concurrency",
        "2",
        "--drain-min-time-s",
        "1",
        "--drain-time-s",
        "3",
    ];
    let proxy = Proxy::start_with(&Binary::new(mesh)?, &yaml, flags)?;
    until(Deadline::default(), || Addresses::of(&proxy).ok()).context("no listener web")?;
    let warm_up = (time / WARM_UP_SHARE).min(WARM_UP_MAX);
    let tally = Tally::default();
    println!("warming up for {} s", warm_up.as_secs());
    let before = work(&proxy, &mut world, &tally, warm_up)?;
    println!("at rest: {before}");
    let after = work(&proxy, &mut world, &tally, time - warm_up)?;
    println!("at rest: {after}");
    let (turns, failed) = (
        tally.turns.load(Ordering::Relaxed),
        tally.failed.load(Ordering::Relaxed),
    );
    for failure in tally
        .failures
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .iter()
    {
        println!("FAILED: {failure}");
    }
    println!(
        "{turns} turns, {failed} failed, {} changes of config",
        world.pushes
    );
    ensure!(failed == 0, "{failed} turns failed");
    before.check(after)?;
    println!("flat");
    Ok(())
}

fn certificate() -> Result<mesh_tls::dev_ca::Issued> {
    let now = SystemTime::now();
    let ca = DevCa::new("soak.test".parse()?, now)?;
    Ok(ca.issue(DevLeaf::new(now).dns("soak.example"))?)
}

/// Has the clients work for so long while the config changes, and tells what is held once they are through.
fn work(proxy: &Proxy, world: &mut World, tally: &Tally, time: Duration) -> Result<Held> {
    let addresses = Addresses::of(proxy)?;
    let stop = AtomicBool::new(false);
    let began = now();
    let result = std::thread::scope(|scope| {
        load::start(scope, &addresses, tally, &stop);
        let mut ticks = 0;
        let result = loop {
            if began.elapsed() >= time {
                break Ok(());
            }
            std::thread::park_timeout(TICK.min(time.saturating_sub(began.elapsed())));
            world.push();
            ticks += 1;
            let looked = measure::look(proxy.admin());
            if looked.is_err() {
                break looked;
            }
            if ticks % REPORT_TICKS == 0 {
                let (turns, failed) = (&tally.turns, &tally.failed);
                println!(
                    "{:>5} s: {turns:?} turns, {failed:?} failed, {}",
                    began.elapsed().as_secs(),
                    measure::now(proxy)?
                );
            }
        };
        stop.store(true, Ordering::Relaxed);
        result
    });
    result?;
    measure::rest(proxy)
}
