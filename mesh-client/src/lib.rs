//! From config to the stack that carries a request to an endpoint.
//!
//! [`MeshClient`] is that stack for a Rust service; `mesh-proxy` is the same stack behind sockets.
//!
//! | level | type | lives |
//! |---|---|---|
//! | process | [`Mesh`]: clusters and what was learnt about them, stats, buckets, log files | as long as the process |
//! | worker | [`Worker`]: pools and balancers, one set per thread | as long as the thread |
//! | filter chain | [`Manager`]: hygiene, route table, filters, router, access log; or [`TcpProxy`] | as long as its config |
//! | connection | [`ConnectionHandler`] | as long as the connection |
//! | request | `RequestInfo`, the matched route | as long as the request |
//!
//! # Example
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = mesh_client::MeshClient::from_bootstrap(&std::fs::read_to_string("mesh.yaml")?).await?;
//! let request = http::Request::get("http://users/42").body(mesh_core::Body::empty())?;
//! let response = client.send(request).await?;
//! assert!(response.status().is_success());
//! # Ok(()) }
//! ```

mod client;
mod cluster;
mod connection_log;
mod discovery;
mod filters;
mod health;
mod manager;
mod mesh;
mod original_dst;
mod proxy_protocol;
mod router;
mod secrets;
mod stats;
mod tcp;
mod tls;
mod watch;
mod worker;
mod workload;
pub mod xds;

pub use client::{ClientError, ClientFuture, MeshClient, MeshClientBuilder};
pub use cluster::Cluster;
pub use connection_log::ConnectionLog;
pub use manager::{AnswerBody, ConnectionHandler, Manager, ManagerExchange, NextManager};
pub use mesh::{Clusters, Mesh};
pub use secrets::Secrets;
pub use stats::{ClusterStats, ManagerStats, RouterStats};
pub use tcp::{TcpEnd, TcpProxy, TcpProxyStats};
pub use tls::{DownstreamSocket, SocketSecrets};
pub use worker::{Worker, WorkerCluster};
pub use workload::workload_source;
