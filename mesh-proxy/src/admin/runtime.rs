use http::StatusCode;
use mesh_core::runtime::{NotModified, Snapshot};
use serde_json::{Map, Value, json};

use super::{Ask, Page, query::pairs};

pub(super) fn page(ask: &Ask<'_>) -> Page {
    let snapshot = ask.process.config.runtime.snapshot();
    let entries: Map<String, Value> = snapshot
        .entries
        .iter()
        .map(|(key, values)| {
            let shown = values.iter().map(|value| value.as_deref().unwrap_or(""));
            let entry = json!({
                "layer_values": shown.collect::<Vec<_>>(),
                "final_value": Snapshot::final_value(values).unwrap_or(""),
            });
            (key.to_string(), entry)
        })
        .collect();
    let layers: Vec<&str> = snapshot.layers.iter().map(|name| &**name).collect();
    Page::json(&json!({"layers": layers, "entries": entries}))
}

const USAGE: &str = "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN
       or send the parameters as form values
use an empty value to remove a previously added override";

pub(super) fn modify(ask: &Ask<'_>) -> Page {
    let mut changes: Vec<(String, String)> = pairs(ask.query).collect();
    if ask.content_type == "application/x-www-form-urlencoded" {
        changes.extend(pairs(&String::from_utf8_lossy(ask.body)));
    }
    changes.retain(|(key, _)| !key.is_empty());
    if changes.is_empty() {
        return Page::error(StatusCode::BAD_REQUEST, USAGE);
    }
    match ask.process.config.runtime.modify(&changes) {
        Ok(()) => {
            tracing::info!(?changes, "the runtime was modified");
            Page::text("OK\n")
        }
        Err(error @ NotModified::NoAdminLayer) => {
            Page::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Err(error @ NotModified::TooManyKeys) => {
            Page::error(StatusCode::BAD_REQUEST, error.to_string())
        }
    }
}
