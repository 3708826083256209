//! The state machine against a model that keeps a list of what happened and works everything out from it,
//! each time anew.

use std::{cell::Cell, rc::Rc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use mesh_core::{ErrorKind, ExponentialBackoff, Overflow, Resource, Sent};
use mesh_retry::{
    RateLimitedBackoff, RequestHead, ResetHeader, ResponsePredicate, RetryConfig, RetryEnv,
    RetryOn, RetryOverrides, RetryState, Verdict,
};
use proptest::prelude::*;

const TOKENS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "resource-exhausted",
    "internal",
    "unavailable",
];

#[derive(Debug, Clone)]
struct Policy {
    tokens: Vec<&'static str>,
    header_tokens: Vec<&'static str>,
    num_retries: u32,
    max_retries: Option<u32>,
    codes: Vec<u16>,
    header_codes: Vec<u16>,
    base: u64,
    max: u64,
    retry_after: bool,
}

#[derive(Debug, Clone)]
enum Event {
    Response {
        status: u16,
        grpc: Option<u8>,
        again: bool,
        ratelimited: bool,
        retry_after: Option<u64>,
    },
    Failure(ErrorKind, Sent),
    Hedge,
    /// Other requests take this many slots, or give them back.
    Others(u32),
}

#[derive(Debug, Clone)]
struct Step {
    event: Event,
    random: u64,
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        prop::sample::subsequence(TOKENS.to_vec(), 0..=6),
        prop::sample::subsequence(TOKENS.to_vec(), 0..=2),
        0u32..5,
        prop::option::of(0u32..5),
        prop::collection::vec(prop::sample::select(vec![404, 418, 503]), 0..2),
        prop::collection::vec(prop::sample::select(vec![404u16, 201]), 0..2),
        (1u64..100, 0u64..500),
        any::<bool>(),
    )
        .prop_map(
            |(
                tokens,
                header_tokens,
                num_retries,
                max_retries,
                codes,
                header_codes,
                wait,
                after,
            )| {
                Policy {
                    tokens,
                    header_tokens,
                    num_retries,
                    max_retries,
                    codes,
                    header_codes,
                    base: wait.0,
                    max: wait.0 + wait.1,
                    retry_after: after,
                }
            },
        )
}

fn event() -> impl Strategy<Value = Event> {
    use ErrorKind as K;
    let statuses = vec![
        200, 201, 404, 409, 418, 429, 499, 500, 501, 502, 503, 504, 505, 599,
    ];
    let kinds = vec![
        K::ConnectFailure,
        K::ConnectTimeout,
        K::ConnectionTermination,
        K::RemoteReset,
        K::RemoteRefused,
        K::LocalReset,
        K::UpstreamProtocol,
        K::Overflow(Resource::Requests),
        K::BreakerOpen,
        K::NoHealthyUpstream,
        K::PerTryTimeout,
        K::PerTryIdleTimeout,
        K::MaxStreamDuration,
        K::RequestTimeout,
        K::DownstreamGone,
        K::RateLimited,
        K::Unknown,
    ];
    let response = (
        prop::sample::select(statuses),
        prop::option::weighted(0.2, 0u8..17),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, 0u64..400),
    )
        .prop_map(
            |(status, grpc, again, ratelimited, retry_after)| Event::Response {
                status,
                grpc,
                again,
                ratelimited,
                retry_after,
            },
        );
    let sent = prop::sample::select(vec![Sent::Nothing, Sent::Nothing, Sent::Some]);
    let failure =
        (prop::sample::select(kinds), sent).prop_map(|(kind, sent)| Event::Failure(kind, sent));
    prop_oneof![
        5 => response,
        5 => failure,
        1 => Just(Event::Hedge),
        1 => (0u32..3).prop_map(Event::Others),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (event(), any::<u64>()).prop_map(|(event, random)| Step { event, random });
    prop::collection::vec(step, 1..12)
}

/// The world of the state under test: `limit` slots, of which this request and others hold some.
struct World {
    limit: u32,
    others: u32,
    held: Rc<Cell<u32>>,
    random: u64,
}

struct Slot(Rc<Cell<u32>>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl RetryEnv for World {
    type Slot = Slot;

    fn try_slot(&mut self) -> Result<Slot, Overflow> {
        let in_use = self.others + self.held.get();
        if in_use >= self.limit {
            return Err(Overflow {
                resource: Resource::Retries,
                in_use,
                limit: self.limit,
            });
        }
        self.held.set(self.held.get() + 1);
        Ok(Slot(Rc::clone(&self.held)))
    }

    fn random(&mut self) -> u64 {
        self.random
    }

    fn unix_now(&mut self) -> Duration {
        Duration::ZERO
    }
}

/// What happened, as the model remembers it.
struct Past {
    event: Event,
    /// What was decided: words for comparison.
    decided: &'static str,
    exponential: bool,
}

struct Model<'a> {
    policy: &'a Policy,
    past: Vec<Past>,
}

