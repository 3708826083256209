//! The last config that was good, on disk: see [`mesh_xds::store`].

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use mesh_core::{clock, stats::Scope};
use mesh_xds::{
    Resource, ResourceType,
    store::{Identity, Refusal, SavePlan, Store},
    transport::Commands,
    version_of,
    wire::Node,
};
use tokio::sync::Notify;

use super::sources::SourceKey;

/// How old a cache may be, unless it is said otherwise.
pub const CACHE_AGE_MAX_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the control plane stands by is saved again after this time, so that it does not grow old.
const RENEW: Duration = Duration::from_secs(3600);

/// The order in which what was saved is taken: what names others comes before them, and so clusters once more,
/// whose names may come from routes.
const ORDER: [ResourceType; 7] = [
    ResourceType::Runtime,
    ResourceType::Cluster,
    ResourceType::Listener,
    ResourceType::RouteConfiguration,
    ResourceType::Cluster,
    ResourceType::Endpoints,
    ResourceType::Secret,
];

mesh_core::stats! {
    /// What becomes of the config cache, under `config_cache.`.
    pub(super) struct CacheStats {
        /// Types that were saved.
        counter save_success,
        /// Types that could not be saved; what was saved before is still there.
        counter save_failure,
        /// Sources whose cache was not used at start, since something in it was refused.
        counter load_refused,
    }
}

/// Where accepted config is kept.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// The directory; it is made when it is not there.
    pub directory: PathBuf,
    /// What is older is refused. A week by default.
    pub max_age: Duration,
    /// Secrets are kept as well, readable by the owner only.
    pub secrets: bool,
}

impl CacheConfig {
    /// In that directory, for a week, without secrets.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            max_age: CACHE_AGE_MAX_DEFAULT,
            secrets: false,
        }
    }
}

/// All that a process keeps. Each source but the aggregated stream has a directory of its own.
#[derive(Clone)]
pub(super) struct Cache {
    config: CacheConfig,
    identity: Identity,
    stats: CacheStats,
}

impl Cache {
    /// # Errors
    /// When the directory cannot be made.
    pub(super) fn open(config: &CacheConfig, node: &Node, scope: &Scope) -> io::Result<Self> {
        let this = Self {
            config: config.clone(),
            identity: Identity {
                node_id: node.id.clone(),
                node_cluster: node.cluster.clone(),
            },
            stats: CacheStats::register(scope),
        };
        this.store(config.directory.clone())?;
        Ok(this)
    }

    fn store(&self, directory: PathBuf) -> io::Result<Store> {
        let identity = self.identity.clone();
        let store = Store::open(&directory, identity, self.config.max_age)?;
        Ok(if self.config.secrets {
            store.with_secrets()
        } else {
            store
        })
    }

    /// What is kept of one source.
    pub(super) fn of(&self, key: &SourceKey) -> Option<Kept> {
        let directory = &self.config.directory;
        let directory = match key {
            (_, None) => directory.clone(),
            (source, Some(_)) => directory.join(version_of(format!("{source:?}").as_bytes())),
        };
        match self.store(directory) {
            Ok(store) => Some(Kept(Arc::new(Inner {
                store,
                stats: self.stats.clone(),
                plan: Mutex::default(),
                changed: Notify::new(),
                restoring: AtomicBool::new(false),
            }))),
            Err(error) => {
                tracing::error!("the config cache cannot be used: {error}");
                None
            }
        }
    }
}

/// What was saved, type by type.
pub(super) type Saved = Vec<(ResourceType, Vec<Resource>)>;

/// What is kept of one source. Cloning shares it.
#[derive(Clone)]
pub(super) struct Kept(Arc<Inner>);

struct Inner {
    store: Store,
    stats: CacheStats,
    plan: Mutex<SavePlan>,
    /// Something is to be saved.
    changed: Notify,
    /// What is accepted now is what was saved.
    restoring: AtomicBool,
}

/// While it lives, what is accepted is not saved again: it would look as if it were new.
pub(super) struct Restoring<'a>(&'a AtomicBool);

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Kept {
    fn plan(&self) -> MutexGuard<'_, SavePlan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was saved, in the order in which it is taken, and when the oldest of it was. All of it
    /// counts, or nothing: half of a config would send traffic nowhere.
    pub(super) fn load(&self) -> Option<(Saved, SystemTime)> {
        let now = clock::wall();
        let mut all = Vec::new();
        let mut oldest = now;
        for ty in ORDER {
            match self.0.store.load(ty, now) {
                Ok(cached) => {
                    oldest = oldest.min(cached.saved_at);
                    all.push((ty, cached.resources));
                }
                Err(Refusal::Absent) => {}
                Err(refusal) => {
                    self.0.stats.load_refused().inc();
                    let path = self.0.store.path(ty);
                    tracing::warn!(
                        "the config cache is not used: {}: {refusal}",
                        path.display()
                    );
                    return None;
                }
            }
        }
        (!all.is_empty()).then_some((all, oldest))
    }

    /// What was saved is about to be taken.
    pub(super) fn restore(&self) -> Restoring<'_> {
        self.0.restoring.store(true, Ordering::Relaxed);
        Restoring(&self.0.restoring)
    }

    /// Something of that type was accepted, or has gone.
    pub(super) fn on_change(&self, ty: ResourceType) {
        let restoring = self.0.restoring.load(Ordering::Relaxed);
        if !restoring && self.0.store.keeps(ty) {
            self.plan().on_change(clock::now(), ty);
            self.0.changed.notify_one();
        }
    }

    /// Saves what `commands` knows whenever it has changed, for ever.
    pub(super) async fn run(self, commands: Commands) {
        let mut renew = clock::now() + RENEW;
        loop {
            let due = self.plan().next_deadline();
            let due = due.map_or(renew, |due| due.min(renew));
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.0.changed.notified() => continue,
            }
            let now = clock::now();
            if now >= renew {
                renew = now + RENEW;
                self.renew(&commands).await;
            }
            loop {
                let Some(ty) = self.plan().poll_save(now) else {
                    break;
                };
                self.save(ty, &commands).await;
            }
        }
    }

    /// As long as the control plane is there, what it has sent is as new as ever.
    async fn renew(&self, commands: &Commands) {
        if !commands.is_connected().await {
            return;
        }
        for ty in ORDER {
            if commands
                .held(ty)
                .await
                .is_some_and(|(_, held)| !held.is_empty())
            {
                self.on_change(ty);
            }
        }
    }

    async fn save(&self, ty: ResourceType, commands: &Commands) {
        let Some((version, resources)) = commands.held(ty).await else {
            return;
        };
        let store = self.0.store.clone();
        // The disk may take its time, and nobody shall wait for it.
        let saving = tokio::task::spawn_blocking(move || {
            store.save(ty, &version, &resources, clock::wall())
        });
        match saving.await {
            Ok(Ok(())) => self.0.stats.save_success().inc(),
            Ok(Err(error)) => {
                self.0.stats.save_failure().inc();
                tracing::error!("the config cache does not take {ty}: {error}");
            }
            // The process ends.
            Err(_) => {}
        }
    }
}
