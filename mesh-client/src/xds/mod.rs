//! Config from a control plane: what arrives is checked, warmed, put together and applied.
//!
//! A [`Follower`] keeps a stream to each source of config. Their tasks check resources and say when they may
//! be used; another applies the newest whole config, so that a burst of changes is applied once. What is
//! rejected, or cannot be reached, changes nothing.
//!
//! Clusters are the [`Mesh`]'s. Listeners are for whoever [listens](Listen): the sidecar's sockets, or
//! [`MeshClient`](crate::MeshClient), which needs the connection manager of one.

mod apply;
mod cache;
mod call;
mod ear;
pub(crate) mod following;
mod load;
mod receiver;
mod sources;
mod status;
mod tell;

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_config::{
    dynamic::Assembly,
    model::{Config, Listener},
};
use mesh_core::stats::ComputedGuard;
use mesh_xds::{
    ResourceStatus, ResourceType,
    transport::{ClientStatusService, Commands},
    warming::Waiting,
    wire::Node,
};
use tokio::{sync::Notify, task::AbortHandle};

use crate::Mesh;

/// A first fetch is given up after this time, unless the config says otherwise.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// What was removed stays for at most so long if something in use still refers to it.
const RETIRE_AFTER: Duration = Duration::from_secs(15);
/// What was accepted and cannot be used at the moment is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

use cache::Cache;
use receiver::Receiver;
use sources::Sources;
use status::Status;

pub use cache::{CACHE_AGE_MAX_DEFAULT, CacheConfig};
pub use status::ConfigOrigin;

/// Who serves the listeners that come.
pub trait Listen: Send + Sync + 'static {
    /// Whether `listener` can be served; it is asked before the control plane is told that it was accepted.
    /// Addresses may be taken already.
    ///
    /// # Errors
    /// Why not.
    fn prepare(&self, listener: &Arc<Listener>) -> Result<(), String>;

    /// The listener of that name will not come after all, or has gone.
    fn release(&self, name: &str);

    /// Serves exactly the listeners of `config` from now on, but for those that cannot be: they stay as they
    /// were.
    fn apply<'a>(&'a self, config: &'a Config) -> Applying<'a>;

    /// The first of everything has come, and has been applied.
    fn settled(&self);
}

/// The making of a change; what could not be made of it.
pub type Applying<'a> = Pin<Box<dyn Future<Output = Vec<Unserved>> + Send + 'a>>;

/// A listener that could not be served. What it was before stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// Its name.
    pub listener: Arc<str>,
    /// Why.
    pub reason: String,
}

/// What is followed.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FollowOptions {
    /// Only the listener of this name, instead of all. Clusters come by the names that its routes have, unless
    /// the bootstrap has a `cds_config`.
    pub listener: Option<String>,
    /// Where accepted config is kept for a start without the control plane; nowhere by default.
    pub cache: Option<CacheConfig>,
}

/// Follows a control plane until it is dropped. What was applied stays applied.
pub struct Follower {
    shared: Shared,
    node: Node,
    tasks: Vec<AbortHandle>,
    _stats: ComputedGuard,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared.lock().close();
    }
}

