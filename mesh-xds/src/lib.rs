//! xDS, both ends: what arrives over gRPC from a control plane, and how a control plane sends it.
//!
//! | to | use |
//! |---|---|
//! | follow a control plane | [`Subscriber`], the protocol; [`transport::Driver`], its gRPC stream |
//! | read config from a file that is swapped | [`transport::FileSource`] |
//! | use what arrived in an order that breaks nothing | [`warming::Warming`] |
//! | start without the control plane | [`store::Store`] |
//! | be a control plane | [`server::SnapshotCache`], [`transport::XdsService`] |
//! | report load | [`load::LoadReporter`] |
//! | get an identity from a SPIFFE agent | [`workload::WorkloadClient`] |
//!
//! Resources are bytes here. Whether they make sense is asked of an [`Accept`] callback, so this crate
//! knows nothing of what is configured with it, and serves a proxy, a library client and a test alike.
//!
//! # How it is built
//! The protocol is in pure state machines, which take `now` and random numbers as arguments and own no
//! socket: [`Subscriber`] on the client, [`server::Peer`] on the server. Tests run one against the other
//! in one thread, with messages lost and streams cut at random. [`transport`] is a thin skin of tonic.
//!
//! # A control plane in a few lines
//! ```
//! use mesh_xds::{ResourceType, server::{Entry, NodeId, Snapshot, SnapshotCache}, transport::XdsService};
//!
//! let cache = SnapshotCache::new(NodeId, "example");
//! // The bytes of an `envoy.config.cluster.v3.Cluster` with nothing but a name.
//! let cluster = Entry::new("users", vec![0x0a, 5, b'u', b's', b'e', b'r', b's']);
//! cache.set_snapshot("sidecar-1", Snapshot::new().with(ResourceType::Cluster, vec![cluster]));
//! let service = XdsService::builder(cache).build();
//! # drop(service);
//! // tokio::spawn(service.serve(TcpListenerStream::new(listener), std::future::pending()));
//! ```
//!
//! # What it does not do yet
//! REST and the `xdstp://` naming; TLS towards the control plane.

pub mod client;
pub mod load;
mod resource;
pub mod server;
pub mod store;
pub mod transport;
pub mod warming;
pub mod wire;
pub mod workload;

pub use client::{
    Accept, Cause, ClientStatus, ErrorState, Event, RateLimit, Reconnect, Rejection,
    ResourceStatus, Subscriber, SubscriberConfig,
};
pub use resource::{Resource, ResourceType, Variant, name_of, version_hash, version_of};
