use http::StatusCode;
use mesh_xds::ResourceType;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::{Ask, Page, dynamic, fields};

const TYPE: &str = "type.googleapis.com/envoy.admin.v3.";

/// One kind of config: its list, and what an element of the list is.
struct Section {
    /// The dump that it stands in.
    dump: &'static str,
    /// The field of the dump, which `?resource=` names.
    list: &'static str,
    /// The element's type, behind the dump's.
    element: &'static str,
    /// The element's field with the config.
    field: &'static str,
    /// The type of the config.
    config: &'static str,
    /// The field that names it.
    name: &'static str,
}

const SECTIONS: [Section; 4] = [
    Section {
        dump: "ClustersConfigDump",
        list: "static_clusters",
        element: "StaticCluster",
        field: "cluster",
        config: "envoy.config.cluster.v3.Cluster",
        name: "name",
    },
    Section {
        dump: "EndpointsConfigDump",
        list: "static_endpoint_configs",
        element: "StaticEndpointConfig",
        field: "endpoint_config",
        config: "envoy.config.endpoint.v3.ClusterLoadAssignment",
        name: "cluster_name",
    },
    Section {
        dump: "ListenersConfigDump",
        list: "static_listeners",
        element: "StaticListener",
        field: "listener",
        config: "envoy.config.listener.v3.Listener",
        name: "name",
    },
    Section {
        dump: "RoutesConfigDump",
        list: "static_route_configs",
        element: "StaticRouteConfig",
        field: "route_config",
        config: "envoy.config.route.v3.RouteConfiguration",
        name: "name",
    },
];

/// Lists that stay empty.
const EMPTY: [&str; 2] = ["inline_scoped_route_configs", "static_secrets"];

pub(super) fn page(ask: &Ask<'_>) -> Page {
    dump(ask).unwrap_or_else(|(status, reason)| Page::error(status, reason))
}

type Refused = (StatusCode, String);

fn dump(ask: &Ask<'_>) -> Result<Page, Refused> {
    let given = |name| ask.parameter(name).filter(|value| !value.is_empty());
    let names = match given("name_regex") {
        None => None,
        Some(text) => Some(Regex::new(&text).map_err(|error| {
            let reason = format!("Error while parsing name_regex from {text}: {error}");
            (StatusCode::BAD_REQUEST, reason)
        })?),
    };
    let mask = given("mask");
    let paths: Vec<&str> = mask.iter().flat_map(|mask| mask.split(',')).collect();
    let endpoints = ask.parameter("include_eds").is_some();
    let configs = match given("resource") {
        Some(resource) => one_list(ask, &resource, names.as_ref(), &paths, endpoints)?,
        None => all(ask, names.as_ref(), &paths, endpoints)?,
    };
    Ok(Page::json(&if configs.is_empty() {
        json!({})
    } else {
        json!({ "configs": configs })
    }))
}

fn one_list(
    ask: &Ask<'_>,
    resource: &str,
    names: Option<&Regex>,
    paths: &[&str],
    endpoints: bool,
) -> Result<Vec<Value>, Refused> {
    if resource == "bootstrap" {
        let reason =
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field";
        return Err((StatusCode::BAD_REQUEST, reason.to_owned()));
    }
    let dynamic = dynamic::find(resource);
    if let Some(list) = dynamic.filter(|list| endpoints || list.dump != "EndpointsConfigDump") {
        let kind = format!("{TYPE}{}.{}", list.dump, list.element);
        let elements = list.elements(ask, |name| names.is_none_or(|names| names.is_match(name)));
        let masked = elements.into_iter().filter_map(|element| match paths {
            [] => Some(element),
            paths => fields::apply(&element, paths),
        });
        return Ok(masked.map(|element| typed(&kind, element)).collect());
    }
    let section = SECTIONS.iter().find(|section| section.list == resource);
    let section = section.filter(|section| endpoints || section.dump != "EndpointsConfigDump");
    let Some(section) = section else {
        if EMPTY.contains(&resource) || dynamic.is_some() {
            return Ok(Vec::new());
        }
        let reason = format!("{resource} not found in config dump");
        return Err((StatusCode::NOT_FOUND, reason));
    };
    let kind = format!("{TYPE}{}.{}", section.dump, section.element);
    let elements = section.elements(ask, names).into_iter();
    let masked = elements.filter_map(|element| match paths {
        [] => Some(element),
        paths => fields::apply(&element, paths),
    });
    Ok(masked.map(|element| typed(&kind, element)).collect())
}

