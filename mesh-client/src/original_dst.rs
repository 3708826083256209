//! Clusters of type `ORIGINAL_DST`: an endpoint is wherever the client meant to go.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
};

use http::HeaderMap;
use mesh_config::model::{
    Discovery, EndpointCheck, EndpointConfig, EndpointHealth, EndpointTarget, OriginalDstConfig,
};
use mesh_core::{Address, ConnectionInfo, Endpoint};
use tokio::runtime::Handle;

use crate::Cluster;

/// How many endpoints such a cluster may have at once; beyond, there is none for a request that means to go to
/// yet another.
pub(crate) const ORIGINAL_DST_HOSTS_MAX: usize = 16_384;

/// The share of the endpoints, one in so many, that may be missing from the set that everybody sees: a set is made
/// anew for each change, which must not happen for each of thousands of endpoints. The rest follows when
/// somebody looks after them.
const UNPUBLISHED_SHARE: usize = 8;

/// The endpoints that somebody has meant, for all versions of a cluster.
#[derive(Default)]
pub(crate) struct Originals(Mutex<Book>);

#[derive(Default)]
struct Book {
    known: HashMap<SocketAddr, Known>,
    /// How many of them are not in the set yet.
    unpublished: usize,
}

struct Known {
    endpoint: Arc<Endpoint>,
    /// Since somebody looked last.
    used: bool,
}

impl Originals {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set is that of another kind of cluster.
    pub(crate) fn clear(&self) {
        *self.lock() = Book::default();
    }
}

impl Cluster {
    /// Where a request or connection means to go, if the endpoints of this cluster come from that.
    pub(crate) fn meant(
        &self,
        headers: Option<&HeaderMap>,
        connection: &ConnectionInfo,
    ) -> Option<SocketAddr> {
        let Discovery::OriginalDst(config) = &self.config.discovery else {
            return None;
        };
        let restored = || connection.local.filter(|_| connection.local_restored);
        let header = self.by_header(config, headers);
        let mut address = header.or_else(restored)?;
        if let Some(port) = config.upstream_port_override {
            address.set_port(port);
        }
        Some(address)
    }

    fn by_header(
        &self,
        config: &OriginalDstConfig,
        headers: Option<&HeaderMap>,
    ) -> Option<SocketAddr> {
        let value = headers?.get(config.http_header.as_ref()?)?;
        let address = value.to_str().ok().and_then(|text| text.parse().ok());
        if address.is_none() {
            self.state.stats.router.original_dst_host_invalid().inc();
        }
        address
    }

    /// The endpoint at `address`, made on the spot if it is not there yet.
    pub(crate) fn original(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let mut book = self.state.originals.lock();
        if let Some(known) = book.known.get_mut(&address) {
            known.used = true;
            return Some(Arc::clone(&known.endpoint));
        }
        if book.known.len() >= ORIGINAL_DST_HOSTS_MAX {
            return None;
        }
        let (at, config) = described(address);
        let endpoint = self.meet(at, config);
        let made = Known {
            endpoint: Arc::clone(&endpoint),
            used: true,
        };
        book.known.insert(address, made);
        book.unpublished += 1;
        if book.unpublished > book.known.len() / UNPUBLISHED_SHARE {
            self.publish_originals(&mut book);
        }
        Some(endpoint)
    }

    fn publish_originals(&self, book: &mut Book) {
        self.assign(book.known.keys().copied().map(described).collect());
        book.unpublished = 0;
    }

    /// Forgets endpoints that nobody has meant since the last time and that have no connection.
    fn forget_originals(&self) {
        let mut book = self.state.originals.lock();
        let before = book.known.len();
        book.known.retain(|_, known| {
            let connected = known.endpoint.state.stats.cx_active.load(Ordering::Relaxed) > 0;
            std::mem::take(&mut known.used) || connected
        });
        if book.known.len() < before || book.unpublished > 0 {
            self.publish_originals(&mut book);
        }
    }
}

