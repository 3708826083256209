//! A process from start to end: config, workers, listeners, admin, signals, drain.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use mesh_client::{Mesh, Worker};
use mesh_config::model;
use mesh_core::{Address, Rng, clock, stats, stats::Registry};
use mesh_net::TcpConnector;
use mesh_telemetry::LogWriterConfig;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, oneshot},
};

use crate::{
    admin,
    drain::{Drain, Phase},
    flags::Flags,
    listener::ListenerStats,
    server_stats,
    worker::{self, Command, Handle, Listen},
};

/// How often somebody looks whether the last connection has gone.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How long log lines may take to reach the disk at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What the whole process shares: admin shows it, signals change it.
pub(crate) struct Process {
    pub(crate) flags: Flags,
    pub(crate) config: Arc<model::Config>,
    pub(crate) mesh: Mesh,
    pub(crate) drain: Drain,
    pub(crate) listeners: Vec<(Arc<model::Listener>, Address)>,
    /// Ends the process at once.
    pub(crate) quit: Notify,
    pub(crate) open: Arc<AtomicUsize>,
    /// Names were asked for and listeners accept.
    ready: AtomicBool,
    pub(crate) started: std::time::Instant,
    pub(crate) started_wall: SystemTime,
}

/// Runs until a signal or the admin ends it.
pub(crate) async fn run(flags: Flags, config: model::Config) -> anyhow::Result<()> {
    let workers_count = flags.workers();
    stats::set_stripes(workers_count + 1);
    let registry = Registry::new();
    let rng = flags.seed.map_or_else(Rng::from_entropy, Rng::seeded);
    let logs = LogWriterConfig {
        flush_interval: Duration::from_millis(flags.file_flush_interval_msec.max(1)),
        ..LogWriterConfig::default()
    };
    let mesh = Mesh::new(registry.clone(), rng, logs);
    mesh.apply(&config)?;
    let drain = Drain::new();
    let open = Arc::new(AtomicUsize::new(0));
    // Addresses are taken before anything runs: a bad one ends the start with its reason.
    let mut sockets = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        let count = if listener.reuse_port {
            workers_count
        } else {
            1
        };
        let bound = mesh_net::bind(&listener.address, count)
            .with_context(|| format!("listener {:?}", listener.name))?;
        sockets.push((Arc::new(listener.clone()), bound));
    }
    let admin_socket = match &config.admin {
        Some(admin) => Some(admin::bind(&admin.address).context("admin")?),
        None => None,
    };
    let mut listeners = Vec::new();
    for (listener, bound) in &sockets {
        listeners.push((Arc::clone(listener), bound[0].local_address()?));
    }
    let process = Arc::new(Process {
        config: Arc::new(config),
        mesh: mesh.clone(),
        drain,
        listeners,
        quit: Notify::new(),
        open,
        ready: AtomicBool::new(false),
        started: clock::now(),
        started_wall: clock::wall(),
        flags,
    });
    let _server_stats = server_stats::export(&process);
    // The admin answers while names are resolved, so that `/ready` can say that it is not yet.
    let admin_address = admin_socket
        .as_ref()
        .map(|socket| socket.local_address())
        .transpose()?;
    if let Some(socket) = admin_socket {
        admin::start(&process, socket)?;
    }
    if let (Some(path), Some(address)) = (&process.flags.admin_address_path, &admin_address) {
        std::fs::write(path, address.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    mesh.resolved().await;
    let workers = start_workers(&process, sockets).await?;
    process.ready.store(true, Ordering::Release);
    tracing::info!(
        workers = workers.len(),
        listeners = process.listeners.len(),
        admin = admin_address.map(|a| a.to_string()).unwrap_or_default(),
        "serving"
    );
    wait_for_the_end(&process).await?;
    drop(workers);
    if !mesh.writer().flush(FLUSH_TIMEOUT) {
        tracing::warn!("some access log lines could not be written");
    }
    Ok(())
}

async fn start_workers(
    process: &Arc<Process>,
    sockets: Vec<(Arc<model::Listener>, Vec<mesh_net::BoundSocket>)>,
) -> anyhow::Result<Vec<Handle>> {
    let count = process.flags.workers();
    let workers = (0..count)
        .map(|index| {
            worker::start(
                index,
                Worker::new(process.mesh.clone(), Arc::new(TcpConnector)),
            )
        })
        .collect::<std::io::Result<Vec<Handle>>>()?;
    let version = Arc::clone(&process.config.version);
    let mut scopes: HashMap<Arc<str>, ListenerStats> = HashMap::new();
    for (listener, bound) in sockets {
        let address = bound[0].local_address()?;
        let prefix = listener
            .stat_prefix
            .clone()
            .unwrap_or_else(|| address.to_string().replace(':', "_"));
        let scope = process
            .mesh
            .registry()
            .scope(&format!("listener.{prefix}."));
        let stats = scopes
            .entry(Arc::clone(&listener.name))
            .or_insert_with(|| ListenerStats::register(&scope))
            .clone();
        let bound = one_for_each(bound, count)?;
        for (worker, socket) in workers.iter().zip(bound) {
            let (done, result) = oneshot::channel();
            let listen = Listen {
                config: Arc::clone(&listener),
                version: Arc::clone(&version),
                socket,
                stats: stats.clone(),
                phase: process.drain.watch(),
                open: Arc::clone(&process.open),
                done,
            };
            if !worker.send(Command::Listen(Box::new(listen))) {
                bail!("a worker has ended");
            }
            result
                .await?
                .with_context(|| format!("listener {:?}", listener.name))?;
        }
    }
    Ok(workers)
}

/// A socket that exists once, as a Unix socket does, is shared: all workers accept from its queue.
fn one_for_each(
    mut bound: Vec<mesh_net::BoundSocket>,
    workers: usize,
) -> std::io::Result<Vec<mesh_net::BoundSocket>> {
    use mesh_net::BoundSocket::{Tcp, Unix};
    while bound.len() < workers {
        bound.push(match &bound[0] {
            Tcp(listener) => Tcp(listener.try_clone()?),
            Unix(listener) => Unix(listener.try_clone()?),
        });
    }
    Ok(bound)
}

/// Serves until told to go: SIGTERM drains, a second one, SIGINT or the admin ends at once.
async fn wait_for_the_end(process: &Arc<Process>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => return Ok(()),
            _ = process.quit.notified() => return Ok(()),
            _ = reopen.recv() => process.mesh.writer().reopen(),
        }
    }
    tracing::info!(
        announce_s = process.flags.drain_min().as_secs(),
        at_most_s = process.flags.drain_max().as_secs(),
        "draining"
    );
    tokio::select! {
        () = process.drained() => tracing::info!("drained"),
        _ = terminate.recv() => tracing::info!("told again: ending now"),
        _ = interrupt.recv() => tracing::info!("interrupted: ending now"),
        _ = process.quit.notified() => {}
    }
    Ok(())
}

impl Process {
    /// Whether requests are served.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Goes through both phases; returns when nothing is left, or the last deadline has passed.
    async fn drained(&self) {
        let end = clock::now() + self.flags.drain_max();
        self.drain.advance(Phase::Announcing);
        tokio::time::sleep(self.flags.drain_min()).await;
        self.drain.advance(Phase::Finishing);
        // Those that are being accepted at this moment count too.
        tokio::time::sleep(DRAIN_POLL).await;
        while self.open.load(Ordering::Relaxed) > 0 && clock::now() < end {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let left = self.open.load(Ordering::Relaxed);
        if left > 0 {
            tracing::warn!(
                connections = left,
                "the drain time is over; ending what is left"
            );
        }
    }
}
