//! The HTTP filters of a connection manager, and what routes change about them.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use http::HeaderValue;
use mesh_compress::{CompressConfig, Compression, DecompressConfig};
use mesh_core::{Percent, RuntimeFraction};
use mesh_fault::FaultConfig;
use mesh_ratelimit::LocalRateLimitConfig;
use mesh_route::{HeaderMatcher, MessageChanges, StringMatcher};

pub use crate::convert::RuleSelection;

/// One filter of the chain.
#[derive(Debug, Clone)]
pub struct HttpFilter {
    /// Its name in the config: the key of per-route overrides.
    pub name: Arc<str>,
    /// The path that names its state (buckets) across config pushes: listener and name, so that two
    /// connection managers of the same `stat_prefix` do not share it.
    pub owner: Arc<str>,
    /// Requests pass it by, unless their route says otherwise. `disabled`.
    pub disabled: bool,
    /// What it does.
    pub kind: HttpFilterKind,
}

/// The filters that there are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HttpFilterKind {
    /// `envoy.filters.http.local_ratelimit`.
    LocalRateLimit(Arc<RateLimitFilter>),
    /// `envoy.filters.http.fault`.
    Fault(Arc<FaultConfig>),
    /// `envoy.filters.http.buffer`.
    Buffer(BufferConfig),
    /// `envoy.filters.http.health_check`.
    HealthCheck(Arc<HealthCheckConfig>),
    /// `envoy.filters.http.compressor`.
    Compressor(Arc<CompressorFilter>),
    /// `envoy.filters.http.decompressor`.
    Decompressor(DecompressorFilter),
    /// `envoy.filters.http.header_mutation`.
    HeaderMutation(Arc<HeaderMutationConfig>),
    /// `envoy.filters.http.cors`, which does nothing but what routes say.
    Cors,
}

impl HttpFilterKind {
    /// Whether the filter leaves a request's head as it is, so that what was captured of it stays true.
    #[must_use]
    pub const fn leaves_head(&self) -> bool {
        matches!(self, Self::LocalRateLimit(_) | Self::Cors)
    }
}

/// What a route says to a filter of the chain.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RouteFilterKind {
    /// In place of the filter's own limit.
    LocalRateLimit(Arc<RateLimitFilter>),
    /// In place of the filter's own faults.
    Fault(Arc<FaultConfig>),
    /// In place of the filter's own limit.
    Buffer(BufferConfig),
    /// What is different about the filter's own config.
    Compressor(CompressorOverride),
    /// Beside the filter's own mutations: those of all levels, the most specific first.
    HeaderMutation(Arc<[Arc<MessageChanges>]>),
    /// What is allowed, as all levels together say.
    Cors(Arc<CorsPolicy>),
}

impl RouteFilterKind {
    /// Whether a filter of that kind listens to it.
    #[must_use]
    pub const fn fits(&self, filter: &HttpFilterKind) -> bool {
        matches!(
            (self, filter),
            (Self::LocalRateLimit(_), HttpFilterKind::LocalRateLimit(_))
                | (Self::Fault(_), HttpFilterKind::Fault(_))
                | (Self::Buffer(_), HttpFilterKind::Buffer(_))
                | (Self::Compressor(_), HttpFilterKind::Compressor(_))
                | (Self::HeaderMutation(_), HttpFilterKind::HeaderMutation(_))
                | (Self::Cors(_), HttpFilterKind::Cors)
        )
    }
}

/// What is different about one filter for some requests. Envoy: an entry of `typed_per_filter_config`,
/// together with those of the levels above.
#[derive(Debug, Clone, Default)]
pub struct FilterOverride {
    /// Requests pass the filter by, as the most specific level says. Without an override, it is
    /// [`HttpFilter::disabled`] that counts.
    pub disabled: bool,
    /// The config of the most specific level that has one, with the path of its owner, which names its
    /// state across config pushes. `None`: the filter's own.
    pub config: Option<(Arc<str>, RouteFilterKind)>,
}

/// By the filter's name.
pub type FilterOverrides = BTreeMap<Arc<str>, FilterOverride>;

/// A local rate limit, and which of a route's `rate_limits` belong to it.
#[derive(Debug, Clone)]
pub struct RateLimitFilter {
    /// The limit.
    pub config: Arc<LocalRateLimitConfig>,
    /// Which rules it takes from routes.
    pub rules: RuleSelection,
}

/// Envoy: `envoy.filters.http.buffer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferConfig {
    /// Bytes of the longest request body that is waited for; a longer one is answered 413.
    /// `max_request_bytes`.
    pub max_request_bytes: NonZeroU32,
}

/// Envoy: `envoy.filters.http.header_mutation`.
#[derive(Debug, Clone, Default)]
pub struct HeaderMutationConfig {
    /// The filter's own, which come first. `mutations`.
    pub own: Arc<MessageChanges>,
    /// Whether the most specific level has the last word, rather than the least specific one.
    /// `most_specific_header_mutations_wins`.
    pub most_specific_wins: bool,
}

