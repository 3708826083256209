//! CSDS: where a client's resources stand, as a message.

use std::time::{Instant, SystemTime};

use envoy_types::pb::{
    envoy::{
        admin::v3::{ClientResourceStatus, UpdateFailureState},
        service::status::v3::{ClientConfig, client_config::GenericXdsConfig},
    },
    google::protobuf::Any,
};

use crate::wire::{Node, timestamp};

use super::{ClientStatus, ResourceStatus};

/// What a client with that node has to say. The bytes of `rows` are told as they are: whoever must not know
/// secrets gets rows without them. `now` is the same moment on both clocks.
#[must_use]
pub fn client_config(
    node: Node,
    rows: &[ResourceStatus],
    now: (Instant, SystemTime),
) -> ClientConfig {
    ClientConfig {
        node: Some(node),
        generic_xds_configs: rows.iter().map(|row| generic(row, now)).collect(),
        ..ClientConfig::default()
    }
}

fn generic(row: &ResourceStatus, (now, wall): (Instant, SystemTime)) -> GenericXdsConfig {
    let when = |at: Instant| {
        let ago = now.saturating_duration_since(at);
        wall.checked_sub(ago).map(timestamp)
    };
    let status = match row.status {
        ClientStatus::Requested => ClientResourceStatus::Requested,
        ClientStatus::DoesNotExist => ClientResourceStatus::DoesNotExist,
        ClientStatus::Acked => ClientResourceStatus::Acked,
        ClientStatus::Nacked => ClientResourceStatus::Nacked,
        ClientStatus::Timeout => ClientResourceStatus::Timeout,
    };
    let type_url = row.ty.type_url();
    let contents = (!row.body.is_empty()).then(|| Any {
        type_url: type_url.to_owned(),
        value: row.body.to_vec(),
    });
    GenericXdsConfig {
        type_url: type_url.to_owned(),
        name: row.name.clone(),
        version_info: row.version.clone(),
        xds_config: contents,
        last_updated: row.last_updated.and_then(when),
        client_status: status as i32,
        error_state: row.error.as_ref().map(|error| UpdateFailureState {
            failed_configuration: None,
            last_update_attempt: when(error.at),
            details: error.details.to_string(),
            version_info: error.version.clone(),
        }),
        ..GenericXdsConfig::default()
    }
}
