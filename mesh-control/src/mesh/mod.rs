//! What a mesh is: services, where they run, how requests reach them.

mod endpoint;
mod policy;
mod read;
mod sidecar;

use std::{collections::BTreeMap, fmt, sync::Arc};

use envoy_types::pb::envoy::config::route::v3::{RouteAction, RouteMatch};
use mesh_config::language::{ConfigError, Document, Source};

pub use endpoint::{Endpoint, Health};
pub use policy::{Placed, Policies};
pub use sidecar::{Mtls, Sidecar};

pub(crate) use read::is_name;

/// The services of a mesh file, checked as far as they can be before resources are made of them.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// By name.
    pub services: BTreeMap<String, Service>,
    /// How sidecars prove to each other who they are, if they do.
    pub mtls: Option<Mtls>,
    /// Where all this stands, for errors.
    pub document: Arc<Document>,
}

/// One service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, under which others call it.
    pub name: String,
    /// Where it stands in the mesh file.
    pub path: String,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// More names that requests may have in `host`.
    pub hosts: Vec<String>,
    /// Where requests to it go.
    pub endpoints: Vec<Endpoint>,
    /// What its own sidecars do; without one, it only is called.
    pub sidecar: Option<Sidecar>,
    /// The services that it calls; all when `None`.
    pub calls: Option<Vec<String>>,
    /// In order; what none of them matches goes to the service itself.
    pub routes: Vec<Route>,
    /// How it is called.
    pub policies: Policies,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 with prior knowledge, gRPC too.
    Http2,
}

/// Requests that match go to one service, or to several by weight.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where it stands in the mesh file.
    pub path: String,
    /// Envoy's match; everything when the file has none.
    pub matches: RouteMatch,
    /// Services and their weights; never empty.
    pub to: Vec<(String, u32)>,
    /// Envoy's other fields of the route: timeouts, retries, rewrites, mirrors.
    pub action: Box<RouteAction>,
}

impl Mesh {
    /// Reads a mesh file.
    ///
    /// # Errors
    /// With the line, path and reason of everything that is wrong.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        read::mesh(source)
    }

    /// The services that `service` calls, itself among them.
    pub fn called_by<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Service> {
        self.services.values().filter(move |other| {
            let calls = service.calls.as_ref();
            calls.is_none_or(|calls| calls.contains(&other.name))
        })
    }
}

impl Service {
    /// The services that requests to this one may end at, by its routes.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        let routed = self.routes.iter().flat_map(|route| &route.to);
        let routed = routed.map(|(name, _)| name.as_str());
        std::iter::once(self.name.as_str()).chain(routed)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Http2 => "http2",
        })
    }
}
