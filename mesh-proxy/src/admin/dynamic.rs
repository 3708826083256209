//! The parts of `/config_dump` that came from a control plane.

use std::collections::BTreeSet;

use mesh_core::{clock, format::rfc3339};
use mesh_xds::{ClientStatus, ErrorState, ResourceStatus, ResourceType, warming::Key};
use serde_json::{Map, Value, json};

use super::Ask;

/// A list of a dump.
pub(super) struct List {
    /// The dump that it stands in.
    pub(super) dump: &'static str,
    /// Its field there, which `?resource=` names.
    pub(super) field: &'static str,
    /// What an element is, behind the dump's type.
    pub(super) element: &'static str,
    ty: ResourceType,
    /// The element's field with the config.
    config: &'static str,
    /// It shows what waits, rather than what is in use.
    warming: bool,
}

const fn list(
    dump: &'static str,
    field: &'static str,
    element: &'static str,
    ty: ResourceType,
    config: &'static str,
    warming: bool,
) -> List {
    List {
        dump,
        field,
        element,
        ty,
        config,
        warming,
    }
}

pub(super) const LISTS: [List; 7] = {
    use ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration, Secret};
    [
        list(
            "ClustersConfigDump",
            "dynamic_active_clusters",
            "DynamicCluster",
            Cluster,
            "cluster",
            false,
        ),
        list(
            "ClustersConfigDump",
            "dynamic_warming_clusters",
            "DynamicCluster",
            Cluster,
            "cluster",
            true,
        ),
        list(
            "EndpointsConfigDump",
            "dynamic_endpoint_configs",
            "DynamicEndpointConfig",
            Endpoints,
            "endpoint_config",
            false,
        ),
        list(
            "ListenersConfigDump",
            "dynamic_listeners",
            "DynamicListener",
            Listener,
            "listener",
            false,
        ),
        list(
            "RoutesConfigDump",
            "dynamic_route_configs",
            "DynamicRouteConfig",
            RouteConfiguration,
            "route_config",
            false,
        ),
        list(
            "SecretsConfigDump",
            "dynamic_active_secrets",
            "DynamicSecret",
            Secret,
            "secret",
            false,
        ),
        list(
            "SecretsConfigDump",
            "dynamic_warming_secrets",
            "DynamicSecret",
            Secret,
            "secret",
            true,
        ),
    ]
};

/// The list of that name.
pub(super) fn find(field: &str) -> Option<&'static List> {
    LISTS.iter().find(|list| list.field == field)
}

impl List {
    pub(super) fn elements(&self, ask: &Ask<'_>, matches: impl Fn(&str) -> bool) -> Vec<Value> {
        let Some(follower) = ask.process.following.get() else {
            return Vec::new();
        };
        let waiting = follower.waiting().into_iter();
        let warming: BTreeSet<Key> = waiting
            .filter(|one| one.key.0 == self.ty)
            .map(|one| one.key)
            .collect();
        let rows = ask.statuses.iter().filter(|row| row.ty == self.ty);
        let rows = rows.filter(|row| matches(&row.name));
        let mut elements = Vec::new();
        for row in rows {
            let waits = warming.contains(&(row.ty, row.name.clone()));
            // A listener has one element, with both of its states.
            if self.ty != ResourceType::Listener && waits != self.warming {
                continue;
            }
            elements.push(self.element(ask, row, waits));
        }
        elements
    }

    fn element(&self, ask: &Ask<'_>, row: &ResourceStatus, waits: bool) -> Value {
        let mut element = Map::new();
        let mut state = Map::new();
        if !row.body.is_empty() {
            state.insert("version_info".to_owned(), row.version.as_str().into());
            let follower = ask.process.following.get();
            let config = follower.and_then(|follower| follower.dump(row.ty, &row.body));
            let mut typed = json!({"@type": row.ty.type_url()});
            if let (Some(typed), Some(Value::Object(config))) = (typed.as_object_mut(), config) {
                typed.extend(config);
            }
            state.insert(self.config.to_owned(), typed);
            if let Some(at) = row.last_updated {
                state.insert("last_updated".to_owned(), wall(at).into());
            }
        }
        match self.ty {
            ResourceType::Listener => {
                element.insert("name".to_owned(), row.name.as_str().into());
                let name = if waits {
                    "warming_state"
                } else {
                    "active_state"
                };
                if !state.is_empty() {
                    element.insert(name.to_owned(), state.into());
                }
            }
            ResourceType::Secret => {
                element.insert("name".to_owned(), row.name.as_str().into());
                element.extend(state);
            }
            _ => element.extend(state),
        }
        if let Some(error) = &row.error {
            element.insert("error_state".to_owned(), error_state(error));
        }
        element.insert("client_status".to_owned(), client_status(row.status).into());
        element.into()
    }
}

fn wall(at: std::time::Instant) -> String {
    let ago = clock::now().saturating_duration_since(at);
    rfc3339(
        clock::wall()
            .checked_sub(ago)
            .unwrap_or(std::time::UNIX_EPOCH),
    )
}

fn error_state(error: &ErrorState) -> Value {
    json!({
        "last_update_attempt": wall(error.at),
        "details": error.details.to_string(),
        "version_info": error.version,
    })
}

const fn client_status(status: ClientStatus) -> &'static str {
    match status {
        ClientStatus::Requested => "REQUESTED",
        ClientStatus::DoesNotExist => "DOES_NOT_EXIST",
        ClientStatus::Acked => "ACKED",
        ClientStatus::Nacked => "NACKED",
        ClientStatus::Timeout => "TIMEOUT",
    }
}
