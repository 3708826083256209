//! Policies that keep requests and endpoints together: ring hash and Maglev.

use envoy_types::pb::{
    envoy::{
        config::cluster::v3::{
            self as pb,
            cluster::{LbConfig, common_lb_config::ConsistentHashingLbConfig, ring_hash_lb_config},
        },
        extensions::load_balancing_policies::{
            common::v3 as common,
            maglev::v3::Maglev,
            ring_hash::v3::{RingHash, ring_hash},
        },
    },
    google::protobuf::{UInt32Value, UInt64Value},
};
use mesh_balance::{
    BalanceConfig, HashBalanceFactor, HashFunction, LbPolicy, MaglevConfig, RING_SIZE_MAX,
    RingHashConfig, RingSizes, TableSize,
};
use mesh_route::HashPolicies;

use crate::{
    convert::{context::Context, hash},
    language::{At, MessageSupport, Support::Enforced},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: super::MESSAGE,
        fields: &[
            ("ring_hash_lb_config", Enforced),
            ("maglev_lb_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.RingHashLbConfig",
        fields: &[
            ("minimum_ring_size", Enforced),
            ("maximum_ring_size", Enforced),
            ("hash_function", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.MaglevLbConfig",
        fields: &[("table_size", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig",
        fields: &[
            ("use_hostname_for_hashing", Enforced),
            ("hash_balance_factor", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
        fields: &[
            ("hash_function", Enforced),
            ("minimum_ring_size", Enforced),
            ("maximum_ring_size", Enforced),
            ("use_hostname_for_hashing", Enforced),
            ("hash_balance_factor", Enforced),
            ("consistent_hashing_lb_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
        fields: &[
            ("table_size", Enforced),
            ("consistent_hashing_lb_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig",
        fields: &[
            ("use_hostname_for_hashing", Enforced),
            ("hash_balance_factor", Enforced),
            ("hash_policy", Enforced),
        ],
    },
];

/// Of `lb_policy: RING_HASH`.
pub(super) fn ring_hash(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Cluster,
    to: &mut BalanceConfig,
) -> Option<LbPolicy> {
    use ring_hash_lb_config::HashFunction as Name;
    let use_hostname_for_hashing = legacy(cx, at, from, to);
    let config = match &from.lb_config {
        Some(LbConfig::RingHashLbConfig(config)) => *config,
        _ => Default::default(),
    };
    let at = at.field("ring_hash_lb_config");
    Some(LbPolicy::RingHash(RingHashConfig {
        sizes: sizes(cx, &at, config.minimum_ring_size, config.maximum_ring_size)?,
        hash_function: match config.hash_function() {
            Name::XxHash => HashFunction::XxHash,
            Name::MurmurHash2 => HashFunction::MurmurHash2,
        },
        use_hostname_for_hashing,
    }))
}

/// Of `lb_policy: MAGLEV`.
pub(super) fn maglev(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Cluster,
    to: &mut BalanceConfig,
) -> Option<LbPolicy> {
    let use_hostname_for_hashing = legacy(cx, at, from, to);
    let size = match &from.lb_config {
        Some(LbConfig::MaglevLbConfig(config)) => config.table_size,
        _ => None,
    };
    let at = at.field("maglev_lb_config");
    Some(LbPolicy::Maglev(MaglevConfig {
        table_size: table_size(cx, &at, size)?,
        use_hostname_for_hashing,
    }))
}

/// `common_lb_config.consistent_hashing_lb_config`; says whether endpoints are known by hostname.
fn legacy(cx: &Context<'_>, at: &At<'_>, from: &pb::Cluster, to: &mut BalanceConfig) -> bool {
    let common = from.common_lb_config.as_ref();
    let config = common.and_then(|common| common.consistent_hashing_lb_config);
    let ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
    } = config.unwrap_or_default();
    let at = at.field("common_lb_config");
    let at = at.field("consistent_hashing_lb_config");
    to.hash_balance_factor = factor(cx, &at, hash_balance_factor);
    use_hostname_for_hashing
}

/// Of the extension, with the hash policies that it brings, which win over those of routes.
pub(super) fn typed_ring_hash(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &RingHash,
    to: &mut BalanceConfig,
    policies: &mut Option<HashPolicies>,
) -> Option<LbPolicy> {
    // The older fields count only without the common ones, as in Envoy.
    #[expect(deprecated, reason = "configs have them")]
    let older = common::ConsistentHashingLbConfig {
        use_hostname_for_hashing: from.use_hostname_for_hashing,
        hash_balance_factor: from.hash_balance_factor,
        hash_policy: Vec::new(),
    };
    let common = match &from.consistent_hashing_lb_config {
        Some(common) => typed(
            cx,
            &at.field("consistent_hashing_lb_config"),
            common,
            to,
            policies,
        ),
        None => typed(cx, at, &older, to, policies),
    };
    Some(LbPolicy::RingHash(RingHashConfig {
        sizes: sizes(cx, at, from.minimum_ring_size, from.maximum_ring_size)?,
        hash_function: match from.hash_function() {
            ring_hash::HashFunction::DefaultHash | ring_hash::HashFunction::XxHash => {
                HashFunction::XxHash
            }
            ring_hash::HashFunction::MurmurHash2 => HashFunction::MurmurHash2,
        },
        use_hostname_for_hashing: common,
    }))
}

/// The same for Maglev.
pub(super) fn typed_maglev(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &Maglev,
    to: &mut BalanceConfig,
    policies: &mut Option<HashPolicies>,
) -> Option<LbPolicy> {
    let common = from.consistent_hashing_lb_config.as_ref();
    let use_hostname_for_hashing = common.is_some_and(|common| {
        let at = at.field("consistent_hashing_lb_config");
        typed(cx, &at, common, to, policies)
    });
    Some(LbPolicy::Maglev(MaglevConfig {
        table_size: table_size(cx, at, from.table_size)?,
        use_hostname_for_hashing,
    }))
}

fn typed(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &common::ConsistentHashingLbConfig,
    to: &mut BalanceConfig,
    policies: &mut Option<HashPolicies>,
) -> bool {
    to.hash_balance_factor = factor(cx, at, from.hash_balance_factor);
    if !from.hash_policy.is_empty() {
        *policies = Some(hash::convert(
            cx,
            &at.field("hash_policy"),
            &from.hash_policy,
        ));
    }
    from.use_hostname_for_hashing
}

fn sizes(
    cx: &Context<'_>,
    at: &At<'_>,
    minimum: Option<UInt64Value>,
    maximum: Option<UInt64Value>,
) -> Option<RingSizes> {
    let default = RingSizes::default();
    let minimum = minimum.map_or_else(|| default.minimum(), |size| size.value);
    let maximum = maximum.map_or(RING_SIZE_MAX, |size| size.value);
    cx.ok(at, RingSizes::new(minimum, maximum))
}

fn table_size(cx: &Context<'_>, at: &At<'_>, from: Option<UInt64Value>) -> Option<TableSize> {
    let Some(size) = from else {
        return Some(TableSize::default());
    };
    let at = at.field("table_size");
    // A larger number is refused all the same.
    let size = u32::try_from(size.value).unwrap_or(u32::MAX);
    cx.ok(&at, TableSize::new(size))
}

fn factor(cx: &Context<'_>, at: &At<'_>, from: Option<UInt32Value>) -> Option<HashBalanceFactor> {
    let at = at.field("hash_balance_factor");
    cx.ok(&at, HashBalanceFactor::new(from?.value))
}
