//! The control plane as one thing, for the program and for those who embed it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use envoy_types::pb::envoy::config::core::v3::Node;
use mesh_core::{
    clock,
    stats::{Registry as Stats, Stat, Value},
};
use mesh_xds::{
    server::{LrsSettings, SnapshotCache},
    transport::XdsService,
};
use tokio::sync::{mpsc, watch};

use crate::serve::Proven;
use crate::{
    check::Checker,
    load::Loads,
    mesh::{Endpoint, Mesh},
    publish::{Published, Publisher, caught},
    registry::{Fault, Knowledge, Registry},
    stats::ControlStats,
    sync,
};

/// How many updates wait for the publisher; registries that have more wait.
const UPDATES_MAX: usize = 16;

/// Which part of a node says what it gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// `node.cluster`, the service; of nodes without, `node.id`.
    #[default]
    Cluster,
    /// `node.id`.
    Id,
}

impl GroupBy {
    fn group(self, node: &Node) -> String {
        match self {
            Self::Cluster if !node.cluster.is_empty() => node.cluster.clone(),
            _ => node.id.clone(),
        }
    }
}

/// How the control plane works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// What it is called; clients show it.
    pub identifier: String,
    /// Which part of a node says what it gets.
    pub group_by: GroupBy,
    /// Refuse what a sidecar knows but does not enforce.
    pub strict: bool,
    /// How often what proxies acknowledged is compared with what is published. Default 30 s.
    pub resync_interval: Duration,
    /// How often proxies report load. Default 10 s.
    pub load_reporting_interval: Duration,
    /// With this, a proxy gets a service's config only if a URI in its certificate is this and then the service
    /// (or the id, where nodes are grouped by it), such as `spiffe://example.org/` and `shop`. `None` by default:
    /// a node is who it says it is.
    pub identity_prefix: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            identifier: "mesh-control".to_owned(),
            group_by: GroupBy::default(),
            strict: false,
            resync_interval: Duration::from_secs(30),
            load_reporting_interval: Duration::from_secs(10),
            identity_prefix: None,
        }
    }
}

/// Where a registry stands.
#[derive(Debug, Clone)]
pub struct RegistryStatus {
    /// Its name.
    pub name: String,
    /// Whether something that it said is published.
    pub published: bool,
    /// Why what it says now is not.
    pub fault: Option<String>,
}

/// What is published, and what is not.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// What is published.
    pub published: Published,
    /// In the order in which they were given.
    pub registries: Vec<RegistryStatus>,
    /// The services that are published.
    pub meshes: Vec<Arc<Mesh>>,
    /// Endpoints that came to them from elsewhere.
    pub discovered: Arc<BTreeMap<String, Vec<Endpoint>>>,
}

enum News {
    Told(usize, Result<Knowledge, Fault>),
    Group(String),
    Tidy,
}

/// A running control plane. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) cache: SnapshotCache,
    pub(crate) loads: Arc<Loads>,
    pub(crate) stats: Stats,
    pub(crate) counters: ControlStats,
    pub(crate) status: watch::Receiver<Status>,
    settings: Settings,
    tasks: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Starts to ask `registries` and to publish what they say, on the current runtime.
    ///
    /// # Errors
    /// Never, unless the conversion does not even take an empty bootstrap.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(
        settings: Settings,
        registries: Vec<Box<dyn Registry>>,
        stats: Stats,
    ) -> Result<Self, mesh_config::language::ConfigError> {
        let (news, told) = mpsc::channel(UPDATES_MAX);
        let group_by = settings.group_by;
        let strangers = news.clone();
        let hash = move |node: &Node| {
            let group = group_by.group(node);
            // If there is no room, the next check of all proxies finds it.
            let _ = strangers.try_send(News::Group(group.clone()));
            group
        };
        let cache = SnapshotCache::new(hash, settings.identifier.clone());
        let checker = Checker::new(settings.strict)?;
        let (status, seen) = watch::channel(Status {
            registries: registries
                .iter()
                .map(|registry| RegistryStatus {
                    name: registry.name().to_owned(),
                    published: false,
                    fault: None,
                })
                .collect(),
            ..Status::default()
        });
        let counters = ControlStats::register(&stats.scope("control."));
        let inner = Arc::new(Inner {
            cache: cache.clone(),
            loads: Arc::new(Loads::new(counters.clone())),
            counters: counters.clone(),
            stats,
            status: seen,
            settings,
            tasks: Mutex::default(),
        });
        let mut tasks = Vec::new();
        for (index, registry) in registries.into_iter().enumerate() {
            tasks.push(tokio::spawn(ask(index, registry, news.clone())).abort_handle());
        }
        let publisher = Publisher::new(cache.clone(), checker);
        let publishing = publish(publisher, told, status, counters.clone(), cache.clone());
        tasks.push(tokio::spawn(publishing).abort_handle());
        let tidy = move || drop(news.try_send(News::Tidy));
        let every = inner.settings.resync_interval;
        tasks.push(tokio::spawn(sync::run(cache, every, counters, tidy)).abort_handle());
        *inner.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Ok(Self(inner))
    }

    /// Discovery, client status and load reports, to be served over HTTP/2.
    #[must_use]
    pub fn xds(&self) -> XdsService {
        let settings = LrsSettings {
            load_reporting_interval: self.0.settings.load_reporting_interval,
            report_endpoint_granularity: true,
            ..LrsSettings::default()
        };
        let builder =
            XdsService::builder(self.0.cache.clone()).load_reports(self.0.loads.clone(), settings);
        let Some(prefix) = self.0.settings.identity_prefix.clone() else {
            return builder.build();
        };
        let group_by = self.0.settings.group_by;
        let counters = self.0.counters.clone();
        builder
            .admit(move |node, connection| {
                let identity = format!("{prefix}{}", group_by.group(node));
                let proven = connection.get::<Proven>();
                if proven.is_some_and(|proven| proven.has(&identity)) {
                    return Ok(());
                }
                counters.connection_failure().inc();
                let reason = format!("the certificate of {:?} has no URI {identity}", node.id);
                tracing::warn!("{reason}");
                Err(reason)
            })
            .build()
    }

    /// What is published, and to whom.
    #[must_use]
    pub fn cache(&self) -> &SnapshotCache {
        &self.0.cache
    }

    /// What is published, and what is not.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.status.clone()
    }

    /// Waits until something is published.
    pub async fn published(&self) {
        let mut status = self.status();
        // It cannot end before: the publisher lives as long as this does.
        let _ = status.wait_for(|status| status.published.version > 0).await;
    }

    /// Whether something is published.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.status.borrow().published.version > 0
    }

    /// Sends everything again to each client that has not acknowledged what is published, or only to those
    /// of that node; how many there were.
    #[must_use]
    pub fn resync(&self, node: Option<&str>) -> usize {
        sync::now(&self.0.cache, node, &self.0.counters)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Stats that are computed when somebody looks.
    pub(crate) fn computed(&self) -> Vec<Stat> {
        let status = self.0.status.borrow().clone();
        let clients = self.0.cache.clients();
        let gauge = |name: &str, value: usize| Stat {
            name: format!("control.{name}"),
            value: Value::Gauge(value as u64),
        };
        let synced = clients.iter().filter(|client| client.is_synced()).count();
        let services: usize = status.meshes.iter().map(|mesh| mesh.services.len()).sum();
        vec![
            gauge("connected_streams", clients.len()),
            gauge("synced_streams", synced),
            gauge("groups", status.published.groups),
            gauge("resources", status.published.resources),
            gauge("services", services),
            gauge(
                "version",
                usize::try_from(status.published.version).unwrap_or(usize::MAX),
            ),
        ]
    }
}

