use std::{sync::Arc, time::Instant};

use http::{HeaderName, HeaderValue, header, request, response};
use mesh_core::{
    Facts, LocalReply, RequestInfo,
    format::{FormatContext, RequestView},
};

use crate::{
    HeaderMutation, HeaderMutations, InvalidRewrite, RequireTls, Route, RouteConfiguration,
    RouteMatch, VirtualHost, WeightedCluster,
    action::{Action, HostRewrite, rewrite_host, rewrite_path, split_path, tls_redirect},
    inline,
    mutation::{self, Inline},
};

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// What all routes of a configuration have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) mutations: HeaderMutations,
    pub(super) most_specific_wins: bool,
    pub(super) ignore_port_in_host_matching: bool,
    pub(super) ignore_path_parameters: bool,
    pub(super) vhost_header: Option<HeaderName>,
}

impl Shared {
    pub(super) fn new<P>(config: &RouteConfiguration<P>) -> Self {
        Self {
            name: Arc::clone(&config.name),
            mutations: config.mutations.clone(),
            most_specific_wins: config.most_specific_header_mutations_wins,
            ignore_port_in_host_matching: config.ignore_port_in_host_matching,
            ignore_path_parameters: config.ignore_path_parameters_in_path_matching,
            vhost_header: config.vhost_header.clone(),
        }
    }

    /// What routes compare: the path without query, fragment and, if asked for, parameters.
    pub(super) fn path_to_match<'a>(&self, path_and_query: &'a str) -> &'a str {
        let (path, _) = split_path(path_and_query);
        match path.find(';') {
            Some(end) if self.ignore_path_parameters => &path[..end],
            _ => path,
        }
    }
}

/// A virtual host in a table.
#[derive(Debug)]
pub struct VirtualHostEntry {
    name: Arc<str>,
    require_tls: RequireTls,
    mutations: HeaderMutations,
    include_request_attempt_count: bool,
    include_attempt_count_in_response: bool,
    shared: Arc<Shared>,
}

