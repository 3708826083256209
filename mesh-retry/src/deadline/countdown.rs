use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use http::StatusCode;
use mesh_core::{
    Decision, Error, ErrorKind, LocalReply, Mode, Reason, RequestInfo, ResponseFlag, Timer, clock,
};

use crate::time::{after, millis};

/// Where a request body says that it ended, and the countdown hears it.
#[derive(Debug)]
pub(super) struct RequestEnd {
    state: Mutex<EndState>,
    timeout: Duration,
    info: Option<Arc<RequestInfo>>,
}

#[derive(Debug, Default)]
struct EndState {
    at: Option<Instant>,
    waker: Option<Waker>,
}

impl RequestEnd {
    /// The request ended now, if it had not before.
    pub(super) fn reached(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.at.is_some() {
            return;
        }
        let now = clock::now();
        state.at = Some(now);
        let waker = state.waker.take();
        drop(state);
        publish(self.info.as_deref(), after(now, self.timeout));
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = state.at {
            return Poll::Ready(at);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

fn publish(info: Option<&RequestInfo>, deadline: Instant) {
    if let Some(info) = info {
        info.with(|facts| facts.deadline = Some(deadline));
    }
}

/// The route timeout of one request, from the end of the request to the end of the response.
#[derive(Debug)]
pub(super) struct Countdown {
    timer: Timer,
    /// While the request is still coming in.
    end: Option<Arc<RequestEnd>>,
    started: Option<Instant>,
    timeout: Duration,
    info: Option<Arc<RequestInfo>>,
    /// The client asked for 204 instead of 504.
    alt_response: bool,
    mode: Mode,
}

impl Countdown {
    pub(super) const fn new(
        timeout: Duration,
        mode: Mode,
        alt_response: bool,
        info: Option<Arc<RequestInfo>>,
    ) -> Self {
        Self {
            timer: Timer::new(),
            end: None,
            started: None,
            timeout,
            info,
            alt_response,
            mode,
        }
    }

    /// The request is here already.
    pub(super) fn start(&mut self) {
        let now = clock::now();
        self.started = Some(now);
        self.timer.arm(after(now, self.timeout));
        publish(self.info.as_deref(), after(now, self.timeout));
    }

    /// The request is still coming in; its body tells when it ended.
    pub(super) fn await_end(&mut self) -> Arc<RequestEnd> {
        let end = Arc::new(RequestEnd {
            state: Mutex::default(),
            timeout: self.timeout,
            info: self.info.clone(),
        });
        self.end = Some(Arc::clone(&end));
        end
    }

    /// Ready once when the time is up: with the error to end with, or nothing in shadow mode.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        if let Some(end) = &self.end {
            let at = ready!(end.poll(cx));
            self.started = Some(at);
            self.timer.arm(after(at, self.timeout));
            self.end = None;
        }
        ready!(self.timer.poll(cx));
        Poll::Ready(self.expired())
    }

    fn expired(&self) -> Option<Error> {
        let shadow = self.mode == Mode::Shadow;
        if let Some(info) = &self.info {
            let lasted = self.started.map_or(0, |at| millis(clock::now() - at));
            let limit = millis(self.timeout);
            info.decide(
                Decision::new("deadline", Reason::RequestTimeout, lasted, limit).shadowed(shadow),
            );
            if !shadow {
                // Before the attempts are dropped, so that whoever watches them sees why.
                info.flag(ResponseFlag::UpstreamRequestTimeout);
            }
        }
        if shadow {
            return None;
        }
        let error = Error::new(ErrorKind::RequestTimeout);
        Some(if self.alt_response {
            error.with_reply(LocalReply::new(
                StatusCode::NO_CONTENT,
                "",
                "response_timeout",
            ))
        } else {
            error
        })
    }
}
