//! Network filters other than the HTTP connection manager.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    extensions::filters::network::{
        connection_limit::v3::ConnectionLimit,
        tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
    },
    r#type::v3::{HashPolicy, hash_policy::PolicySpecifier},
};

use super::{access_log, context::Context, listener::Surroundings, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::{ConnectionLimitConfig, TcpClusters, TcpProxyConfig},
};

const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: TCP_PROXY,
        fields: &[
            ("stat_prefix", Enforced),
            ("cluster", Enforced),
            ("weighted_clusters", Enforced),
            ("idle_timeout", Enforced),
            ("max_connect_attempts", Enforced),
            ("max_downstream_connection_duration", Enforced),
            ("access_log", Enforced),
            ("hash_policy", Enforced),
            // Envoy reads neither.
            ("downstream_idle_timeout", Meaningless),
            ("upstream_idle_timeout", Meaningless),
            // All clusters are here from the start.
            ("on_demand", Meaningless),
            // Something else than what the client sent would go upstream.
            ("tunneling_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.type.v3.HashPolicy",
        fields: &[("source_ip", Enforced), ("filter_state", Enforced)],
    },
    MessageSupport {
        message: "envoy.type.v3.HashPolicy.SourceIp",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster",
        fields: &[("clusters", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        fields: &[
            ("name", Enforced),
            ("weight", Enforced),
            ("metadata_match", Security),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        fields: &[
            ("stat_prefix", Enforced),
            ("max_connections", Enforced),
            ("delay", Enforced),
            ("runtime_enabled", Enforced),
        ],
    },
    // No runtime layer is read, so that no key can override anything.
    MessageSupport {
        message: "envoy.config.core.v3.RuntimeFeatureFlag",
        fields: &[("default_value", Enforced), ("runtime_key", Meaningless)],
    },
];

/// How long nothing may move when the config does not say.
const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3600);

pub(super) fn tcp_proxy(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &TcpProxy,
    around: &Surroundings<'_>,
) -> Option<TcpProxyConfig> {
    if from.tunneling_config.is_some() {
        let at = at.field("tunneling_config");
        cx.invalid(&at, "tunnels through HTTP are not supported");
    }
    let duration = |field, from, default| value::timeout(cx, &at.field(field), from, default);
    Some(TcpProxyConfig {
        stat_prefix: Arc::from(from.stat_prefix.as_str()),
        idle_timeout: duration(
            "idle_timeout",
            from.idle_timeout.as_ref(),
            Some(IDLE_TIMEOUT_DEFAULT),
        ),
        // The protos' own rules have refused 0.
        max_connect_attempts: value::number(from.max_connect_attempts).unwrap_or(1).max(1),
        max_downstream_connection_duration: duration(
            "max_downstream_connection_duration",
            from.max_downstream_connection_duration.as_ref(),
            None,
        ),
        access_log: access_log::convert(cx, &at.field("access_log"), &from.access_log),
        buffer_limit: around.buffer_limit,
        hash_source_ip: hash_source_ip(cx, &at.field("hash_policy"), &from.hash_policy),
        clusters: clusters(cx, at, from.cluster_specifier.as_ref()?, around)?,
    })
}

/// Whether the client's address is what connections are placed by.
fn hash_source_ip(cx: &Context<'_>, at: &At<'_>, from: &[HashPolicy]) -> bool {
    // The protos' own rules allow one at most.
    match from
        .first()
        .and_then(|policy| policy.policy_specifier.as_ref())
    {
        Some(PolicySpecifier::SourceIp(_)) => true,
        Some(PolicySpecifier::FilterState(_)) => {
            let at = at.index(0);
            let reason = "no filter leaves any state: connections would go to other endpoints than they should";
            cx.invalid(&at.field("filter_state"), reason);
            false
        }
        None => false,
    }
}

fn clusters(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ClusterSpecifier,
    around: &Surroundings<'_>,
) -> Option<TcpClusters> {
    let check = |at: &At<'_>, name: &str| {
        if !around.clusters.contains(name) {
            cx.invalid(at, format!("there is no cluster named {name:?}"));
        }
    };
    match from {
        ClusterSpecifier::Cluster(name) => {
            check(&at.field("cluster"), name);
            Some(TcpClusters::one(name.as_str()))
        }
        ClusterSpecifier::WeightedClusters(weighted) => {
            let at = at.field("weighted_clusters");
            let at = at.field("clusters");
            let clusters = weighted.clusters.iter().enumerate();
            let clusters = clusters.map(|(index, cluster)| {
                check(&at.index(index).field("name"), &cluster.name);
                (Arc::from(cluster.name.as_str()), cluster.weight)
            });
            let clusters = TcpClusters::weighted(clusters.collect());
            if clusters.is_none() {
                cx.invalid(&at, "the weights come to nothing");
            }
            clusters
        }
    }
}

/// `None` when it is switched off.
pub(super) fn connection_limit(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ConnectionLimit,
) -> Option<ConnectionLimitConfig> {
    let enabled = from.runtime_enabled.as_ref();
    let enabled = enabled.is_none_or(|flag| value::flag(flag.default_value, false));
    let delay = value::duration(cx, &at.field("delay"), from.delay.as_ref());
    enabled.then(|| ConnectionLimitConfig {
        stat_prefix: Arc::from(from.stat_prefix.as_str()),
        // The protos' own rules have refused what is missing.
        max_connections: from.max_connections.map_or(1, |number| number.value),
        delay,
    })
}
