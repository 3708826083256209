//! What is learnt about a connection before a filter chain is chosen.

use std::{io, sync::Arc};

use mesh_config::model::{ListenerFilter, ProxyProtocolConfig};
use mesh_core::{
    ConnectionInfo,
    stats::{Registry, Scope},
};
use mesh_net::{
    Stream,
    proxy_protocol::{Parsed, ProxyVersion, V2_BYTES_MAX, parse},
};
use tokio::io::AsyncReadExt as _;

use super::{Serving, tls_inspector::TlsInspector};

/// How much is looked at to begin with.
const FIRST_LOOK: usize = 256;

mesh_core::stats! {
    /// What the PROXY protocol filter counts, as `proxy_proto.[<stat_prefix>.]<stat>`.
    pub(super) struct ProxyProtocolStats {
        /// Connections without a header that were refused.
        counter not_found_disallowed,
        /// Connections without a header that were let in.
        counter not_found_allowed,
    }
}

mesh_core::stats! {
    /// The same for one version, as `proxy_proto.[<stat_prefix>.]versions.<version>.<stat>`.
    pub(super) struct ProxyVersionStats {
        /// Headers.
        counter found,
        /// Headers that were refused because of their version.
        counter disallowed,
        /// Malformed headers.
        counter error,
    }
}

/// A listener filter, with what it counts.
pub(super) enum Inspector {
    ProxyProtocol(Box<ProxyProtocol>),
    OriginalDst,
    Tls(TlsInspector),
}

pub(super) struct ProxyProtocol {
    config: ProxyProtocolConfig,
    stats: ProxyProtocolStats,
    v1: ProxyVersionStats,
    v2: ProxyVersionStats,
}

impl Inspector {
    pub(super) fn new(config: &ListenerFilter, registry: &Registry) -> Self {
        match config {
            ListenerFilter::OriginalDst => Self::OriginalDst,
            ListenerFilter::ProxyProtocol(config) => {
                Self::ProxyProtocol(Box::new(ProxyProtocol::new(config, registry)))
            }
            ListenerFilter::TlsInspector(config) => Self::Tls(TlsInspector::new(config, registry)),
        }
    }

    async fn inspect(
        &self,
        stream: &mut Stream,
        info: &mut ConnectionInfo,
        transparent: bool,
    ) -> Verdict {
        match self {
            Self::ProxyProtocol(filter) => filter.inspect(stream, info).await,
            Self::Tls(filter) => filter.inspect(stream, info).await,
            Self::OriginalDst => {
                let meant = stream.original_destination();
                let meant = meant.or_else(|| info.direct_local.filter(|_| transparent));
                if let Some(destination) = meant {
                    info.restore_local(destination);
                }
                Verdict::GoOn
            }
        }
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    Close,
}

/// Lets each filter of the listener look at the connection, within their time.
pub(super) async fn inspect(
    serving: &Serving,
    stream: &mut Stream,
    info: &mut ConnectionInfo,
) -> Verdict {
    if serving.inspectors.is_empty() {
        return Verdict::GoOn;
    }
    let stats = &serving.stats;
    stats.downstream_pre_cx_active().inc();
    let config = &serving.config;
    let all = async {
        for inspector in &*serving.inspectors {
            if inspector
                .inspect(stream, info, config.is_transparent())
                .await
                == Verdict::Close
            {
                return Verdict::Close;
            }
        }
        Verdict::GoOn
    };
    let verdict = match config.listener_filters_timeout {
        None => all.await,
        Some(timeout) => tokio::time::timeout(timeout, all)
            .await
            .unwrap_or_else(|_| {
                stats.downstream_pre_cx_timeout().inc();
                if config.continue_on_listener_filters_timeout {
                    Verdict::GoOn
                } else {
                    Verdict::Close
                }
            }),
    };
    stats.downstream_pre_cx_active().dec();
    verdict
}

/// What was found at the start of a connection.
enum Found {
    /// A header, which has been taken off the stream.
    Header(ProxyVersion, mesh_net::proxy_protocol::ProxyHeader),
    Nothing,
    Malformed(ProxyVersion),
    Disallowed(ProxyVersion),
    /// The client has left, or its socket failed.
    Gone,
}

impl ProxyProtocol {
    fn new(config: &ProxyProtocolConfig, registry: &Registry) -> Self {
        let prefix = match &*config.stat_prefix {
            "" => "proxy_proto.".to_owned(),
            prefix => format!("proxy_proto.{prefix}."),
        };
        let scope = registry.scope(&prefix);
        let version = |scope: &Scope, name: &str| {
            ProxyVersionStats::register(&scope.scope(&format!("versions.{name}.")))
        };
        Self {
            config: config.clone(),
            stats: ProxyProtocolStats::register(&scope),
            v1: version(&scope, "v1"),
            v2: version(&scope, "v2"),
        }
    }

