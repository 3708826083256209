use std::time::Duration;

use http::{HeaderMap, StatusCode};
use mesh_core::{Decision, ErrorKind, ExponentialBackoff, Overflow, Reason, Sent};

use crate::{
    RequestHead, RetryConfig, RetryOn,
    headers::{GRPC_STATUS, RATELIMITED, RetryOverrides},
};

/// What [`RetryState`] takes from the world, at the moment when it needs it and not before.
pub trait RetryEnv {
    /// The right to one repetition, given back when dropped.
    type Slot;

    /// Takes a slot, unless all are in use.
    ///
    /// # Errors
    /// When all are in use.
    fn try_slot(&mut self) -> Result<Self::Slot, Overflow>;

    /// A uniform 64-bit number.
    fn random(&mut self) -> u64;

    /// The time since 1970.
    fn unix_now(&mut self) -> Duration;
}

/// Whether a result asks for a repetition, limits aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// No condition is met.
    Stands,
    /// A condition is met, but `x-envoy-ratelimited` forbids.
    Ratelimited,
    /// A condition is met.
    Retriable,
}

/// What becomes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the answer.
    Stands {
        /// A repetition led to it.
        after_retry: bool,
        /// It would have been repeated but for `x-envoy-ratelimited`.
        ratelimited: bool,
    },
    /// The request is repeated after `delay`.
    Retry {
        /// The wait.
        delay: Duration,
        /// Whether a response header asked for the wait.
        rate_limited: bool,
    },
    /// It is the answer since `num_retries` are used up.
    LimitExceeded,
    /// It is the answer since the budget or `max_retries` is used up.
    Overflow(Overflow),
}

impl Verdict {
    /// The decision for the trace, after `attempts` attempts; `None` when there was nothing to decide.
    #[must_use]
    pub fn decision(&self, attempts: u32, attempts_max: u32) -> Option<Decision> {
        let (reason, observed, limit) = match self {
            Self::Stands {
                ratelimited: false, ..
            } => return None,
            Self::Stands { .. } => (Reason::RetryRatelimited, attempts, attempts_max),
            Self::Retry { .. } => (Reason::Retried, attempts, attempts_max),
            Self::LimitExceeded => (Reason::RetryLimitExceeded, attempts, attempts_max),
            Self::Overflow(full) => (Reason::RetryOverflow, full.in_use, full.limit),
        };
        Some(Decision::new(
            "retry",
            reason,
            u64::from(observed),
            u64::from(limit),
        ))
    }
}

/// The retry state machine of one request.
///
/// It follows Envoy's order: is a condition met; are repetitions left; are they fewer now; is a slot
/// free. The slot is held from that moment until the next decision about the same request, or until the
/// state is dropped. It reads no clock and draws no number: [`RetryEnv`] does.
#[derive(Debug)]
pub struct RetryState<S> {
    on: RetryOn,
    remaining: u32,
    limit: u32,
    /// No attempt has written a byte upstream so far.
    unsent: bool,
    back_off: ExponentialBackoff,
    slot: Option<S>,
    /// Boxed, since few requests have any.
    extra: Option<Box<RetryOverrides>>,
}

impl<S> RetryState<S> {
    /// The state of a request that has not been sent yet.
    #[must_use]
    pub fn new(config: &RetryConfig, head: RequestHead<'_>, overrides: RetryOverrides) -> Self {
        let mut on = config.retry_on | overrides.retry_on;
        let gates = &config.retriable_request_headers;
        if !gates.is_empty() && !gates.iter().any(|gate| gate.matches(head)) {
            on = RetryOn::NONE;
        }
        let limit = overrides.max_retries.unwrap_or(config.num_retries);
        let extra = !overrides.status_codes.is_empty() || !overrides.header_names.is_empty();
        Self {
            on,
            remaining: limit,
            limit,
            unsent: true,
            back_off: config.retry_back_off,
            slot: None,
            extra: extra.then(|| Box::new(overrides)),
        }
    }

