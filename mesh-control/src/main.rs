//! The control plane as a program.

mod flags;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use mesh_control::{
    Control, Settings, TlsFiles, admin,
    check::Checker,
    mesh::Mesh,
    publish::Publisher,
    registry::{Directory, Etcd, Knowledge, MeshFile, Registry},
    serve,
};
use mesh_core::stats::Registry as Stats;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use flags::{Flags, Mode};

/// How long proxies have to take leave at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let flags = Flags::parse();
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(flags.log_level);
    lines.init();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match flags.mode {
        Mode::Serve => runtime.block_on(serve_all(flags)),
        Mode::Validate => runtime.block_on(validate(flags)),
    }
}

fn registries(flags: &Flags) -> anyhow::Result<Vec<Box<dyn Registry>>> {
    let mut registries: Vec<Box<dyn Registry>> = Vec::new();
    for path in &flags.mesh {
        let file = MeshFile::new(path).with_context(|| format!("{}", path.display()))?;
        registries.push(Box::new(file));
    }
    for path in &flags.resources {
        let directory = Directory::new(path).with_context(|| format!("{}", path.display()))?;
        registries.push(Box::new(directory));
    }
    if !flags.etcd.is_empty() {
        let etcd = Etcd::new(&flags.etcd, &flags.etcd_prefix);
        registries.push(Box::new(
            etcd.map_err(anyhow::Error::msg).context("--etcd")?,
        ));
    }
    if registries.is_empty() {
        bail!(
            "give a mesh file with -m FILE, or a directory of Envoy's resources with -r DIRECTORY"
        );
    }
    Ok(registries)
}

/// Says whether what registries say now would be published.
async fn validate(flags: &Flags) -> anyhow::Result<()> {
    let checker = Checker::new(flags.strict)?;
    let cache = mesh_xds::server::SnapshotCache::new(mesh_xds::server::NodeId, "validate");
    let mut publisher = Publisher::new(cache, checker);
    let mut refused = BTreeMap::new();
    for (index, mut registry) in registries(flags)?.into_iter().enumerate() {
        let knowledge = registry.next().await?;
        if let Knowledge::Mesh(mesh) = &knowledge {
            summary(mesh);
        }
        match publisher.update(index, knowledge) {
            Ok(taken) => refused.retain(|index, _| !taken.contains(index)),
            Err(errors) => drop(refused.insert(index, errors)),
        }
    }
    if !refused.is_empty() {
        let errors = refused.into_values().flatten().collect();
        bail!(mesh_control::registry::Fault::Refused(errors));
    }
    let published = publisher.published();
    println!(
        "OK: {} groups, {} resources",
        published.groups, published.resources
    );
    Ok(())
}

fn summary(mesh: &Mesh) {
    for service in mesh.services.values() {
        println!(
            "{} ({}): {} endpoints, {} routes",
            service.name,
            service.protocol,
            service.endpoints.len(),
            service.routes.len()
        );
    }
}

async fn serve_all(flags: &Flags) -> anyhow::Result<()> {
    let stats = Stats::new();
    let mut settings = Settings::default();
    settings.strict = flags.strict;
    settings
        .identity_prefix
        .clone_from(&flags.tls_client_uri_prefix);
    settings.group_by = flags.group_by.into();
    settings.resync_interval = Duration::from_secs(flags.resync_interval_s.max(1));
    settings.load_reporting_interval = Duration::from_secs(flags.load_interval_s.max(1));
    let tls = match flags.tls_files()? {
        Some(files) => Some(TlsFiles::acceptor(&files, &stats.scope("control.")).await?),
        None => None,
    };
    let control = Control::start(settings, registries(flags)?, stats)?;
    let bind = |address| async move {
        let listener = TcpListener::bind(address).await;
        listener.with_context(|| format!("{address}"))
    };
    let listener = bind(flags.listen).await?;
    let pages = bind(flags.admin).await?;
    let (xds, admin_address) = (listener.local_addr()?, pages.local_addr()?);
    for (path, address) in [
        (&flags.listen_address_path, xds),
        (&flags.admin_address_path, admin_address),
    ] {
        if let Some(path) = path {
            std::fs::write(path, address.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    tracing::info!(%xds, admin = %admin_address, tls = tls.is_some(), "serving");
    let pages = axum::serve(pages, admin::router(control.clone()));
    tokio::spawn(async move { pages.await });
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let (told, leave) = tokio::sync::oneshot::channel::<()>();
    let serving = serve(&control, listener, tls, async move {
        let _ = leave.await;
    });
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(told);
    // Whoever does not leave is left.
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, serving).await;
    Ok(())
}
