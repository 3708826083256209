//! gRPC calls to a control plane, through the cluster that it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, header};
use mesh_config::model::ControlServer;
use mesh_core::{Body, BoxError, BoxFuture, Endpoint, Resources, Thresholds, stats::Scope};
use mesh_http::{
    h2::KeepaliveConfig,
    pool::{HttpVersion, Pool, PoolStats, UpstreamProtocol},
};
use mesh_xds::transport::Call;

use crate::{Mesh, proxy_protocol, tls};

/// How often a silent control plane is asked whether it is there, unless its cluster says otherwise.
const KEEPALIVE: KeepaliveConfig = KeepaliveConfig {
    interval: Some(Duration::from_secs(30)),
    timeout: Duration::from_secs(10),
    interval_jitter_percent: 15,
};

/// Calls over a connection that is nobody else's, with the cluster's TLS, to one endpoint after the other.
pub(super) struct ThroughCluster {
    mesh: Mesh,
    server: ControlServer,
    next: AtomicUsize,
}

impl ThroughCluster {
    pub(super) fn new(mesh: &Mesh, server: &ControlServer) -> Self {
        Self {
            mesh: mesh.clone(),
            server: server.clone(),
            next: AtomicUsize::new(0),
        }
    }

    /// A connection to be, to an endpoint that is not known to be ill, if there is one.
    fn pool(&self) -> Result<Pool, String> {
        let name = &self.server.cluster;
        let clusters = self.mesh.clusters();
        let cluster = clusters.by_name.get(name);
        let cluster = cluster.ok_or_else(|| format!("there is no cluster {name:?}"))?;
        let set = cluster.endpoints();
        let (well, all): (Vec<&Arc<Endpoint>>, _) = {
            let all: Vec<_> = set.endpoints().iter().collect();
            let well = all
                .iter()
                .copied()
                .filter(|endpoint| !endpoint.state.is_excluded());
            (well.collect(), all)
        };
        let from = if well.is_empty() { all } else { well };
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let endpoint = from.get(turn.checked_rem(from.len()).unwrap_or(0));
        let endpoint = endpoint.ok_or_else(|| format!("the cluster {name:?} has no endpoint"))?;
        let mut config = (*cluster.config().pool).clone();
        // gRPC is nothing else.
        config.protocol = UpstreamProtocol::Http2;
        config.http2.keepalive.get_or_insert(KEEPALIVE);
        let connector = self.mesh.connector();
        let said = proxy_protocol::said(&connector, &cluster.config, None);
        Ok(Pool::new(
            HttpVersion::Http2,
            Arc::clone(endpoint),
            tls::over(&said, &cluster.sockets),
            Arc::new(config),
            Resources::new(&Thresholds::default()),
            PoolStats::register(&Scope::detached()),
        ))
    }
}

impl Call for ThroughCluster {
    fn call(&self, mut request: Request<Body>) -> BoxFuture<Result<Response<Body>, BoxError>> {
        let name = self.server.authority.as_ref();
        let name = name.unwrap_or(&self.server.cluster);
        if let Ok(host) = HeaderValue::from_str(name) {
            request.headers_mut().insert(header::HOST, host);
        }
        let pool = self.pool();
        Box::pin(async move {
            let pool = pool?;
            let response = pool.clone().send(request).await?;
            Ok(response.map(|body| body.keeping(Ending(pool))))
        })
    }
}

/// The connection ends with its answer.
struct Ending(Pool);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.close_idle();
    }
}
