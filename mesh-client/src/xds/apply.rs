//! The newest whole config, and when it is applied.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
        let mut latest = self.latest();
        let news = change(&mut latest);
        drop(latest);
        if news {
            self.0.1.notify_one();
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is new.
    fn take(&self) -> Latest {
        let mut latest = self.latest();
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
        if let Some(next) = self.next.config.clone() {
            let leaving = self.leaving.after(now, &self.current, &next);
            if let Err(error) = self.apply(&next, &leaving).await {
                tracing::error!("the control plane's config was not applied: {error}");
                self.again = Some(now + LOOK_AGAIN);
            } else {
                self.leaving = leaving;
                self.current = next;
                self.next.config = None;
            }
        }
        let left = self.leaving.expired(now);
        if !left.is_empty() {
            self.mesh.remove(&left);
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
    async fn apply(&self, config: &Config, leaving: &Leaving) -> std::io::Result<()> {
        let leaving = leaving.0.iter();
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
#[derive(Clone, Default)]
struct Leaving(Vec<(Arc<str>, Instant)>);

impl Leaving {
    /// With what goes from one config to the next, and without what comes back.
    fn after(&self, now: Instant, before: &Config, next: &Config) -> Self {
        let names: HashSet<&str> = next.clusters.iter().map(|cluster| &*cluster.name).collect();
        let gone = |name: &str| !names.contains(name);
        let mut after = self.clone();
        after.0.retain(|(name, _)| gone(name));
        for cluster in before.clusters.iter().filter(|cluster| gone(&cluster.name)) {
            if !after.0.iter().any(|(known, _)| *known == cluster.name) {
                let name = Arc::clone(&cluster.name);
                after.0.push((name, now + RETIRE_AFTER));
            }
        }
        after
    }

    /// Takes out those whose time is up.
    fn expired(&mut self, now: Instant) -> Vec<Arc<str>> {
        let expired = self.0.extract_if(.., |(_, until)| *until <= now);
        expired.map(|(name, _)| name).collect()
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

#[cfg(test)]
mod tests {
    use mesh_config::{LoadOptions, language::Source, load, model::Listener};
    use mesh_core::{Rng, stats::Registry};
    use mesh_net::TcpConnector;
    use mesh_telemetry::LogWriterConfig;

    use super::*;
    use crate::xds::Applying;

    struct Nothing;

    impl Listen for Nothing {
        fn prepare(&self, _: &Arc<Listener>) -> Result<(), String> {
            Ok(())
        }

        fn release(&self, _: &str) {}

        fn apply<'a>(&'a self, _: &'a Config) -> Applying<'a> {
            Box::pin(std::future::ready(Vec::new()))
        }

        fn settled(&self) {}
    }

    /// Clusters of one endpoint each.
    fn config(clusters: &[(&str, u16)]) -> Arc<Config> {
        let clusters = clusters.iter().map(|(name, port)| {
            format!(
                "{{name: {name}, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: \
                 {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}"
            )
        });
        let clusters: Vec<_> = clusters.collect();
        let text = format!("static_resources: {{clusters: [{}]}}", clusters.join(", "));
        Arc::new(load(&Source::text("f", text), &LoadOptions::default()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_leaves_takes_no_new_endpoints_of_others_with_it() {
        let (both, one) = (config(&[("a", 1), ("b", 1)]), config(&[("a", 1)]));
        let mesh = Mesh::new(
            Registry::new(),
            Rng::seeded(1),
            LogWriterConfig::default(),
            Arc::new(TcpConnector),
        );
        mesh.apply(&both).unwrap();
        let mut applier = Applier::new(&mesh, &both, Arc::new(Nothing));
        applier.next.config = Some(one);
        applier.go_on().await;
        let moved = config(&[("a", 2)]);
        let moved = Arc::clone(&moved.clusters[0]);
        applier.next.endpoints.insert(Arc::from("a"), moved);
        applier.go_on().await;
        let names = || -> Vec<String> {
            let clusters = mesh.clusters();
            let clusters = clusters.list().iter();
            clusters.map(|cluster| cluster.name().to_string()).collect()
        };
        assert_eq!(names(), ["a", "b"], "routes may still lead to it");
        tokio::time::advance(RETIRE_AFTER).await;
        applier.go_on().await;
        assert_eq!(names(), ["a"]);
        let clusters = mesh.clusters();
        let set = clusters.list()[0].endpoints();
        assert_eq!(set.endpoints()[0].address().to_string(), "127.0.0.1:2");
        assert!(applier.leaving.next().is_none());
    }
}
