//! Copies of requests for other clusters: sent, and forgotten about.

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Request, request::Parts};
use http_body::Body as _;
use mesh_core::{Body, RequestInfo, clock, format::RequestView};
use mesh_retry::RetryOverrides;
use mesh_route::MirrorPolicy;
use tower_service::Service as _;

use super::{
    Forwarding, Router, RouterFuture,
    tee::{CopyBody, Tee},
};
use crate::worker::WorkerCluster;

/// How long a copy may go without its answer, or without a piece of it: whoever mirrors to a service that
/// hangs shall not run out of `max_requests` there.
const MIRROR_STALL_MAX: Duration = Duration::from_secs(300);

impl Router {
    /// Sends a copy of the request to each mirror that wants one, and hands back the body to go on with.
    ///
    /// A copy costs the live request nothing but the copying: it has a task of its own, is never retried,
    /// takes the thresholds of its own cluster, and is cut off when it falls behind by more than
    /// `request_body_buffer_limit`.
    pub(super) fn mirror(
        &self,
        forwarding: &Forwarding,
        info: &Arc<RequestInfo>,
        parts: &Parts,
        body: Body,
    ) -> Body {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return body;
        };
        let mut tee = Tee::new(body);
        for policy in forwarding.mirrors() {
            let target = policy.target(parts, info.random);
            let cluster = target.and_then(|name| self.shared.worker.cluster(name));
            let Some(cluster) = cluster else {
                continue;
            };
            let copy = copy_body(&mut tee, forwarding);
            let request = self
                .copy_head(policy, forwarding, info, parts)
                .map(|()| copy);
            runtime.spawn(self.send_copy(cluster, forwarding, info, request));
        }
        tee.into_body()
    }

    /// The head of a copy: what the first attempt of the live request has, from within this machine.
    fn copy_head(
        &self,
        policy: &MirrorPolicy,
        forwarding: &Forwarding,
        info: &RequestInfo,
        parts: &Parts,
    ) -> Request<()> {
        let mut copy = parts.clone();
        // What is in there belongs to the live request.
        copy.extensions.clear();
        // The copy is not retried, whatever the client asked for.
        let _ = RetryOverrides::take(&mut copy.headers);
        let counted = forwarding.retry.as_ref();
        if counted.is_some_and(|retry| retry.include_request_attempt_count) {
            let first = HeaderValue::from_static("1");
            copy.headers.insert("x-envoy-attempt-count", first);
        }
        copy.headers
            .insert("x-envoy-internal", HeaderValue::from_static("true"));
        let local = self.shared.config.edge.local_address;
        mesh_http::hygiene::append_forwarded_for(&mut copy.headers, local);
        policy.prepare(&mut copy, info);
        Request::from_parts(copy, ())
    }

    fn send_copy(
        &self,
        cluster: Arc<WorkerCluster>,
        live: &Forwarding,
        info: &RequestInfo,
        mut request: Request<Body>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut copy_info = RequestInfo::new(
            clock::now(),
            info.random,
            Arc::clone(&info.connection),
            Arc::clone(&info.config_version),
        );
        copy_info.set_route(Arc::new(live.mirrored(cluster)));
        let facts = copy_info.facts_mut();
        facts.protocol = info.with(|facts| facts.protocol);
        if live.upstream_log.is_some() {
            crate::manager::capture(&self.shared, facts, &RequestView::of(&request));
        }
        let copy_info = Arc::new(copy_info);
        RequestInfo::attach(&copy_info, &mut request);
        let future = self.stack.clone().call(request);
        let future = RouterFuture::forwarded(future, copy_info, None);
        async move {
            let Ok(Ok(response)) = tokio::time::timeout(MIRROR_STALL_MAX, future).await else {
                return;
            };
            let mut body = response.into_body();
            let mut piece = async || {
                let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
                tokio::time::timeout(MIRROR_STALL_MAX, frame).await
            };
            while let Ok(Some(Ok(_))) = piece().await {}
        }
    }
}

/// A body of the copy's own: the same bytes where they are in memory.
fn copy_body(tee: &mut Tee, forwarding: &Forwarding) -> Body {
    if let Some(body) = tee.try_clone() {
        return body;
    }
    let length = tee.length();
    let copy = tee.copy(forwarding.body_limit());
    let cluster = forwarding.worker_cluster().cloned();
    Body::new(CopyBody::new(copy, length, move || {
        if let Some(cluster) = &cluster {
            let stats = &cluster.cluster.state.retry_stats;
            stats.retry_or_shadow_abandoned().inc();
        }
    }))
}
