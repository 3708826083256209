//! The newest whole config, and when it is applied.

use std::{sync::Arc, time::Instant};

use mesh_config::model::{Cluster, Config};
use mesh_core::clock;
use mesh_xds::transport::Interest;
use tokio::sync::watch;

use super::{Listen, RETIRE_AFTER, Shared, status::ListenerManagerStats};
use crate::Mesh;

/// The newest config, and whether the first of everything has come.
#[derive(Clone, Default)]
pub(super) struct Latest {
    pub(super) config: Option<Arc<Config>>,
    pub(super) settled: bool,
}

/// Ends what has warmed long enough.
pub(super) async fn keep_time(shared: Shared) {
    loop {
        let deadline = shared.lock().next_deadline();
        tokio::select! {
            () = sleep_until(deadline) => {
                let mut receiver = shared.lock();
                let steps = receiver.on_deadline(clock::now());
                receiver.flush(&shared, None, &mut Interest::default());
                receiver.take(&shared, steps);
            }
            () = shared.changed.notified() => {}
        }
    }
}

/// Applies the newest config, whenever there is a newer one.
pub(super) struct Applier {
    mesh: Mesh,
    listen: Arc<dyn Listen>,
    current: Arc<Config>,
    leaving: Leaving,
    stats: ListenerManagerStats,
}

impl Applier {
    pub(super) fn new(mesh: &Mesh, config: &Arc<Config>, listen: Arc<dyn Listen>) -> Self {
        Self {
            mesh: mesh.clone(),
            listen,
            current: Arc::clone(config),
            leaving: Leaving::default(),
            stats: ListenerManagerStats::register(&mesh.registry().scope("listener_manager.")),
        }
    }

    pub(super) async fn run(mut self, mut latest: watch::Receiver<Latest>) {
        loop {
            tokio::select! {
                changed = latest.changed() => if changed.is_err() {
                    return;
                },
                () = sleep_until(self.leaving.next()) => {}
            }
            let Latest { config, settled } = latest.borrow_and_update().clone();
            let next = config.unwrap_or_else(|| Arc::clone(&self.current));
            self.leaving.update(clock::now(), &self.current, &next);
            match self.apply(&next).await {
                Ok(()) => {
                    self.current = next;
                    if settled {
                        self.listen.settled();
                    }
                }
                Err(error) => {
                    tracing::error!("the control plane's config was not applied: {error}");
                }
            }
        }
    }

    /// Clusters first, and those that are gone go later: no route is without its cluster.
    async fn apply(&self, config: &Config) -> std::io::Result<()> {
        let mut with_old = config.clone();
        let leaving = self.leaving.0.iter();
        with_old
            .clusters
            .extend(leaving.map(|(cluster, _)| Arc::clone(cluster)));
        self.mesh.apply(&with_old)?;
        for unserved in self.listen.apply(config).await {
            let name = &unserved.listener;
            self.stats.listener_create_failure().inc();
            tracing::error!("listener {name:?} stays as it was: {}", unserved.reason);
        }
        Ok(())
    }
}

/// Clusters that are gone, and that requests may still be sent to: connections whose listener has gone keep
/// the routes that they have.
#[derive(Default)]
struct Leaving(Vec<(Arc<Cluster>, Instant)>);

impl Leaving {
    fn update(&mut self, now: Instant, before: &Config, after: &Config) {
        let names: std::collections::HashSet<&str> = after
            .clusters
            .iter()
            .map(|cluster| &*cluster.name)
            .collect();
        let is_there = |name: &str| names.contains(name);
        self.0
            .retain(|(cluster, until)| *until > now && !is_there(&cluster.name));
        for cluster in before
            .clusters
            .iter()
            .filter(|cluster| !is_there(&cluster.name))
        {
            if !self.0.iter().any(|(known, _)| known.name == cluster.name) {
                self.0.push((Arc::clone(cluster), now + RETIRE_AFTER));
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(_, until)| *until).min()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
