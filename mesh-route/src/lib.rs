//! Which cluster a request goes to, and how it is rewritten on the way.
//!
//! A [`RouteTable`] finds the [`RouteEntry`] for a request, with Envoy's rules: the most specific virtual
//! host, then the *first* route that matches. The entry knows everything that is then done: pick a
//! cluster, change headers, rewrite path and host, redirect, or answer.
//!
//! Nothing here waits, opens a socket or draws a random number: a table is immutable data, and acting on
//! a route is a plain function on the request's head. It is not a balancer (a cluster's endpoints are not
//! known here) and not a path normaliser: paths are compared as they come.
//!
//! # Example
//!
//! ```
//! use mesh_core::format::{Captures, RequestView};
//! use mesh_route::{Found, Route, RouteAction, RouteConfiguration, RouteMatch, RouteTable, VirtualHost};
//!
//! let users = Route::new(RouteMatch::prefix("/users"), RouteAction::to("users"), ());
//! let rest = Route::new(RouteMatch::prefix("/"), RouteAction::to("web"), ());
//! let host = VirtualHost::new("shop", vec!["*.shop.example".to_owned()], vec![users, rest]);
//! let config = RouteConfiguration::new("public", vec![host]);
//! let table = RouteTable::new(config, &mut Captures::default())?;
//!
//! let request = http::Request::get("/users/7?full").header("host", "www.shop.example").body(()).unwrap();
//! let Ok(Found::Route(route)) = table.find(&RequestView::of(&request), 42) else {
//!     panic!("no route");
//! };
//! assert_eq!(route.position(), 0);
//! # Ok::<(), mesh_route::RouteConfigError>(())
//! ```
//!
//! # Example: a canary, a rewrite, and a policy of one's own
//!
//! The policy can be any type; a retry configuration, say. It comes back with the route.
//!
//! ```
//! use mesh_core::format::{Captures, Format, RequestView};
//! use mesh_core::{ConnectionInfo, RequestInfo, clock};
//! use mesh_route::{
//!     Action, ClusterSpecifier, Found, HeaderAdd, HeaderMatch, HeaderMatcher, HeaderMutation, PathRewrite,
//!     Route, RouteAction, RouteConfiguration, RouteMatch, RouteTable, VirtualHost, WeightedCluster,
//!     WeightedClusters,
//! };
//! use std::sync::Arc;
//!
//! struct Retries(u32);
//!
//! let mut matches = RouteMatch::prefix("/api/");
//! matches.headers.push(HeaderMatcher::new("x-tenant", HeaderMatch::Present(true))?);
//!
//! let clusters = vec![WeightedCluster::new("stable", 95), WeightedCluster::new("canary", 5)];
//! let mut action = RouteAction::new(ClusterSpecifier::WeightedClusters(WeightedClusters::new(clusters)?));
//! action.path_rewrite = Some(PathRewrite::Prefix("/".into()));
//!
//! let mut route = Route::new(matches, action, Retries(2)).named("api");
//! let tenant = HeaderAdd::new("x-from", Format::parse("%REQ(x-tenant)%, %REQ(:PATH)%").unwrap())?;
//! route.mutations.request = HeaderMutation::new(vec![tenant], vec![])?;
//!
//! let host = VirtualHost::new("any", vec!["*".to_owned()], vec![route]);
//! let table = RouteTable::new(RouteConfiguration::new("rc", vec![host]), &mut Captures::default())?;
//!
//! // Per request:
//! let (mut parts, _) = http::Request::get("/api/x?y")
//!     .header("host", "h")
//!     .header("x-tenant", "blue")
//!     .body(())
//!     .unwrap()
//!     .into_parts();
//! let info = RequestInfo::new(clock::now(), 97, Arc::new(ConnectionInfo::in_process()), Arc::from("1"));
//! let Ok(Found::Route(route)) = table.find(&RequestView::of_parts(&parts), info.random) else {
//!     panic!("no route");
//! };
//! assert_eq!(route.policy().0, 2);
//! let Action::Route(action) = route.action() else { panic!("not forwarded") };
//! let headers = parts.headers.clone();
//! let pick = action.cluster.pick(&headers, info.random).unwrap();
//! assert_eq!(pick.name, "canary");
//! let weighted = pick.weighted.map(|(_, cluster)| cluster);
//!
//! route.mutate_request(weighted, &mut parts, &info);
//! route.rewrite(weighted, &mut parts, false).unwrap();
//! assert_eq!(parts.headers["x-from"], "blue, /api/x?y");
//! assert_eq!(parts.headers["x-envoy-original-path"], "/api/x?y");
//! assert_eq!(parts.uri, "/x?y");
//! # Ok::<(), mesh_route::RouteConfigError>(())
//! ```
//!
//! # The order of things
//!
//! 1. [`RouteTable::find`]; a [`Found::TlsRequired`] and a [`RouteEntry::local_reply`] end here.
//! 2. [`ClusterSpecifier::pick`], with the same random number.
//! 3. [`RouteEntry::mutate_request`], then [`RouteEntry::rewrite`].
//! 4. Captures are taken: from now on, the request's headers are what the access log shows.
//! 5. Once an endpoint is picked, [`rewrite_host`] if [`RouteEntry::rewrites_host_to_endpoint`].
//! 6. [`RouteEntry::mutate_response`], on answers of upstreams and on the router's own.
//!
//! # Where this differs from Envoy
//!
//! - A rewrite whose result cannot be sent (no leading slash, a `#`, a blank; a host that is none) is an
//!   [`InvalidRewrite`]; Envoy sends it.
//! - A domain with a wildcard in the middle, or two, is refused; Envoy takes the second for a character.
//! - `content-length` and `transfer-encoding` cannot be added.
//! - Patterns are bounded ([`PATTERN_MAX`], [`PROGRAM_MAX`]); `\C` and most of `\p{…}` are refused.
//!
//! # Envoy
//! `envoy.config.route.v3.RouteConfiguration`.

mod action;
mod changes;
mod config;
mod error;
mod inline;
mod matcher;
mod mutation;
mod table;

pub use action::{
    Action, BODY_MAX_DEFAULT, ClusterPick, ClusterSpecifier, DirectResponse, HashInput,
    HashPolicies, HashPolicy, HashSource, HostRewrite, InternalRedirectPolicy, MaxStreamDuration,
    MirrorCluster, MirrorHost, MirrorPolicy, PathRedirect, PathRewrite, RedirectAction,
    RedirectHistory, RedirectPredicate, RedirectRefusal, RedirectTarget, RouteAction,
    SchemeRedirect, SessionCookie, WeightedCluster, WeightedClusters, hash_of, hash_of_ip,
    rewrite_host,
};
pub use changes::{Captured, HeaderChange, HeaderChanges, MessageChanges};
pub use config::{
    PathMatch, PathSeparatedPrefix, RequireTls, Route, RouteConfiguration, RouteMatch,
    TIMEOUT_DEFAULT, VirtualHost,
};
pub use error::{InvalidRewrite, NoRoute, RouteConfigError};
pub use matcher::{HeaderField, HeaderMatch, HeaderMatcher, QueryMatch, QueryParameterMatcher};
pub use mesh_core::matcher::{
    CACHE_MAX, PATTERN_MAX, PROGRAM_MAX, RegexRewrite, SafeRegex, StringMatcher,
};
pub use mutation::{
    AppendAction, HeaderAdd, HeaderMutation, HeaderMutations, MUTATIONS_MAX, VALUE_MAX,
};
pub use table::{Found, RouteEntry, RouteTable, VirtualHostEntry};
