use std::{
    task::{Context, Waker},
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_core::{
    Attempt, AttemptPhase, Decision, Error, ErrorKind, Permit, Reason, Rng, Timer, clock,
};

use crate::{
    Judgement, ReplayBody, RetryBody, RetryConfig, RetryContext, RetryState, Verdict,
    body::{Held, Idle},
    env::Env,
    head::{attach_attempt, mark},
    plan::{Plan, count_request},
    time::{after, millis},
};

/// A request under a policy, from its first attempt to its answer: everything but the attempts' futures.
pub(crate) struct Call<B, C> {
    pub plan: Plan<B, C>,
    rng: Rng,
    request: Option<Permit>,
    pub attempts: u32,
    pub next: Next,
    /// Whether the next attempt follows a per-try timeout.
    timeout_retry: bool,
    pub timer: Timer,
}

/// When the next attempt is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is none.
    Never,
    /// The back-off lasts until then.
    At(Instant),
    /// As soon as the service is ready.
    Now,
}

/// One attempt in flight, without its future.
#[derive(Debug)]
pub(crate) struct Try {
    marker: Option<Attempt>,
    reader: u32,
    /// It took too long and another one was started beside it.
    pub joined: bool,
    started: Option<Instant>,
    per_try: Option<Instant>,
    idle: Option<Instant>,
}

impl Try {
    pub(crate) const fn new(marker: Option<Attempt>, reader: u32) -> Self {
        Self {
            marker,
            reader,
            joined: false,
            started: None,
            per_try: None,
            idle: None,
        }
    }

    /// When its next timer fires.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.per_try.into_iter().chain(self.idle).min()
    }
}

/// What becomes of the result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The caller gets it.
    Answer,
    /// It is dropped, since the request is repeated or other attempts may still do better.
    Discard,
}

/// What becomes of an attempt whose timer fired.
#[derive(Debug)]
pub(crate) enum Expiry {
    /// It goes on.
    Stays,
    /// It ends with this error.
    Ends(Error),
}

impl<B, C: RetryContext> Call<B, C> {
    /// While the first attempt is made.
    pub(crate) fn new(plan: Plan<B, C>, rng: Rng) -> Self {
        Self {
            request: count_request(&plan.context),
            plan,
            rng,
            attempts: 1,
            next: Next::Never,
            timeout_retry: false,
            timer: Timer::new(),
        }
    }

    /// Starts the per-try timers once the request is complete and a connection is ready.
    pub(crate) fn start_timers(&self, attempt: &mut Try, cx: &Context<'_>) {
        let Some(marker) = &attempt.marker else {
            return;
        };
        if attempt.started.is_some()
            || marker.phase() != AttemptPhase::Running
            || self.plan.source.poll_ended(cx).is_pending()
        {
            return;
        }
        let now = clock::now();
        // A timer that would fire with the route timeout, or after it, has no say.
        let route = self
            .plan
            .info
            .as_ref()
            .and_then(|info| info.with(|facts| facts.deadline));
        let at = |timeout: Option<Duration>| {
            timeout
                .map(|timeout| after(now, timeout))
                .filter(|at| route.is_none_or(|route| *at < route))
        };
        attempt.started = Some(now);
        attempt.per_try = at(self.plan.per_try_timeout);
        attempt.idle = at(self.plan.per_try_idle_timeout);
    }

