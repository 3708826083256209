use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::StatusCode;
use mesh_core::{FractionalPercent, Mode, RuntimeFraction};

use crate::{action::RateLimits, headers::HeadersToAdd};

/// A local rate limit, as Envoy's HTTP filter describes it.
///
/// Every value of every field is valid. [`Default`] is Envoy's: it limits nothing until both fractions
/// are raised; [`LocalRateLimitConfig::always`] starts from 100 %.
///
/// # Envoy
/// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`
#[derive(Debug, Clone)]
pub struct LocalRateLimitConfig {
    /// The first part of the stats' names. `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// The status of a refusal; below 400 it is read as 429. Default 429. `status.code`.
    pub status: StatusCode,
    /// The bucket of requests that no descriptor matches. Default: none, which limits nothing.
    /// `token_bucket`.
    pub token_bucket: Option<TokenBucketConfig>,
    /// The share of requests that are looked at. Default 0 %. `filter_enabled`.
    pub filter_enabled: RuntimeFraction,
    /// The share of excess requests that are refused. Default 0 %. `filter_enforced`.
    pub filter_enforced: RuntimeFraction,
    /// Added to an excess request that is let through. `request_headers_to_add_when_not_enforced`.
    pub request_headers_to_add_when_not_enforced: HeadersToAdd,
    /// Added to a refusal. `response_headers_to_add`.
    pub response_headers_to_add: HeadersToAdd,
    /// Buckets for requests that carry certain descriptors. `descriptors`.
    pub descriptors: Descriptors,
    /// Which descriptors a request carries. `rate_limits`, or those of the matched route.
    pub rate_limits: RateLimits,
    /// Whether each client connection has buckets of its own. Default: no, the process shares them.
    /// `local_rate_limit_per_downstream_connection`.
    pub local_rate_limit_per_downstream_connection: bool,
    /// Whether responses tell clients what is left. Default: no. `enable_x_ratelimit_headers`.
    pub enable_x_ratelimit_headers: XRateLimitHeaders,
    /// Whether a request that descriptors matched takes from [`Self::token_bucket`] too. Default: yes.
    /// `always_consume_default_token_bucket`.
    pub always_consume_default_token_bucket: bool,
    /// Whether gRPC clients are told `RESOURCE_EXHAUSTED` rather than `UNAVAILABLE`. Default: no.
    /// `rate_limited_as_resource_exhausted`.
    pub rate_limited_as_resource_exhausted: bool,
    /// How many distinct values one wildcard descriptor remembers; the one unused for longest goes, and
    /// starts over with a full bucket should it come back. Default 20. `max_dynamic_descriptors`.
    pub max_dynamic_descriptors: NonZeroU32,
    /// Whether refusals are carried out or only counted, with no header added anywhere. Default: carried
    /// out. Not Envoy's.
    pub mode: Mode,
}

const DYNAMIC_DESCRIPTORS_DEFAULT: NonZeroU32 = NonZeroU32::new(20).unwrap();

impl Default for LocalRateLimitConfig {
    fn default() -> Self {
        Self {
            stat_prefix: Arc::from("local_rate_limiter"),
            status: StatusCode::TOO_MANY_REQUESTS,
            token_bucket: None,
            filter_enabled: RuntimeFraction::fixed(FractionalPercent::ZERO),
            filter_enforced: RuntimeFraction::fixed(FractionalPercent::ZERO),
            request_headers_to_add_when_not_enforced: HeadersToAdd::default(),
            response_headers_to_add: HeadersToAdd::default(),
            descriptors: Descriptors::default(),
            rate_limits: RateLimits::default(),
            local_rate_limit_per_downstream_connection: false,
            enable_x_ratelimit_headers: XRateLimitHeaders::Off,
            always_consume_default_token_bucket: true,
            rate_limited_as_resource_exhausted: false,
            max_dynamic_descriptors: DYNAMIC_DESCRIPTORS_DEFAULT,
            mode: Mode::Enforce,
        }
    }
}

impl LocalRateLimitConfig {
    /// Every request takes from `token_bucket`, and every excess request is refused.
    #[must_use]
    pub fn always(token_bucket: TokenBucketConfig) -> Self {
        Self {
            token_bucket: Some(token_bucket),
            filter_enabled: RuntimeFraction::fixed(FractionalPercent::HUNDRED),
            filter_enforced: RuntimeFraction::fixed(FractionalPercent::HUNDRED),
            ..Self::default()
        }
    }

    /// `rate` requests in each second, as many at once, and every excess request is refused.
    ///
    /// # Errors
    /// When `rate` is zero.
    pub fn per_second(rate: u32) -> Result<Self, InvalidTokenBucket> {
        TokenBucketConfig::per_second(rate).map(Self::always)
    }

    /// The status of a refusal, as it is sent.
    #[must_use]
    pub fn refusal_status(&self) -> StatusCode {
        if self.status.as_u16() < 400 {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            self.status
        }
    }
}

/// Envoy: `enable_x_ratelimit_headers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XRateLimitHeaders {
    /// No headers. `OFF`.
    #[default]
    Off,
    /// `x-ratelimit-limit`, `x-ratelimit-remaining`, `x-ratelimit-reset` on every response.
    /// `DRAFT_VERSION_03`.
    DraftVersion03,
}

/// How large a bucket is and how fast it fills.
///
/// It starts full and fills continuously: `tokens_per_fill` over `fill_interval` is a rate, not a burst.
///
/// # Envoy
/// `envoy.type.v3.TokenBucket`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenBucketConfig {
    max_tokens: NonZeroU32,
    tokens_per_fill: NonZeroU32,
    fill_interval: Duration,
}

