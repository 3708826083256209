//! What has come from a control plane and cannot be used yet.

use mesh_client::xds::Follower;
use mesh_core::clock;
use mesh_xds::warming::Key;
use serde_json::{Value, json};

use super::{Ask, Page};

pub(super) fn page(ask: &Ask<'_>) -> Page {
    let waiting = ask.process.following.get().map(Follower::waiting);
    let now = clock::now();
    let key = |(ty, name): &Key| json!({"type": ty.short(), "name": name});
    let rows = waiting.unwrap_or_default().into_iter().map(|one| {
        let mut row = key(&one.key);
        let left = one
            .deadline
            .map(|at| at.saturating_duration_since(now).as_millis() as u64);
        let since = now.saturating_duration_since(one.since).as_millis() as u64;
        row["missing"] = one.missing.iter().map(key).collect();
        row["waiting_ms"] = since.into();
        row["goes_on_without_in_ms"] = left.into();
        row["older_version_in_use"] = one.has_active.into();
        row
    });
    let rows: Vec<Value> = rows.collect();
    Page::json(&json!({ "warming": rows }))
}
