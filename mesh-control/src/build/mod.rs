//! From a mesh to the resources of each service's sidecars.
//!
//! A sidecar gets two listeners at most. `inbound` sends what other sidecars send on to the application, the
//! cluster `app`. `outbound` takes what the application sends, finds the service by its `host`, and sends it
//! to the cluster of that name. What is the same for all sidecars is made once.

mod cluster;
mod listener;
mod route;
pub(crate) mod wire;

use std::{collections::BTreeMap, sync::Arc};

use mesh_config::language::{Document, Position};
use mesh_xds::{ResourceType, server::Entry};
use prost::Message;

use crate::mesh::{Endpoint, Mesh, Service};

/// The cluster of a sidecar's own application.
pub const APP: &str = "app";
/// The listener and routes of what comes in.
pub const INBOUND: &str = "inbound";
/// The listener and routes of what goes out.
pub const OUTBOUND: &str = "outbound";

/// A resource, and what it was made of. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its type.
    pub ty: ResourceType,
    /// Its name and bytes.
    pub entry: Entry,
    /// Where what it says was said.
    pub origin: Arc<Origin>,
}

/// The resources of each group of nodes.
pub type Groups = BTreeMap<String, Vec<Built>>;

/// Where a resource comes from, for errors.
#[derive(Debug)]
pub struct Origin {
    /// The document.
    pub document: Arc<Document>,
    /// Paths in the resource, and what they were made of in the document. The longest counts.
    places: Vec<(String, String)>,
}

impl Origin {
    /// Of something that stands at `path`.
    pub(crate) fn new(document: &Arc<Document>, path: &str) -> Self {
        Self {
            document: Arc::clone(document),
            places: vec![(String::new(), path.to_owned())],
        }
    }

    /// The field `field` of the resource, and all in it, stands at `path`.
    pub(crate) fn place(&mut self, field: impl Into<String>, path: &str) {
        self.places.push((field.into(), path.to_owned()));
    }

    /// Where the field of the resource was said: the path in the document, and its position.
    #[must_use]
    pub fn find(&self, field: &str) -> (String, Position) {
        let inside = |(known, _): &&(String, String)| {
            field.strip_prefix(known.as_str()).is_some_and(|rest| {
                known.is_empty() || rest.is_empty() || rest.starts_with(['.', '['])
            })
        };
        let place = self.places.iter().filter(inside);
        let (known, path) = place
            .max_by_key(|(known, _)| known.len())
            .map_or(("", ""), |(known, path)| (known.as_str(), path.as_str()));
        let rest = field.get(known.len()..).unwrap_or_default();
        let joined = match (path.is_empty(), rest.is_empty()) {
            (_, true) => path.to_owned(),
            (true, false) => rest.trim_start_matches('.').to_owned(),
            (false, false) if rest.starts_with(['.', '[']) => format!("{path}{rest}"),
            (false, false) => format!("{path}.{rest}"),
        };
        // What the document does not have is found at its nearest ancestor.
        let position = self.document.position(&joined);
        (joined, position)
    }
}

impl Built {
    pub(crate) fn new(
        ty: ResourceType,
        name: &str,
        message: &impl Message,
        origin: Origin,
    ) -> Self {
        Self {
            ty,
            entry: Entry::new(name, message.encode_to_vec()),
            origin: Arc::new(origin),
        }
    }
}

/// The resources of the mesh, by service. `discovered` endpoints come to those of the file; of two with the
/// same address the discovered one counts.
#[must_use]
pub fn groups(mesh: &Mesh, discovered: &BTreeMap<String, Vec<Endpoint>>) -> Groups {
    let none = Vec::new();
    let shared: Shared<'_> = mesh
        .services
        .values()
        .map(|service| {
            let more = discovered.get(&service.name).unwrap_or(&none);
            let endpoints = cluster::endpoints(mesh, service, more);
            let name = service.name.as_str();
            (name, [cluster::service(mesh, service, None), endpoints])
        })
        .collect();
    let groups = mesh.services.values().filter_map(|service| {
        let resources = of_sidecar(mesh, service, &shared)?;
        Some((service.name.clone(), resources))
    });
    groups.collect()
}

/// The cluster of each service, and its endpoints.
type Shared<'a> = BTreeMap<&'a str, [Built; 2]>;

fn of_sidecar(mesh: &Mesh, service: &Service, shared: &Shared<'_>) -> Option<Vec<Built>> {
    let sidecar = service.sidecar.as_ref()?;
    let mut resources = Vec::new();
    if let (Some(inbound), Some(app)) = (sidecar.inbound, sidecar.app) {
        resources.push(cluster::app(mesh, service, app));
        resources.push(listener::inbound(mesh, service, inbound));
    }
    if let Some(outbound) = sidecar.outbound {
        let called: Vec<&Service> = mesh.called_by(service).collect();
        let mut targets: Vec<&str> = called.iter().flat_map(|called| called.targets()).collect();
        targets.sort_unstable();
        targets.dedup();
        for [cluster, endpoints] in targets.iter().filter_map(|name| shared.get(name)) {
            let target = mesh.services.get(&*cluster.entry.name);
            resources.push(match target.filter(|_| mesh.mtls.is_some()) {
                // It presents the certificate of the caller.
                Some(target) => cluster::service(mesh, target, Some(service)),
                None => cluster.clone(),
            });
            resources.push(endpoints.clone());
        }
        resources.push(listener::outbound(mesh, service, outbound));
        resources.push(route::outbound(mesh, &called));
    }
    Some(resources)
}