/// The shortest `fill_interval`.
pub const FILL_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// A token bucket that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTokenBucket {
    /// `max_tokens` is zero.
    #[error("max_tokens must be greater than 0")]
    NoTokens,
    /// `tokens_per_fill` is zero.
    #[error("tokens_per_fill must be greater than 0")]
    NeverFills,
    /// `fill_interval` is below [`FILL_INTERVAL_MIN`].
    #[error("fill_interval must be at least 50ms, not {0:?}")]
    FillIntervalTooShort(Duration),
}

impl TokenBucketConfig {
    /// A bucket of at most `max_tokens` that gets `tokens_per_fill` (Envoy's default: 1) in each
    /// `fill_interval`.
    ///
    /// # Errors
    /// When a number is zero or the interval is shorter than [`FILL_INTERVAL_MIN`].
    pub fn new(
        max_tokens: u32,
        tokens_per_fill: u32,
        fill_interval: Duration,
    ) -> Result<Self, InvalidTokenBucket> {
        if fill_interval < FILL_INTERVAL_MIN {
            return Err(InvalidTokenBucket::FillIntervalTooShort(fill_interval));
        }
        Ok(Self {
            max_tokens: NonZeroU32::new(max_tokens).ok_or(InvalidTokenBucket::NoTokens)?,
            tokens_per_fill: NonZeroU32::new(tokens_per_fill)
                .ok_or(InvalidTokenBucket::NeverFills)?,
            fill_interval,
        })
    }

    /// `rate` tokens in each second, and at most as many at once.
    ///
    /// # Errors
    /// When `rate` is zero.
    pub fn per_second(rate: u32) -> Result<Self, InvalidTokenBucket> {
        Self::new(rate, rate, Duration::from_secs(1))
    }

    /// The same rate with at most `max_tokens` at once.
    ///
    /// # Errors
    /// When `max_tokens` is zero.
    pub fn burst(self, max_tokens: u32) -> Result<Self, InvalidTokenBucket> {
        Self::new(max_tokens, self.tokens_per_fill.get(), self.fill_interval)
    }

    /// At most so many tokens at once.
    #[must_use]
    pub const fn max_tokens(&self) -> NonZeroU32 {
        self.max_tokens
    }

    /// So many in each interval.
    #[must_use]
    pub const fn tokens_per_fill(&self) -> NonZeroU32 {
        self.tokens_per_fill
    }

    /// The interval, at least [`FILL_INTERVAL_MIN`].
    #[must_use]
    pub const fn fill_interval(&self) -> Duration {
        self.fill_interval
    }

    /// Tokens per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.tokens_per_fill.get()) / self.fill_interval.as_secs_f64()
    }
}

/// One entry of a configured descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DescriptorEntry {
    /// The key, which must be equal.
    pub key: Arc<str>,
    /// The value; an empty one matches any, and each value gets a bucket of its own.
    pub value: Arc<str>,
}

/// A bucket for requests that carry one descriptor.
///
/// # Envoy
/// `envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// The descriptor's entries, in the order in which actions produce them. `entries`.
    pub entries: Vec<DescriptorEntry>,
    /// Its bucket, or that of each combination of values if an entry is a wildcard. `token_bucket`.
    pub token_bucket: TokenBucketConfig,
}

impl Descriptor {
    /// A descriptor of `(key, value)` pairs.
    #[must_use]
    pub fn new<'a>(
        entries: impl IntoIterator<Item = (&'a str, &'a str)>,
        token_bucket: TokenBucketConfig,
    ) -> Self {
        let entries = entries
            .into_iter()
            .map(|(key, value)| DescriptorEntry {
                key: key.into(),
                value: value.into(),
            })
            .collect();
        Self {
            entries,
            token_bucket,
        }
    }

    /// Whether an entry matches any value.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.entries.iter().any(|entry| entry.value.is_empty())
    }
}

/// Descriptors that a request is looked up in: none is empty, no two are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptors(Vec<Descriptor>);

/// Descriptors that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDescriptors {
    /// One has no entries.
    #[error("descriptors[{index}].entries must have at least one entry")]
    Empty {
        /// Its place in the list.
        index: usize,
    },
    /// An entry has no key.
    #[error("descriptors[{index}].entries[{entry}].key must not be empty")]
    EmptyKey {
        /// The descriptor's place in the list.
        index: usize,
        /// The entry's place in the descriptor.
        entry: usize,
    },
    /// One has the entries of an earlier one.
    #[error("descriptors[{index}] repeats the entries of descriptors[{first}]")]
    Duplicate {
        /// Its place in the list.
        index: usize,
        /// The place of the earlier one.
        first: usize,
    },
}

impl Descriptors {
    /// Checks a list.
    ///
    /// # Errors
    /// When a descriptor has no entries, a key is empty, or two descriptors have the same entries.
    pub fn new(list: Vec<Descriptor>) -> Result<Self, InvalidDescriptors> {
        for (index, descriptor) in list.iter().enumerate() {
            if descriptor.entries.is_empty() {
                return Err(InvalidDescriptors::Empty { index });
            }
            if let Some(entry) = descriptor.entries.iter().position(|e| e.key.is_empty()) {
                return Err(InvalidDescriptors::EmptyKey { index, entry });
            }
            let same = |earlier: &Descriptor| earlier.entries == descriptor.entries;
            if let Some(first) = list[..index].iter().position(same) {
                return Err(InvalidDescriptors::Duplicate { index, first });
            }
        }
        Ok(Self(list))
    }

    /// The descriptors, in the order given.
    #[must_use]
    pub fn as_slice(&self) -> &[Descriptor] {
        &self.0
    }
}
