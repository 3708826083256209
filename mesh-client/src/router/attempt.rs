use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response};
use mesh_balance::PickContext;
use mesh_core::{
    Attempt, Body, Decision, Endpoint, Error, ErrorKind, GuardedBody, Http, HttpClassify, Reason,
    RequestInfo, Sent, TunnelRequest, clock, format::RequestView, number_value,
};
use mesh_http::{
    pool::{HttpVersion, Sending},
    reply::ReplyContext,
};
use mesh_outlier::{BodyWatch, OutlierFuture};
use mesh_retry::{ReplayBody, WatchedBody};
use pin_project::pin_project;
use tower_service::Service;

use super::{Forwarding, upstream_log::AttemptLog};
use crate::{cluster::ClusterState, health, worker::Whose};

/// Below the retry: picks an endpoint and sends one attempt to it.
///
/// Always ready: which endpoint is known only in `call`, and its pool waits inside the future.
#[derive(Clone)]
pub(crate) struct Attempts;

/// One attempt.
#[pin_project]
pub(crate) struct AttemptFuture {
    #[pin]
    state: State,
    endpoint: Option<Arc<Endpoint>>,
    info: Option<Arc<RequestInfo>>,
    /// Where endpoints are checked: an answer may say that its endpoint wants no more requests.
    checked: Option<Arc<ClusterState>>,
    log: Option<Box<AttemptLog>>,
    timings: Option<Timings>,
}

/// What has been noted of an attempt whose times are asked for.
struct Timings {
    attempt: Attempt,
    ready: bool,
    sent: bool,
}

impl Timings {
    fn note(&mut self, info: &RequestInfo) {
        if !self.ready && self.attempt.is_connected() {
            self.ready = true;
            info.with(|facts| facts.upstream_ready = Some(clock::now()));
        }
        if !self.sent && self.attempt.is_request_complete() {
            self.sent = true;
            info.with(|facts| facts.request_sent = Some(clock::now()));
        }
    }
}

