//! One log line per attempt. Envoy: `Router.upstream_log`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_config::model::AccessLogOptions;
use mesh_core::{
    Attempt, Body, Endpoint, Error, Facts, RequestInfo, ResponseFlag, clock,
    format::{AccessLogType, FormatContext},
};
use mesh_telemetry::AccessLog;

use super::attempt::attempt_of;
use crate::watch::Periodic;

/// The logs of all attempts.
pub(crate) struct UpstreamLog {
    pub(crate) log: AccessLog,
    pub(crate) options: AccessLogOptions,
}

/// What is known of one attempt, which is logged when this is dropped: at the end of its answer, when it
/// failed, or when it was given up.
pub(super) struct AttemptLog {
    to: Arc<UpstreamLog>,
    /// Of the whole request, where the pool notes its connection.
    live: Arc<RequestInfo>,
    /// Of the attempt alone.
    own: Arc<RequestInfo>,
    attempt: Attempt,
    head: Option<(StatusCode, HeaderMap)>,
    trailers: Option<HeaderMap>,
    /// The line about the connection has been written, or is not wanted.
    ready: bool,
    periodic: Option<Periodic>,
}

impl AttemptLog {
    /// Of an attempt at `endpoint` that begins now; the bytes of its body are counted.
    pub(super) fn new(
        to: &Arc<UpstreamLog>,
        live: &Arc<RequestInfo>,
        endpoint: &Arc<Endpoint>,
        request: &mut Request<Body>,
    ) -> Box<Self> {
        let now = clock::now();
        let own = Arc::new(RequestInfo::new(
            now,
            live.random,
            Arc::clone(&live.connection),
            Arc::clone(&live.config_version),
        ));
        let known = live.with(|facts| inherited(facts));
        own.with(|facts| {
            *facts = known;
            facts.endpoint = Some(Arc::clone(endpoint));
        });
        let attempt = attempt_of(request);
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = match body.as_full() {
            Some(bytes) => {
                own.add_sent(bytes.len() as u64);
                body
            }
            None => Body::new(Counted {
                body,
                info: Arc::clone(&own),
            }),
        };
        Box::new(Self {
            ready: !to.options.flush_on_new_request,
            periodic: to
                .options
                .flush_interval
                .map(|every| Periodic::new(every, now)),
            to: Arc::clone(to),
            live: Arc::clone(live),
            own,
            attempt,
            head: None,
            trailers: None,
        })
    }

    /// Writes what is due while the attempt goes on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        if !self.ready && self.attempt.is_connected() {
            self.ready = true;
            self.write(AccessLogType::UpstreamPoolReady);
        }
        if self.periodic.as_mut().is_some_and(|due| due.is_due(cx)) {
            self.write(AccessLogType::UpstreamPeriodic);
        }
    }

    pub(super) fn failed(&mut self, error: &Error) {
        if let Some(flag) = error.kind().flag() {
            self.own.flag(flag);
        }
        let reason = error.message().map(|message| message.to_owned().into());
        self.own.with(|facts| facts.transport_failure = reason);
    }

    /// The answer's head is here; the log follows its body.
    pub(super) fn answered(mut self: Box<Self>, response: Response<Body>) -> Response<Body> {
        self.head = Some((response.status(), response.headers().clone()));
        let started = Some(clock::now());
        self.own.with(|facts| facts.response_started = started);
        response.map(|body| match body.as_full() {
            Some(bytes) => {
                self.own.add_received(bytes.len() as u64);
                body
            }
            None => Body::new(Logged { body, log: self }),
        })
    }

    /// What the pool has noted about the connection.
    fn note_connection(&self) {
        let noted = self.live.with(|facts| {
            let facts = &*facts;
            (
                facts.upstream_local,
                facts.upstream_connection_id,
                facts.upstream_protocol,
                facts.upstream_tls.clone(),
                (
                    facts.attempt_started,
                    facts.upstream_ready,
                    facts.request_sent,
                ),
            )
        });
        self.own.with(|facts| {
            (
                facts.upstream_local,
                facts.upstream_connection_id,
                facts.upstream_protocol,
                facts.upstream_tls,
                (
                    facts.attempt_started,
                    facts.upstream_ready,
                    facts.request_sent,
                ),
            ) = noted;
            // The only protocol that an attempt has, as in Envoy.
            facts.protocol = facts.upstream_protocol;
        });
    }

    fn write(&self, log_type: AccessLogType) {
        if self.attempt.is_connected() {
            self.note_connection();
        }
        let mut context = FormatContext::new(&self.own)
            .with_trailers(self.trailers.as_ref())
            .with_end(clock::now());
        if let Some((status, headers)) = &self.head {
            context = context.with_response(*status, headers);
        }
        context.log_type = log_type;
        self.to.log.log(&context);
    }
}

impl Drop for AttemptLog {
    fn drop(&mut self) {
        if self.attempt.is_timed_out() {
            self.own.flag(ResponseFlag::UpstreamRequestTimeout);
        }
        self.write(AccessLogType::UpstreamEnd);
    }
}

/// What an attempt knows from its request.
fn inherited(live: &Facts) -> Facts {
    let mut facts = Facts::default();
    facts.route_name.clone_from(&live.route_name);
    facts.cluster.clone_from(&live.cluster);
    facts.captured.clone_from(&live.captured);
    facts.passed.clone_from(&live.passed);
    facts.remote = live.remote;
    facts.attempts = live.attempts;
    facts
}

/// The body of an attempt: counts what is sent.
struct Counted {
    body: Body,
    info: Arc<RequestInfo>,
}

/// The body of an answer: counts what is received, and ends the attempt.
struct Logged {
    body: Body,
    log: Box<AttemptLog>,
}

impl HttpBody for Counted {
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
            self.info.add_sent(data.len() as u64);
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

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.log.poll(cx);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => self.log.own.add_received(data.len() as u64),
                None => self.log.trailers = frame.trailers_ref().cloned(),
            },
            Some(Err(error)) => self.log.failed(error),
            None => {}
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
