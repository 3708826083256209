use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use mesh_core::{ExponentialBackoff, Mode};

use crate::{RateLimitedBackoff, RetryOn};

/// Envoy's default for `num_retries`.
pub const DEFAULT_NUM_RETRIES: u32 = 1;

/// The default for [`RetryConfig::request_body_buffer_limit`]: 1 MiB, as Envoy's
/// `per_connection_buffer_limit_bytes`.
pub const DEFAULT_REQUEST_BODY_BUFFER_LIMIT: u64 = 1024 * 1024;

/// Envoy's default base interval: 25 ms.
pub const DEFAULT_BASE_INTERVAL: Duration = Duration::from_millis(25);

/// When and how requests are repeated. Every value of this type is valid.
///
/// Build one with [`RetryConfig::builder`] (Envoy's defaults: no condition, hence no retry) or start from
/// [`RetryConfig::proven_safe`].
///
/// ```
/// use std::time::Duration;
/// use mesh_retry::{RetryConfig, RetryOn};
///
/// let config = RetryConfig::builder()
///     .retry_on(RetryOn::GATEWAY_ERROR | RetryOn::RESET)
///     .num_retries(3)
///     .per_try_timeout(Duration::from_millis(250))
///     .build();
/// assert_eq!(config.num_retries, 3);
/// ```
///
/// # Envoy
/// `config.route.v3.RetryPolicy`, `HedgePolicy`, and the retry fields of route and virtual host.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryConfig {
    /// The conditions; none by default. `x-envoy-retry-on` and `x-envoy-retry-grpc-on` add to them.
    ///
    /// Envoy: `RetryPolicy.retry_on`.
    pub retry_on: RetryOn,
    /// Repetitions at most, the first attempt not counted; default 1, 0 is legal.
    /// `x-envoy-max-retries` replaces it.
    ///
    /// Envoy: `RetryPolicy.num_retries`.
    pub num_retries: u32,
    /// How long one attempt may take, from the moment when the request is complete and a connection is
    /// ready until the response headers; default none, zero means none.
    /// `x-envoy-upstream-rq-per-try-timeout-ms` replaces it. It applies without any condition too.
    ///
    /// Envoy: `RetryPolicy.per_try_timeout`.
    pub per_try_timeout: Option<Duration>,
    /// How long one attempt may be silent; starts as `per_try_timeout` does and goes on through the
    /// response body; default none, zero means none.
    ///
    /// Envoy: `RetryPolicy.per_try_idle_timeout`.
    pub per_try_idle_timeout: Option<Duration>,
    /// The statuses that `retriable-status-codes` means; default none.
    ///
    /// Envoy: `RetryPolicy.retriable_status_codes`.
    pub retriable_status_codes: Vec<StatusCode>,
    /// The responses that `retriable-headers` means: those that any of these matches; default none.
    ///
    /// Envoy: `RetryPolicy.retriable_headers`.
    pub retriable_headers: Vec<ResponsePredicate>,
    /// When there are any, only requests that one of them matches are repeated; default none.
    ///
    /// Envoy: `RetryPolicy.retriable_request_headers`.
    pub retriable_request_headers: Vec<RequestPredicate>,
    /// The wait before each repetition; default base 25 ms, at most ten times that.
    ///
    /// Envoy: `RetryPolicy.retry_back_off`.
    pub retry_back_off: ExponentialBackoff,
    /// The wait that the upstream asks for in a response header; default none.
    ///
    /// Envoy: `RetryPolicy.rate_limited_retry_back_off`.
    pub rate_limited_retry_back_off: Option<RateLimitedBackoff>,
    /// How often a balancer may pick again when a predicate refuses the endpoint that it picked; default 1.
    /// Carried here for the balancer. When it is used up, the last pick is taken.
    ///
    /// Envoy: `RetryPolicy.host_selection_retry_max_attempts`.
    pub host_selection_retry_max_attempts: u32,
    /// Whether a repetition avoids the endpoints of earlier attempts; default false. Carried here for the
    /// balancer.
    ///
    /// Envoy: `RetryPolicy.retry_host_predicate[envoy.retry_host_predicates.previous_hosts]`.
    pub previous_hosts: bool,
    /// Whether an attempt that exceeds `per_try_timeout` is left running while a further one starts;
    /// default false. `x-envoy-hedge-on-per-try-timeout` replaces it.
    ///
    /// Envoy: `HedgePolicy.hedge_on_per_try_timeout`.
    pub hedge_on_per_try_timeout: bool,
    /// Bytes of request body kept for replay; default 1 MiB, 0 is legal. A longer request is sent once
    /// and not repeated.
    ///
    /// Envoy: `Route.request_body_buffer_limit`.
    pub request_body_buffer_limit: u64,
    /// Whether each attempt carries `x-envoy-attempt-count`, from 1; default false.
    ///
    /// Envoy: `VirtualHost.include_request_attempt_count`.
    pub include_request_attempt_count: bool,
    /// Whether each repetition carries `x-envoy-is-timeout-retry`; default false.
    ///
    /// Envoy: `VirtualHost.include_is_timeout_retry_header`.
    pub include_is_timeout_retry_header: bool,
    /// Whether retries happen or are only counted; in shadow, per-try timeouts do not fire either.
    pub mode: Mode,
}