    /// Whether any result could lead to a decision.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !self.on.is_empty()
    }

    /// Whether a repetition is left.
    #[must_use]
    pub const fn may_repeat(&self) -> bool {
        self.is_active() && self.remaining > 0
    }

    /// How many attempts the request may have, the first one included.
    #[must_use]
    pub const fn attempts_max(&self) -> u32 {
        self.limit.saturating_add(1)
    }

    /// Takes the slot that is held, so that it can be held until the end of the response.
    pub fn take_slot(&mut self) -> Option<S> {
        self.slot.take()
    }

    /// Whether a response asks for a repetition. `x-envoy-ratelimited` decides alone where it is present.
    #[must_use]
    pub fn judge_response(
        &self,
        config: &RetryConfig,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Judgement {
        if !self.is_active() {
            return Judgement::Stands;
        }
        let met =
            self.met_by_status(config, status) || self.met_by_headers(config, status, headers);
        // Looked up on a plain success only when the token asks for it.
        if (met || self.on.intersects(RetryOn::ENVOY_RATELIMITED))
            && headers.contains_key(RATELIMITED)
        {
            return if self.on.intersects(RetryOn::ENVOY_RATELIMITED) {
                Judgement::Retriable
            } else {
                Judgement::Ratelimited
            };
        }
        if met {
            Judgement::Retriable
        } else {
            Judgement::Stands
        }
    }

    fn met_by_status(&self, config: &RetryConfig, status: StatusCode) -> bool {
        let code = status.as_u16();
        let has = |on| self.on.intersects(on);
        has(RetryOn::FIVE_XX) && status.is_server_error()
            || has(RetryOn::GATEWAY_ERROR) && matches!(code, 502..=504)
            || has(RetryOn::RETRIABLE_4XX) && code == 409
            || has(RetryOn::RETRIABLE_STATUS_CODES)
                && (config.retriable_status_codes.contains(&status)
                    || self
                        .extra
                        .as_ref()
                        .is_some_and(|extra| extra.status_codes.contains(&code)))
    }

    fn met_by_headers(
        &self,
        config: &RetryConfig,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> bool {
        if self.on.intersects(RetryOn::RETRIABLE_HEADERS) {
            let configured = &config.retriable_headers;
            let asked = self.extra.as_ref().map(|extra| &extra.header_names);
            if configured.iter().any(|p| p.matches(status, headers))
                || asked.is_some_and(|names| names.iter().any(|name| headers.contains_key(name)))
            {
                return true;
            }
        }
        self.on.intersects(RetryOn::GRPC) && self.on.intersects(grpc_condition(headers))
    }

    /// Whether an attempt without an answer asks for a repetition.
    #[must_use]
    pub fn judge_failure(&self, kind: ErrorKind) -> Judgement {
        let Some(connect) = reset(kind) else {
            return Judgement::Stands;
        };
        let has = |on| self.on.intersects(on);
        let met = has(RetryOn::FIVE_XX | RetryOn::GATEWAY_ERROR | RetryOn::RESET)
            || has(RetryOn::RESET_BEFORE_REQUEST) && self.unsent
            || has(RetryOn::CONNECT_FAILURE) && connect
            || has(RetryOn::REFUSED_STREAM) && kind == ErrorKind::RemoteRefused;
        if met {
            Judgement::Retriable
        } else {
            Judgement::Stands
        }
    }

    /// An attempt was answered.
    pub fn on_response(
        &mut self,
        config: &RetryConfig,
        status: StatusCode,
        headers: &HeaderMap,
        env: &mut impl RetryEnv<Slot = S>,
    ) -> Verdict {
        self.unsent = false;
        match self.judge_response(config, status, headers) {
            Judgement::Retriable => {}
            other => return self.stands(other == Judgement::Ratelimited),
        }
        if let Some(refused) = self.refused(env) {
            return refused;
        }
        let asked = config.rate_limited_retry_back_off.as_ref();
        if let Some(delay) =
            asked.and_then(|asked| asked.delay(headers, env.unix_now(), env.random()))
        {
            return Verdict::Retry {
                delay,
                rate_limited: true,
            };
        }
        self.scheduled(env)
    }

    /// An attempt ended without an answer, after it had sent so much.
    pub fn on_failure(
        &mut self,
        kind: ErrorKind,
        sent: Sent,
        env: &mut impl RetryEnv<Slot = S>,
    ) -> Verdict {
        self.unsent &= sent == Sent::Nothing;
        if self.judge_failure(kind) != Judgement::Retriable {
            return self.stands(false);
        }
        self.refused(env).unwrap_or_else(|| self.scheduled(env))
    }

    /// An attempt took too long and a further one shall run beside it, whatever the conditions say.
    pub fn on_hedge(&mut self, env: &mut impl RetryEnv<Slot = S>) -> Verdict {
        self.unsent = false;
        self.refused(env).unwrap_or_else(|| self.scheduled(env))
    }

    fn stands(&mut self, ratelimited: bool) -> Verdict {
        Verdict::Stands {
            after_retry: self.slot.take().is_some(),
            ratelimited,
        }
    }

    /// The limits, in Envoy's order: the earlier slot returns first, and a repetition that finds no slot
    /// is used up all the same.
    fn refused(&mut self, env: &mut impl RetryEnv<Slot = S>) -> Option<Verdict> {
        self.slot = None;
        if self.remaining == 0 {
            return Some(Verdict::LimitExceeded);
        }
        self.remaining -= 1;
        match env.try_slot() {
            Ok(slot) => {
                self.slot = Some(slot);
                None
            }
            Err(full) => Some(Verdict::Overflow(full)),
        }
    }

    fn scheduled(&mut self, env: &mut impl RetryEnv<Slot = S>) -> Verdict {
        Verdict::Retry {
            delay: self.back_off.next_delay(env.random()),
            rate_limited: false,
        }
    }
}

/// Whether a failure counts as a reset, and then whether it is a failure to connect. What this process
/// refused, and what the client did, is never repeated.
const fn reset(kind: ErrorKind) -> Option<bool> {
    match kind {
        ErrorKind::ConnectFailure | ErrorKind::ConnectTimeout => Some(true),
        ErrorKind::ConnectionTermination
        | ErrorKind::RemoteReset
        | ErrorKind::RemoteRefused
        | ErrorKind::LocalReset
        | ErrorKind::UpstreamProtocol
        | ErrorKind::PerTryTimeout
        | ErrorKind::PerTryIdleTimeout
        | ErrorKind::MaxStreamDuration
        | ErrorKind::Unknown => Some(false),
        _ => None,
    }
}

/// The condition that a trailers-only gRPC answer meets. Whether the request was gRPC does not matter.
fn grpc_condition(headers: &HeaderMap) -> RetryOn {
    let status = headers
        .get(GRPC_STATUS)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse::<u32>().ok());
    match status {
        Some(1) => RetryOn::CANCELLED,
        Some(4) => RetryOn::DEADLINE_EXCEEDED,
        Some(8) => RetryOn::RESOURCE_EXHAUSTED,
        Some(13) => RetryOn::INTERNAL,
        Some(14) => RetryOn::UNAVAILABLE,
        _ => RetryOn::NONE,
    }
}
