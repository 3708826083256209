//! The server's half: snapshots in, pushes out.
//!
//! A [`SnapshotCache`] holds one [`Snapshot`] per group of nodes. Each stream is a [`Peer`], a state
//! machine that compares what its client was sent with the snapshot of the moment and says what to send
//! next. Nothing is queued for a client: one that is slow to read or to acknowledge gets, when it is
//! ready, the newest snapshot and none of those between.
//!
//! What a thousand clients have in common is computed and encoded once: the [`Diff`] between two
//! versions of a type, and the bytes of a full push.

mod cache;
mod encode;
mod interest;
mod load;
mod peer;
mod report;
mod snapshot;
mod status;
mod topic;

pub use cache::{ClientId, NodeHash, NodeId, SnapshotCache};
pub use encode::Payload;
pub use load::{LoadSink, LrsSettings};
pub use peer::{Peer, Push};
pub use report::{ClientReport, ConfigStatus, Row};
pub use snapshot::{Diff, Entry, Snapshot, TypeSet};

pub(crate) use cache::Connection;
pub(crate) use load::deliver;
pub(crate) use status::client_configs;
