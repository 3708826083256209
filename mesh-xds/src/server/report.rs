use std::{sync::Arc, time::Instant};

use envoy_types::pb::envoy::config::core::v3::Node;

use crate::{ResourceType, Variant};

use super::{ClientId, Peer, Snapshot, topic::Topic};

/// How a client stands to one resource, in the words of CSDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigStatus {
    /// The client acknowledged what is published.
    Synced,
    /// It was not sent: the client does not want it yet, or has not got round to it.
    NotSent,
    /// It was sent and is not acknowledged.
    Stale,
    /// The client rejected it.
    Error,
}

/// One resource of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its type.
    pub ty: ResourceType,
    /// Its name.
    pub name: Arc<str>,
    /// The version that is published; empty when there is none any more.
    pub version: Arc<str>,
    /// Where the client stands.
    pub status: ConfigStatus,
    /// When it was rejected: the version, the client's words, and the time.
    pub error: Option<(Arc<str>, String, Instant)>,
}

/// What one stream of a client has.
#[derive(Debug, Clone)]
pub struct ClientReport {
    /// Which stream.
    pub id: ClientId,
    /// Whose.
    pub node: Arc<Node>,
    /// How updates are told on it.
    pub variant: Variant,
    /// The group whose snapshot it gets.
    pub group: String,
    /// All that it asked for and that there is.
    pub rows: Vec<Row>,
}

impl ClientReport {
    /// Whether the client acknowledged all that is published for it.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let synced = |row: &Row| row.status == ConfigStatus::Synced;
        self.rows.iter().all(synced)
    }
}

impl Peer {
    /// What the client has of `snapshot`.
    #[must_use]
    pub fn rows(&self, snapshot: &Snapshot) -> Vec<Row> {
        let of = |(ty, topic): (&ResourceType, &Topic)| topic.rows(*ty, snapshot);
        self.topics.iter().flat_map(of).collect()
    }
}

impl Topic {
    fn rows(&self, ty: ResourceType, snapshot: &Snapshot) -> Vec<Row> {
        let set = snapshot.set(ty);
        let mut rows = Vec::new();
        for entry in self.interest.all(set) {
            let same = |other: &super::Entry| other.version == entry.version;
            let has = |set: &Option<Arc<super::TypeSet>>| {
                set.as_ref()
                    .and_then(|set| set.get(&entry.name))
                    .is_some_and(same)
            };
            let nack = self.nacked.get(&entry.name);
            let status = if nack.is_some_and(|nack| nack.version == entry.version) {
                ConfigStatus::Error
            } else if self.interest.fresh.contains(&entry.name) {
                ConfigStatus::NotSent
            } else if has(&self.acked) {
                ConfigStatus::Synced
            } else if has(&self.base) {
                ConfigStatus::Stale
            } else {
                ConfigStatus::NotSent
            };
            rows.push(Row {
                ty,
                name: entry.name,
                version: entry.version,
                status,
                error: nack.map(|nack| (nack.version.clone(), nack.message.clone(), nack.at)),
            });
        }
        rows
    }
}