async fn ask(index: usize, mut registry: Box<dyn Registry>, news: mpsc::Sender<News>) {
    loop {
        let told = registry.next().await;
        if let Err(fault @ Fault::Unreachable(_)) = &told {
            tracing::warn!("{}: {fault}", registry.name());
        }
        if news.send(News::Told(index, told)).await.is_err() {
            return;
        }
    }
}

async fn publish(
    mut publisher: Publisher,
    mut told: mpsc::Receiver<News>,
    status: watch::Sender<Status>,
    counters: ControlStats,
    cache: SnapshotCache,
) {
    while let Some(news) = told.recv().await {
        match news {
            News::Told(index, Ok(knowledge)) => {
                let began = clock::now();
                // Converting everything may take longer than the streams shall wait.
                let work = tokio::task::spawn_blocking(move || {
                    let result = caught(|| publisher.update(index, knowledge));
                    (publisher, result)
                });
                let Ok((back, result)) = work.await else {
                    // Only when the runtime ends: panics were caught.
                    return;
                };
                publisher = back;
                let took = (clock::now() - began).as_millis();
                counters
                    .update_time()
                    .record(u64::try_from(took).unwrap_or(u64::MAX));
                let told = result.map_err(Fault::Refused);
                report(index, told, &publisher, &status, &counters);
            }
            News::Told(index, Err(fault)) => {
                if matches!(fault, Fault::Refused(_)) {
                    publisher.forget(index);
                }
                report(index, Err(fault), &publisher, &status, &counters);
            }
            News::Group(group) => {
                let loaded = publisher.published().version > 0;
                if !publisher.on_group(&group) && loaded {
                    tracing::warn!("a node of {group:?} has connected, which is no service here");
                }
            }
            News::Tidy => {
                let clients = cache.clients();
                let groups = clients.into_iter().map(|client| client.group);
                publisher.on_connected(&groups.collect());
            }
        }
    }
}

fn report(
    index: usize,
    told: Result<BTreeSet<usize>, Fault>,
    publisher: &Publisher,
    status: &watch::Sender<Status>,
    counters: &ControlStats,
) {
    let published = publisher.published().clone();
    match &told {
        Ok(_) => {
            counters.update_success().inc();
            tracing::info!(
                version = published.version,
                groups = published.groups,
                resources = published.resources,
                "published"
            );
        }
        Err(Fault::Unreachable(_)) => counters.update_failure().inc(),
        Err(fault @ Fault::Refused(_)) => {
            counters.update_rejected().inc();
            tracing::error!("refused, and what was published stays:\n{fault}");
        }
    }
    let (meshes, discovered) = publisher.meshes();
    status.send_modify(|status| {
        status.published = published;
        status.meshes = meshes;
        status.discovered = Arc::new(discovered);
        let (taken, fault) = match told {
            Ok(taken) => (taken, None),
            Err(fault) => (BTreeSet::from([index]), Some(fault.to_string())),
        };
        for (index, registry) in status.registries.iter_mut().enumerate() {
            if taken.contains(&index) {
                registry.published |= fault.is_none();
                registry.fault.clone_from(&fault);
            }
        }
    });
}
