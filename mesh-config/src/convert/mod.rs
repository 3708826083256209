//! From Envoy's messages to [`model`](crate::model): one file per Envoy noun.
//!
//! Each file holds the conversion of its messages and, beside it, their rows of the support table, so that
//! what is reported as not enforced cannot drift from what is done. What a table cannot tell (a value that
//! is honoured here and not there) the conversion reports itself.
//!
//! Conversions go on after a mistake, so that a user sees all of them at once; functions answer `None` for
//! what they have already complained about.

mod access_log;
mod bootstrap;
mod cluster;
mod context;
mod filters;
mod hash;
mod http2;
mod listener;
mod manager;
mod matcher;
mod mirror;
mod mutation;
mod network;
mod proxy_protocol;
mod ratelimit;
pub(crate) mod resource;
mod retry;
mod route;
mod runtime;
mod source;
mod stats;
mod tls;
mod upgrade;
mod value;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use mesh_core::runtime::Runtime;

use crate::{
    language::{ConfigError, Loaded, MessageSupport, Source, SupportTable, load_bootstrap},
    model::Config,
};

use self::context::Context;
pub(crate) use self::context::Files;

pub use self::{
    context::INHERITED_MAX,
    ratelimit::RuleSelection,
    value::{DATA_SOURCE_BYTES_MAX, DATA_SOURCES_BYTES_MAX},
};

/// What the command line has to say about a bootstrap. The default changes nothing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// In place of `node.id`. Envoy: `--service-node`.
    pub service_node: Option<String>,
    /// In place of `node.cluster`. Envoy: `--service-cluster`.
    pub service_cluster: Option<String>,
    /// In place of `node.locality.zone`. Envoy: `--service-zone`.
    pub service_zone: Option<String>,
    /// Listeners that are only for a client in this process (`api_listener`) are taken: this is one. A proxy
    /// has no use for them.
    pub api_listeners: bool,
    /// Where runtime keys are read. It gets the layers of the bootstrap, once that is accepted.
    pub runtime: Runtime,
}

/// Reads a bootstrap and converts it.
///
/// A config that asks for something which security depends on and which is not enforced is no error here:
/// [`Config::report`] tells, and who runs it must refuse.
///
/// # Errors
/// With the file, path, line and reason of everything that is wrong, or that would send traffic somewhere
/// else than the config says.
pub fn load(source: &Source, options: &LoadOptions) -> Result<Config, ConfigError> {
    convert(&load_bootstrap(source)?, options)
}

/// Converts a bootstrap that was read already.
///
/// # Errors
/// See [`load`].
pub fn convert(loaded: &Loaded, options: &LoadOptions) -> Result<Config, ConfigError> {
    let cx = Context::new(loaded, options);
    let parts = bootstrap::convert(&cx, &loaded.bootstrap);
    let report = cx.finish()?;
    Ok(Config {
        version: loaded.version().into(),
        node: parts.node,
        admin: parts.admin,
        dynamic: parts.dynamic,
        load_stats: parts.load_stats,
        listeners: parts.listeners,
        clusters: parts.clusters,
        secrets: BTreeMap::new(),
        runtime: options.runtime.clone(),
        stats: parts.stats,
        report,
        dump: Arc::new(loaded.to_json()),
    })
}

/// [`support_table`], made once.
fn table() -> &'static SupportTable {
    static TABLE: LazyLock<SupportTable> = LazyLock::new(support_table);
    &TABLE
}

/// What [`load`] honours, field by field.
#[must_use]
pub fn support_table() -> SupportTable {
    let rows: &[&[MessageSupport]] = &[
        access_log::SUPPORT,
        access_log::FILTER_SUPPORT,
        access_log::FORMAT_SUPPORT,
        bootstrap::SUPPORT,
        cluster::SUPPORT,
        cluster::BALANCE_SUPPORT,
        cluster::DNS_SUPPORT,
        cluster::ENDPOINT_SUPPORT,
        cluster::HASHING_SUPPORT,
        cluster::HEALTH_SUPPORT,
        cluster::OUTLIER_SUPPORT,
        cluster::PROTOCOL_SUPPORT,
        cluster::SOCKET_SUPPORT,
        cluster::THRESHOLDS_SUPPORT,
        filters::SUPPORT,
        hash::SUPPORT,
        http2::SUPPORT,
        listener::SUPPORT,
        listener::CHAIN_SUPPORT,
        listener::FILTERS_SUPPORT,
        listener::SOCKET_SUPPORT,
        manager::SUPPORT,
        manager::EDGE_SUPPORT,
        manager::SERVER_SUPPORT,
        matcher::SUPPORT,
        mirror::SUPPORT,
        mutation::SUPPORT,
        network::SUPPORT,
        proxy_protocol::SUPPORT,
        ratelimit::ACTION_SUPPORT,
        retry::SUPPORT,
        route::SUPPORT,
        route::ACTION_SUPPORT,
        route::HOST_SUPPORT,
        route::INTERNAL_REDIRECT_SUPPORT,
        route::MATCH_SUPPORT,
        route::REPLY_SUPPORT,
        tls::SUPPORT,
        tls::COMMON_SUPPORT,
        tls::SECRET_SUPPORT,
        tls::VALIDATION_SUPPORT,
        source::SUPPORT,
        upgrade::SUPPORT,
        runtime::SUPPORT,
        stats::SUPPORT,
        value::SUPPORT,
    ];
    let filters = filters::ROWS.iter().map(|row| row.support);
    SupportTable::new(rows.iter().copied().chain(filters).flatten().copied())
}
