//! A process from start to end: config, workers, listeners, admin, signals, drain.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use mesh_client::{Mesh, Worker, xds::Follower};
use mesh_config::{dynamic::Assembly, model};
use mesh_core::{Rng, clock, stats, stats::Registry};
use mesh_net::TcpConnector;
use mesh_telemetry::LogWriterConfig;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

use crate::{
    admin,
    drain::Phase,
    flags::Flags,
    flush::Flusher,
    listener::Listeners,
    memory, server_stats,
    worker::{self, DispatcherStats, Handle},
    xds,
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
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) listeners: Listeners,
    /// What follows the control plane, if there is one.
    pub(crate) following: OnceLock<Follower>,
    /// Ends the process at once.
    pub(crate) quit: Notify,
    /// Names were asked for, endpoints were checked, and listeners accept.
    ready: AtomicBool,
    pub(crate) started: std::time::Instant,
    pub(crate) started_wall: SystemTime,
}

/// Runs until a signal or the admin ends it.
pub(crate) async fn run(
    flags: Flags,
    config: model::Config,
    assembly: Option<Assembly>,
) -> anyhow::Result<()> {
    let workers_count = flags.workers();
    stats::set_stripes(workers_count + 1);
    let registry = Registry::new();
    let rng = flags.seed.map_or_else(Rng::from_entropy, Rng::seeded);
    let logs = LogWriterConfig {
        flush_interval: Duration::from_millis(flags.file_flush_interval_msec.max(1)),
        ..LogWriterConfig::default()
    };
    let mesh = Mesh::new(registry.clone(), rng, logs, Arc::new(TcpConnector));
    mesh.apply(&config)?;
    let (listeners, workers) = start_workers(&mesh, &flags, config.stats.dispatcher)?;
    // Addresses are taken before anything is served: a bad one ends the start with its reason.
    let complete = config
        .listeners
        .iter()
        .filter(|listener| listener.is_complete());
    let complete: Vec<_> = complete.cloned().collect();
    let plan = listeners.plan(&complete, &config.version).whole()?;
    let admin_socket = match &config.admin {
        Some(admin) => Some(admin::bind(&admin.address).context("admin")?),
        None => None,
    };
    let flusher = Flusher::new(mesh.clone(), config.stats.clone())?;
    let process = Arc::new(Process {
        config: Arc::new(config),
        flusher: Arc::clone(&flusher),
        mesh: mesh.clone(),
        listeners,
        following: OnceLock::new(),
        quit: Notify::new(),
        ready: AtomicBool::new(false),
        started: clock::now(),
        started_wall: clock::wall(),
        flags,
    });
    let _server_stats = server_stats::export(&process);
    // The admin answers while names are resolved and endpoints checked, so that `/ready` can say that it is not yet.
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
    let mut signals = Signals::listen()?;
    tokio::select! {
        () = mesh.warmed() => {}
        _ = signals.end(&process) => return Ok(()),
    }
    process.listeners.commit(plan).await?;
    match assembly {
        Some(assembly) => {
            let follower = xds::start(&process, assembly)?;
            process.following.get_or_init(|| follower);
        }
        None => process.become_ready(),
    }
    tracing::info!(
        workers = workers.len(),
        listeners = process.listeners.list().len(),
        admin = admin_address.map(|a| a.to_string()).unwrap_or_default(),
        "serving"
    );
    memory::forget_code();
    let flushing = tokio::spawn(Arc::clone(&flusher).run());
    if signals.end(&process).await == End::Drained {
        drain(&process, &mut signals).await;
    }
    flushing.abort();
    // What it was about comes back when it has ended.
    let _ = flushing.await;
    drop(workers);
    flusher.finish().await;
    if !mesh.writer().flush(FLUSH_TIMEOUT) {
        tracing::warn!("some access log lines could not be written");
    }
    Ok(())
}

fn start_workers(
    mesh: &Mesh,
    flags: &Flags,
    dispatcher_stats: bool,
) -> std::io::Result<(Listeners, Vec<Handle>)> {
    let mut handles = Vec::new();
    let mut workers = Vec::new();
    for index in 0..flags.workers() {
        let worker = Worker::new(mesh.clone(), Arc::new(TcpConnector));
        let stats = dispatcher_stats.then(|| {
            let prefix = format!("listener_manager.worker_{index}.dispatcher.");
            DispatcherStats::register(&mesh.registry().scope(&prefix))
        });
        let handle = worker::start(index, Arc::clone(&worker), stats)?;
        workers.push((worker, handle.commands()));
        handles.push(handle);
    }
    Ok((Listeners::new(mesh.clone(), workers, flags), handles))
}

/// How a process is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGTERM.
    Drained,
    /// SIGINT, or the admin.
    AtOnce,
}

/// What people tell a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// Goes on until the process is told to end.
    async fn end(&mut self, process: &Process) -> End {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return End::Drained,
                _ = self.interrupt.recv() => return End::AtOnce,
                () = process.quit.notified() => return End::AtOnce,
                _ = self.reopen.recv() => process.mesh.writer().reopen(),
            }
        }
    }
}

/// Lets go of clients; whoever tells the process to end once more ends it.
async fn drain(process: &Process, signals: &mut Signals) {
    tracing::info!(
        announce_s = process.flags.drain_min().as_secs(),
        at_most_s = process.flags.drain_max().as_secs(),
        "draining"
    );
    tokio::select! {
        () = process.drained() => tracing::info!("drained"),
        _ = signals.end(process) => tracing::info!("told again: ending now"),
    }
}

impl Process {
    /// From now on requests are served.
    pub(crate) fn become_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Whether requests are served.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Goes through both phases; returns when nothing is left, or the last deadline has passed.
    async fn drained(&self) {
        let end = clock::now() + self.flags.drain_max();
        // Whoever asks the health check filter is told first.
        self.mesh.server_health().fail();
        self.listeners.advance(Phase::Announcing);
        tokio::time::sleep(self.flags.drain_min()).await;
        self.listeners.advance(Phase::Finishing);
        // Those that are being accepted at this moment count too.
        tokio::time::sleep(DRAIN_POLL).await;
        while self.listeners.open() > 0 && clock::now() < end {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let left = self.listeners.open();
        if left > 0 {
            tracing::warn!(
                connections = left,
                "the drain time is over; ending what is left"
            );
        }
    }
}
