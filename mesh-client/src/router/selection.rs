use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, request::Parts};
use mesh_config::model::{FilterOverride, RoutePolicies, UpgradeRule};
use mesh_core::{
    Body, Decision, Error, ErrorKind, LocalReply, Priority, Reason, RequestInfo, clock,
    format::RequestView,
};
use mesh_retry::{DEFAULT_REQUEST_BODY_BUFFER_LIMIT, DeadlineConfig, RetryConfig};
use mesh_route::{
    Action, Found, HashInput, InternalRedirectPolicy, MaxStreamDuration, MirrorPolicy,
    RedirectHistory, RouteAction, RouteEntry, VirtualHostEntry, WeightedCluster, hash_of,
};

use super::{UpstreamLog, hash::SessionCookies};
use crate::{manager::Shared, worker::WorkerCluster};

/// What was decided about a request when its route was found; kept in its `RequestInfo`, so that every
/// policy below reads the same answer, from start to end.
pub(crate) struct Forwarding {
    found: Chosen,
    weighted: Option<usize>,
    cluster: Option<Arc<WorkerCluster>>,
    /// The cluster's own retry policy, or else the route's.
    pub(crate) retry: Option<Arc<RetryConfig>>,
    pub(crate) suppress_envoy_headers: bool,
    internal: bool,
    redirects: RedirectHistory,
    /// Where attempts are logged, if they are.
    pub(super) upstream_log: Option<Arc<UpstreamLog>>,
    /// Whether a format asks for the times of attempts.
    pub(super) timings: bool,
    /// What clients are given to come back to the same endpoint.
    pub(super) cookies: OnceLock<SessionCookies>,
    /// The origin that the CORS filter has let in, for whoever answers.
    pub(crate) origin: OnceLock<HeaderValue>,
}

enum Chosen {
    Route(Arc<RouteEntry<RoutePolicies>>),
    TlsRequired(Arc<VirtualHostEntry>),
    /// A mirror's copy: no route, only its timeout, if there is one.
    Mirror(Option<Arc<DeadlineConfig>>),
}

/// Finds the route of a request, and the cluster if it names one that exists.
///
/// A request without a route goes on to the filters all the same, as in Envoy; the router answers it.
pub(crate) fn resolve(
    shared: &Shared,
    info: &mut RequestInfo,
    request: &RequestView<'_>,
    internal: bool,
    redirects: RedirectHistory,
) {
    let found = match shared.config.routes.find(request, info.random) {
        Ok(Found::Route(entry)) => Chosen::Route(Arc::clone(entry)),
        Ok(Found::TlsRequired(host)) => Chosen::TlsRequired(Arc::clone(host)),
        Err(_) => return,
    };
    let mut forwarding = Forwarding {
        found,
        weighted: None,
        cluster: None,
        retry: None,
        suppress_envoy_headers: shared.config.router.suppress_envoy_headers,
        internal,
        redirects,
        upstream_log: shared.upstream_log.clone(),
        timings: shared.captures.wants_timings(),
        cookies: OnceLock::new(),
        origin: OnceLock::new(),
    };
    let mut idle_timeout = None;
    let mut max_stream_duration = None;
    let mut cluster_name = None;
    if let Chosen::Route(entry) = &forwarding.found {
        forwarding.retry.clone_from(&entry.policy().retry);
        if let Action::Route(action) = entry.action() {
            idle_timeout = action.idle_timeout;
            max_stream_duration = action.max_stream_duration.of(request.headers);
            let random = number(action, info, request);
            if let Some(pick) = action.cluster.pick(request.headers, random) {
                forwarding.weighted = pick.weighted.map(|(index, _)| index);
                forwarding.cluster = shared.worker.cluster(pick.name);
                cluster_name = forwarding
                    .cluster
                    .as_ref()
                    .map(|c| Arc::clone(c.cluster.name()));
            }
        }
    }
    let own = forwarding.cluster.as_ref().map(|c| &c.cluster.config.retry);
    if let Some(own) = own.and_then(Option::as_ref) {
        forwarding.retry = Some(Arc::new(own.on_route(forwarding.retry.as_deref())));
    }
    let route_name = forwarding
        .entry()
        .map(|entry| Arc::clone(entry.name()))
        .filter(|n| !n.is_empty());
    let route_metadata = forwarding
        .policies()
        .and_then(|policies| policies.metadata.clone());
    let cluster_metadata = forwarding
        .cluster
        .as_ref()
        .and_then(|c| c.cluster.config.metadata.clone());
    let facts = info.facts_mut();
    facts.route_name = route_name;
    facts.route_metadata = route_metadata;
    facts.cluster_metadata = cluster_metadata;
    facts.cluster = cluster_name;
    facts.idle_timeout = idle_timeout;
    facts.max_stream_duration = max_stream_duration;
    info.set_route(Arc::new(forwarding));
}