impl RetryConfig {
    /// Starts from Envoy's defaults: no condition.
    pub fn builder() -> RetryConfigBuilder {
        RetryConfigBuilder(Self {
            retry_on: RetryOn::NONE,
            num_retries: DEFAULT_NUM_RETRIES,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            retry_back_off: ExponentialBackoff::new(DEFAULT_BASE_INTERVAL, None)
                .expect("25 ms is a valid base"),
            rate_limited_retry_back_off: None,
            host_selection_retry_max_attempts: 1,
            previous_hosts: false,
            hedge_on_per_try_timeout: false,
            request_body_buffer_limit: DEFAULT_REQUEST_BODY_BUFFER_LIMIT,
            include_request_attempt_count: false,
            include_is_timeout_retry_header: false,
            mode: Mode::Enforce,
        })
    }

    /// Repeats once, and only what the upstream provably did not see: [`RetryOn::PROVEN_SAFE`].
    #[must_use]
    pub fn proven_safe() -> Self {
        Self::builder().retry_on(RetryOn::PROVEN_SAFE).build()
    }

    /// A cluster's own policy for the requests of one route, which keeps what is never a cluster's to say:
    /// timeouts, hedging, the buffer and the headers of attempts.
    ///
    /// Envoy: `HttpProtocolOptions.retry_policy` replaces all of the route's but these.
    #[must_use]
    pub fn on_route(&self, route: Option<&Self>) -> Self {
        let none = Self::builder().build();
        let route = route.unwrap_or(&none);
        Self {
            per_try_timeout: route.per_try_timeout,
            per_try_idle_timeout: route.per_try_idle_timeout,
            hedge_on_per_try_timeout: route.hedge_on_per_try_timeout,
            request_body_buffer_limit: route.request_body_buffer_limit,
            include_request_attempt_count: route.include_request_attempt_count,
            include_is_timeout_retry_header: route.include_is_timeout_retry_header,
            ..self.clone()
        }
    }
}

/// Builds a [`RetryConfig`]; each method sets the field of its name.
#[derive(Debug, Clone)]
#[must_use]
pub struct RetryConfigBuilder(RetryConfig);

#[expect(missing_docs, reason = "the fields are documented on RetryConfig")]
impl RetryConfigBuilder {
    pub fn retry_on(mut self, on: RetryOn) -> Self {
        self.0.retry_on = on;
        self
    }

    pub fn num_retries(mut self, retries: u32) -> Self {
        self.0.num_retries = retries;
        self
    }

    pub fn per_try_timeout(mut self, timeout: Duration) -> Self {
        self.0.per_try_timeout = Some(timeout).filter(|t| !t.is_zero());
        self
    }

    pub fn per_try_idle_timeout(mut self, timeout: Duration) -> Self {
        self.0.per_try_idle_timeout = Some(timeout).filter(|t| !t.is_zero());
        self
    }

