use std::{sync::Arc, time::Duration};

use http::Request;
use http_body::Body as HttpBody;
use mesh_core::{Attempt, Mode, Permit, RequestInfo, Resource};

use crate::{
    ReplayBody, RequestHead, RetryConfig, RetryContext, RetryOverrides, RetryState,
    head::{SavedHead, attach_attempt, mark},
    replay::{Source, Wanted},
};

/// What a policy and a request's own headers make of each other.
pub(crate) struct Terms {
    per_try_timeout: Option<Duration>,
    per_try_idle_timeout: Option<Duration>,
    hedge: bool,
    state: RetryState<Option<Permit>>,
}

impl Terms {
    /// Takes the control headers out of the request. `None` when there is nothing to do beyond passing
    /// the first result on.
    pub(crate) fn new<B>(config: &RetryConfig, request: &mut Request<B>) -> Option<Self> {
        let mut overrides = RetryOverrides::take(request.headers_mut());
        let shadow = config.mode == Mode::Shadow;
        let timeout = |timeout: Option<Duration>| timeout.filter(|t| !t.is_zero() && !shadow);
        let asked = overrides.per_try_timeout.take();
        let per_try_timeout = timeout(asked.or(config.per_try_timeout));
        let per_try_idle_timeout = timeout(config.per_try_idle_timeout);
        let timed = per_try_timeout.is_some() || per_try_idle_timeout.is_some();
        if !timed && config.retry_on.is_empty() && overrides.retry_on.is_empty() {
            return None;
        }
        let hedge = overrides.hedge.unwrap_or(config.hedge_on_per_try_timeout);
        let head = RequestHead::new(request.method(), request.uri(), request.headers());
        let state = RetryState::new(config, head, overrides);
        (timed || state.is_active()).then_some(Self {
            per_try_timeout,
            per_try_idle_timeout,
            hedge,
            state,
        })
    }
}

/// Counts and marks the first attempt.
pub(crate) fn first_attempt<B>(config: &RetryConfig, request: &mut Request<B>) {
    if config.mode != Mode::Shadow {
        mark(request, config, 1, None);
    }
    if let Some(info) = RequestInfo::of(request) {
        info.with(|facts| facts.attempts += 1);
    }
}

/// What is settled about a request before its first attempt, and stays so.
pub(crate) struct Plan<B, C> {
    pub config: Arc<RetryConfig>,
    pub context: C,
    pub info: Option<Arc<RequestInfo>>,
    /// The slot of a shadowed retry is nothing.
    pub state: RetryState<Option<Permit>>,
    pub source: Source<B>,
    /// There when a repetition is possible.
    pub head: Option<SavedHead>,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub hedge: bool,
    /// The body's length as far as it was announced.
    pub announced: u64,
    /// The body was wanted for replay and turned out to be too long, which has been counted.
    pub abandoned: bool,
}

impl<B, C> Plan<B, C>
where
    B: HttpBody + 'static,
    C: RetryContext,
{
    /// The plan, and the request of the first attempt with its marker and reader.
    pub(crate) fn new(
        config: Arc<RetryConfig>,
        context: C,
        terms: Terms,
        request: Request<B>,
    ) -> (Self, Request<ReplayBody<B>>, (Option<Attempt>, u32)) {
        let shadow = config.mode == Mode::Shadow;
        let repeats = terms.state.may_repeat() && !shadow;
        let announced = request.body().size_hint().lower();
        let info = RequestInfo::of(&request).cloned();
        let mut this = Self {
            info,
            state: terms.state,
            source: Source::Gone,
            head: None,
            per_try_timeout: terms.per_try_timeout,
            per_try_idle_timeout: terms.per_try_idle_timeout,
            hedge: terms.hedge,
            announced,
            abandoned: false,
            config,
            context,
        };
        let wanted = Wanted {
            replay_limit: repeats.then_some(this.config.request_body_buffer_limit),
            end: this.is_timed(),
        };
        let mut reader = 0;
        let mut request = request.map(|body| {
            let (source, body, first) = Source::new(body, wanted);
            this.source = source;
            reader = first;
            body
        });
        if repeats && this.source.can_replay() {
            this.head = Some(SavedHead::new(&request));
        } else if repeats {
            this.abandon();
        }
        first_attempt(&this.config, &mut request);
        let marker = attach_attempt(&mut request, this.is_timed());
        (this, request, (marker, reader))
    }
}

impl<B, C: RetryContext> Plan<B, C> {
    pub(crate) const fn is_timed(&self) -> bool {
        self.per_try_timeout.is_some() || self.per_try_idle_timeout.is_some()
    }

    pub(crate) fn shadow(&self) -> bool {
        self.config.mode == Mode::Shadow
    }

    /// Notices that the body has become too long to be sent again.
    pub(crate) fn notice_overflow(&mut self) {
        if !self.abandoned && self.source.overflowed() {
            self.abandon();
        }
    }

    fn abandon(&mut self) {
        self.abandoned = true;
        self.head = None;
        drop(self.state.take_slot());
        self.context.stats().retry_or_shadow_abandoned().inc();
    }
}

/// The request's place among those in flight, where nothing below counts it.
pub(crate) fn count_request(context: &impl RetryContext) -> Option<Permit> {
    // Beyond the bound: here the number feeds the budget's percentage and refuses nothing.
    context
        .counts_requests()
        .then(|| context.resources().acquire_beyond(Resource::Requests))
}