/// What decides among weighted clusters: the request's random number, or its hash where the route wants that.
fn number(action: &RouteAction, info: &mut RequestInfo, request: &RequestView<'_>) -> u64 {
    if !action.cluster.goes_by_hash() {
        return info.random;
    }
    let input = HashInput {
        request: *request,
        client: info.facts_mut().remote.map(|address| address.ip()),
    };
    // As in Envoy, no cookie is made up before there is a cluster.
    hash_of(&action.hash, &input, |_| None).unwrap_or(info.random)
}

impl Forwarding {
    fn entry(&self) -> Option<&RouteEntry<RoutePolicies>> {
        match &self.found {
            Chosen::Route(entry) => Some(entry),
            Chosen::TlsRequired(_) | Chosen::Mirror(_) => None,
        }
    }

    pub(crate) fn action(&self) -> Option<&Action> {
        self.entry().map(RouteEntry::action)
    }

    pub(super) fn route_action(&self) -> Option<&RouteAction> {
        match self.action()? {
            Action::Route(action) => Some(action),
            _ => None,
        }
    }

    fn weighted_cluster(&self) -> Option<&WeightedCluster> {
        let mesh_route::ClusterSpecifier::WeightedClusters(clusters) =
            &self.route_action()?.cluster
        else {
            return None;
        };
        clusters.clusters().get(self.weighted?)
    }

    /// What the route says to policies.
    pub(crate) fn policies(&self) -> Option<&RoutePolicies> {
        self.entry().map(|entry| &**entry.policy())
    }

    /// What is different about the filter of that name: the weighted cluster says so, or the route.
    pub(crate) fn filter(&self, name: &str) -> Option<&FilterOverride> {
        let policies = self.policies()?;
        let weighted = self
            .weighted
            .and_then(|index| policies.weighted_filters.get(index));
        weighted.unwrap_or(&policies.filters).get(name)
    }

    /// A CONNECT ends here, and what is inside goes on as it is.
    pub(crate) fn terminates_connect(&self) -> bool {
        let policies = self.policies();
        let rule = policies.and_then(|p| UpgradeRule::find(&p.upgrades, b"CONNECT"));
        rule.is_some_and(|rule| rule.terminates)
    }

    pub(crate) fn worker_cluster(&self) -> Option<&Arc<WorkerCluster>> {
        self.cluster.as_ref()
    }

    /// The route timeout passed while the answer was on its way.
    pub(crate) fn count_timeout(&self) {
        if let Some(cluster) = &self.cluster {
            cluster
                .cluster
                .state
                .stats
                .router
                .upstream_rq_timeout()
                .inc();
        }
    }

    pub(crate) fn is_internal(&self) -> bool {
        self.internal
    }

    pub(crate) fn priority(&self) -> Priority {
        self.route_action()
            .map_or_else(Priority::default, |action| action.priority)
    }

    /// How long the request may take; `None` where the route says nothing of that.
    pub(super) fn deadline(&self) -> Option<&Arc<DeadlineConfig>> {
        match &self.found {
            Chosen::Mirror(deadline) => deadline.as_ref(),
            _ => self.policies()?.deadline.as_ref(),
        }
    }

    /// The same as a time; zero is none.
    pub(crate) fn timeout(&self) -> Duration {
        self.deadline()
            .map_or(Duration::ZERO, |deadline| deadline.timeout)
    }

    /// Who gets copies: the cluster's mirrors, or else the route's.
    pub(super) fn mirrors(&self) -> &[MirrorPolicy] {
        let own = self.cluster.as_ref().map(|c| &c.cluster.config.mirrors);
        match own.filter(|own| !own.is_empty()) {
            Some(own) => own,
            None => self.route_action().map_or(&[], |action| &action.mirrors),
        }
    }

    /// What a copy of the request does at `cluster`: the same as a request of this machine's own, with the
    /// same time and no second attempt.
    pub(super) fn mirrored(&self, cluster: Arc<WorkerCluster>) -> Self {
        Self {
            found: Chosen::Mirror(self.deadline().cloned()),
            weighted: None,
            cluster: Some(cluster),
            retry: None,
            suppress_envoy_headers: self.suppress_envoy_headers,
            internal: true,
            redirects: RedirectHistory::default(),
            upstream_log: self.upstream_log.clone(),
            timings: self.timings,
            cookies: OnceLock::new(),
            origin: OnceLock::new(),
        }
    }

    /// How many bytes of a body are kept for whoever reads it again or later.
    pub(super) fn body_limit(&self) -> u64 {
        self.retry
            .as_ref()
            .map_or(DEFAULT_REQUEST_BODY_BUFFER_LIMIT, |retry| {
                retry.request_body_buffer_limit
            })
    }

    /// Whether the route says how long a stream may last.
    pub(super) fn bounds_streams(&self) -> bool {
        let route = self.route_action();
        route.is_some_and(|route| route.max_stream_duration != MaxStreamDuration::default())
    }