impl VirtualHostEntry {
    pub(super) fn new<P>(host: VirtualHost<P>, shared: Arc<Shared>) -> Self {
        Self {
            name: host.name,
            require_tls: host.require_tls,
            mutations: host.mutations,
            include_request_attempt_count: host.include_request_attempt_count,
            include_attempt_count_in_response: host.include_attempt_count_in_response,
            shared,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Who must come over TLS.
    #[must_use]
    pub fn require_tls(&self) -> RequireTls {
        self.require_tls
    }

    /// Whether upstreams are told the attempt's number.
    #[must_use]
    pub fn include_request_attempt_count(&self) -> bool {
        self.include_request_attempt_count
    }

    /// Whether clients are told the number of attempts.
    #[must_use]
    pub fn include_attempt_count_in_response(&self) -> bool {
        self.include_attempt_count_in_response
    }

    /// The name of the route configuration it belongs to.
    #[must_use]
    pub fn route_configuration(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// The answer to a request that should have come over TLS: 301 to `https`.
    #[must_use]
    pub fn tls_redirect(&self, request: &RequestView<'_>) -> LocalReply {
        tls_redirect(request)
    }
}

/// A route in a table: what [`RouteTable::find`](crate::RouteTable::find) finds, and all it takes to act
/// on it. Made to be kept in a `RequestInfo`.
#[derive(Debug)]
pub struct RouteEntry<P> {
    route: Route<P>,
    position: usize,
    host: Arc<VirtualHostEntry>,
}

impl<P> RouteEntry<P> {
    pub(super) fn new(route: Route<P>, position: usize, host: Arc<VirtualHostEntry>) -> Self {
        Self {
            route,
            position,
            host,
        }
    }

    /// Its name; may be empty.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.route.name
    }

    /// Its place among the routes of its virtual host, from 0.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// What it matches.
    #[must_use]
    pub fn matches(&self) -> &RouteMatch {
        &self.route.matches
    }

    /// What it does.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.route.action
    }

    /// What else belongs to it.
    #[must_use]
    pub fn policy(&self) -> &Arc<P> {
        &self.route.policy
    }

    /// The virtual host it belongs to.
    #[must_use]
    pub fn virtual_host(&self) -> &Arc<VirtualHostEntry> {
        &self.host
    }

    /// The answer, if the route itself gives one: a redirect or a direct response.
    #[must_use]
    pub fn local_reply(&self, request: &RequestView<'_>) -> Option<LocalReply> {
        match &self.route.action {
            Action::Redirect(redirect) => Some(redirect.reply(&self.route.matches, request)),
            Action::DirectResponse(response) => Some(response.reply(request)),
            Action::Route(_) | Action::NonForwarding => None,
        }
    }

    /// Removes and adds request headers, all levels in their order. `cluster` is the weighted cluster
    /// that was picked, if any. To be done before [`RouteEntry::rewrite`]; captures are taken after it, and
    /// again only if one of the two says that the request may have changed.
    pub fn mutate_request(
        &self,
        cluster: Option<&WeightedCluster>,
        parts: &mut request::Parts,
        info: &RequestInfo,
    ) -> bool {
        let levels = self.levels(cluster, |level| &level.request);
        if levels.iter().all(|level| level.is_empty()) {
            return false;
        }
        info.with(|facts| {
            for level in levels {
                level.apply_to_request_with(parts, info, facts);
            }
        });
        true
    }

    /// Removes and adds response headers, all levels in their order. Templates that quote the request
    /// read what was captured of it; `now` is the end of `%DURATION%`.
    pub fn mutate_response(
        &self,
        cluster: Option<&WeightedCluster>,
        parts: &mut response::Parts,
        info: &RequestInfo,
        now: Instant,
    ) {
        let levels = self.levels(cluster, |level| &level.response);
        if levels.iter().all(|level| level.is_empty()) {
            return;
        }
        info.with(|facts: &mut Facts| {
            for level in levels {
                level.remove_from(&mut parts.headers);
                let context = FormatContext::new(info)
                    .with_response(parts.status, &parts.headers)
                    .with_end(now);
                let values = level.evaluate(&parts.headers, &context, facts);
                mutation::apply(values, &mut parts.headers, IS_INLINE_RESPONSE);
            }
        });
    }

    /// The levels in the order in which they change a message: the last one has the last word.
    fn levels<'a>(
        &'a self,
        cluster: Option<&'a WeightedCluster>,
        direction: impl Fn(&'a HeaderMutations) -> &'a HeaderMutation,
    ) -> [&'a HeaderMutation; 4] {
        let shared = &self.host.shared;
        // A route without weighted clusters has nothing to do at that level.
        let cluster = cluster.map_or(&NO_MUTATIONS, |cluster| &cluster.mutations);
        let mut levels = [
            direction(cluster),
            direction(&self.route.mutations),
            direction(&self.host.mutations),
            direction(&shared.mutations),
        ];
        if shared.most_specific_wins {
            // The weighted cluster comes first either way, as in Envoy.
            levels[1..].reverse();
        }
        levels
    }

    /// Rewrites host and path as the route says, as far as that is known before an endpoint is picked.
    /// Unless `suppress_envoy_headers`, the old ones are kept in `x-envoy-original-host` and
    /// `x-envoy-original-path`. Says whether anything changed.
    ///
    /// # Errors
    /// When the result cannot be sent; the request is then as it was.
    pub fn rewrite(
        &self,
        cluster: Option<&WeightedCluster>,
        parts: &mut request::Parts,
        suppress_envoy_headers: bool,
    ) -> Result<bool, InvalidRewrite> {
        let Action::Route(action) = &self.route.action else {
            return Ok(false);
        };
        let old = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let host = match &action.host_rewrite {
            Some(rewrite) => rewrite.apply(split_path(old).0, &parts.headers)?,
            None => None,
        };
        let rewritten = action.path_rewrite.as_ref();
        let path = rewritten.and_then(|rewrite| rewrite.apply(&self.route.matches, old));
        let literal = cluster.and_then(|cluster| cluster.host_rewrite_literal.clone());
        let changed = path.is_some() || literal.is_some() || host.is_some();
        if let Some(path) = path {
            let uri = rewrite_path(&parts.uri, path)?;
            // A path that was in a request line can be in a header.
            if let (false, Ok(old)) = (suppress_envoy_headers, HeaderValue::from_str(old)) {
                parts.headers.insert(ORIGINAL_PATH, old);
            }
            parts.uri = uri;
        }
        // The cluster's host leaves no trace, and is what the route's own rewrite finds: as in Envoy.
        if let Some(host) = literal {
            parts.headers.insert(header::HOST, host);
        }
        if let Some(host) = host {
            let append = action.append_x_forwarded_host;
            rewrite_host(&mut parts.headers, host, append, !suppress_envoy_headers);
        }
        Ok(changed)
    }

    /// Whether the host becomes that of the endpoint, and is to be set with [`rewrite_host`] once that is
    /// picked.
    #[must_use]
    pub fn rewrites_host_to_endpoint(&self) -> bool {
        matches!(&self.route.action, Action::Route(action)
            if action.host_rewrite == Some(HostRewrite::Auto))
    }
}

const IS_INLINE_RESPONSE: Inline = inline::is_inline_response;

static NO_MUTATIONS: HeaderMutations = HeaderMutations {
    request: HeaderMutation::EMPTY,
    response: HeaderMutation::EMPTY,
};