/// Who may use what from other origins. Envoy: `envoy.extensions.filters.http.cors.v3.CorsPolicy`.
///
/// What one level leaves out, the level above says; but whether the policy counts at all is up to the most specific
/// one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CorsPolicy {
    /// The origins that are allowed; one that takes `*` takes all. `allow_origin_string_match`.
    pub allow_origins: Vec<StringMatcher>,
    /// `allow_methods`, for preflights.
    pub allow_methods: Option<HeaderValue>,
    /// `allow_headers`, for preflights.
    pub allow_headers: Option<HeaderValue>,
    /// `expose_headers`, for answers.
    pub expose_headers: Option<HeaderValue>,
    /// `max_age`, for preflights.
    pub max_age: Option<HeaderValue>,
    /// `allow_credentials`, no.
    pub allow_credentials: Option<bool>,
    /// `allow_private_network_access`, no.
    pub allow_private_network_access: Option<bool>,
    /// Whether preflights of other origins go upstream. `forward_not_matching_preflights`, yes.
    pub forward_not_matching_preflights: Option<bool>,
    /// The share of requests that it is for. `filter_enabled`, all.
    pub filter_enabled: Option<RuntimeFraction>,
    /// The share of the others whose origins are counted. `shadow_enabled`, none.
    pub shadow_enabled: Option<RuntimeFraction>,
}

impl CorsPolicy {
    /// With what `above` says where it says nothing itself.
    #[must_use]
    pub fn over(self, above: &Self) -> Self {
        let text =
            |own: Option<HeaderValue>, above: &Option<HeaderValue>| own.or_else(|| above.clone());
        let origins = if self.allow_origins.is_empty() {
            above.allow_origins.clone()
        } else {
            self.allow_origins
        };
        Self {
            allow_origins: origins,
            allow_methods: text(self.allow_methods, &above.allow_methods),
            allow_headers: text(self.allow_headers, &above.allow_headers),
            expose_headers: text(self.expose_headers, &above.expose_headers),
            max_age: text(self.max_age, &above.max_age),
            allow_credentials: self.allow_credentials.or(above.allow_credentials),
            allow_private_network_access: self
                .allow_private_network_access
                .or(above.allow_private_network_access),
            forward_not_matching_preflights: self
                .forward_not_matching_preflights
                .or(above.forward_not_matching_preflights),
            filter_enabled: self.filter_enabled,
            shadow_enabled: self.shadow_enabled,
        }
    }
}

/// Envoy: `envoy.filters.http.compressor`.
#[derive(Debug, Clone)]
pub struct CompressorFilter {
    /// What is compressed.
    pub config: Arc<CompressConfig>,
    /// The part of its stats' names that follows `compressor.`, with a dot at the end.
    pub stat_prefix: Arc<str>,
    /// The part of the names of what is counted of answers, with a dot at the end, or nothing.
    pub response_stat_prefix: &'static str,
}

/// Envoy: `CompressorOverrides`. What is `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompressorOverride {
    /// `compressor_library`.
    pub compression: Option<Compression>,
    /// Answers are compressed although the filter does not. `response_direction_config`.
    pub enables_response: bool,
    /// `response_direction_config.remove_accept_encoding_header`.
    pub remove_accept_encoding_header: Option<bool>,
}

/// Envoy: `envoy.filters.http.decompressor`.
#[derive(Debug, Clone)]
pub struct DecompressorFilter {
    /// What is decompressed.
    pub config: Arc<DecompressConfig>,
    /// The part of its stats' names that follows `decompressor.`, with a dot at the end.
    pub stat_prefix: Arc<str>,
}

/// Envoy: `envoy.filters.http.health_check`.
#[derive(Debug, Clone)]
pub struct HealthCheckConfig {
    /// Requests that pass all of them are checks. `headers`.
    pub headers: Vec<HeaderMatcher>,
    /// Who answers.
    pub mode: HealthCheckMode,
    /// `node.cluster`, which answers name in `x-envoy-upstream-healthchecked-cluster`.
    pub node_cluster: Option<Arc<str>>,
}

/// Who answers health checks.
#[derive(Debug, Clone)]
pub enum HealthCheckMode {
    /// The upstream, unless this process is draining. `pass_through_mode`.
    PassThrough {
        /// For so long its last answer is given again. `cache_time`.
        cache_time: Option<Duration>,
    },
    /// This process: it is well if it wants traffic and these clusters are.
    Answer {
        /// The share of a cluster's endpoints that must take traffic. `cluster_min_healthy_percentages`.
        cluster_min_healthy_percentages: BTreeMap<Arc<str>, Percent>,
    },
}
