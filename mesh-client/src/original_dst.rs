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

/// The endpoints that somebody has meant, for all versions of a cluster.
#[derive(Default)]
pub(crate) struct Originals(Mutex<HashMap<SocketAddr, Known>>);

struct Known {
    endpoint: Arc<Endpoint>,
    /// Since somebody looked last.
    used: bool,
}

impl Originals {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut known = self.state.originals.lock();
        if let Some(known) = known.get_mut(&address) {
            known.used = true;
            return Some(Arc::clone(&known.endpoint));
        }
        if known.len() >= ORIGINAL_DST_HOSTS_MAX {
            return None;
        }
        self.assign_originals(known.keys().copied().chain([address]));
        let wanted = Address::Socket(address);
        let set = self.set.load();
        let endpoint = set.endpoints().iter().find(|e| *e.address() == wanted)?;
        let made = Known {
            endpoint: Arc::clone(endpoint),
            used: true,
        };
        known.insert(address, made);
        Some(Arc::clone(endpoint))
    }

    fn assign_originals(&self, addresses: impl Iterator<Item = SocketAddr>) {
        let endpoints = addresses.map(|address| {
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
        });
        self.assign(endpoints.collect());
    }

    /// Forgets endpoints that nobody has meant since the last time and that have no connection.
    fn forget_originals(&self) {
        let mut known = self.state.originals.lock();
        let before = known.len();
        known.retain(|_, known| {
            let connected = known.endpoint.state.stats.cx_active.load(Ordering::Relaxed) > 0;
            std::mem::take(&mut known.used) || connected
        });
        if known.len() < before {
            self.assign_originals(known.keys().copied());
        }
    }
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