    fn of(&self, version: ProxyVersion) -> &ProxyVersionStats {
        match version {
            ProxyVersion::V1 => &self.v1,
            ProxyVersion::V2 => &self.v2,
        }
    }

    async fn inspect(&self, stream: &mut Stream, info: &mut ConnectionInfo) -> Verdict {
        match self.find(stream).await.unwrap_or(Found::Gone) {
            Found::Header(version, header) => {
                self.of(version).found().inc();
                let kept = header.tlvs.into_iter();
                let kept = kept.filter(|(kind, _)| self.config.pass_through.takes(*kind));
                info.proxy_tlvs = kept.collect();
                if let Some((source, destination)) = header.addresses {
                    info.peer = Some(source);
                    if info.local != Some(destination) {
                        info.restore_local(destination);
                    }
                }
                Verdict::GoOn
            }
            Found::Nothing if self.config.allow_requests_without_proxy_protocol => {
                self.stats.not_found_allowed().inc();
                Verdict::GoOn
            }
            Found::Nothing => {
                self.stats.not_found_disallowed().inc();
                Verdict::Close
            }
            Found::Malformed(version) => {
                self.of(version).error().inc();
                Verdict::Close
            }
            Found::Disallowed(version) => {
                self.of(version).found().inc();
                self.of(version).disallowed().inc();
                Verdict::Close
            }
            Found::Gone => Verdict::Close,
        }
    }

    /// Looks at the start of the connection, and takes a header off it.
    async fn find(&self, stream: &mut Stream) -> io::Result<Found> {
        let mut bytes = vec![0; FIRST_LOOK];
        let mut known = 0;
        loop {
            let Some(length) = stream.peek_beyond(known, &mut bytes).await? else {
                return Ok(Found::Gone);
            };
            known = length;
            let start = bytes.get(..length).unwrap_or_default();
            match parse(start) {
                Ok(Parsed::Absent) => return Ok(Found::Nothing),
                Err((version, _)) if self.ignores(version) => return Ok(Found::Nothing),
                Err((version, error)) => {
                    tracing::debug!("a malformed PROXY header: {error}");
                    return Ok(Found::Malformed(version));
                }
                Ok(Parsed::Header(version, ..)) if self.ignores(version) => {
                    return Ok(Found::Nothing);
                }
                Ok(Parsed::Header(version, ..))
                    if self.config.disallowed_versions.contains(&version) =>
                {
                    return Ok(Found::Disallowed(version));
                }
                Ok(Parsed::Header(version, header, length)) => {
                    bytes.truncate(length);
                    stream.read_exact(&mut bytes).await?;
                    return Ok(Found::Header(version, header));
                }
                Ok(Parsed::Incomplete(needs)) if needs > bytes.len() => {
                    bytes.resize(needs.min(V2_BYTES_MAX), 0);
                }
                Ok(Parsed::Incomplete(_)) => {}
            }
        }
    }

    /// Whether headers of that version count as what the client has to say itself.
    fn ignores(&self, version: ProxyVersion) -> bool {
        self.config.allow_requests_without_proxy_protocol
            && self.config.disallowed_versions.contains(&version)
    }
}

/// The filters of a listener, for its workers.
pub(super) fn inspectors(filters: &[ListenerFilter], registry: &Registry) -> Arc<[Inspector]> {
    let filters = filters.iter();
    filters
        .map(|filter| Inspector::new(filter, registry))
        .collect()
}
