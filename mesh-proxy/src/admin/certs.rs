//! `/certs`: the certificates in use.

use std::time::Duration;

use mesh_client::SocketSecrets;
use mesh_core::{clock, format::rfc3339};
use mesh_tls::{Certificate, San, Trust};
use serde_json::{Value, json};

use super::{Ask, Page};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// One entry for each transport socket, of listeners and then of clusters.
pub(super) fn page(ask: &Ask<'_>) -> Page {
    let mut all: Vec<Value> = ask.process.listeners.secrets().iter().map(entry).collect();
    for cluster in ask.process.mesh.clusters().list() {
        all.extend(cluster.secrets().map(entry));
    }
    Page::json(&json!({ "certificates": all }))
}

fn entry(secrets: &SocketSecrets) -> Value {
    let validation = secrets
        .validation
        .as_ref()
        .and_then(|secret| secret.current());
    let trusted = match validation.as_ref().map(|validation| validation.trust()) {
        Some(Trust::Bundle(bundle)) => vec![bundle],
        Some(Trust::Spiffe(bundles)) => bundles.iter().map(|(_, bundle)| bundle).collect(),
        Some(Trust::DangerousAnyone) | None => Vec::new(),
    };
    let ca: Vec<Value> = trusted
        .into_iter()
        .flat_map(|bundle| {
            let path = bundle.path();
            bundle.certificates().map(move |one| details(one, path))
        })
        .collect();
    let identities = secrets
        .identities
        .iter()
        .filter_map(|secret| secret.current());
    // Envoy shows the leaf alone.
    let chain: Vec<Value> = identities
        .map(|identity| details(identity.leaf(), identity.path()))
        .collect();
    json!({ "ca_cert": ca, "cert_chain": chain })
}

fn details(one: &Certificate, path: Option<&std::path::Path>) -> Value {
    let validity = one.validity();
    let days = validity.left(clock::wall()).as_secs() / DAY.as_secs();
    let path = path.map_or_else(|| "<inline>".to_owned(), |path| path.display().to_string());
    json!({
        "path": path,
        "serial_number": one.serial(),
        "subject_alt_names": one.sans().iter().map(name).collect::<Vec<_>>(),
        "days_until_expiration": days.to_string(),
        "valid_from": seconds(&rfc3339(validity.not_before)),
        "expiration_time": seconds(&rfc3339(validity.not_after)),
    })
}

fn name(san: &San) -> Value {
    match san {
        San::Uri(uri) => json!({ "uri": uri }),
        San::Dns(name) => json!({ "dns": name }),
        San::Ip(address) => json!({ "ip_address": address.to_string() }),
        other => json!({ "dns": other.text() }),
    }
}

/// Certificates know whole seconds only.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}
