//! Which cluster a request goes to, and how it is rewritten on the way.

mod action;
mod config;
mod error;
mod inline;
mod matcher;
mod mutation;
mod regex;
mod table;

pub use action::{
    Action, BODY_MAX_DEFAULT, ClusterPick, ClusterSpecifier, DirectResponse, HostRewrite,
    PathRedirect, PathRewrite, RedirectAction, RouteAction, SchemeRedirect, WeightedCluster,
    WeightedClusters, rewrite_host,
};
pub use config::{
    PathMatch, PathSeparatedPrefix, RequireTls, Route, RouteConfiguration, RouteMatch,
    TIMEOUT_DEFAULT, VirtualHost,
};
pub use error::{InvalidRewrite, NoRoute, RouteConfigError};
pub use matcher::{
    HeaderField, HeaderMatch, HeaderMatcher, QueryMatch, QueryParameterMatcher, StringMatcher,
};
pub use mutation::{
    AppendAction, HeaderAdd, HeaderMutation, HeaderMutations, MUTATIONS_MAX, VALUE_MAX,
};
pub use regex::{CACHE_MAX, PATTERN_MAX, PROGRAM_MAX, RegexRewrite, SafeRegex};
pub use table::{Found, RouteEntry, RouteTable, VirtualHostEntry};
