mod domains;
mod entry;
mod index;
mod matching;

use std::{collections::HashSet, sync::Arc};

use mesh_core::format::{Captures, RequestView};

use crate::{
    NoRoute, RequireTls, RouteConfigError, RouteConfiguration, VirtualHost,
    action::{Action, ClusterSpecifier},
};

use self::domains::Domains;
use self::index::PathIndex;

pub use self::entry::{RouteEntry, VirtualHostEntry};

use self::entry::Shared;

/// All routes of a listener, indexed: who gets this request?
///
/// Immutable and shared; a new configuration is a new table. `P` is whatever else belongs to a route, and
/// is never looked at.
///
/// A look-up hashes the host, walks a tree along the path, and tests only routes whose literal part is
/// on that way, in the order of the configuration. It allocates nothing, matchers aside that join several
/// values of a header or look for a text in either case.
#[derive(Debug)]
pub struct RouteTable<P> {
    domains: Domains,
    hosts: Box<[Host<P>]>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Host<P> {
    entry: Arc<VirtualHostEntry>,
    routes: Box<[Arc<RouteEntry<P>>]>,
    index: PathIndex,
}

/// What was found for a request.
#[derive(Debug)]
pub enum Found<'a, P> {
    /// A route.
    Route(&'a Arc<RouteEntry<P>>),
    /// The virtual host demands TLS: [`VirtualHostEntry::tls_redirect`] is the answer.
    TlsRequired(&'a Arc<VirtualHostEntry>),
}

impl<P> RouteTable<P> {
    /// Checks and indexes a configuration. Response headers that quote request headers have these
    /// captured: `captures` learns which.
    ///
    /// # Errors
    /// When two virtual hosts share a name or a domain, or a domain makes no sense.
    pub fn new(
        mut config: RouteConfiguration<P>,
        captures: &mut Captures,
    ) -> Result<Self, RouteConfigError> {
        let mut domains = Domains::default();
        let mut names = HashSet::new();
        for (i, host) in config.virtual_hosts.iter().enumerate() {
            let place = || format!("virtual host {:?}", host.name);
            if !names.insert(Arc::clone(&host.name)) {
                return Err(RouteConfigError::new("name is not unique").within(place()));
            }
            if host.domains.is_empty() {
                return Err(RouteConfigError::new("domains must not be empty").within(place()));
            }
            for domain in &host.domains {
                domains
                    .insert(domain, i)
                    .map_err(|error| error.within(place()))?;
            }
        }
        config.mutations.bind(captures);
        let shared = Arc::new(Shared::new(&config));
        let hosts = config
            .virtual_hosts
            .into_iter()
            .map(|host| Host::new(host, &shared, captures))
            .collect();
        Ok(Self {
            domains,
            hosts,
            shared,
        })
    }

    /// The route of `request`. `random` is the request's random number, which fractions are drawn with.
    ///
    /// # Errors
    /// When no virtual host or no route matches.
    pub fn find(&self, request: &RequestView<'_>, random: u64) -> Result<Found<'_, P>, NoRoute> {
        let host = self.host(request).ok_or(NoRoute::VirtualHost)?;
        if host.entry.demands_tls(request) {
            return Ok(Found::TlsRequired(&host.entry));
        }
        let path = self.shared.path_to_match(request.path);
        let mut candidates = host.index.candidates(path);
        while let Some(candidate) = candidates.next() {
            let route = &host.routes[candidate as usize];
            if route.matches().accepts(request, path, random) {
                return Ok(Found::Route(route));
            }
        }
        Err(NoRoute::Route)
    }

    /// The configuration's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// Every route, host by host, in order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteEntry<P>>> {
        self.hosts.iter().flat_map(|host| host.routes.iter())
    }

    /// Every cluster that the configuration names, with the route that does.
    pub fn clusters(&self) -> impl Iterator<Item = (&str, &Arc<RouteEntry<P>>)> {
        self.routes().flat_map(|route| {
            let names = match route.action() {
                Action::Route(action) => Some(action.cluster.names()),
                _ => None,
            };
            names.into_iter().flatten().map(move |name| (name, route))
        })
    }

    fn host(&self, request: &RequestView<'_>) -> Option<&Host<P>> {
        let host = match &self.shared.vhost_header {
            Some(name) => request.headers.get(name)?.as_bytes(),
            None => request.authority.unwrap_or_default(),
        };
        let index = self
            .domains
            .find(host, self.shared.ignore_port_in_host_matching)?;
        self.hosts.get(index)
    }
}

impl<P> Host<P> {
    fn new(mut host: VirtualHost<P>, shared: &Arc<Shared>, captures: &mut Captures) -> Self {
        host.mutations.bind(captures);
        let routes = std::mem::take(&mut host.routes);
        let entry = Arc::new(VirtualHostEntry::new(host, Arc::clone(shared)));
        let index = PathIndex::new(routes.iter().map(|route| &route.matches));
        let routes = routes.into_iter().enumerate().map(|(position, mut route)| {
            route.mutations.bind(captures);
            if let Action::Route(action) = &mut route.action
                && let ClusterSpecifier::WeightedClusters(clusters) = &mut action.cluster
            {
                for cluster in clusters.clusters_mut() {
                    cluster.mutations.bind(captures);
                }
            }
            Arc::new(RouteEntry::new(route, position, Arc::clone(&entry)))
        });
        Self {
            routes: routes.collect(),
            entry,
            index,
        }
    }
}

impl VirtualHostEntry {
    fn demands_tls(&self, request: &RequestView<'_>) -> bool {
        let internal = || {
            let header = request.headers.get("x-envoy-internal");
            header.is_some_and(|value| value == "true")
        };
        match self.require_tls() {
            RequireTls::None => false,
            RequireTls::ExternalOnly => request.scheme != "https" && !internal(),
            RequireTls::All => request.scheme != "https",
        }
    }
}