fn all(
    ask: &Ask<'_>,
    names: Option<&Regex>,
    paths: &[&str],
    endpoints: bool,
) -> Result<Vec<Value>, Refused> {
    let version = &*ask.process.config.version;
    let bootstrap = json!({"bootstrap": &*ask.process.config.dump});
    let mut dumps = vec![("BootstrapConfigDump", bootstrap)];
    let sections = SECTIONS.iter();
    for section in sections.filter(|s| endpoints || s.dump != "EndpointsConfigDump") {
        if section.dump == "RoutesConfigDump" {
            dumps.push(("ScopedRoutesConfigDump", json!({})));
        }
        let mut dump = Map::new();
        let ty = match section.dump {
            "ClustersConfigDump" => Some(ResourceType::Cluster),
            "ListenersConfigDump" => Some(ResourceType::Listener),
            _ => None,
        };
        if let Some(ty) = ty {
            let came = ask.process.following.get();
            let came = came.map(|follower| follower.version(ty));
            let version = came.unwrap_or_else(|| version.to_owned());
            dump.insert("version_info".to_owned(), version.into());
        }
        let elements = section.elements(ask, names);
        if !elements.is_empty() {
            dump.insert(section.list.to_owned(), elements.into());
        }
        dump.extend(dynamic_lists(ask, section.dump, names));
        dumps.push((section.dump, Value::Object(dump)));
    }
    let secrets = dynamic_lists(ask, "SecretsConfigDump", names);
    dumps.push(("SecretsConfigDump", secrets.into()));
    let shown = dumps.into_iter().filter_map(|(name, dump)| {
        let dump = match paths {
            [] => dump,
            paths => fields::apply(&dump, paths)?,
        };
        Some(typed(&format!("{TYPE}{name}"), dump))
    });
    let shown: Vec<Value> = shown.collect();
    if shown.is_empty() {
        let mask = paths.join(",");
        let reason = format!("FieldMask {mask} could not be successfully applied to any configs.");
        return Err((StatusCode::BAD_REQUEST, reason));
    }
    Ok(shown)
}

/// The lists of a dump that came from a control plane, but for empty ones.
fn dynamic_lists(ask: &Ask<'_>, dump: &str, names: Option<&Regex>) -> Map<String, Value> {
    let matches = |name: &str| names.is_none_or(|names| names.is_match(name));
    let lists = dynamic::LISTS.iter().filter(|list| list.dump == dump);
    let lists = lists.map(|list| (list.field.to_owned(), list.elements(ask, matches)));
    let lists = lists.filter(|(_, elements)| !elements.is_empty());
    lists
        .map(|(field, elements)| (field, elements.into()))
        .collect()
}

impl Section {
    fn elements(&self, ask: &Ask<'_>, names: Option<&Regex>) -> Vec<Value> {
        let dump = &ask.process.config.dump;
        let list = |name: &str| {
            let list = dump.pointer(&format!("/static_resources/{name}"));
            list.and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice)
        };
        let configs: Vec<&Value> = match self.list {
            "static_clusters" => list("clusters").iter().collect(),
            "static_listeners" => list("listeners").iter().collect(),
            "static_endpoint_configs" => list("clusters")
                .iter()
                .filter_map(|cluster| cluster.get("load_assignment"))
                .collect(),
            _ => list("listeners").iter().flat_map(route_configs).collect(),
        };
        let named = configs.into_iter().filter(|config| {
            let name = config[self.name].as_str().unwrap_or_default();
            names.is_none_or(|names| names.is_match(name))
        });
        named
            .map(|config| {
                let kind = format!("type.googleapis.com/{}", self.config);
                json!({self.field: typed(&kind, config.clone())})
            })
            .collect()
    }
}

/// The routes that a listener carries itself.
fn route_configs(listener: &Value) -> Vec<&Value> {
    let chains = listener["filter_chains"].as_array();
    let chains = chains
        .into_iter()
        .flatten()
        .chain(listener.get("default_filter_chain"));
    let filters = chains
        .filter_map(|chain| chain["filters"].as_array())
        .flatten();
    filters
        .filter_map(|filter| filter.pointer("/typed_config/route_config"))
        .collect()
}

fn typed(kind: &str, value: Value) -> Value {
    let mut out = Map::new();
    out.insert("@type".to_owned(), kind.into());
    if let Value::Object(fields) = value {
        out.extend(fields);
    }
    Value::Object(out)
}