    /// Whether redirects are followed, and which.
    pub(super) fn internal_redirect(&self) -> Option<&Arc<InternalRedirectPolicy>> {
        self.route_action()?.internal_redirect.as_ref()
    }

    /// The redirects that brought the request here.
    pub(super) fn redirects(&self) -> &RedirectHistory {
        &self.redirects
    }

    /// The route's name; may be empty.
    pub(super) fn route_name(&self) -> Arc<str> {
        self.entry()
            .map_or_else(|| Arc::from(""), |entry| Arc::clone(entry.name()))
    }

    pub(crate) fn avoids_tried(&self) -> bool {
        self.retry
            .as_ref()
            .is_some_and(|retry| retry.previous_hosts)
    }

    /// The answer that the route gives itself.
    pub(super) fn local_reply(&self, request: &RequestView<'_>) -> Option<LocalReply> {
        match &self.found {
            Chosen::Route(entry) => entry.local_reply(request),
            Chosen::TlsRequired(host) => Some(host.tls_redirect(request)),
            Chosen::Mirror(_) => None,
        }
    }

    /// Why there is no cluster, with the status that the route wants.
    pub(super) fn no_cluster(&self) -> Error {
        let status = self
            .route_action()
            .map_or(StatusCode::SERVICE_UNAVAILABLE, |action| {
                action.cluster_not_found_response_code
            });
        Error::new(ErrorKind::NoCluster).with_reply(LocalReply::new(
            status,
            "",
            "cluster_not_found",
        ))
    }

    /// Changes the request as the route says; says whether that was anything.
    pub(super) fn prepare(&self, parts: &mut Parts, info: &RequestInfo) -> Result<bool, Error> {
        let mut changed = strip_unbuilt(&mut parts.headers);
        let Some(entry) = self.entry() else {
            return Ok(changed);
        };
        let weighted = self.weighted_cluster();
        changed |= entry.mutate_request(weighted, parts, info);
        entry
            .rewrite(weighted, parts, self.suppress_envoy_headers)
            .map(|rewritten| changed | rewritten)
            .map_err(|invalid| {
                info.decide(Decision::new("route", Reason::RequestRefused, 0, 0));
                Error::new(ErrorKind::Denied)
                    .with_message(invalid.to_string())
                    .with_reply(LocalReply::new(
                        StatusCode::BAD_REQUEST,
                        "Bad Request",
                        "rewrite_failed",
                    ))
            })
    }

    pub(super) fn auto_host_rewrite(&self) -> bool {
        self.entry()
            .is_some_and(|entry| entry.rewrites_host_to_endpoint())
    }

    pub(super) fn rewrite_host(&self, request: &mut Request<Body>, host: &str) {
        let append = self
            .route_action()
            .is_some_and(|action| action.append_x_forwarded_host);
        if let Ok(host) = HeaderValue::from_str(host) {
            let keep = !self.suppress_envoy_headers;
            mesh_route::rewrite_host(request.headers_mut(), host, append, keep);
        }
    }

    /// Gives an answer from upstream its headers.
    pub(super) fn finish(&self, response: Response<Body>, info: &RequestInfo) -> Response<Body> {
        let Some(entry) = self.entry() else {
            return response;
        };
        let (mut parts, body) = response.into_parts();
        entry.mutate_response(self.weighted_cluster(), &mut parts, info, clock::now());
        self.add_attempt_count(&mut parts.headers, info);
        Response::from_parts(parts, body)
    }

    /// Gives an answer that was made here its headers: Envoy 1.40 does so for its filters' answers too.
    pub(crate) fn finish_local(&self, response: &mut Response<Body>, info: &RequestInfo) {
        let taken = std::mem::take(response);
        *response = self.finish(taken, info);
    }

    fn add_attempt_count(&self, headers: &mut HeaderMap, info: &RequestInfo) {
        let wanted = self
            .entry()
            .is_some_and(|e| e.virtual_host().include_attempt_count_in_response());
        if !wanted {
            return;
        }
        let attempts = info.with(|facts| facts.attempts);
        if attempts > 0 {
            headers.insert("x-envoy-attempt-count", HeaderValue::from(attempts));
        }
    }
}

/// Takes off headers whose wish is not built yet, and which are no business of the next hop.
fn strip_unbuilt(headers: &mut HeaderMap) -> bool {
    // One pass over the names, so that the many requests without them pay for no look-ups.
    let may_have = |name: &HeaderName| name.as_str().starts_with("x-envoy-upstream-");
    headers.keys().any(may_have)
        && [
            "x-envoy-upstream-alt-stat-name",
            "x-envoy-upstream-stream-duration-ms",
        ]
        .into_iter()
        .fold(false, |any, name| headers.remove(name).is_some() | any)
}