#[pin_project(project = StateProject)]
enum State {
    Refused(Option<Error>),
    Plain(#[pin] Sending),
    Watched(#[pin] OutlierFuture<Sending, HttpClassify, Http>),
}

impl Service<Request<ReplayBody<WatchedBody<Body>>>> for Attempts {
    type Response = Response<Body>;
    type Error = Error;
    type Future = AttemptFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<WatchedBody<Body>>>) -> AttemptFuture {
        let mut request = request.map(into_body);
        let info = RequestInfo::of(&request).cloned();
        let mut future = AttemptFuture {
            state: State::Refused(None),
            endpoint: None,
            info,
            checked: None,
            log: None,
            timings: None,
        };
        let Some(forwarding) = future
            .info
            .as_ref()
            .and_then(|info| info.route::<Forwarding>())
        else {
            return future;
        };
        let info = future.info.as_deref();
        let version = version(forwarding, &request);
        let (endpoint, slot) = match pick(forwarding, version, &RequestView::of(&request), info) {
            Ok(picked) => picked,
            Err(error) => {
                future.state = State::Refused(Some(error));
                return future;
            }
        };
        let times = info.map(|info| {
            info.with(|facts| {
                facts.endpoint = Some(Arc::clone(&endpoint));
                facts.tried.push(Arc::clone(&endpoint));
                Times {
                    deadline: facts.deadline,
                    received: facts.request_received.is_some(),
                }
            })
        });
        prepare(forwarding, &endpoint, &mut request, times);
        if forwarding.bounds_streams() && ReplyContext::of(&request).grpc {
            bound_grpc(&mut request, info);
        }
        if forwarding.timings {
            if let Some(info) = info {
                info.with(|facts| {
                    facts.attempt_started = Some(clock::now());
                    facts.upstream_ready = None;
                    facts.request_sent = None;
                });
            }
            future.timings = Some(Timings {
                attempt: attempt_of(&mut request),
                ready: false,
                sent: false,
            });
        }
        if let (Some(log), Some(info)) = (&forwarding.upstream_log, &future.info) {
            future.log = Some(AttemptLog::new(log, info, &endpoint, &mut request));
        }
        let pool = slot.pool;
        future.state = match slot.monitor {
            Some(monitor) => State::Watched(OutlierFuture::watch(
                request,
                monitor,
                HttpClassify,
                |request| pool.send(request),
            )),
            None => State::Plain(pool.send(request)),
        };
        future.endpoint = Some(endpoint);
        future.checked = forwarding.worker_cluster().and_then(|cluster| {
            let cluster = &cluster.cluster;
            let is_checked = cluster.config.health_check.is_some();
            is_checked.then(|| Arc::clone(&cluster.state))
        });
        future
    }
}

/// What the request's transport reports to; one of its own if no layer above has put one there.
pub(super) fn attempt_of(request: &mut Request<Body>) -> Attempt {
    let extensions = request.extensions_mut();
    extensions.get_or_insert_default::<Attempt>().clone()
}

/// To the type of the seam; a body in memory costs nothing.
fn into_body(body: ReplayBody<WatchedBody<Body>>) -> Body {
    body.into_body()
}

/// What the attempt is sent with.
fn version(forwarding: &Forwarding, request: &Request<Body>) -> HttpVersion {
    let connect = TunnelRequest::of(request) == Some(&TunnelRequest::Connect);
    if connect && forwarding.terminates_connect() {
        return HttpVersion::Raw;
    }
    let protocol = forwarding
        .worker_cluster()
        .map(|c| c.cluster.config.pool.protocol);
    protocol
        .unwrap_or_default()
        .for_request(Some(request.version()))
}

fn pick(
    forwarding: &Forwarding,
    version: HttpVersion,
    request: &RequestView<'_>,
    info: Option<&RequestInfo>,
) -> Result<(Arc<Endpoint>, crate::worker::Slot), Error> {
    let tried = info
        .filter(|_| forwarding.avoids_tried())
        .map(|info| info.with(|facts| facts.tried.clone()));
    let Some(cluster) = forwarding.worker_cluster() else {
        return Err(Error::new(ErrorKind::NoCluster).with_sent(Sent::Nothing));
    };
    let headers = request.headers;
    let hash = info.and_then(|info| forwarding.hash(request, info));
    let mut context = PickContext::new(&cluster.rng).hashed(hash);
    if let (Some(tried), Some(retry)) = (&tried, &forwarding.retry) {
        context = context.avoiding(tried, retry.host_selection_retry_max_attempts);
    }
    let meant = info.and_then(|info| cluster.cluster.meant(Some(headers), &info.connection));
    let auto = &cluster.cluster.config.auto_names;
    let whose = Whose {
        names: cluster.cluster.sockets.names(auto, headers),
        client: info.map(|info| &info.connection),
    };
    match cluster.pick(&context, forwarding.priority(), version, meant, whose) {
        Ok((endpoint, slot, panicked)) => {
            if let Some(info) = info.filter(|_| panicked) {
                let total = cluster.cluster.set.load().endpoints().len() as u64;
                info.decide(
                    Decision::new("balance", Reason::Panic, total, total)
                        .owned_by(cluster.cluster.name()),
                );
            }
            Ok((endpoint, slot))
        }
        Err(none) => {
            if let Some(info) = info {
                let total = none.total as u64;
                info.decide(
                    Decision::new("balance", Reason::NoHealthyUpstream, 0, total)
                        .owned_by(cluster.cluster.name()),
                );
            }
            Err(Error::from(none).with_sent(Sent::Nothing))
        }
    }
}

/// Headers that depend on the attempt.
fn prepare(
    forwarding: &Forwarding,
    endpoint: &Endpoint,
    request: &mut Request<Body>,
    times: Option<Times>,
) {
    if forwarding.auto_host_rewrite() && !endpoint.hostname.is_empty() {
        forwarding.rewrite_host(request, &endpoint.hostname);
    }
    if forwarding.suppress_envoy_headers {
        return;
    }
    let left = time_left(forwarding, times);
    let retry = forwarding.retry.as_deref();
    let hedging = retry.is_some_and(|retry| retry.hedge_on_per_try_timeout);
    let per_try = retry.and_then(|retry| retry.per_try_timeout);
    if let Some(ms) = mesh_retry::expected_rq_timeout(per_try, hedging, left, Duration::ZERO) {
        request
            .headers_mut()
            .insert(mesh_retry::EXPECTED_TIMEOUT, number_value(ms));
    }
}

/// How far the request is.
#[derive(Clone, Copy)]
struct Times {
    deadline: Option<Instant>,
    /// All of it is here.
    received: bool,
}

/// Tells a gRPC server how long its call may last, where the route says so.
fn bound_grpc(request: &mut Request<Body>, info: Option<&RequestInfo>) {
    let Some(info) = info else { return };
    let (longest, first) = info.with(|facts| (facts.max_stream_duration, facts.tried.len() < 2));
    let Some(mut longest) = longest else { return };
    if !first {
        // What the attempts before have used up is gone; one that is used up is not none.
        let used = clock::now().saturating_duration_since(info.start);
        longest = longest.saturating_sub(used).max(Duration::from_millis(1));
    }
    // The most digits that gRPC allows are eight.
    let millis = longest.as_millis();
    let (value, unit) = if millis < 100_000_000 {
        (millis, 'm')
    } else {
        (millis / 1000, 'S')
    };
    if value > 0
        && let Ok(timeout) = HeaderValue::try_from(format!("{value}{unit}"))
    {
        request.headers_mut().insert("grpc-timeout", timeout);
    }
}

/// What is left of the request's timeout; zero when there is none.
fn time_left(forwarding: &Forwarding, times: Option<Times>) -> Duration {
    let Some(times) = times else {
        return forwarding.timeout();
    };
    match times.deadline {
        // One that is used up is not none.
        Some(deadline) => deadline
            .saturating_duration_since(clock::now())
            .max(Duration::from_millis(1)),
        // The request is here and nothing counts: its headers switched the timeout off.
        None if times.received => Duration::ZERO,
        None => forwarding.timeout(),
    }
}

impl Future for AttemptFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(log) = this.log {
            log.poll(cx);
        }
        let polled = match this.state.project() {
            StateProject::Refused(error) => {
                let error = error.take().unwrap_or_else(|| ErrorKind::NoCluster.into());
                return Poll::Ready(Err(error));
            }
            StateProject::Plain(sending) => sending.poll(cx),
            StateProject::Watched(watched) => watched.poll(cx).map(|result| result.map(seal)),
        };
        if let (Some(timings), Some(info)) = (this.timings, &this.info) {
            timings.note(info);
        }
        let result = ready!(polled);
        if let Some(endpoint) = this.endpoint {
            let stats = &endpoint.state.stats;
            let ok = result
                .as_ref()
                .is_ok_and(|response| response.status().as_u16() < 500);
            if ok {
                &stats.rq_success
            } else {
                &stats.rq_error
            }
            .fetch_add(1, Ordering::Relaxed);
            if let (Ok(response), Some(cluster)) = (&result, &this.checked)
                && health::fails_at_once(response)
                && let Some(check) = cluster.checks.session(endpoint.address())
            {
                check.on_passive_failure();
            }
        }
        if let Some(info) = this.info.as_ref().filter(|_| result.is_ok()) {
            info.with(|facts| facts.response_started = Some(clock::now()));
        }
        match (result, this.log.take()) {
            (Ok(response), Some(log)) => Poll::Ready(Ok(log.answered(response))),
            (Err(error), Some(mut log)) => {
                log.failed(&error);
                Poll::Ready(Err(error))
            }
            (result, None) => Poll::Ready(result),
        }
    }
}

fn seal(response: Response<GuardedBody<Body, BodyWatch>>) -> Response<Body> {
    response.map(GuardedBody::into_body)
}
