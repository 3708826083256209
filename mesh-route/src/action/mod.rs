//! What is done with a request that matched.

mod cluster;
mod duration;
mod hash;
mod internal_redirect;
mod mirror;
mod redirect;
mod reply;
mod rewrite;

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use mesh_core::Priority;

use crate::TIMEOUT_DEFAULT;

pub use cluster::{ClusterPick, ClusterSpecifier, WeightedCluster, WeightedClusters};
pub use duration::MaxStreamDuration;
pub use hash::{
    HashInput, HashPolicies, HashPolicy, HashSource, SessionCookie, hash_of, of_ip as hash_of_ip,
};
pub use internal_redirect::{
    InternalRedirectPolicy, RedirectHistory, RedirectPredicate, RedirectRefusal, RedirectTarget,
};
pub use mirror::{MirrorCluster, MirrorHost, MirrorPolicy};
pub use redirect::{PathRedirect, RedirectAction, SchemeRedirect};
pub use reply::{BODY_MAX_DEFAULT, DirectResponse};
pub use rewrite::{HostRewrite, PathRewrite, rewrite_host};

pub(crate) use redirect::tls_redirect;
pub(crate) use rewrite::{rewrite_path, split_path};

/// What is done with a request that matched.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// It goes to a cluster. Envoy: `route`.
    Route(Box<RouteAction>),
    /// The client is sent elsewhere. Envoy: `redirect`.
    Redirect(Box<RedirectAction>),
    /// The proxy answers. Envoy: `direct_response`.
    DirectResponse(DirectResponse),
    /// Nothing: a route that only carries policies, and whose cluster is never found. Envoy:
    /// `non_forwarding_action`.
    NonForwarding,
}

impl Action {
    /// Whether redirects of the upstream are followed.
    #[must_use]
    pub fn follows_redirects(&self) -> bool {
        matches!(self, Self::Route(action) if action.internal_redirect.is_some())
    }
}

impl From<RouteAction> for Action {
    fn from(action: RouteAction) -> Self {
        Self::Route(Box::new(action))
    }
}

impl From<RedirectAction> for Action {
    fn from(action: RedirectAction) -> Self {
        Self::Redirect(Box::new(action))
    }
}

impl From<DirectResponse> for Action {
    fn from(action: DirectResponse) -> Self {
        Self::DirectResponse(action)
    }
}

/// To which cluster a request goes, and how it is changed on the way.
///
/// # Envoy
/// `route.v3.RouteAction`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RouteAction {
    /// The cluster. Envoy: `cluster_specifier`.
    pub cluster: ClusterSpecifier,
    /// The answer when that cluster does not exist; 503 by default.
    pub cluster_not_found_response_code: StatusCode,
    /// How the path changes. Envoy: `prefix_rewrite`, `regex_rewrite`.
    pub path_rewrite: Option<PathRewrite>,
    /// How the host changes. Envoy: `host_rewrite_specifier`.
    pub host_rewrite: Option<HostRewrite>,
    /// Whether a changed host is also appended to `x-forwarded-host`; off by default.
    pub append_x_forwarded_host: bool,
    /// From the end of the request to the end of the response, retries included; zero is off.
    /// 15 seconds by default.
    pub timeout: Duration,
    /// How long the stream may last, in place of the listener's. Envoy: `max_stream_duration`.
    pub max_stream_duration: MaxStreamDuration,
    /// How long nothing may move on the stream, in place of the listener's; zero is off.
    pub idle_timeout: Option<Duration>,
    /// Which of the cluster's thresholds count.
    pub priority: Priority,
    /// Who gets copies of its requests. Envoy: `request_mirror_policies`.
    pub mirrors: Arc<[MirrorPolicy]>,
    /// What the hash of its requests is made of, for clusters that pick endpoints by it. Envoy: `hash_policy`.
    pub hash: HashPolicies,
    /// Whether redirects of the upstream are followed; off by default. Envoy: `internal_redirect_policy`.
    pub internal_redirect: Option<Arc<InternalRedirectPolicy>>,
}

impl RouteAction {
    /// To one cluster, everything else at Envoy's defaults.
    #[must_use]
    pub fn new(cluster: ClusterSpecifier) -> Self {
        Self {
            cluster,
            cluster_not_found_response_code: StatusCode::SERVICE_UNAVAILABLE,
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            timeout: TIMEOUT_DEFAULT,
            max_stream_duration: MaxStreamDuration::default(),
            idle_timeout: None,
            priority: Priority::default(),
            mirrors: Arc::from([]),
            hash: Arc::from([]),
            internal_redirect: None,
        }
    }

    /// To the cluster of that name.
    #[must_use]
    pub fn to(cluster: &str) -> Self {
        Self::new(ClusterSpecifier::Cluster(cluster.into()))
    }
}
