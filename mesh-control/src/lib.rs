//! A control plane for sidecars: a small file in, Envoy's resources out.
//!
//! | to | use |
//! |---|---|
//! | describe services and how they are called | [`mesh::Mesh`], the mesh file |
//! | say where services are known from | [`registry::Registry`]: [`registry::MeshFile`], [`registry::Directory`], [`registry::Etcd`], or your own |
//! | run it | [`Control`], [`serve()`], [`admin::router`]; or the program `mesh-control` |
//!
//! Whatever a registry says is made into resources and [checked](check) by the very conversion that sidecars
//! use. If a proxy would refuse something of it, nothing of it is published, the last good version stays, and
//! the error names file, line and path.
//!
//! # The mesh file
//!
//! ```
//! use mesh_config::language::Source;
//! use mesh_control::mesh::Mesh;
//!
//! let mesh = Mesh::read(&Source::text("mesh.yaml", "
//! defaults:
//!   timeout: 5s
//!   retry_policy: {retry_on: 'connect-failure,gateway-error', num_retries: 2}
//! services:
//!   shop:
//!     sidecar: {outbound: 127.0.0.1:15001}
//!   users:
//!     endpoints:
//!     - 10.0.0.1:15006
//!     - {address: 10.0.0.2:15006, weight: 2, zone: b}
//!     sidecar: {inbound: 0.0.0.0:15006, app: 127.0.0.1:8080}
//!     outlier_detection: {consecutive_5xx: 3}
//!     thresholds: {max_requests: 200}
//!     rate_limit: {max_tokens: 100, fill_interval: 1s}
//!     routes:
//!     - {prefix: /v2/, to: users-v2, timeout: 2s}
//!     - to: {users: 95, users-v2: 5}
//!   users-v2:
//!     endpoints: [10.0.0.3:15006]
//! "))?;
//! assert_eq!(mesh.services["users"].endpoints.len(), 2);
//! # Ok::<(), mesh_config::language::ConfigError>(())
//! ```
//!
//! `shop` sends requests to its sidecar at `127.0.0.1:15001`, with the name of the service in `host`.
//! [README](https://docs.rs/crate/mesh-control) has every field.
//!
//! # How it is built
//! A registry tells all it knows, whenever that changes. The [publisher](publish) keeps what was accepted last
//! of each, builds the resources of all groups, has them checked and puts them into the
//! [snapshot cache](mesh_xds::server::SnapshotCache), which does the rest. A node's group is its
//! `node.cluster`: the name of the service that it is a sidecar of.

pub mod admin;
pub mod build;
pub mod check;
mod control;
pub mod load;
pub mod mesh;
pub mod publish;
pub mod registry;
mod serve;
mod stats;
mod sync;

pub use control::{Control, GroupBy, RegistryStatus, Settings, Status};
pub use serve::{TlsFiles, serve};
pub use stats::ControlStats;