    /// A timer of this attempt may have fired; `room` for another one beside it.
    pub(crate) fn expire(&mut self, attempt: &mut Try, now: Instant, room: bool) -> Option<Expiry> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let (kind, timeout) = if due(attempt.per_try) {
            (ErrorKind::PerTryTimeout, self.plan.per_try_timeout)
        } else if due(attempt.idle) {
            (ErrorKind::PerTryIdleTimeout, self.plan.per_try_idle_timeout)
        } else {
            return None;
        };
        attempt.per_try = None;
        attempt.idle = None;
        if let Some(marker) = &attempt.marker {
            marker.time_out();
        }
        self.timeout_retry = true;
        if self.plan.hedge {
            if room {
                self.hedge(attempt);
            }
            return Some(Expiry::Stays);
        }
        let stats = self.plan.context.stats();
        let reason = if kind == ErrorKind::PerTryTimeout {
            stats.upstream_rq_per_try_timeout().inc();
            Reason::PerTryTimeout
        } else {
            stats.upstream_rq_per_try_idle_timeout().inc();
            Reason::IdleTimeout
        };
        let lasted = attempt.started.map_or(0, |started| millis(now - started));
        let limit = timeout.map_or(0, millis);
        self.trace(Decision::new("retry", reason, lasted, limit));
        Some(Expiry::Ends(Error::new(kind)))
    }

    /// Leaves the attempt running and schedules another one beside it.
    fn hedge(&mut self, attempt: &mut Try) {
        self.plan.notice_overflow();
        if !self.plan.state.is_active() || self.plan.abandoned {
            return;
        }
        if self.next != Next::Never {
            attempt.joined = true;
            return;
        }
        let verdict = self.decide(|state, _, env| state.on_hedge(env));
        let Verdict::Retry { delay, .. } = verdict else {
            self.record(&verdict, Reason::Retried);
            return;
        };
        attempt.joined = true;
        self.plan.context.stats().upstream_rq_hedged().inc();
        self.record(&verdict, Reason::Hedged);
        self.schedule(delay);
    }

    /// An attempt was answered while `others` are in flight or due.
    pub(crate) fn on_response<R>(
        &mut self,
        attempt: &Try,
        response: &Response<R>,
        others: bool,
    ) -> Fate {
        if !self.plan.state.is_active() {
            return Fate::Answer;
        }
        self.plan.notice_overflow();
        let (status, headers) = (response.status(), response.headers());
        let plan = &self.plan;
        if attempt.joined || self.next != Next::Never || plan.abandoned {
            let judged = plan.state.judge_response(&plan.config, status, headers);
            if judged != Judgement::Retriable {
                return Fate::Answer;
            }
            self.count_skip();
            return self.unless(others);
        }
        let verdict =
            self.decide(|state, config, env| state.on_response(config, status, headers, env));
        self.timeout_retry = false;
        let fate = self.follow(attempt, &verdict, others);
        match verdict {
            Verdict::Retry { .. } if !self.plan.shadow() => self.plan.context.on_retried(status),
            // An answer that nothing speaks against does not wait for the others.
            Verdict::Stands { .. } => return Fate::Answer,
            _ => {}
        }
        fate
    }

    /// An attempt ended without an answer while `others` are in flight or due.
    pub(crate) fn on_failure(&mut self, attempt: &Try, error: &Error, others: bool) -> Fate {
        // Without the rest of the request there is nothing to repeat.
        if !self.plan.state.is_active() || self.plan.source.failed() {
            return Fate::Answer;
        }
        self.plan.notice_overflow();
        let kind = error.kind();
        let timeout = matches!(
            kind,
            ErrorKind::PerTryTimeout | ErrorKind::PerTryIdleTimeout
        );
        if attempt.joined || self.next != Next::Never || self.plan.abandoned {
            if self.plan.state.judge_failure(kind) == Judgement::Retriable {
                self.count_skip();
            }
            return self.unless(others);
        }
        let verdict = self.decide(|state, _, env| state.on_failure(kind, error.sent(), env));
        self.timeout_retry = timeout;
        self.follow(attempt, &verdict, others)
    }

    fn decide(
        &mut self,
        f: impl FnOnce(&mut RetryState<Option<Permit>>, &RetryConfig, &mut Env<'_>) -> Verdict,
    ) -> Verdict {
        let shadow = self.plan.shadow();
        let Plan {
            state,
            config,
            context,
            ..
        } = &mut self.plan;
        let mut env = Env {
            resources: context.resources(),
            rng: &self.rng,
            shadow,
        };
        f(state, config, &mut env)
    }

    fn follow(&mut self, attempt: &Try, verdict: &Verdict, others: bool) -> Fate {
        self.record(verdict, Reason::Retried);
        match verdict {
            Verdict::Retry { delay, .. } if !self.plan.shadow() => {
                self.plan.source.cut(attempt.reader);
                self.schedule(*delay);
                Fate::Discard
            }
            _ => self.unless(others),
        }
    }

    const fn unless(&self, others: bool) -> Fate {
        if others { Fate::Discard } else { Fate::Answer }
    }

    fn schedule(&mut self, delay: Duration) {
        self.next = if delay.is_zero() {
            Next::Now
        } else {
            Next::At(after(clock::now(), delay))
        };
    }

    /// The answer, holding what the request still holds.
    pub(crate) fn answer<R: HttpBody>(
        &mut self,
        attempt: Try,
        response: Response<R>,
    ) -> Response<RetryBody<R>> {
        self.plan.source.settle_on(attempt.reader);
        let held = Held {
            slot: self.plan.state.take_slot().flatten(),
            request: self.request.take(),
        };
        // It begins with the end of the request: a tunnel, or a call that goes both ways, is not silent only
        // because its answer is.
        let cx = Context::from_waker(Waker::noop());
        let complete = self.plan.source.poll_ended(&cx).is_ready();
        let timeout = self.plan.per_try_idle_timeout.filter(|_| complete);
        let idle = timeout.map(|timeout| {
            Box::new(Idle {
                timer: Timer::at(after(clock::now(), timeout)),
                timeout,
                attempt: attempt.marker.unwrap_or_default(),
                stats: self.plan.context.stats().clone(),
                info: self.plan.info.clone(),
            })
        });
        response.map(|body| RetryBody::new(body, held, idle))
    }
}

impl<B, C> Call<B, C>
where
    B: HttpBody + 'static,
    C: RetryContext,
{
    /// The request of the attempt that is due.
    pub(crate) fn next_request(&mut self) -> Option<(Request<ReplayBody<B>>, Try)> {
        self.next = Next::Never;
        let head = self.plan.head.as_ref()?;
        let (body, reader) = self.plan.source.body();
        let mut request = head.request(body);
        self.attempts = self.attempts.saturating_add(1);
        if let Some(info) = &self.plan.info {
            info.with(|facts| facts.attempts += 1);
        }
        mark(
            &mut request,
            &self.plan.config,
            self.attempts,
            Some(self.timeout_retry),
        );
        let marker = attach_attempt(&mut request, self.plan.is_timed());
        Some((request, Try::new(marker, reader)))
    }
}
