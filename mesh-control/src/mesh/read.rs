//! From a document to a mesh.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::envoy::config::route::v3::{
    RouteAction, RouteMatch, route_match::PathSpecifier,
};
use mesh_config::language::{ConfigError, Document, Fields, Language, Part, Problems, Source};

use super::{
    Endpoint, Mesh, Mtls, Policies, Protocol, Route, Service, Sidecar,
    endpoint::{number, one_of, words},
};

/// The most services of a mesh file; more are refused. Each of their sidecars learns of all of them.
const SERVICES_MAX: usize = 10_000;
/// The longest name of a service.
const NAME_MAX: usize = 63;
/// The largest weight of a service in a route.
const WEIGHT_MAX: u32 = 1_000_000;

/// What a route says itself; all else is Envoy's.
const ROUTE_FIELDS: [&str; 5] = ["match", "prefix", "path", "to", "headers"];

/// Messages of Envoy's that may stand in a mesh file, and what may be inside of them.
const MESSAGES: [&str; 9] = [
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.core.v3.HealthCheck",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "envoy.type.v3.TokenBucket",
    "google.protobuf.Any",
    "google.protobuf.Duration",
];

const PROTOCOLS: [(&str, Protocol); 3] = [
    ("http", Protocol::Http),
    ("http2", Protocol::Http2),
    ("grpc", Protocol::Http2),
];

pub(super) fn mesh(source: &Source) -> Result<Mesh, ConfigError> {
    let document = Arc::new(Document::read(source, Language::reaching(MESSAGES))?);
    let mut problems = Problems::new();
    let mut mesh = Mesh {
        services: BTreeMap::new(),
        mtls: None,
        document: Arc::clone(&document),
    };
    if let Some(mut top) = document.root().fields(&mut problems) {
        let defaults = top.take("defaults");
        let mut defaults = defaults.and_then(|part| part.fields(&mut problems));
        let policies = defaults
            .as_mut()
            .map(|fields| Policies::take(fields, &Policies::default(), &mut problems));
        if let Some(fields) = defaults {
            fields.finish(&mut problems);
        }
        mesh.mtls = top
            .take("mtls")
            .and_then(|part| Mtls::read(&part, &mut problems));
        match top.take("services") {
            Some(part) => services(
                &part,
                &policies.unwrap_or_default(),
                &mut mesh,
                &mut problems,
            ),
            None => document
                .root()
                .invalid(&mut problems, "there are no services"),
        }
        top.finish(&mut problems);
    }
    across(&mesh, &mut problems);
    document.check(problems)?;
    Ok(mesh)
}

fn services(part: &Part<'_>, defaults: &Policies, mesh: &mut Mesh, problems: &mut Problems) {
    let entries = part.entries(problems).unwrap_or_default();
    if entries.len() > SERVICES_MAX {
        part.invalid(problems, format!("more than {SERVICES_MAX} services"));
        return;
    }
    for (name, part) in entries {
        if !is_name(name) {
            let reason = format!(
                "{name:?} cannot be a service's name: up to {NAME_MAX} letters, digits, '-', '_' and '.'"
            );
            part.invalid(problems, reason);
            continue;
        }
        if let Some(service) = service(name, &part, defaults, problems) {
            mesh.services.insert(name.to_owned(), service);
        }
    }
}

/// Whether it can be a service's name, which is a host name and a part of stats' names.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain)
}

fn service(
    name: &str,
    part: &Part<'_>,
    defaults: &Policies,
    problems: &mut Problems,
) -> Option<Service> {
    let mut fields = part.fields(problems)?;
    let protocol = fields.take("protocol");
    let protocol = protocol.and_then(|part| one_of(&part, &PROTOCOLS, problems));
    let texts = |fields: &mut Fields<'_>, name, problems: &mut Problems| {
        let items = fields.take(name)?.items().into_iter();
        Some(items.map(|item| words(&item, problems)).collect())
    };
    let hosts = texts(&mut fields, "hosts", problems).unwrap_or_default();
    let calls = texts(&mut fields, "calls", problems);
    let sidecar = fields.take("sidecar");
    let service = Service {
        name: name.to_owned(),
        path: part.path().to_owned(),
        protocol: protocol.unwrap_or_default(),
        hosts,
        endpoints: endpoints(&mut fields, problems),
        sidecar: sidecar.and_then(|part| Sidecar::read(&part, problems)),
        calls,
        routes: routes(&mut fields, problems),
        policies: Policies::take(&mut fields, defaults, problems),
    };
    fields.finish(problems);
    Some(service)
}

