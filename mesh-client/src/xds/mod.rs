//! Config from a control plane: what arrives is checked, warmed, put together and applied.
//!
//! A [`Follower`] keeps a stream to each source of config. Their tasks check resources and say when they may
//! be used; another applies the newest whole config, so that a burst of changes is applied once. What is
//! rejected, or cannot be reached, changes nothing.
//!
//! Clusters are the [`Mesh`]'s. Listeners are for whoever [listens](Listen): the sidecar's sockets, or
//! [`MeshClient`](crate::MeshClient), which needs the connection manager of one.

mod apply;
mod call;
pub(crate) mod following;
mod receiver;
mod sources;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_config::{
    dynamic::Assembly,
    model::{Config, Listener},
};
use mesh_xds::ResourceType;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use crate::Mesh;

/// A first fetch is given up after this time, unless the config says otherwise.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// What was removed stays for at most so long if something in use still refers to it.
const RETIRE_AFTER: Duration = Duration::from_secs(15);

use receiver::Receiver;
use sources::Sources;

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
}

/// Follows a control plane until it is dropped. What was applied stays applied.
pub struct Follower {
    shared: Shared,
    tasks: Vec<AbortHandle>,
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
    #[must_use]
    pub fn start(
        mesh: &Mesh,
        config: &Arc<Config>,
        assembly: Assembly,
        listen: Arc<dyn Listen>,
        options: &FollowOptions,
    ) -> Self {
        let (latest, newest) = watch::channel(apply::Latest::default());
        let sources = Sources::new(mesh, config, assembly.node());
        let shared = Shared {
            receiver: Arc::new(Mutex::new(Receiver::new(assembly, config, sources, latest))),
            listen: Arc::clone(&listen),
            changed: Arc::default(),
        };
        let keeping_time = tokio::spawn(apply::keep_time(shared.clone()));
        let applying = apply::Applier::new(mesh, config, listen).run(newest);
        let tasks = vec![
            keeping_time.abort_handle(),
            tokio::spawn(applying).abort_handle(),
        ];
        shared.lock().begin(&shared, config, options);
        Self { shared, tasks }
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

/// The type as the wire knows it.
const fn type_of(kind: mesh_config::dynamic::Kind) -> ResourceType {
    use mesh_config::dynamic::Kind;
    match kind {
        Kind::Cluster => ResourceType::Cluster,
        Kind::Endpoints => ResourceType::Endpoints,
        Kind::Listener => ResourceType::Listener,
        Kind::Routes => ResourceType::RouteConfiguration,
    }
}

const fn kind_of(ty: ResourceType) -> Option<mesh_config::dynamic::Kind> {
    use mesh_config::dynamic::Kind;
    match ty {
        ResourceType::Cluster => Some(Kind::Cluster),
        ResourceType::Endpoints => Some(Kind::Endpoints),
        ResourceType::Listener => Some(Kind::Listener),
        ResourceType::RouteConfiguration => Some(Kind::Routes),
        _ => None,
    }
}
