use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, Response, StatusCode};
use mesh_core::{
    Body, BoxFuture, BoxHttpService, Error, ErrorKind, RequestInfo, ResponseFlag,
    format::AccessLogType,
};
use mesh_http::{CloseConnection, Exchange, reply::ReplyContext};
use tower_service::Service as _;

use super::{
    Shared,
    answer::{self, AnswerBody, Outgoing, Through},
    begin,
};
use crate::{
    router::Redirected,
    watch::{Due, Watch},
};

/// What happens to the request by time alone, and how long it may be silent.
fn times(shared: &Shared, info: &RequestInfo) -> (Option<Box<Watch>>, Option<Duration>) {
    let lines = shared.config.access_log_options.flush_interval;
    let (own, idle) = info.with(|facts| (facts.max_stream_duration, facts.idle_timeout));
    let longest = own.or(shared.config.max_stream_duration);
    (Watch::new(info.start, lines, longest), idle)
}

/// One request in the filters.
pub struct ManagerExchange {
    shared: Arc<Shared>,
    info: Arc<RequestInfo>,
    context: ReplyContext,
    request_id: Option<HeaderValue>,
    idle_timeout: Option<Duration>,
    refused: bool,
    /// Where a request starts again that is sent elsewhere; `None` where no route follows redirects.
    chain: Option<BoxHttpService>,
    /// Lines while it goes on, and its end; `None` where there are neither.
    watch: Option<Box<Watch>>,
    state: State,
}

enum State {
    Running(BoxFuture<Result<Response<Body>, Error>>),
    Refused(Option<Error>),
    Done,
}

impl ManagerExchange {
    pub(super) fn running(
        shared: &Arc<Shared>,
        info: Arc<RequestInfo>,
        context: ReplyContext,
        request_id: Option<HeaderValue>,
        future: BoxFuture<Result<Response<Body>, Error>>,
        chain: Option<BoxHttpService>,
    ) -> Self {
        let (watch, idle_timeout) = times(shared, &info);
        let state = State::Running(future);
        Self {
            shared: Arc::clone(shared),
            info,
            context,
            request_id,
            idle_timeout,
            refused: false,
            chain,
            watch,
            state,
        }
    }

    pub(super) fn refused(
        shared: &Arc<Shared>,
        info: Arc<RequestInfo>,
        context: ReplyContext,
        error: Error,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            info,
            context,
            request_id: None,
            idle_timeout: None,
            refused: true,
            chain: None,
            watch: None,
            state: State::Refused(Some(error)),
        }
    }

    /// What is known about the request.
    #[must_use]
    pub fn info(&self) -> &Arc<RequestInfo> {
        &self.info
    }

    /// The answer, or the error in place of a local reply, for callers in process.
    pub(crate) fn poll_result(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<AnswerBody>, Error>> {
        match self.watch.as_mut().map_or(Due::Nothing, |w| w.poll(cx)) {
            Due::Nothing => {}
            Due::Line => {
                let log_type = AccessLogType::DownstreamPeriodic;
                answer::log_running(&self.shared, &self.info, None, log_type);
            }
            Due::End => {
                // Whatever runs below ends before the answer is made, so that its facts are in the log.
                self.state = State::Done;
                let received = self.info.with(|facts| facts.request_received.is_some());
                self.context.request_complete = received;
                return Poll::Ready(Err(ErrorKind::StreamDuration.into()));
            }
        }
        let result = loop {
            let result = match &mut self.state {
                State::Running(future) => ready!(future.as_mut().poll(cx)),
                State::Refused(error) => {
                    Err(error.take().unwrap_or_else(|| ErrorKind::LocalReset.into()))
                }
                State::Done => Err(ErrorKind::LocalReset.into()),
            };
            self.state = State::Done;
            if !self.starts_again(&result) {
                break result;
            }
        };
        match result {
            Ok(response) => {
                let local = response
                    .extensions()
                    .get::<crate::router::Local>()
                    .is_some();
                let request_id = self.request_id.take();
                let how = Outgoing {
                    local,
                    head: self.context.head,
                    request_id,
                    watch: self.watch.take(),
                };
                let answer = answer::outgoing(&self.shared, &self.info, response, how);
                Poll::Ready(Ok(answer))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Whether the answer is a redirect that is followed: then that request is over, and another runs.
    fn starts_again(&mut self, result: &Result<Response<Body>, Error>) -> bool {
        let (Some(chain), Ok(response)) = (&mut self.chain, result) else {
            return false;
        };
        let redirected = response.extensions().get::<Redirected>();
        let Some(again) = redirected.and_then(Redirected::take) else {
            return false;
        };
        self.info.set_details("internal_redirect");
        let (status, headers) = (response.status(), response.headers());
        answer::settle_uncounted(&self.shared, &self.info, status, headers, None);
        let (info, request) = begin::again(&self.shared, &self.info, *again);
        (self.watch, self.idle_timeout) = times(&self.shared, &info);
        self.info = info;
        self.state = State::Running(chain.call(request));
        true
    }

    /// Settles the request as a local reply would, and hands the error on.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        self.context.attempts = self.info.with(|facts| facts.attempts);
        answer::settle_failed(&self.shared, &self.info, &error, self.context);
        error
    }

    /// The client left: nobody reads what is answered, and the log says so.
    fn abandoned(&self, kind: ErrorKind) -> Response<AnswerBody> {
        self.settle_abandoned(kind);
        let mut response = Response::new(AnswerBody::from_nothing());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.extensions_mut().insert(CloseConnection);
        response
    }

    fn settle_abandoned(&self, kind: ErrorKind) {
        answer::depart(&self.shared, &self.info, kind);
        answer::settle_unanswered(&self.shared, &self.info);
    }

    /// Answers `error` from here.
    pub(crate) fn reply(&mut self, error: Error) -> Response<AnswerBody> {
        self.context.attempts = self.info.with(|facts| facts.attempts);
        // A request that was refused on arrival is the last of its connection, unless it is sent elsewhere.
        let last = self.refused
            && error
                .reply()
                .is_none_or(|reply| !reply.status.is_redirection());
        let through = if self.refused {
            Through::Nothing
        } else {
            Through::Filters
        };
        let mut response = answer::local(&self.shared, &self.info, error, self.context, through);
        if last {
            response.extensions_mut().insert(CloseConnection);
        }
        response
    }
}

impl Future for ManagerExchange {
    type Output = Response<AnswerBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<AnswerBody>> {
        match ready!(self.poll_result(cx)) {
            Ok(response) => Poll::Ready(response),
            Err(error) if error.kind().is_departure() => Poll::Ready(self.abandoned(error.kind())),
            Err(error) => Poll::Ready(self.reply(error)),
        }
    }
}

impl Exchange for ManagerExchange {
    type Body = AnswerBody;

    fn cancel(mut self: Pin<&mut Self>, error: Error) -> Response<AnswerBody> {
        // Whatever runs below ends before the answer is made, so that its facts are in the log.
        self.state = State::Done;
        if error.kind().is_departure() {
            self.settle_abandoned(error.kind());
            return Response::new(AnswerBody::from_nothing());
        }
        self.context.request_complete = self.info.with(|facts| facts.request_received.is_some());
        self.reply(error)
    }

    fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }
}

impl Drop for ManagerExchange {
    fn drop(&mut self) {
        if !matches!(self.state, State::Done) {
            self.state = State::Done;
            self.info
                .flag(ResponseFlag::DownstreamConnectionTermination);
            self.info.set_details("downstream_remote_disconnect");
            answer::settle_unanswered(&self.shared, &self.info);
        }
    }
}