impl Model<'_> {
    fn has(&self, token: &str) -> bool {
        let header = self.policy.header_tokens.contains(&token);
        self.policy.tokens.contains(&token) || header
    }

    fn any(&self, tokens: &[&str]) -> bool {
        tokens.iter().any(|token| self.has(token))
    }

    /// Envoy's table, row by row.
    fn wants(&self, event: &Event) -> Result<bool, &'static str> {
        match event {
            Event::Others(_) => Ok(false),
            Event::Hedge => Ok(true),
            Event::Response {
                status,
                grpc,
                again,
                ratelimited,
                ..
            } => {
                let codes = self.policy.codes.iter().chain(&self.policy.header_codes);
                let grpc_token = match grpc {
                    Some(1) => "cancelled",
                    Some(4) => "deadline-exceeded",
                    Some(8) => "resource-exhausted",
                    Some(13) => "internal",
                    Some(14) => "unavailable",
                    _ => "none",
                };
                let rows = [
                    self.has("5xx") && *status >= 500,
                    self.has("gateway-error") && [502, 503, 504].contains(status),
                    self.has("retriable-4xx") && *status == 409,
                    self.has("retriable-status-codes") && codes.clone().any(|code| code == status),
                    self.has("retriable-headers") && *again,
                    self.has(grpc_token),
                ];
                match (ratelimited, rows.contains(&true)) {
                    (true, _) if self.has("envoy-ratelimited") => Ok(true),
                    (true, true) => Err("ratelimited"),
                    (_, met) => Ok(met && !ratelimited),
                }
            }
            Event::Failure(kind, sent) => Ok(self.wants_after_failure(*kind, *sent)),
        }
    }

    fn wants_after_failure(&self, kind: ErrorKind, sent: Sent) -> bool {
        use ErrorKind as K;
        let refusals = [
            K::Overflow(Resource::Requests),
            K::BreakerOpen,
            K::NoHealthyUpstream,
            K::RequestTimeout,
            K::DownstreamGone,
            K::RateLimited,
        ];
        if refusals.contains(&kind) {
            return false;
        }
        let untouched = sent == Sent::Nothing
            && self.past.iter().all(|past| {
                matches!(
                    past.event,
                    Event::Failure(_, Sent::Nothing) | Event::Others(_)
                )
            });
        self.any(&["5xx", "gateway-error", "reset"])
            || self.has("reset-before-request") && untouched
            || self.has("refused-stream") && kind == K::RemoteRefused
            || self.has("connect-failure") && [K::ConnectFailure, K::ConnectTimeout].contains(&kind)
    }

    fn decisions(&self) -> impl Iterator<Item = &Past> {
        self.past
            .iter()
            .filter(|past| !matches!(past.event, Event::Others(_)))
    }

    /// A slot is held if the last decision was to retry.
    fn holds(&self) -> bool {
        self.decisions()
            .last()
            .is_some_and(|past| past.decided == "retry")
    }

    /// The interval that the next exponential wait is drawn from.
    fn interval(&self) -> u64 {
        let earlier = self.past.iter().filter(|past| past.exponential).count();
        let max = self.policy.max;
        (0..earlier).fold(
            self.policy.base,
            |at, _| {
                if at < max / 2 { at * 2 } else { max }
            },
        )
    }

    /// The verdict in words, the wait in milliseconds, and whether the wait was exponential.
    fn verdict(&self, step: &Step, free: bool) -> (&'static str, Option<u64>, bool) {
        match self.wants(&step.event) {
            Err(word) => return (word, None, false),
            Ok(false) if self.holds() => return ("success", None, false),
            Ok(false) => return ("stands", None, false),
            Ok(true) => {}
        }
        let allowed = self.policy.max_retries.unwrap_or(self.policy.num_retries);
        let spent = self
            .decisions()
            .filter(|past| ["retry", "overflow"].contains(&past.decided));
        if spent.count() as u32 >= allowed {
            return ("limit", None, false);
        }
        if !free {
            return ("overflow", None, false);
        }
        if let Event::Response {
            retry_after: Some(seconds @ 1..=300),
            ..
        } = step.event
            && self.policy.retry_after
        {
            let interval = seconds * 1000;
            return (
                "retry",
                Some(interval + step.random % (interval / 2)),
                false,
            );
        }
        ("retry", Some(step.random % self.interval()), true)
    }
}

