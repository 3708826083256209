//! Where config comes from that is not in the bootstrap.

use std::{path::PathBuf, sync::Arc, time::Duration};

/// Envoy: `Bootstrap.dynamic_resources`.
#[derive(Debug, Clone, Default)]
pub struct Dynamic {
    /// The aggregated stream. Envoy: `ads_config`.
    pub ads: Option<Arc<StreamConfig>>,
    /// Where listeners come from. Envoy: `lds_config`.
    pub listeners: Option<Origin>,
    /// Where clusters come from. Envoy: `cds_config`.
    pub clusters: Option<Origin>,
    /// Layers of the runtime that come from elsewhere. Envoy: `rtds_layer`.
    pub runtime: Vec<RuntimeSource>,
}

/// A layer of the runtime that comes from elsewhere. Envoy: `RtdsLayer`.
#[derive(Debug, Clone)]
pub struct RuntimeSource {
    /// The layer's name.
    pub layer: Arc<str>,
    /// The name of the resource.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a resource comes from, and how long somebody waits for it. Envoy: `ConfigSource`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Who gives it.
    pub source: Source,
    /// Whoever waits for a first answer goes on after this time; `None` waits for ever. Envoy:
    /// `initial_fetch_timeout`, 15 s.
    pub initial_fetch_timeout: Option<Duration>,
}

/// Who gives a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The aggregated stream. Envoy: `ads`, and `self` for what came over it.
    Ads,
    /// A stream of the type's own. Envoy: `api_config_source`.
    Stream(Arc<StreamConfig>),
    /// A file that is replaced. Envoy: `path_config_source`.
    File(Arc<FileConfig>),
}

/// Envoy: `ApiConfigSource`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamConfig {
    /// Differences only, rather than the state of the world. Envoy: `api_type`.
    pub delta: bool,
    /// The servers in order of preference; at least one. Envoy: `grpc_services`.
    pub servers: Vec<ControlServer>,
    /// Envoy: `set_node_on_first_message_only`.
    pub set_node_on_first_message_only: bool,
    /// How long it takes to connect again: at first, and at most. Envoy: `retry_policy.retry_back_off` of the
    /// first server, 0.5 s and 30 s.
    pub backoff: Option<(Duration, Duration)>,
    /// The most requests to send, at once and in 1,000 s. Envoy: `rate_limit_settings`, off.
    pub rate_limit: Option<(u32, u32)>,
}

/// Envoy: `GrpcService.EnvoyGrpc`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlServer {
    /// The static cluster whose endpoints serve. Envoy: `cluster_name`.
    pub cluster: Arc<str>,
    /// What it is called in `:authority`; the cluster's name if it is not said. Envoy: `authority`.
    pub authority: Option<Arc<str>>,
}

/// Envoy: `PathConfigSource`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileConfig {
    /// The file, with a `DiscoveryResponse`.
    pub path: PathBuf,
    /// Anything that is moved into this directory makes the file be read again, instead of only itself.
    pub watched_directory: Option<PathBuf>,
}
