//! The newest whole config, and when it is applied.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use mesh_config::model::{Cluster, Config};
use mesh_core::clock;
use mesh_xds::transport::Interest;
use tokio::sync::Notify;

use super::{LOOK_AGAIN, Listen, RETIRE_AFTER, Shared, status::ListenerManagerStats};
use crate::Mesh;

/// What has changed and was not taken yet. It is taken as a whole, so that it is bounded by what there is.
#[derive(Default)]
pub(super) struct Latest {
    /// The newest whole config, if that is new.
    pub(super) config: Option<Arc<Config>>,
    /// Clusters that have got other endpoints since, by name.
    pub(super) endpoints: BTreeMap<Arc<str>, Arc<Cluster>>,
    /// Whether the first of everything has come.
    pub(super) settled: bool,
}

/// Carries what has changed from those who hear of it to the one who applies it. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct News(Arc<(Mutex<Latest>, Notify)>);

impl News {
    /// Changes it; `change` says whether that is worth a look.
    pub(super) fn publish(&self, change: impl FnOnce(&mut Latest) -> bool) {
        let mut latest = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = change(&mut latest);
        drop(latest);
        if news {
            self.0.1.notify_one();
        }
    }

    /// What is new.
    fn take(&self) -> Latest {
        let mut latest = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = latest.settled;
        let taken = mem::take(&mut *latest);
        latest.settled = settled;
        taken
    }
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
    /// What is to be applied and could not be yet, with the endpoints that came after it; and when that is
    /// tried again.
    next: Latest,
    again: Option<Instant>,
    leaving: Leaving,
    stats: ListenerManagerStats,
}

impl Applier {
    pub(super) fn new(mesh: &Mesh, config: &Arc<Config>, listen: Arc<dyn Listen>) -> Self {
        Self {
            mesh: mesh.clone(),
            listen,
            current: Arc::clone(config),
            next: Latest::default(),
            again: None,
            leaving: Leaving::default(),
            stats: ListenerManagerStats::register(&mesh.registry().scope("listener_manager.")),
        }
    }

    pub(super) async fn run(mut self, news: News) {
        loop {
            let due = self.leaving.next().into_iter().chain(self.again).min();
            tokio::select! {
                () = news.0.1.notified() => {}
                () = sleep_until(due) => {}
            }
            let latest = news.take();
            if latest.config.is_some() {
                // With its endpoints.
                self.next.config = latest.config;
                self.next.endpoints.clear();
            }
            self.next.endpoints.extend(latest.endpoints);
            self.next.settled = latest.settled;
            self.go_on().await;
        }
    }

    async fn go_on(&mut self) {
        let now = clock::now();
        self.again = None;
        let is_due = self.leaving.next().is_some_and(|at| at <= now);
        let next = self.next.config.clone();
        if let Some(next) = next.or_else(|| is_due.then(|| Arc::clone(&self.current))) {
            self.leaving.update(now, &self.current, &next);
            if let Err(error) = self.apply(&next).await {
                tracing::error!("the control plane's config was not applied: {error}");
                self.again = Some(now + LOOK_AGAIN);
            } else {
                self.current = next;
                self.next.config = None;
            }
        }
        for cluster in self.next.endpoints.values() {
            self.mesh.reassign(cluster);
        }
        if self.next.config.is_none() {
            self.next.endpoints.clear();
            if self.next.settled {
                self.listen.settled();
            }
        }
    }

    /// Clusters first, and those that are gone go later: no route is without its cluster.
    async fn apply(&self, config: &Config) -> std::io::Result<()> {
        let leaving = self.leaving.0.iter();
        let leaving: Vec<_> = leaving.map(|(name, _)| Arc::clone(name)).collect();
        self.mesh.apply_beside(config, &leaving)?;
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
struct Leaving(Vec<(Arc<str>, Instant)>);

impl Leaving {
    fn update(&mut self, now: Instant, before: &Config, after: &Config) {
        let names: std::collections::HashSet<&str> = after
            .clusters
            .iter()
            .map(|cluster| &*cluster.name)
            .collect();
        let is_there = |name: &str| names.contains(name);
        self.0
            .retain(|(name, until)| *until > now && !is_there(name));
        for cluster in before
            .clusters
            .iter()
            .filter(|cluster| !is_there(&cluster.name))
        {
            if !self.0.iter().any(|(known, _)| *known == cluster.name) {
                self.0.push((Arc::clone(&cluster.name), now + RETIRE_AFTER));
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