fn described(address: SocketAddr) -> (Address, EndpointConfig) {
    let address = Address::Socket(address);
    let config = EndpointConfig {
        target: EndpointTarget::Address(address.clone()),
        hostname: Arc::from(""),
        weight: 1,
        priority: 0,
        locality: Arc::default(),
        health: EndpointHealth::Healthy,
        metadata: Arc::default(),
        socket_labels: None,
        check: EndpointCheck::default(),
    };
    (address, config)
}

/// Looks after the endpoints of `cluster` for as long as it lives.
pub(crate) fn start(cluster: &Arc<Cluster>, config: &OriginalDstConfig, runtime: &Handle) {
    let weak: Weak<Cluster> = Arc::downgrade(cluster);
    let interval = config.cleanup_interval;
    let task = runtime.spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let Some(cluster) = weak.upgrade() else {
                return;
            };
            cluster.forget_originals();
        }
    });
    cluster.adopt(task.abort_handle());
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use mesh_config::{LoadOptions, language::Source};
    use mesh_core::{Rng, stats::Registry};
    use mesh_net::TcpConnector;
    use mesh_telemetry::LogWriterConfig;

    use super::ORIGINAL_DST_HOSTS_MAX;
    use crate::Mesh;

    const ORIGINAL: &str = "type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED";

    fn apply(mesh: &Mesh, cluster: &str) {
        let text = format!(
            "static_resources: {{clusters: [{{name: c, connect_timeout: 1s, {cluster}}}]}}"
        );
        let source = Source::text("test", text);
        let config = mesh_config::load(&source, &LoadOptions::default()).unwrap();
        mesh.apply(&config).unwrap();
    }

    fn mesh() -> Mesh {
        let logs = LogWriterConfig::default();
        let connector = Arc::new(TcpConnector);
        Mesh::new(Registry::new(), Rng::seeded(1), logs, connector)
    }

    fn address(number: usize) -> SocketAddr {
        let [.., a, b] = u32::try_from(number).unwrap().to_be_bytes();
        SocketAddr::from(([10, 0, a, b], 80))
    }

    #[tokio::test(start_paused = true)]
    async fn thousands_of_endpoints_make_few_sets_and_all_of_them_appear() {
        let mesh = mesh();
        apply(&mesh, ORIGINAL);
        let cluster = Arc::clone(&mesh.clusters().list()[0]);
        let first = cluster.original(address(0)).unwrap();
        assert_eq!(cluster.endpoints().endpoints().len(), 1);
        let mut sets = 0;
        let mut last = cluster.endpoints().version();
        for number in 1..ORIGINAL_DST_HOSTS_MAX {
            assert!(cluster.original(address(number)).is_some());
            let now = cluster.endpoints().version();
            sets += usize::from(now != last);
            last = now;
        }
        assert!(sets < 100, "{sets}");
        assert!(cluster.original(address(ORIGINAL_DST_HOSTS_MAX)).is_none());
        cluster.forget_originals();
        let set = cluster.endpoints();
        assert_eq!(set.endpoints().len(), ORIGINAL_DST_HOSTS_MAX);
        let here = |e: &&Arc<mesh_core::Endpoint>| Arc::ptr_eq(&e.state, &first.state);
        assert!(set.endpoints().iter().any(|e| here(&e)));
        cluster.forget_originals();
        assert_eq!(cluster.endpoints().endpoints().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_comes_back_to_it_begins_anew() {
        let mesh = mesh();
        apply(&mesh, ORIGINAL);
        let first = mesh.clusters().list()[0].original(address(1)).unwrap();
        apply(&mesh, "type: STATIC");
        apply(&mesh, ORIGINAL);
        let cluster = Arc::clone(&mesh.clusters().list()[0]);
        let second = cluster.original(address(1)).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        let set = cluster.endpoints();
        assert!(Arc::ptr_eq(&set.endpoints()[0].state, &second.state));
    }
}
