//! `Cluster`: where requests go.

mod balance;
mod dns;
mod endpoint;
mod hashing;
mod health;
mod outlier;
mod protocol;
mod socket;
mod thresholds;

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::cluster::v3::{
    self as pb,
    cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig},
};
use envoy_types::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use mesh_net::{
    CONNECT_TIMEOUT_DEFAULT,
    dns::{DnsDiscovery, ResolverConfig},
};

use super::{context::Context, proxy_protocol, source, tls, value};
use crate::{
    dynamic::Kind,
    language::{
        At, MessageSupport,
        Support::{Enforced, EnforcedFor, Meaningless},
    },
    model::{Cluster, Discovery, EdsConfig, OriginalDstConfig},
};

pub(super) use balance::SUPPORT as BALANCE_SUPPORT;
pub(super) use dns::SUPPORT as DNS_SUPPORT;
pub(super) use dns::default_resolver;
pub(super) use endpoint::{SUPPORT as ENDPOINT_SUPPORT, assignment};
pub(super) use hashing::SUPPORT as HASHING_SUPPORT;
pub(super) use health::SUPPORT as HEALTH_SUPPORT;
pub(super) use outlier::SUPPORT as OUTLIER_SUPPORT;
pub(super) use protocol::SUPPORT as PROTOCOL_SUPPORT;
pub(super) use socket::SUPPORT as SOCKET_SUPPORT;
pub(super) use thresholds::SUPPORT as THRESHOLDS_SUPPORT;

/// The message, which every file here has rows of.
const MESSAGE: &str = "envoy.config.cluster.v3.Cluster";

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("name", Enforced),
            ("alt_stat_name", Enforced),
            ("type", Enforced),
            ("cluster_type", Enforced),
            ("connect_timeout", Enforced),
            ("transport_socket", Enforced),
            // There is only one protocol.
            (
                "protocol_selection",
                EnforcedFor(&["USE_CONFIGURED_PROTOCOL", "USE_DOWNSTREAM_PROTOCOL"]),
            ),
            ("metadata", Enforced),
            ("cleanup_interval", Enforced),
            // Of what a TCP proxy keeps; a codec keeps less.
            ("per_connection_buffer_limit_bytes", Enforced),
            ("original_dst_lb_config", Enforced),
            ("eds_cluster_config", Enforced),
            ("wait_for_warm_on_init", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig",
        fields: &[
            ("use_http_header", Enforced),
            ("http_header_name", Enforced),
            ("upstream_port_override", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.EdsClusterConfig",
        fields: &[("eds_config", Enforced), ("service_name", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.CustomClusterType",
        fields: &[("name", Meaningless), ("typed_config", Enforced)],
    },
];

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Cluster,
    resolver: &ResolverConfig,
) -> Option<Cluster> {
    let discovery = discovery(cx, at, from, resolver);
    let balance = balance::convert(cx, at, from);
    let thresholds = thresholds::convert(cx, at, from.circuit_breakers.as_ref());
    let outlier = from
        .outlier_detection
        .as_ref()
        .map(|from| outlier::convert(cx, &at.field("outlier_detection"), from));
    let common = from.common_lb_config.as_ref();
    let protocol = protocol::convert(cx, at, from);
    let health_check = health::convert(cx, at, from, protocol.pool.protocol);
    let socket = from.transport_socket.as_ref();
    let (proxy_protocol, tls) = match proxy_protocol::unwrap(cx, at, socket) {
        None => (None, tls::upstream(cx, at, socket)),
        Some((said, inner)) => {
            let at = at.field("transport_socket");
            let at = at.field("typed_config");
            (Some(said), tls::upstream(cx, &at, inner.as_ref()))
        }
    };
    let socket_matches = socket::convert(cx, at, from);
    if proxy_protocol.is_some() && !from.transport_socket_matches.is_empty() {
        let reason = "is not supported beside upstream_proxy_protocol";
        cx.invalid(&at.field("transport_socket_matches"), reason);
    }
    let connect_at = at.field("connect_timeout");
    let connect_timeout = value::duration(cx, &connect_at, from.connect_timeout.as_ref());
    let discovery = discovery?;
    let balance = balance?;
    if from.eds_cluster_config.is_some() && !matches!(discovery, Discovery::Eds(_)) {
        cx.invalid(
            &at.field("eds_cluster_config"),
            "is only for clusters of type EDS",
        );
    }
    let endpoints = endpoint::convert(cx, at, from, &discovery);
    let mut pool = protocol.pool;
    pool.connect_timeout = connect_timeout.unwrap_or(CONNECT_TIMEOUT_DEFAULT);
    let stat_name = value::nonempty(&from.alt_stat_name).unwrap_or(&from.name);
    Some(Cluster {
        name: Arc::from(from.name.as_str()),
        stat_name: stat_name.replace(':', "_"),
        discovery,
        endpoints: endpoints.into(),
        balance: balance.config,
        hash: balance.hash.or(protocol.hash),
        thresholds: thresholds.default,
        thresholds_high: thresholds.high,
        track_remaining: thresholds.track_remaining,
        outlier: match outlier {
            Some(outlier) => Some(outlier?),
            None => None,
        },
        health_check,
        ignore_health_on_host_removal: from.ignore_health_on_host_removal,
        ignore_new_hosts_until_first_hc: common
            .is_some_and(|common| common.ignore_new_hosts_until_first_hc),
        pool: Arc::new(pool),
        proxy_protocol,
        buffer_limit: value::number(from.per_connection_buffer_limit_bytes)
            .map_or(mesh_retry::DEFAULT_REQUEST_BODY_BUFFER_LIMIT, u64::from),
        tls: tls?,
        socket_matches: socket_matches?,
        auto_names: protocol.auto_names,
        retry: protocol.retry,
        mirrors: protocol.mirrors,
        metadata: value::metadata(from.metadata.as_ref()),
        needs: cx.take_needs(),
    })
}

fn discovery(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Cluster,
    resolver: &ResolverConfig,
) -> Option<Discovery> {
    let dns = |discovery| {
        let dns = dns::convert(cx, at, from, discovery, resolver)?;
        Some(Discovery::Dns(Box::new(dns)))
    };
    let kind = match &from.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(number)) => DiscoveryType::try_from(*number).ok()?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let at = at.field("cluster_type");
            let any = custom.typed_config.as_ref();
            let Some(from_dns) = any.and_then(|any| cx.unpack::<DnsCluster>(any)) else {
                let reason = format!("clusters of type {:?} are not supported", custom.name);
                cx.invalid(&at, reason);
                return None;
            };
            let dns = dns::extension(cx, &at.field("typed_config"), &from_dns, resolver)?;
            return Some(Discovery::Dns(Box::new(dns)));
        }
    };
    match kind {
        DiscoveryType::Static => Some(Discovery::Static),
        DiscoveryType::StrictDns => dns(DnsDiscovery::Strict),
        DiscoveryType::LogicalDns => dns(DnsDiscovery::Logical),
        DiscoveryType::OriginalDst => original_dst(cx, at, from),
        DiscoveryType::Eds => eds(cx, at, from),
    }
}

