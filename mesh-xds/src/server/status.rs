//! CSDS: what is known of the clients, as a message.

use std::time::{Instant, SystemTime};

use envoy_types::pb::{
    envoy::{
        admin::v3::{ClientResourceStatus, UpdateFailureState},
        service::status::v3::{
            ClientConfig, ConfigStatus as Wire, client_config::GenericXdsConfig,
        },
    },
    google::protobuf::Any,
};

use crate::{Variant, wire::timestamp};

use super::{ClientReport, ConfigStatus, Row, SnapshotCache};

/// The configs of all clients, or of those with this node id. `contents` adds the resources themselves.
pub(crate) fn client_configs(
    cache: &SnapshotCache,
    node_id: Option<&str>,
    contents: bool,
    now: (Instant, SystemTime),
) -> Vec<ClientConfig> {
    let reports = cache.clients().into_iter();
    let wanted = reports.filter(|report| node_id.is_none_or(|id| report.node.id == id));
    wanted
        .map(|report| client_config(cache, &report, contents, now))
        .collect()
}

fn client_config(
    cache: &SnapshotCache,
    report: &ClientReport,
    contents: bool,
    now: (Instant, SystemTime),
) -> ClientConfig {
    let row = |row: &Row| {
        let mut config = generic(row, now);
        if contents
            && let Some(snapshot) = cache.snapshot(&report.group)
            && let Some(entry) = snapshot.set(row.ty).get(&row.name)
        {
            config.xds_config = Some(Any {
                type_url: row.ty.type_url().to_owned(),
                value: entry.body.to_vec(),
            });
        }
        config
    };
    ClientConfig {
        node: Some((*report.node).clone()),
        generic_xds_configs: report.rows.iter().map(row).collect(),
        client_scope: match report.variant {
            Variant::StateOfTheWorld => "sotw".to_owned(),
            Variant::Delta => "delta".to_owned(),
        },
        ..ClientConfig::default()
    }
}

fn generic(row: &Row, (now, wall): (Instant, SystemTime)) -> GenericXdsConfig {
    let (config_status, client_status) = match row.status {
        ConfigStatus::Synced => (Wire::Synced, ClientResourceStatus::Acked),
        ConfigStatus::NotSent => (Wire::NotSent, ClientResourceStatus::Unknown),
        ConfigStatus::Stale => (Wire::Stale, ClientResourceStatus::Requested),
        ConfigStatus::Error => (Wire::Error, ClientResourceStatus::Nacked),
    };
    let error_state = row.error.as_ref().map(|(version, details, at)| {
        let when = wall.checked_sub(now.saturating_duration_since(*at));
        UpdateFailureState {
            failed_configuration: None,
            last_update_attempt: when.map(timestamp),
            details: details.clone(),
            version_info: version.to_string(),
        }
    });
    GenericXdsConfig {
        type_url: row.ty.type_url().to_owned(),
        name: row.name.to_string(),
        version_info: row.version.to_string(),
        config_status: config_status as i32,
        client_status: client_status as i32,
        error_state,
        ..GenericXdsConfig::default()
    }
}
