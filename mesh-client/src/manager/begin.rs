use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_config::model::UpgradeRule;
use mesh_core::{
    Body, ConnectionInfo, Error, ErrorKind, Facts, LocalReply, RequestInfo, TunnelRequest, clock,
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
    let mut info = shared.info(connection, clock::now());
    let stats = &shared.stats;
    stats.downstream_rq_total().inc();
    match request.version() {
        http::Version::HTTP_2 => stats.downstream_rq_http2_total().inc(),
        _ => stats.downstream_rq_http1_total().inc(),
    }
    stats.downstream_rq_active().inc();
    let mut context = ReplyContext::of(&request);
    context.suppress_envoy_headers = shared.config.router.suppress_envoy_headers;
    let admitted = admit(shared, &mut info, request);
    let info = Arc::new(info);
    match admitted {
        Err(error) => ManagerExchange::refused(shared, info, context, error),
        Ok((parts, body)) => {
            let mut request = Request::from_parts(parts, metered(body, &info));
            RequestInfo::attach(&info, &mut request);
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
    let mut info = shared.info(&last.connection, clock::now());
    let stats = &shared.stats;
    stats.downstream_rq_total().inc();
    stats.downstream_rq_active().inc();
    let (protocol, remote) = last.with(|facts| (facts.protocol, facts.remote));
    let facts = info.facts_mut();
    facts.protocol = protocol;
    facts.remote = remote;
    let (parts, body) = again.request.into_parts();
    let view = RequestView::of_parts(&parts);
    capture(shared, facts, &view);
    let internal = parts.headers.contains_key("x-envoy-internal");
    router::resolve(shared, &mut info, &view, internal, again.history);
    note_end(&body, &mut info);
    let info = Arc::new(info);
    let mut request = Request::from_parts(parts, metered(body, &info));
    RequestInfo::attach(&info, &mut request);
    log_start(shared, &info);
    (info, request)
}

/// What is known and decided before the filters. Nobody else has the info yet, so nothing is locked.
fn admit(
    shared: &Arc<Shared>,
    info: &mut RequestInfo,
    request: Request<Body>,
) -> Result<(Parts, Body), Error> {
    let (mut parts, mut body) = request.into_parts();
    info.facts_mut().protocol = Some(parts.version);
    let prepared = hygiene::prepare_request(
        &mut parts,
        &shared.config.edge,
        &info.connection,
        &shared.worker.rng,
    );
    let view = RequestView::of_parts(&parts);
    capture(shared, info.facts_mut(), &view);
    let prepared = prepared.inspect_err(|error| count_refusal(shared, error))?;
    info.facts_mut().remote = prepared.remote;
    let none = RedirectHistory::default();
    router::resolve(shared, info, &view, prepared.internal, none);
    note_end(&body, info);
    if let Some(tunnel) = parts.extensions.get::<TunnelRequest>() {
        allow_tunnel(shared, info, tunnel)?;
        body = body.keeping(Upgraded::new(shared));
    }
    Ok((parts, body))
}

/// Remembers the headers that the log will want.
pub(crate) fn capture(shared: &Shared, facts: &mut Facts, request: &RequestView<'_>) {
    let captures = &shared.captures;
    if !captures.is_empty() {
        facts.captured = captures.capture(request);
        facts.passed = captures.test(request);
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

/// A body that is here is counted at once.
fn note_end(body: &Body, info: &mut RequestInfo) {
    if let Some(bytes) = body.as_full() {
        info.add_received(bytes.len() as u64);
        info.facts_mut().request_received = Some(clock::now());
    }
}

/// Counts the bytes of a body that is still to come, and notes its end.
fn metered(body: Body, info: &Arc<RequestInfo>) -> Body {
    if body.as_full().is_some() {
        return body;
    }
    Body::new(Metered {
        body,
        info: Arc::clone(info),
    })
}

/// Counts a tunnel for as long as what its client says is held.
struct Upgraded(Arc<Shared>);

impl Upgraded {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.stats.downstream_cx_upgrades_total().inc();
        shared.stats.downstream_cx_upgrades_active().inc();
        Self(Arc::clone(shared))
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.0.stats.downstream_cx_upgrades_active().dec();
    }
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