    pub fn retriable_status_codes(mut self, codes: impl IntoIterator<Item = StatusCode>) -> Self {
        self.0.retriable_status_codes = codes.into_iter().collect();
        self
    }

    pub fn retriable_headers(
        mut self,
        predicates: impl IntoIterator<Item = ResponsePredicate>,
    ) -> Self {
        self.0.retriable_headers = predicates.into_iter().collect();
        self
    }

    pub fn retriable_request_headers(
        mut self,
        predicates: impl IntoIterator<Item = RequestPredicate>,
    ) -> Self {
        self.0.retriable_request_headers = predicates.into_iter().collect();
        self
    }

    pub fn retry_back_off(mut self, back_off: ExponentialBackoff) -> Self {
        self.0.retry_back_off = back_off;
        self
    }

    pub fn rate_limited_retry_back_off(mut self, back_off: RateLimitedBackoff) -> Self {
        self.0.rate_limited_retry_back_off = Some(back_off);
        self
    }

    pub fn host_selection_retry_max_attempts(mut self, attempts: u32) -> Self {
        self.0.host_selection_retry_max_attempts = attempts;
        self
    }

    pub fn previous_hosts(mut self, avoid: bool) -> Self {
        self.0.previous_hosts = avoid;
        self
    }

    pub fn hedge_on_per_try_timeout(mut self, hedge: bool) -> Self {
        self.0.hedge_on_per_try_timeout = hedge;
        self
    }

    pub fn request_body_buffer_limit(mut self, bytes: u64) -> Self {
        self.0.request_body_buffer_limit = bytes;
        self
    }

    pub fn include_request_attempt_count(mut self, include: bool) -> Self {
        self.0.include_request_attempt_count = include;
        self
    }

    pub fn include_is_timeout_retry_header(mut self, include: bool) -> Self {
        self.0.include_is_timeout_retry_header = include;
        self
    }

    pub fn mode(mut self, mode: Mode) -> Self {
        self.0.mode = mode;
        self
    }

    /// The config.
    #[must_use]
    pub fn build(self) -> RetryConfig {
        self.0
    }
}

/// A request as [`RequestPredicate`] sees it: method and URI stand for Envoy's `:method`, `:path`,
/// `:authority` and `:scheme`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// `:method`.
    pub method: &'a Method,
    /// `:path`, and `:authority` where the URI has one.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// The head of a request, from its parts.
    #[must_use]
    pub const fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self {
            method,
            uri,
            headers,
        }
    }
}

/// Says whether a request may be repeated. Any function will do, so that a config can plug in its own
/// header matchers.
#[derive(Clone)]
pub struct RequestPredicate(Arc<dyn Fn(RequestHead<'_>) -> bool + Send + Sync>);

impl RequestPredicate {
    /// What `matches` says.
    pub fn new(matches: impl Fn(RequestHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(matches))
    }

    /// Requests whose method RFC 9110 calls idempotent.
    #[must_use]
    pub fn idempotent() -> Self {
        Self::new(|head| head.method.is_idempotent())
    }

    pub(crate) fn matches(&self, head: RequestHead<'_>) -> bool {
        (self.0)(head)
    }
}

/// Functions cannot be compared: a predicate equals its clones and no other.
impl PartialEq for RequestPredicate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for RequestPredicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestPredicate")
    }
}

/// Says whether a response asks for a repetition. The status stands for Envoy's `:status`.
#[derive(Clone)]
pub struct ResponsePredicate(Arc<MatchResponse>);

type MatchResponse = dyn Fn(StatusCode, &HeaderMap) -> bool + Send + Sync;

impl ResponsePredicate {
    /// What `matches` says.
    pub fn new(matches: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(matches))
    }

    /// Responses that have the header.
    #[must_use]
    pub fn present(name: HeaderName) -> Self {
        Self::new(move |_, headers| headers.contains_key(&name))
    }

    pub(crate) fn matches(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        (self.0)(status, headers)
    }
}

/// Functions cannot be compared: a predicate equals its clones and no other.
impl PartialEq for ResponsePredicate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for ResponsePredicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponsePredicate")
    }
}
