//! What HTTP requests pass, and what their routes say.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use mesh_core::{Metadata, format::Captures};
use mesh_http::{hygiene::EdgeConfig, server::ServerConfig};
use mesh_ratelimit::RateLimitRule;
use mesh_retry::{DeadlineConfig, RetryConfig};
use mesh_route::RouteTable;
use mesh_telemetry::{Filter, LogFormat, Target};

use super::{FilterOverrides, HttpFilter};

/// Envoy: `HttpConnectionManager`.
#[derive(Debug, Clone)]
pub struct ConnectionManager {
    /// What its routes are converted in, when they come on their own.
    pub(crate) place: Arc<RoutePlace>,
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// Timeouts and limits of the codec.
    pub server: Arc<ServerConfig>,
    /// Headers, paths and addresses.
    pub edge: Arc<EdgeConfig>,
    /// `route_config`.
    pub routes: Arc<RouteTable<RoutePolicies>>,
    /// The request headers that the routes' formats quote; log formats are bound behind them.
    pub captures: Captures,
    /// The name of `route_config`, or that by which it came.
    pub route_config_name: Arc<str>,
    /// It came, or will come, from a control plane. Envoy: `rds`.
    pub rds: bool,
    /// `upgrade_configs`.
    pub upgrades: UpgradeRules,
    /// `http_filters`, in order, without the router.
    pub http_filters: Vec<HttpFilter>,
    /// The router, which is always last.
    pub router: RouterConfig,
    /// `access_log`.
    pub access_log: Vec<AccessLogConfig>,
    /// How long a stream may last; `None` is for ever. Envoy:
    /// `common_http_protocol_options.max_stream_duration`.
    pub max_stream_duration: Option<Duration>,
    /// How old a connection may be before its client is told to take another; `None` is for ever. Envoy:
    /// `common_http_protocol_options.max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// How long a client that was told so may stay idle on it. Envoy: `drain_timeout`, 5 s.
    pub drain_timeout: Duration,
    /// `access_log_options`.
    pub access_log_options: AccessLogOptions,
}

/// What routes depend on, of the connection manager that they are in.
#[derive(Debug, Clone)]
pub(crate) struct RoutePlace {
    /// The path that names what belongs to the filter chain.
    pub(crate) owner: Arc<str>,
    /// `per_connection_buffer_limit_bytes`.
    pub(crate) buffer_limit: u64,
    /// The names of all its filters, known or not.
    pub(crate) filters: HashSet<String>,
}

/// Envoy: `envoy.filters.http.router`.
#[derive(Debug, Clone, Default)]
pub struct RouterConfig {
    /// `suppress_envoy_headers`.
    pub suppress_envoy_headers: bool,
    /// `respect_expected_rq_timeout`.
    pub respect_expected_rq_timeout: bool,
    /// `upstream_log`: one line per attempt.
    pub upstream_log: Vec<AccessLogConfig>,
    /// `upstream_log_options`; a new request is an attempt that has its connection.
    pub upstream_log_options: AccessLogOptions,
}

/// When lines are written beside the last one. Envoy: `HcmAccessLogOptions`, `UpstreamAccessLogOptions`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// When the request begins, too. Envoy: `flush_access_log_on_new_request`,
    /// `flush_upstream_log_on_upstream_stream`.
    pub flush_on_new_request: bool,
    /// Again and again while it goes on. Envoy: `access_log_flush_interval`, `upstream_log_flush_interval`.
    pub flush_interval: Option<Duration>,
}

/// One access log.
#[derive(Debug, Clone)]
pub struct AccessLogConfig {
    /// File, stdout or stderr.
    pub target: Target,
    /// Each line.
    pub format: LogFormat,
    /// Which requests.
    pub filter: Option<Filter>,
}

/// Which tunnels are allowed.
pub type UpgradeRules = Arc<[UpgradeRule]>;

/// Whether a kind of tunnel is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRule {
    /// The protocol's name, in lower case. Envoy: `upgrade_type`.
    pub upgrade_type: Box<str>,
    /// Whether it is allowed. Envoy: `enabled`, true.
    pub enabled: bool,
    /// CONNECT ends here: what is inside goes to the cluster as it is. Envoy: `connect_config`.
    pub terminates: bool,
}

impl UpgradeRule {
    /// The rule among `rules` for the protocol of that name.
    #[must_use]
    pub fn find<'a>(rules: &'a [Self], name: &[u8]) -> Option<&'a Self> {
        let same = |rule: &&Self| rule.upgrade_type.as_bytes().eq_ignore_ascii_case(name);
        rules.iter().find(same)
    }
}

/// What a route says to policies, as far as it says anything.
#[derive(Debug, Clone, Default)]
pub struct RoutePolicies {
    /// `upgrade_configs`, which win over the connection manager's.
    pub upgrades: UpgradeRules,
    /// `Route.metadata`, for logs.
    pub metadata: Option<Arc<Metadata>>,
    /// The retry policy of the route or its virtual host.
    pub retry: Option<Arc<RetryConfig>>,
    /// `RouteAction.timeout`; `None` where nothing is forwarded.
    pub deadline: Option<Arc<DeadlineConfig>>,
    /// What is different about the filters of the chain: each entry is the sum of all levels.
    pub filters: Arc<FilterOverrides>,
    /// The same for each weighted cluster, by its place, where some cluster has overrides of its own; then
    /// these stand in for `filters` altogether. Empty otherwise.
    pub weighted_filters: Vec<Arc<FilterOverrides>>,
    /// The `rate_limits` of the route and its virtual host, for each `local_ratelimit` filter (by name) that
    /// has descriptors and no rules of its own: those of the filter's stage, put together as its
    /// `vh_rate_limits` says.
    pub rate_limit_rules: Arc<BTreeMap<Arc<str>, Arc<[RateLimitRule]>>>,
}
