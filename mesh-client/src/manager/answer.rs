use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{
    Body, Error, ErrorKind, RequestInfo, ResponseFlag, clock,
    format::{AccessLogType, FormatContext},
};
use mesh_http::{Abort, CloseConnection, hygiene, reply, reply::ReplyContext};

use super::Shared;
use crate::{
    router::Forwarding,
    watch::{Due, Watch},
};

/// The body of an answer: counts its bytes, and writes the log line at its end.
pub struct AnswerBody {
    body: Body,
    /// `None` once the request is settled.
    log: Option<Box<Unsettled>>,
}

/// What settling a request needs, for answers that stream.
struct Unsettled {
    shared: Arc<Shared>,
    info: Arc<RequestInfo>,
    status: StatusCode,
    headers: HeaderMap,
    trailers: Option<HeaderMap>,
    /// Lines while it goes on, and its end.
    watch: Option<Box<Watch>>,
}

/// What an answer's way out depends on.
pub(super) struct Outgoing {
    /// It was made here.
    pub(super) local: bool,
    /// The request was a HEAD: the body stays here.
    pub(super) head: bool,
    /// To be sent back, if the config says so.
    pub(super) request_id: Option<HeaderValue>,
    /// Lines while it goes on, and its end.
    pub(super) watch: Option<Box<Watch>>,
}

/// Turns an upstream's, a filter's or a route's answer into what leaves through the codec.
pub(super) fn outgoing(
    shared: &Arc<Shared>,
    info: &Arc<RequestInfo>,
    response: Response<Body>,
    how: Outgoing,
) -> Response<AnswerBody> {
    let (mut parts, mut body) = response.into_parts();
    hygiene::prepare_response(&mut parts, &shared.config.edge, how.local, how.request_id);
    if how.head {
        body = Body::empty();
    }
    if shared.worker.mesh.server_health().is_failing() {
        // People want traffic to go elsewhere: as in Envoy, connections go with their next answer.
        parts.extensions.insert(CloseConnection);
        shared.stats.downstream_cx_drain_close().inc();
    }
    let body = if let Some(bytes) = body.as_full() {
        // All of it is here: handing it over is the end, as it is in Envoy.
        info.add_sent(bytes.len() as u64);
        settle(shared, info, parts.status, &parts.headers, None);
        AnswerBody { body, log: None }
    } else {
        let log = Unsettled {
            shared: Arc::clone(shared),
            info: Arc::clone(info),
            status: parts.status,
            headers: parts.headers.clone(),
            trailers: None,
            watch: how.watch,
        };
        AnswerBody {
            body,
            log: Some(Box::new(log)),
        }
    };
    Response::from_parts(parts, body)
}

/// What a local reply passes on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    /// The request had reached the filters.
    Filters,
    /// It had not.
    Nothing,
}

/// Answers `error` from here.
pub(super) fn local(
    shared: &Arc<Shared>,
    info: &Arc<RequestInfo>,
    error: Error,
    context: ReplyContext,
    through: Through,
) -> Response<AnswerBody> {
    count_error(shared, error.kind());
    let mut response = reply::response(error, Some(info), context);
    if let Some(forwarding) = info.route::<Forwarding>() {
        forwarding.finish_local(&mut response, info);
    }
    if through == Through::Filters {
        shared.local_replies.apply(info, &mut response);
    }
    outgoing(
        shared,
        info,
        response,
        Outgoing {
            local: true,
            head: context.head,
            request_id: None,
            watch: None,
        },
    )
}

/// The request failed, and a caller in process gets the error itself: it is counted and logged as the
/// local reply that a sidecar would have sent.
pub(super) fn settle_failed(
    shared: &Shared,
    info: &RequestInfo,
    error: &Error,
    context: ReplyContext,
) {
    count_error(shared, error.kind());
    let reply = reply::describe(error, info, context);
    info.add_sent(if context.head {
        0
    } else {
        reply.body.len() as u64
    });
    settle(shared, info, reply.status, &reply.headers, None);
}

fn count_error(shared: &Shared, kind: ErrorKind) {
    match kind {
        ErrorKind::NoRoute => shared.stats.no_route().inc(),
        ErrorKind::NoCluster => shared.stats.no_cluster().inc(),
        ErrorKind::StreamDuration => shared.stats.downstream_rq_max_duration_reached().inc(),
        ErrorKind::StreamIdleTimeout => shared.stats.downstream_rq_idle_timeout().inc(),
        ErrorKind::RequestReceiveTimeout => shared.stats.downstream_rq_timeout().inc(),
        ErrorKind::TooLarge => shared.stats.downstream_rq_too_large().inc(),
        _ => {}
    }
}

/// The request is over: counts it and writes its line.
pub(super) fn settle(
    shared: &Shared,
    info: &RequestInfo,
    status: StatusCode,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
) {
    shared.stats.count_status(status.as_u16());
    settle_uncounted(shared, info, status, headers, trailers);
}

/// The same without its status: for an answer that no client gets.
pub(super) fn settle_uncounted(
    shared: &Shared,
    info: &RequestInfo,
    status: StatusCode,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
) {
    let end = clock::now();
    let stats = &shared.stats;
    stats.downstream_rq_active().dec();
    let millis = u64::try_from((end - info.start).as_millis()).unwrap_or(u64::MAX);
    stats.downstream_rq_time().record(millis);
    if shared.captures.wants_timings() {
        info.with(|facts| {
            if facts.response_started.is_some() {
                facts.response_received = Some(end);
            }
        });
    }
    if !shared.log.is_empty() {
        let mut context = FormatContext::new(info)
            .with_response(status, headers)
            .with_trailers(trailers)
            .with_end(end);
        context.log_type = AccessLogType::DownstreamEnd;
        shared.log.log(&context);
    }
}

