use std::sync::{Arc, Mutex, PoisonError};

use mesh_config::language::Source;
use mesh_control::{
    check::Checker,
    mesh::Mesh,
    publish::Publisher,
    registry::{Fault, Knowledge, Next, Registry},
};
use mesh_xds::server::{NodeId, SnapshotCache};
use tokio::sync::mpsc;

/// A shop that calls users, of which some are of the second version.
pub(crate) const MESH: &str = "
defaults:
  timeout: 5s
  retry_policy: {retry_on: 'connect-failure,refused-stream', num_retries: 2}
services:
  shop:
    sidecar: {outbound: 127.0.0.1:0}
  users:
    hosts: [people]
    endpoints:
    - 127.0.0.1:8081
    - {address: 127.0.0.1:8082, weight: 3, zone: b, health: draining}
    sidecar: {inbound: 127.0.0.1:0, app: 127.0.0.1:8080}
    outlier_detection: {consecutive_5xx: 3}
    thresholds: {max_requests: 200}
    rate_limit: {max_tokens: 100, fill_interval: 1s}
    routes:
    - {prefix: /v2/, to: users-v2, timeout: 2s, prefix_rewrite: /}
    - to: {users: 95, users-v2: 5}
  users-v2:
    protocol: grpc
    endpoints: [127.0.0.1:8083]
";

pub(crate) fn mesh(text: &str) -> Mesh {
    Mesh::read(&Source::text("mesh.yaml", text)).unwrap_or_else(|error| panic!("{error}"))
}

/// Why the text is no mesh.
pub(crate) fn refusal(text: &str) -> String {
    Mesh::read(&Source::text("mesh.yaml", text))
        .expect_err("it is refused")
        .to_string()
}

pub(crate) fn knowledge(text: &str) -> Knowledge {
    Knowledge::Mesh(Arc::new(mesh(text)))
}

pub(crate) fn publisher(strict: bool) -> (Publisher, SnapshotCache) {
    let cache = SnapshotCache::new(NodeId, "test");
    let checker = Checker::new(strict).expect("a checker");
    (Publisher::new(cache.clone(), checker), cache)
}

/// A registry that says what a test tells it to.
pub(crate) struct Told(mpsc::UnboundedReceiver<Result<Knowledge, Fault>>);

pub(crate) fn told() -> (
    mpsc::UnboundedSender<Result<Knowledge, Fault>>,
    Box<dyn Registry>,
) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Box::new(Told(receiver)))
}

impl Registry for Told {
    fn name(&self) -> &str {
        "told"
    }

    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(news) => news,
                None => std::future::pending().await,
            }
        })
    }
}

/// A value that a callback fills.
#[derive(Clone, Default)]
pub(crate) struct Slot<T>(Arc<Mutex<T>>);

impl<T> Slot<T> {
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