fn endpoints(fields: &mut Fields<'_>, problems: &mut Problems) -> Vec<Endpoint> {
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::new();
    let parts = fields.take("endpoints").map(|part| part.items());
    for part in parts.unwrap_or_default() {
        let Some(endpoint) = Endpoint::read(&part, problems) else {
            continue;
        };
        if !seen.insert(endpoint.address) {
            part.invalid(problems, format!("{} is there already", endpoint.address));
        }
        endpoints.push(endpoint);
    }
    endpoints
}

fn routes(fields: &mut Fields<'_>, problems: &mut Problems) -> Vec<Route> {
    let parts = fields.take("routes").map(|part| part.items());
    let parts = parts.unwrap_or_default().into_iter();
    parts.filter_map(|part| route(&part, problems)).collect()
}

fn route(part: &Part<'_>, problems: &mut Problems) -> Option<Route> {
    let mut fields = part.fields(problems)?;
    let matches = matches(&mut fields, part, problems);
    let to = fields.take("to");
    let to = match to {
        Some(to) => weights(&to, problems),
        None => {
            part.invalid(problems, "`to` is missing: the service that requests go to");
            Vec::new()
        }
    };
    // What is left is Envoy's; its own reader names what is not.
    let action =
        part.decode_fields("envoy.config.route.v3.RouteAction", &ROUTE_FIELDS, problems)?;
    let action: RouteAction = action;
    if action.cluster_specifier.is_some() {
        part.invalid(
            problems,
            "`to` says where requests go; a cluster cannot be set",
        );
    }
    (!to.is_empty()).then(|| Route {
        path: part.path().to_owned(),
        matches,
        to,
        action: Box::new(action),
    })
}

/// `match` as Envoy has it, or `prefix` or `path` and `headers` of it.
fn matches(fields: &mut Fields<'_>, part: &Part<'_>, problems: &mut Problems) -> RouteMatch {
    let everything = PathSpecifier::Prefix("/".to_owned());
    let whole = fields.take("match");
    let mut matches: RouteMatch = match &whole {
        Some(whole) => whole
            .decode("envoy.config.route.v3.RouteMatch", problems)
            .unwrap_or_default(),
        None => RouteMatch::default(),
    };
    let mut short = 0;
    if let Some(prefix) = fields.take("prefix") {
        matches.path_specifier = Some(PathSpecifier::Prefix(words(&prefix, problems)));
        short += 1;
    }
    if let Some(path) = fields.take("path") {
        matches.path_specifier = Some(PathSpecifier::Path(words(&path, problems)));
        short += 1;
    }
    if let Some(headers) = fields.take("headers") {
        let name = "envoy.config.route.v3.HeaderMatcher";
        let headers = headers.items().into_iter();
        matches.headers = headers
            .filter_map(|header| header.decode(name, problems))
            .collect();
    }
    if short > 1 || (short > 0 && whole.is_some()) {
        part.invalid(problems, "only one of match, prefix and path can be set");
    }
    matches.path_specifier.get_or_insert(everything);
    matches
}

/// `users`, or `{users: 95, users-v2: 5}`.
fn weights(part: &Part<'_>, problems: &mut Problems) -> Vec<(String, u32)> {
    if let Some(name) = part.text() {
        return vec![(name.to_owned(), 1)];
    }
    let entries = part.entries(problems).unwrap_or_default().into_iter();
    let to: Vec<(String, u32)> = entries
        .filter_map(|(name, weight)| {
            Some((name.to_owned(), number(&weight, 0..=WEIGHT_MAX, problems)?))
        })
        .collect();
    if to.iter().all(|(_, weight)| *weight == 0) {
        part.invalid(problems, "no service has a weight");
    }
    to
}

/// What one service says about others.
fn across(mesh: &Mesh, problems: &mut Problems) {
    let known = |name: &str| mesh.services.contains_key(name);
    let mut hosts = BTreeMap::new();
    for service in mesh.services.values() {
        for route in &service.routes {
            for (name, _) in route.to.iter().filter(|(name, _)| !known(name)) {
                let reason = format!("there is no service {name:?}");
                problems.invalid(format!("{}.to", route.path), reason);
            }
        }
        for name in service.calls.iter().flatten().filter(|name| !known(name)) {
            let reason = format!("there is no service {name:?}");
            problems.invalid(format!("{}.calls", service.path), reason);
        }
        for host in service.hosts.iter().chain([&service.name]) {
            if let Some(other) = hosts.insert(host.to_ascii_lowercase(), &service.name) {
                let reason = format!("the host {host:?} is that of {other} too");
                problems.invalid(format!("{}.hosts", service.path), reason);
            }
        }
    }
}