/// Endpoints come by a name of their own, or the cluster's.
fn eds(cx: &Context<'_>, at: &At<'_>, from: &pb::Cluster) -> Option<Discovery> {
    let assignment = from.load_assignment.as_ref();
    if assignment.is_some_and(|assignment| !assignment.endpoints.is_empty()) {
        let reason = "a cluster of type EDS has no endpoints of its own";
        cx.invalid(&at.field("load_assignment"), reason);
    }
    let config = from.eds_cluster_config.as_ref();
    let at = at.field("eds_cluster_config");
    let at = at.field("eds_config");
    let origin = source::convert(
        cx,
        &at,
        config.and_then(|config| config.eds_config.as_ref()),
    )?;
    let service = config.and_then(|config| value::nonempty(&config.service_name));
    let service = service.unwrap_or(&from.name);
    cx.need(Kind::Endpoints, service, origin);
    Some(Discovery::Eds(EdsConfig {
        service_name: Arc::from(service),
    }))
}

/// How often endpoints are forgotten when the config does not say.
const CLEANUP_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

fn original_dst(cx: &Context<'_>, at: &At<'_>, from: &pb::Cluster) -> Option<Discovery> {
    if from.lb_policy() != LbPolicy::ClusterProvided {
        let reason = "a cluster of type ORIGINAL_DST must have the policy CLUSTER_PROVIDED";
        cx.invalid(&at.field("lb_policy"), reason);
    }
    let assignment = from.load_assignment.as_ref();
    if assignment.is_some_and(|assignment| !assignment.endpoints.is_empty()) {
        let reason = "a cluster of type ORIGINAL_DST has no endpoints of its own";
        cx.invalid(&at.field("load_assignment"), reason);
    }
    let config = match &from.lb_config {
        Some(LbConfig::OriginalDstLbConfig(config)) => config.clone(),
        _ => OriginalDstLbConfig::default(),
    };
    let at_config = at.field("original_dst_lb_config");
    let name = value::nonempty(&config.http_header_name).unwrap_or("x-envoy-original-dst-host");
    let name = value::header_name(cx, &at_config.field("http_header_name"), name);
    let port_at = at_config.field("upstream_port_override");
    let cleanup = value::duration(
        cx,
        &at.field("cleanup_interval"),
        from.cleanup_interval.as_ref(),
    );
    Some(Discovery::OriginalDst(OriginalDstConfig {
        http_header: name.filter(|_| config.use_http_header),
        upstream_port_override: value::number(config.upstream_port_override)
            .and_then(|port| cx.ok(&port_at, u16::try_from(port))),
        // The protos' own rules have refused zero.
        cleanup_interval: cleanup.unwrap_or(CLEANUP_INTERVAL_DEFAULT),
    }))
}
