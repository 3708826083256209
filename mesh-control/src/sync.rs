//! Whether each proxy has what is published; who has not is sent it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_xds::{
    ResourceType,
    server::{ClientId, ClientReport, ConfigStatus, SnapshotCache},
};

use crate::stats::ControlStats;

/// Resources that a client has not acknowledged, and in which version.
type Open = BTreeSet<(ResourceType, Arc<str>, Arc<str>)>;

/// Compares every `interval`. What is open may only be on its way, so a client is sent everything again when
/// the very same was open the last time. What it has rejected it would reject again: that waits for another
/// version, or for somebody to ask.
pub(crate) async fn run(
    cache: SnapshotCache,
    interval: Duration,
    counters: ControlStats,
    tidy: impl Fn(),
) {
    let mut before = BTreeMap::new();
    loop {
        tokio::time::sleep(interval).await;
        tidy();
        let clients = cache.clients();
        let now = clients.iter().map(|client| (client.id, open(client)));
        let now: BTreeMap<ClientId, Open> = now.filter(|(_, open)| !open.is_empty()).collect();
        for (client, open) in &now {
            if stuck(before.get(client), open) && cache.resync(*client) {
                counters.resync().inc();
                tracing::warn!(
                    "{client:?} has not acknowledged {} resources: sent again",
                    open.len()
                );
            }
        }
        before = now;
    }
}

/// Whether something that was open still is.
fn stuck(before: Option<&Open>, now: &Open) -> bool {
    before.is_some_and(|before| before.intersection(now).next().is_some())
}

fn open(client: &ClientReport) -> Open {
    let rows = client.rows.iter();
    let waiting =
        rows.filter(|row| matches!(row.status, ConfigStatus::Stale | ConfigStatus::NotSent));
    waiting
        .map(|row| (row.ty, Arc::clone(&row.name), Arc::clone(&row.version)))
        .collect()
}

/// Sends everything again to whoever has not acknowledged all of it, rejected or not.
pub(crate) fn now(cache: &SnapshotCache, node: Option<&str>, counters: &ControlStats) -> usize {
    let clients = cache.clients().into_iter();
    let behind =
        clients.filter(|client| node.is_none_or(|id| client.node.id == id) && !client.is_synced());
    let again = behind.filter(|client| cache.resync(client.id)).count();
    counters.resync().add(again as u64);
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(version: &str) -> Open {
        [(ResourceType::Cluster, "a".into(), version.into())].into()
    }

    #[test]
    fn only_what_stays_open_in_the_same_version_is_stuck() {
        assert!(!stuck(None, &open("1")));
        assert!(!stuck(Some(&open("1")), &open("2")));
        assert!(stuck(Some(&open("1")), &open("1")));
    }
}
