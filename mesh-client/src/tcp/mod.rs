//! TCP proxying: a connection is carried to an endpoint as it is.
//!
//! | file | what |
//! |---|---|
//! | `connect` | picks a cluster and an endpoint and connects, within the cluster's thresholds |
//! | `session` | one connection from its first byte to its log line |
//! | `upstream` | what a connection to an endpoint holds and counts |
//!
//! # Envoy
//! `envoy.filters.network.tcp_proxy`.

mod connect;
mod session;
mod stats;
mod upstream;

use std::{future::Future, io, sync::Arc};

use mesh_config::model::TcpProxyConfig;
use mesh_core::{ConnectionInfo, RequestInfo, clock, format::Captures};
use mesh_net::Stream;
use mesh_telemetry::AccessLog;

pub use session::TcpEnd;
pub use stats::TcpProxyStats;

use crate::{Worker, manager::open_logs};

/// The TCP proxy of one filter chain on one worker. Cloning shares it.
#[derive(Clone)]
pub struct TcpProxy(Arc<Shared>);

struct Shared {
    worker: Arc<Worker>,
    config: Arc<TcpProxyConfig>,
    version: Arc<str>,
    stats: TcpProxyStats,
    log: AccessLog,
}

impl TcpProxy {
    /// Builds the proxy of `config` for one worker.
    ///
    /// # Errors
    /// When a log file cannot be opened; the error names it.
    pub fn new(
        worker: &Arc<Worker>,
        config: &Arc<TcpProxyConfig>,
        version: &Arc<str>,
    ) -> io::Result<Self> {
        let mesh = &worker.mesh;
        let scope = mesh
            .registry()
            .scope(&format!("tcp.{}.", config.stat_prefix));
        // There is no request whose headers could be kept.
        let log = open_logs(mesh, &config.access_log, &mut Captures::default())?;
        Ok(Self(Arc::new(Shared {
            worker: Arc::clone(worker),
            config: Arc::clone(config),
            version: Arc::clone(version),
            stats: TcpProxyStats::register(&scope),
            log,
        })))
    }

    /// [`TcpProxy::serve`], for somebody who wants to know what becomes of the connection.
    pub async fn serve_as(
        &self,
        stream: Stream,
        info: &RequestInfo,
        over: impl Future<Output = ()>,
    ) -> TcpEnd {
        session::run(&self.0, stream, info, over).await
    }

    /// Carries the connection until both sides are through, one of them fails, it is idle for too long, or
    /// `over` is.
    pub async fn serve(
        &self,
        stream: Stream,
        connection: Arc<ConnectionInfo>,
        over: impl Future<Output = ()>,
    ) -> TcpEnd {
        let shared = &self.0;
        let info = RequestInfo::new(
            clock::now(),
            shared.worker.rng.next_u64(),
            connection,
            Arc::clone(&shared.version),
        );
        self.serve_as(stream, &info, over).await
    }
}