impl Follower {
    /// Starts to follow what `config` says, of which `assembly` was made, on the current tokio runtime. Clusters
    /// of `config` must have been applied to `mesh`.
    ///
    /// # Errors
    /// When the directory of the cache cannot be made.
    pub fn start(
        mesh: &Mesh,
        config: &Arc<Config>,
        assembly: Assembly,
        listen: Arc<dyn Listen>,
        options: &FollowOptions,
    ) -> io::Result<Self> {
        let news = apply::News::default();
        let registry = mesh.registry();
        let scope = registry.scope("config_cache.");
        let open = |cache| Cache::open(cache, &assembly.node(), &scope);
        let cache = options.cache.as_ref().map(open).transpose()?;
        let node = assembly.node();
        let sources = Sources::new(mesh, config, &assembly, cache);
        let status = Status::new(registry);
        let receiver = Receiver::new(assembly, config, sources, status, news.clone());
        let shared = Shared {
            receiver: Arc::new(Mutex::new(receiver)),
            listen: Arc::clone(&listen),
            changed: Arc::default(),
        };
        let keeping_time = tokio::spawn(apply::keep_time(shared.clone()));
        let reporting = config.load_stats.as_ref().map(|config| {
            let report = load::report(mesh.clone(), Arc::clone(config), node.clone());
            tokio::spawn(report).abort_handle()
        });
        let applying = apply::Applier::new(mesh, config, listen).run(news);
        let mut tasks = vec![
            keeping_time.abort_handle(),
            tokio::spawn(applying).abort_handle(),
        ];
        tasks.extend(reporting);
        let weak = Arc::downgrade(&shared.receiver);
        let stats = registry.computed(move |out| {
            if let Some(receiver) = weak.upgrade() {
                let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
                receiver.status.export(out);
            }
        });
        shared.lock().begin(&shared, config, options);
        Ok(Self {
            shared,
            node,
            tasks,
            _stats: stats,
        })
    }

    /// Where each resource stands.
    pub async fn statuses(&self) -> Vec<ResourceStatus> {
        let sources = self.shared.lock().commands();
        statuses(sources).await
    }

    /// What waits, and what for.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        self.shared.lock().warming.waiting()
    }

    /// The version of a type that was taken last; empty if there is none.
    #[must_use]
    pub fn version(&self, ty: ResourceType) -> String {
        let receiver = self.shared.lock();
        let version = receiver.status.versions.get(&ty);
        version.cloned().unwrap_or_default()
    }

    /// Where each resource stands, for whoever asks over gRPC (CSDS): give it to the gRPC server of the process.
    /// Secrets are left out of what it tells.
    #[must_use]
    pub fn client_status(&self) -> ClientStatusService {
        ClientStatusService::new(tell::Tell::new(&self.shared, self.node.clone()))
    }

    /// A resource as JSON, without secrets.
    #[must_use]
    pub fn dump(&self, ty: ResourceType, body: &[u8]) -> Option<serde_json::Value> {
        let language = self.shared.lock().language();
        let name = ty.type_url().rsplit('/').next()?;
        language.dump(name, body)
    }
}

/// What the streams' tasks feed. Cloning shares it.
#[derive(Clone)]
struct Shared {
    receiver: Arc<Mutex<Receiver>>,
    listen: Arc<dyn Listen>,
    /// Something may have a deadline now.
    changed: Arc<Notify>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn statuses(sources: Vec<Commands>) -> Vec<ResourceStatus> {
    let mut all = Vec::new();
    for commands in sources {
        all.extend(commands.statuses().await);
    }
    all
}

/// The type as the wire knows it.
const fn type_of(kind: mesh_config::dynamic::Kind) -> ResourceType {
    use mesh_config::dynamic::Kind;
    match kind {
        Kind::Cluster => ResourceType::Cluster,
        Kind::Endpoints => ResourceType::Endpoints,
        Kind::Listener => ResourceType::Listener,
        Kind::Routes => ResourceType::RouteConfiguration,
        Kind::Secret => ResourceType::Secret,
        Kind::Runtime => ResourceType::Runtime,
    }
}

const fn kind_of(ty: ResourceType) -> Option<mesh_config::dynamic::Kind> {
    use mesh_config::dynamic::Kind;
    match ty {
        ResourceType::Cluster => Some(Kind::Cluster),
        ResourceType::Endpoints => Some(Kind::Endpoints),
        ResourceType::Listener => Some(Kind::Listener),
        ResourceType::RouteConfiguration => Some(Kind::Routes),
        ResourceType::Secret => Some(Kind::Secret),
        ResourceType::Runtime => Some(Kind::Runtime),
        _ => None,
    }
}
