use std::{sync::Arc, time::Duration};

use http::HeaderName;
use mesh_core::RuntimeFraction;

use crate::{
    Action, HeaderMatcher, HeaderMutations, QueryParameterMatcher, RouteConfigError, SafeRegex,
};

/// All routes of a listener, before [`RouteTable::new`](crate::RouteTable::new) checks and indexes them.
///
/// # Envoy
/// `route.v3.RouteConfiguration`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouteConfiguration<P> {
    /// Its name, for stats and reports.
    pub name: Arc<str>,
    /// The virtual hosts. Envoy: `virtual_hosts`.
    pub virtual_hosts: Vec<VirtualHost<P>>,
    /// Done to every request and response, less specific than any other level.
    pub mutations: HeaderMutations,
    /// Turns the order of levels round, so that the route has the last word instead of this; off by
    /// default. Envoy: `most_specific_header_mutations_wins`.
    pub most_specific_header_mutations_wins: bool,
    /// Matches hosts without their port; off by default. Envoy: `ignore_port_in_host_matching`.
    pub ignore_port_in_host_matching: bool,
    /// Matches paths without what follows the first semicolon; off by default. Envoy:
    /// `ignore_path_parameters_in_path_matching`.
    pub ignore_path_parameters_in_path_matching: bool,
    /// The header whose value picks the virtual host, in place of the host. Envoy: `vhost_header`.
    pub vhost_header: Option<HeaderName>,
}

impl<P> RouteConfiguration<P> {
    /// Virtual hosts with everything else at Envoy's defaults.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, virtual_hosts: Vec<VirtualHost<P>>) -> Self {
        Self {
            name: name.into(),
            virtual_hosts,
            mutations: HeaderMutations::default(),
            most_specific_header_mutations_wins: false,
            ignore_port_in_host_matching: false,
            ignore_path_parameters_in_path_matching: false,
            vhost_header: None,
        }
    }
}

/// The routes of some hosts.
///
/// # Envoy
/// `route.v3.VirtualHost`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VirtualHost<P> {
    /// Its name, unique in the configuration.
    pub name: Arc<str>,
    /// Hosts, with a port or without, in any case: `a.com`, `*.a.com`, `*-b.a.com`, `a.*`, `*`. The
    /// wildcard stands for at least one character.
    pub domains: Vec<String>,
    /// The routes; the first that matches wins.
    pub routes: Vec<Route<P>>,
    /// Who is sent to `https`; nobody by default.
    pub require_tls: RequireTls,
    /// Done to the requests and responses of these hosts.
    pub mutations: HeaderMutations,
    /// Whether upstreams are told the attempt's number in `x-envoy-attempt-count`; off by default.
    pub include_request_attempt_count: bool,
    /// Whether clients are told the number of attempts in the same header; off by default.
    pub include_attempt_count_in_response: bool,
}

impl<P> VirtualHost<P> {
    /// Routes with everything else at Envoy's defaults.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, domains: Vec<String>, routes: Vec<Route<P>>) -> Self {
        Self {
            name: name.into(),
            domains,
            routes,
            require_tls: RequireTls::default(),
            mutations: HeaderMutations::default(),
            include_request_attempt_count: false,
            include_attempt_count_in_response: false,
        }
    }
}

/// Which requests must come over TLS; others are redirected to `https`. `x-forwarded-proto` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequireTls {
    /// None need to.
    #[default]
    None,
    /// All that are not internal.
    ExternalOnly,
    /// All.
    All,
}

/// What a request must look like, and what is then done with it.
///
/// # Envoy
/// `route.v3.Route`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Route<P> {
    /// Its name, for logs and stats; may be empty.
    pub name: Arc<str>,
    /// Which requests. Envoy: `match`.
    pub matches: RouteMatch,
    /// What is done.
    pub action: Action,
    /// Done to its requests and responses.
    pub mutations: HeaderMutations,
    /// What else belongs to the route: retries, rate limits. Opaque here.
    pub policy: Arc<P>,
}

impl<P> Route<P> {
    /// A route without a name and without mutations.
    #[must_use]
    pub fn new(matches: RouteMatch, action: impl Into<Action>, policy: impl Into<Arc<P>>) -> Self {
        Self {
            name: Arc::from(""),
            matches,
            action: action.into(),
            mutations: HeaderMutations::default(),
            policy: policy.into(),
        }
    }

    /// With a name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }
}

/// What a request must look like: the path and everything else that is set.
///
/// # Envoy
/// `route.v3.RouteMatch`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RouteMatch {
    /// How its path, without query and fragment, must be. Envoy: `path_specifier`.
    pub path: PathMatch,
    /// Whether letters must have the same case; not for patterns. On by default.
    pub case_sensitive: bool,
    /// Headers that must all pass.
    pub headers: Vec<HeaderMatcher>,
    /// Query parameters that must all pass.
    pub query_parameters: Vec<QueryParameterMatcher>,
    /// The share of requests that match; all by default.
    pub runtime_fraction: Option<RuntimeFraction>,
    /// Whether only gRPC requests match, by their content type; off by default.
    pub grpc: bool,
}

impl RouteMatch {
    /// Only a path.
    #[must_use]
    pub const fn new(path: PathMatch) -> Self {
        Self {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            runtime_fraction: None,
            grpc: false,
        }
    }

    /// Every path that begins like this; [`PathMatch::Prefix`].
    #[must_use]
    pub fn prefix(prefix: impl Into<Box<str>>) -> Self {
        Self::new(PathMatch::Prefix(prefix.into()))
    }

    /// This path only; [`PathMatch::Path`].
    #[must_use]
    pub fn path(path: impl Into<Box<str>>) -> Self {
        Self::new(PathMatch::Path(path.into()))
    }
}

/// How a path must be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PathMatch {
    /// It begins like this: `/foo` matches `/foobar` too.
    Prefix(Box<str>),
    /// It is this.
    Path(Box<str>),
    /// All of it matches the pattern.
    SafeRegex(SafeRegex),
    /// It is this, or continues with a slash.
    PathSeparatedPrefix(PathSeparatedPrefix),
    /// Any path of a CONNECT request. Envoy: `connect_matcher`.
    Connect,
}

/// A prefix that ends where a path segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSeparatedPrefix(Box<str>);

impl PathSeparatedPrefix {
    /// `/api` for `/api` and `/api/x`, but not `/apix`.
    ///
    /// # Errors
    /// When it has fewer than two characters, ends with a slash, or contains `?` or `#`.
    pub fn new(prefix: impl Into<Box<str>>) -> Result<Self, RouteConfigError> {
        let prefix = prefix.into();
        if prefix.len() < 2 || prefix.ends_with('/') || prefix.contains(['?', '#']) {
            return Err(RouteConfigError::new(format!(
                "path_separated_prefix {prefix:?} must have at least two characters, not end with a slash, \
                 and contain neither ? nor #"
            )));
        }
        Ok(Self(prefix))
    }

    /// The prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A route's `timeout` when it has none: 15 seconds, as in Envoy.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
