use std::{sync::Arc, time::Duration};

use http::Request;
use http_body::Body as HttpBody;
use mesh_core::{Attempt, Mode, Permit, RequestInfo, Resource};

use crate::{
    ReplayBody, RequestHead, RetryConfig, RetryContext, RetryOverrides, RetryState,
    head::{SavedHead, attach_attempt, mark},
    replay::{Source, Wanted},
};

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
    /// The first attempt's marker and reader.
    pub first: (Option<Attempt>, u32),
}

impl<B, C> Plan<B, C>
where
    B: HttpBody + 'static,
    C: RetryContext,
{
    /// The plan, and the request of the first attempt.
    pub(crate) fn new(
        config: Arc<RetryConfig>,
        context: C,
        request: Request<B>,
    ) -> (Self, Request<ReplayBody<B>>) {
        let (mut parts, body) = request.into_parts();
        let mut overrides = RetryOverrides::take(&mut parts.headers);
        let shadow = config.mode == Mode::Shadow;
        let asked = overrides.per_try_timeout.take();
        let per_try_timeout = asked
            .or(config.per_try_timeout)
            .filter(|timeout| !timeout.is_zero() && !shadow);
        let per_try_idle_timeout = config
            .per_try_idle_timeout
            .filter(|timeout| !timeout.is_zero() && !shadow);
        let timed = per_try_timeout.is_some() || per_try_idle_timeout.is_some();
        let hedge = overrides.hedge.unwrap_or(config.hedge_on_per_try_timeout);
        let head = RequestHead::new(&parts.method, &parts.uri, &parts.headers);
        let state = RetryState::new(&config, head, overrides);

        let repeats = state.may_repeat() && !shadow;
        let announced = body.size_hint().lower();
        let wanted = Wanted {
            replay_limit: repeats.then_some(config.request_body_buffer_limit),
            end: timed,
        };
        let (source, body, reader) = Source::new(body, wanted);
        let head = (repeats && source.can_replay()).then(|| SavedHead::new(&parts));
        let info = parts.extensions.get::<Arc<RequestInfo>>().cloned();

        let mut request = Request::from_parts(parts, body);
        if !shadow {
            mark(&mut request, &config, 1, None);
        }
        let attempt = attach_attempt(&mut request, timed);
        if let Some(info) = &info {
            info.with(|facts| facts.attempts += 1);
        }
        let mut this = Self {
            abandoned: false,
            config,
            context,
            info,
            state,
            source,
            head,
            per_try_timeout,
            per_try_idle_timeout,
            hedge,
            announced,
            first: (attempt, reader),
        };
        if repeats && !this.source.can_replay() {
            this.abandon();
        }
        (this, request)
    }
}

impl<B, C: RetryContext> Plan<B, C> {
    /// Whether there is anything to do beyond passing the first result on.
    pub(crate) fn is_needed(&self) -> bool {
        self.state.is_active() || self.is_timed()
    }

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