fn config(policy: &Policy) -> RetryConfig {
    let ms = Duration::from_millis;
    let list = policy.tokens.join(",");
    let codes = policy
        .codes
        .iter()
        .map(|c| StatusCode::from_u16(*c).unwrap());
    let builder = RetryConfig::builder()
        .retry_on(list.parse().unwrap())
        .num_retries(policy.num_retries)
        .retriable_status_codes(codes)
        .retriable_headers([ResponsePredicate::present(HeaderName::from_static(
            "x-again",
        ))])
        .retry_back_off(ExponentialBackoff::new(ms(policy.base), Some(ms(policy.max))).unwrap());
    if !policy.retry_after {
        return builder.build();
    }
    let asked = RateLimitedBackoff::new(vec![ResetHeader::RETRY_AFTER], None).unwrap();
    builder.rate_limited_retry_back_off(asked).build()
}

fn state(policy: &Policy, config: &RetryConfig) -> RetryState<Slot> {
    let overrides = RetryOverrides {
        retry_on: policy.header_tokens.join(",").parse::<RetryOn>().unwrap(),
        max_retries: policy.max_retries,
        status_codes: policy.header_codes.iter().copied().collect(),
        ..RetryOverrides::default()
    };
    let (method, uri, headers) = (Method::GET, Uri::default(), HeaderMap::new());
    RetryState::new(config, RequestHead::new(&method, &uri, &headers), overrides)
}

fn response_headers(event: &Event) -> HeaderMap {
    let mut map = HeaderMap::new();
    if let Event::Response {
        grpc,
        again,
        ratelimited,
        retry_after,
        ..
    } = event
    {
        let mut put = |name: &'static str, value: Option<u64>| {
            if let Some(value) = value {
                map.insert(name, HeaderValue::from(value));
            }
        };
        put("grpc-status", grpc.map(u64::from));
        put("x-again", again.then_some(1));
        put("x-envoy-ratelimited", ratelimited.then_some(1));
        put("retry-after", *retry_after);
    }
    map
}

fn words(verdict: &Verdict) -> (&'static str, Option<u64>) {
    match verdict {
        Verdict::Stands {
            ratelimited: true, ..
        } => ("ratelimited", None),
        Verdict::Stands {
            after_retry: true, ..
        } => ("success", None),
        Verdict::Stands { .. } => ("stands", None),
        Verdict::Retry { delay, .. } => ("retry", Some(delay.as_millis() as u64)),
        Verdict::LimitExceeded => ("limit", None),
        Verdict::Overflow(_) => ("overflow", None),
    }
}

/// Runs one history through both.
fn compare(policy: &Policy, steps: Vec<Step>, limit: u32) -> Result<(), TestCaseError> {
    let config = config(policy);
    let mut state = state(policy, &config);
    let held = Rc::new(Cell::new(0));
    let mut world = World {
        limit,
        others: 0,
        held: Rc::clone(&held),
        random: 0,
    };
    let mut model = Model {
        policy,
        past: Vec::new(),
    };
    let active = !policy.tokens.is_empty() || !policy.header_tokens.is_empty();
    prop_assert_eq!(state.is_active(), active);
    for step in steps {
        if let Event::Others(others) = step.event {
            world.others = others;
            continue;
        }
        world.random = step.random;
        // The slot that is held returns before the next one is taken.
        let free = world.others < limit;
        let headers = response_headers(&step.event);
        let verdict = match step.event {
            Event::Response { status, .. } => {
                let status = StatusCode::from_u16(status).unwrap();
                state.on_response(&config, status, &headers, &mut world)
            }
            Event::Failure(kind, sent) => state.on_failure(kind, sent, &mut world),
            Event::Hedge => state.on_hedge(&mut world),
            Event::Others(_) => continue,
        };
        let (decided, wait, exponential) = model.verdict(&step, free);
        prop_assert_eq!(words(&verdict), (decided, wait));
        if let Verdict::Retry { rate_limited, .. } = verdict {
            prop_assert_eq!(rate_limited, !exponential);
        }
        model.past.push(Past {
            event: step.event,
            decided,
            exponential,
        });
        prop_assert_eq!(held.get(), u32::from(model.holds()));
    }
    drop(state);
    prop_assert_eq!(held.get(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn model_agrees_on_every_verdict_wait_and_slot(
        policy in policy(),
        steps in steps(),
        limit in 0u32..3,
    ) {
        compare(&policy, steps, limit)?;
    }
}

/// Every single token with every single status, exhaustively.
#[test]
fn model_agrees_on_every_token_and_status() {
    for token in TOKENS {
        for status in 200..=599 {
            for ratelimited in [false, true] {
                let policy = Policy {
                    tokens: vec![token],
                    header_tokens: Vec::new(),
                    num_retries: 1,
                    max_retries: None,
                    codes: vec![404],
                    header_codes: Vec::new(),
                    base: 25,
                    max: 250,
                    retry_after: false,
                };
                let event = Event::Response {
                    status,
                    grpc: None,
                    again: false,
                    ratelimited,
                    retry_after: None,
                };
                let steps = vec![Step { event, random: 7 }];
                compare(&policy, steps, 1).unwrap();
            }
        }
    }
}
