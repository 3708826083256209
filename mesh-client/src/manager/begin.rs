use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_config::model::UpgradeRule;
use mesh_core::{
    Body, ConnectionInfo, Error, ErrorKind, LocalReply, RequestInfo, TunnelRequest, clock,
    format::{AccessLogType, RequestView},
};
use mesh_http::{hygiene, reply::ReplyContext};
use mesh_route::RedirectHistory;
use tower_service::Service as _;

use super::{Manager, ManagerExchange, Shared, answer};
use crate::router::{self, Again, Forwarding};

const FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");

/// Takes a request in: counts it, cleans it, finds its route, and hands it to the filters.
pub(super) fn begin(
    manager: &mut Manager,
    request: Request<Body>,
    connection: &Arc<ConnectionInfo>,
) -> ManagerExchange {
    let shared = &manager.shared;
    let now = clock::now();
    let info = shared.info(connection, now);
    let stats = &shared.stats;
    stats.downstream_rq_total().inc();
    match request.version() {
        http::Version::HTTP_2 => stats.downstream_rq_http2_total().inc(),
        _ => stats.downstream_rq_http1_total().inc(),
    }
    stats.downstream_rq_active().inc();
    let mut context = ReplyContext::of(&request);
    context.suppress_envoy_headers = shared.config.router.suppress_envoy_headers;
    match admit(shared, &info, request) {
        Err(error) => ManagerExchange::refused(shared, info, context, error),
        Ok(request) => {
            // Of strangers, the header that forces a trace is gone by now.
            let wanted = shared.config.edge.always_set_request_id_in_response
                || request.headers().contains_key(&FORCE_TRACE);
            let request_id = wanted.then(|| request.headers().get(&hygiene::REQUEST_ID).cloned());
            let request_id = request_id.flatten();
            log_start(shared, &info);
            let future = manager.chain.call(request);
            let chain = manager.follows_redirects.then(|| manager.chain.clone());
            ManagerExchange::running(&manager.shared, info, context, request_id, future, chain)
        }
    }
}

fn log_start(shared: &Shared, info: &RequestInfo) {
    if shared.config.access_log_options.flush_on_new_request {
        answer::log_running(shared, info, None, AccessLogType::DownstreamStart);
    }
}

/// Takes in a request that was sent elsewhere by its upstream: a request of its own, but for what the edge
/// does to a client's, which was done. Envoy: `recreateStream`.
pub(super) fn again(
    shared: &Arc<Shared>,
    last: &RequestInfo,
    again: Again,
) -> (Arc<RequestInfo>, Request<Body>) {
    let info = shared.info(&last.connection, clock::now());
    let stats = &shared.stats;
    stats.downstream_rq_total().inc();
    stats.downstream_rq_active().inc();
    let (protocol, remote) = last.with(|facts| (facts.protocol, facts.remote));
    info.with(|facts| {
        facts.protocol = protocol;
        facts.remote = remote;
    });
    let (parts, body) = again.request.into_parts();
    let view = RequestView::of_parts(&parts);
    capture(shared, &info, &view);
    let internal = parts.headers.contains_key("x-envoy-internal");
    router::resolve(shared, &info, &view, internal, again.history);
    let mut request = Request::from_parts(parts, metered(body, &info));
    RequestInfo::attach(&info, &mut request);
    log_start(shared, &info);
    (info, request)
}

fn admit(
    shared: &Arc<Shared>,
    info: &Arc<RequestInfo>,
    request: Request<Body>,
) -> Result<Request<Body>, Error> {
    let (mut parts, body) = request.into_parts();
    info.with(|facts| facts.protocol = Some(parts.version));
    let tunnel = parts.extensions.get::<TunnelRequest>().cloned();
    let prepared = hygiene::prepare_request(
        &mut parts,
        &shared.config.edge,
        &info.connection,
        &shared.worker.rng,
    );
    let view = RequestView::of_parts(&parts);
    capture(shared, info, &view);
    let prepared = prepared.inspect_err(|error| count_refusal(shared, error))?;
    info.with(|facts| facts.remote = prepared.remote);
    let none = RedirectHistory::default();
    router::resolve(shared, info, &view, prepared.internal, none);
    let body = metered(body, info);
    let mut request = Request::from_parts(parts, body);
    RequestInfo::attach(info, &mut request);
    if let Some(tunnel) = tunnel {
        allow_tunnel(shared, info, &tunnel)?;
    }
    Ok(request)
}

/// Remembers the headers that the log will want.
pub(crate) fn capture(shared: &Shared, info: &RequestInfo, request: &RequestView<'_>) {
    let captures = &shared.captures;
    if !captures.is_empty() {
        let (captured, passed) = (captures.capture(request), captures.test(request));
        info.with(|facts| {
            facts.captured = captured;
            facts.passed = passed;
        });
    }
}

/// Whether a tunnel may be dug: the route says so, or else the connection manager.
fn allow_tunnel(shared: &Shared, info: &RequestInfo, tunnel: &TunnelRequest) -> Result<(), Error> {
    // Without a route, the router has the answer.
    let Some(forwarding) = info.route::<Forwarding>() else {
        return Ok(());
    };
    let own = forwarding.policies().map(|policies| &*policies.upgrades);
    let rule = UpgradeRule::find(own.unwrap_or_default(), tunnel.name())
        .or_else(|| UpgradeRule::find(&shared.config.upgrades, tunnel.name()));
    if rule.is_some_and(|rule| rule.enabled) {
        return Ok(());
    }
    shared.stats.downstream_rq_ws_on_non_ws_route().inc();
    let reply = LocalReply::new(StatusCode::FORBIDDEN, "", "upgrade_failed");
    Err(Error::new(ErrorKind::Denied).with_reply(reply))
}

fn count_refusal(shared: &Shared, error: &Error) {
    match error.reply().map(|reply| (&*reply.details, reply.status)) {
        Some(("absolute_path_rejected", _)) => shared.stats.downstream_rq_non_relative_path().inc(),
        Some(("path_normalization_failed", StatusCode::TEMPORARY_REDIRECT)) => {
            shared
                .stats
                .downstream_rq_redirected_with_normalized_path()
                .inc();
        }
        Some(("path_normalization_failed", _)) => {
            shared.stats.downstream_rq_failed_path_normalization().inc();
        }
        _ => {}
    }
}

/// Counts a body's bytes and notes its end; one in memory is counted at once.
fn metered(body: Body, info: &Arc<RequestInfo>) -> Body {
    if let Some(bytes) = body.as_full() {
        info.add_received(bytes.len() as u64);
        let now = clock::now();
        info.with(|facts| facts.request_received = Some(now));
        return body;
    }
    Body::new(Metered {
        body,
        info: Arc::clone(info),
    })
}

struct Metered {
    body: Body,
    info: Arc<RequestInfo>,
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.info.add_received(data.len() as u64);
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.info.with(|facts| {
                facts.request_received.get_or_insert_with(clock::now);
            });
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