/// A line about a request that goes on.
pub(super) fn log_running(
    shared: &Shared,
    info: &RequestInfo,
    response: Option<(StatusCode, &HeaderMap)>,
    log_type: AccessLogType,
) {
    let mut context = FormatContext::new(info).with_end(clock::now());
    context.response = response;
    context.log_type = log_type;
    shared.log.log(&context);
}

/// The client left: it took the connection with it, or reset its stream.
pub(super) fn depart(shared: &Shared, info: &RequestInfo, kind: ErrorKind) {
    if kind == ErrorKind::DownstreamReset {
        info.flag(ResponseFlag::DownstreamRemoteReset);
        info.set_details("http2.remote_reset");
        return;
    }
    shared.stats.downstream_cx_destroy_active_rq().inc();
    shared.stats.downstream_cx_destroy_remote_active_rq().inc();
    info.flag(ResponseFlag::DownstreamConnectionTermination);
    info.set_details("downstream_remote_disconnect");
}

/// The request ended without an answer: the client had left.
pub(super) fn settle_unanswered(shared: &Shared, info: &RequestInfo) {
    let stats = &shared.stats;
    stats.downstream_rq_active().dec();
    stats.downstream_rq_rx_reset().inc();
    if !shared.log.is_empty() {
        let mut context = FormatContext::new(info).with_end(clock::now());
        context.log_type = AccessLogType::DownstreamEnd;
        shared.log.log(&context);
    }
}

impl AnswerBody {
    /// For an answer that nobody is there to read.
    pub(super) const fn from_nothing() -> Self {
        Self {
            body: Body::empty(),
            log: None,
        }
    }

    fn settle(&mut self) {
        if let Some(log) = self.log.take() {
            settle(
                &log.shared,
                &log.info,
                log.status,
                &log.headers,
                log.trailers.as_ref(),
            );
        }
    }

    fn watched(&mut self, cx: &mut Context<'_>) -> Due {
        let watch = self.log.as_mut().and_then(|log| log.watch.as_mut());
        watch.map_or(Due::Nothing, |watch| watch.poll(cx))
    }

    fn log_running(&self) {
        if let Some(log) = &self.log {
            let response = Some((log.status, &log.headers));
            let log_type = AccessLogType::DownstreamPeriodic;
            log_running(&log.shared, &log.info, response, log_type);
        }
    }

    /// Ends the answer here, and says why.
    fn cut_off(&mut self, kind: ErrorKind) -> Error {
        let error = Error::from(kind);
        if let Some(log) = &self.log {
            count_error(&log.shared, kind);
            broken(&log.shared, &log.info, &error);
        }
        self.body = Body::empty();
        self.settle();
        error
    }

    /// The body for a caller in process: it settles as it did.
    #[must_use]
    pub fn into_body(mut self) -> Body {
        if self.log.is_none() {
            std::mem::take(&mut self.body)
        } else {
            Body::new(self)
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.watched(cx) {
            Due::Nothing => {}
            Due::Line => self.log_running(),
            Due::End => return Poll::Ready(Some(Err(self.cut_off(ErrorKind::StreamDuration)))),
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(log) = self.log.as_mut() else {
            return Poll::Ready(frame);
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    log.info.add_sent(data.len() as u64);
                } else {
                    log.trailers = frame.trailers_ref().cloned();
                }
                if self.body.is_end_stream() {
                    self.settle();
                }
            }
            Some(Err(error)) => {
                broken(&log.shared, &log.info, error);
                self.settle();
            }
            None => self.settle(),
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

/// The answer broke off behind its head.
fn broken(shared: &Shared, info: &RequestInfo, error: &Error) {
    // A reset that is sent counts as one that was received, as in Envoy.
    shared.stats.downstream_rq_rx_reset().inc();
    if error.kind().is_departure() {
        return depart(shared, info, error.kind());
    }
    shared.stats.downstream_rq_tx_reset().inc();
    if let Some(flag) = error.kind().flag() {
        info.flag(flag);
    }
    if error.kind() == ErrorKind::RequestTimeout
        && let Some(forwarding) = info.route::<Forwarding>()
    {
        forwarding.count_timeout();
    }
    let reason = error.kind().text().replace(' ', "_");
    info.set_details(match error.kind() {
        ErrorKind::RequestTimeout => "response_timeout".to_owned(),
        ErrorKind::StreamIdleTimeout => "stream_idle_timeout".to_owned(),
        ErrorKind::StreamDuration => "max_duration_timeout".to_owned(),
        _ => format!("upstream_reset_after_response_started{{{reason}}}"),
    });
}

impl Abort for AnswerBody {
    fn abort(mut self: Pin<&mut Self>, error: &Error) {
        if let Some(log) = &self.log {
            count_error(&log.shared, error.kind());
            broken(&log.shared, &log.info, error);
        }
        self.settle();
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(log) = &self.log
            && !self.body.is_end_stream()
        {
            log.shared.stats.downstream_rq_rx_reset().inc();
            log.info.flag(ResponseFlag::DownstreamConnectionTermination);
            log.info.set_details("downstream_remote_disconnect");
        }
        self.settle();
    }
}
