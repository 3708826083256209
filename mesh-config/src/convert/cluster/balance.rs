//! `lb_policy`, `load_balancing_policy` and their configs.

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            self as pb,
            cluster::{
                CommonLbConfig, LbConfig, LbPolicy as LbPolicyName,
                common_lb_config::LocalityConfigSpecifier,
            },
        },
        core::v3::RuntimeDouble,
    },
    extensions::load_balancing_policies::{
        common::v3::{LocalityLbConfig, locality_lb_config},
        least_request::v3::{LeastRequest, least_request},
        maglev::v3::Maglev,
        random::v3::Random,
        ring_hash::v3::RingHash,
        round_robin::v3::RoundRobin,
    },
};
use envoy_types::pb::google::protobuf::UInt32Value;
use mesh_balance::{
    ActiveRequestBias, Aggression, BalanceConfig, ChoiceCount, LbPolicy, LeastRequestConfig,
    SelectionMethod, SlowStartConfig,
};

use mesh_route::HashPolicies;

use super::{MESSAGE, hashing};
use crate::{
    convert::{
        context::{Context, type_name},
        value,
    },
    language::{
        At, MessageSupport, Support,
        Support::{Enforced, Meaningless},
    },
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("lb_policy", Enforced),
            ("least_request_lb_config", Enforced),
            ("round_robin_lb_config", Enforced),
            ("common_lb_config", Enforced),
            ("lb_subset_config", Enforced),
            ("load_balancing_policy", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
        fields: &[
            ("choice_count", Enforced),
            ("active_request_bias", Enforced),
            ("slow_start_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig",
        fields: &[("slow_start_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.SlowStartConfig",
        fields: SLOW_START_FIELDS,
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig",
        fields: SLOW_START_FIELDS,
    },
    // Without selectors, subsets do nothing; with them, the cluster is refused.
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.LbSubsetConfig",
        fields: &[
            ("fallback_policy", Meaningless),
            ("default_subset", Meaningless),
            ("subset_selectors", Meaningless),
            ("locality_weight_aware", Meaningless),
            ("scale_locality_weight", Meaningless),
            ("panic_mode_any", Meaningless),
            ("list_as_any", Meaningless),
            ("metadata_fallback_policy", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        fields: &[
            ("healthy_panic_threshold", Enforced),
            ("zone_aware_lb_config", Enforced),
            // Endpoints of a config file change with the config only.
            ("update_merge_window", Meaningless),
            ("consistent_hashing_lb_config", Enforced),
            ("ignore_new_hosts_until_first_hc", Enforced),
            // For session filters, which are reported.
            ("override_host_status", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.CommonLbConfig.ZoneAwareLbConfig",
        fields: &[("fail_traffic_on_panic", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.LoadBalancingPolicy",
        fields: &[("policies", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.LoadBalancingPolicy.Policy",
        fields: &[("typed_extension_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        fields: &[
            ("choice_count", Enforced),
            ("active_request_bias", Enforced),
            ("selection_method", Enforced),
            ("enable_full_scan", Enforced),
            ("slow_start_config", Enforced),
            ("locality_lb_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
        fields: &[
            ("locality_lb_config", Enforced),
            ("slow_start_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.random.v3.Random",
        fields: &[("locality_lb_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig",
        fields: &[("zone_aware_lb_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig",
        fields: &[("fail_traffic_on_panic", Enforced)],
    },
];

/// Both messages of that name, which are alike.
macro_rules! slow_start {
    ($cx:expr, $at:expr, $from:expr) => {
        $from.and_then(|from| {
            let at = $at.field("slow_start_config");
            let window_at = at.field("slow_start_window");
            let window = value::duration($cx, &window_at, from.slow_start_window.as_ref());
            let mut config = SlowStartConfig::new(window.unwrap_or_default());
            if let Some(aggression) = &from.aggression {
                config.aggression = Aggression::new(aggression.default_value);
            }
            let percent = from.min_weight_percent.as_ref();
            if let Some(percent) = value::percent($cx, &at.field("min_weight_percent"), percent) {
                config.min_weight_percent = percent;
            }
            Some(config).filter(|config| !config.window.is_zero())
        })
    };
}

const SLOW_START_FIELDS: &[(&str, Support)] = &[
    ("slow_start_window", Enforced),
    ("aggression", Enforced),
    ("min_weight_percent", Enforced),
];

/// How an endpoint is picked.
pub(super) struct Balance {
    pub(super) config: BalanceConfig,
    /// The policy's own ways to hash a request.
    pub(super) hash: Option<HashPolicies>,
}

pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: &pb::Cluster) -> Option<Balance> {
    let selectors = from
        .lb_subset_config
        .as_ref()
        .map(|config| config.subset_selectors.len());
    if selectors.is_some_and(|selectors| selectors > 0) {
        let at = at.field("lb_subset_config");
        let reason = "subsets are not supported: requests would go to endpoints outside of them";
        cx.invalid(&at.field("subset_selectors"), reason);
    }
    let at_common = at.field("common_lb_config");
    let mut config = BalanceConfig::default();
    if let Some(common) = &from.common_lb_config {
        apply_common(cx, &at_common, common, &mut config);
    }
    if let Some(assignment) = from
        .load_assignment
        .as_ref()
        .and_then(|a| a.policy.as_ref())
    {
        if let Some(factor) = value::number(assignment.overprovisioning_factor) {
            config.overprovisioning_factor = factor;
        }
        config.weighted_priority_health = assignment.weighted_priority_health;
    }
    let mut hash = None;
    let typed = from.load_balancing_policy.as_ref();
    let uses_typed = typed.is_some() || from.lb_policy() == LbPolicyName::LoadBalancingPolicyConfig;
    config.policy = if uses_typed {
        let policies = typed.map_or(&[][..], |typed| &typed.policies);
        typed_policy(
            cx,
            &at.field("load_balancing_policy"),
            policies,
            &mut config,
            &mut hash,
        )?
    } else {
        named_policy(cx, at, from, &mut config)?
    };
    Some(Balance { config, hash })
}

fn apply_common(cx: &Context<'_>, at: &At<'_>, from: &CommonLbConfig, config: &mut BalanceConfig) {
    let threshold = from.healthy_panic_threshold.as_ref();
    if let Some(percent) = value::percent(cx, &at.field("healthy_panic_threshold"), threshold) {
        config.healthy_panic_threshold = percent;
    }
    if let Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) = &from.locality_config_specifier
    {
        config.fail_traffic_on_panic = zones.fail_traffic_on_panic;
    }
}

/// `lb_policy`, with the config that belongs to it.
fn named_policy(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Cluster,
    to: &mut BalanceConfig,
) -> Option<LbPolicy> {
    match from.lb_policy() {
        LbPolicyName::RoundRobin => {
            if let Some(LbConfig::RoundRobinLbConfig(config)) = &from.lb_config {
                let at = at.field("round_robin_lb_config");
                to.slow_start = slow_start!(cx, at, config.slow_start_config.as_ref());
            }
            Some(LbPolicy::RoundRobin)
        }
        // Nobody asks the balancer of such a cluster.
        LbPolicyName::ClusterProvided if is_original_dst(from) => Some(LbPolicy::RoundRobin),
        LbPolicyName::Random => Some(LbPolicy::Random),
        LbPolicyName::RingHash => hashing::ring_hash(cx, at, from, to),
        LbPolicyName::Maglev => hashing::maglev(cx, at, from, to),
        LbPolicyName::LeastRequest => {
            let Some(LbConfig::LeastRequestLbConfig(config)) = &from.lb_config else {
                return Some(LbPolicy::LeastRequest(LeastRequestConfig::default()));
            };
            let at = at.field("least_request_lb_config");
            to.slow_start = slow_start!(cx, at, config.slow_start_config.as_ref());
            let bias = config.active_request_bias.as_ref();
            unheeded(cx, &at, bias);
            Some(least_request(config.choice_count, bias, false))
        }
        other => {
            refuse(cx, &at.field("lb_policy"), other.as_str_name());
            None
        }
    }
}

fn is_original_dst(from: &pb::Cluster) -> bool {
    use pb::cluster::{ClusterDiscoveryType, DiscoveryType};
    let kind = DiscoveryType::OriginalDst as i32;
    from.cluster_discovery_type == Some(ClusterDiscoveryType::Type(kind))
}

fn refuse(cx: &Context<'_>, at: &At<'_>, policy: &str) {
    let reason =
        format!("{policy} is not supported: requests would go to other endpoints than they should");
    cx.invalid(at, reason);
}

/// Its runtime key is not read.
fn unheeded(cx: &Context<'_>, at: &At<'_>, bias: Option<&RuntimeDouble>) {
    if let Some(bias) = bias {
        let field = "envoy.config.core.v3.RuntimeDouble.runtime_key";
        cx.unheeded_key(&at.field("active_request_bias"), field, &bias.runtime_key);
    }
}

fn least_request(
    choice_count: Option<UInt32Value>,
    bias: Option<&RuntimeDouble>,
    full_scan: bool,
) -> LbPolicy {
    // The protos' own rules ask for at least two.
    let choice_count = value::number(choice_count)
        .and_then(|count| ChoiceCount::new(count).ok())
        .unwrap_or_default();
    LbPolicy::LeastRequest(LeastRequestConfig {
        choice_count,
        active_request_bias: bias.map_or_else(ActiveRequestBias::default, |bias| {
            ActiveRequestBias::new(bias.default_value)
        }),
        selection_method: if full_scan {
            SelectionMethod::FullScan
        } else {
            SelectionMethod::NChoices
        },
    })
}

/// The first policy that Envoy knows. What follows is for others, and so is a type of somebody else's.
fn typed_policy(
    cx: &Context<'_>,
    at: &At<'_>,
    policies: &[pb::load_balancing_policy::Policy],
    config: &mut BalanceConfig,
    hash: &mut Option<HashPolicies>,
) -> Option<LbPolicy> {
    let list = at.field("policies");
    let mut policies = policies.iter().enumerate().filter_map(|(index, policy)| {
        let typed = policy.typed_extension_config.as_ref()?;
        let any = typed.typed_config.as_ref()?;
        let name = type_name(any);
        name.starts_with("envoy.extensions.load_balancing_policies.")
            .then_some((index, any, name))
    });
    let Some((index, any, name)) = policies.next() else {
        cx.invalid(&list, "there is no policy that is known");
        return None;
    };
    for (index, ..) in policies {
        cx.ignored(&list.index(index));
    }
    let at = list.index(index);
    let at = at.field("typed_extension_config");
    let at = at.field("typed_config");
    let (policy, localities) = if let Some(from) = cx.unpack::<RoundRobin>(any) {
        config.slow_start = slow_start!(cx, at, from.slow_start_config.as_ref());
        (LbPolicy::RoundRobin, from.locality_lb_config)
    } else if let Some(from) = cx.unpack::<Random>(any) {
        (LbPolicy::Random, from.locality_lb_config)
    } else if let Some(from) = cx.unpack::<RingHash>(any) {
        (
            hashing::typed_ring_hash(cx, &at, &from, config, hash)?,
            None,
        )
    } else if let Some(from) = cx.unpack::<Maglev>(any) {
        (hashing::typed_maglev(cx, &at, &from, config, hash)?, None)
    } else if let Some(from) = cx.unpack::<LeastRequest>(any) {
        let full_scan = value::flag(from.enable_full_scan, false)
            || from.selection_method() == least_request::SelectionMethod::FullScan;
        let bias = from.active_request_bias.as_ref();
        unheeded(cx, &list.index(index).field("typed_config"), bias);
        let policy = least_request(from.choice_count, bias, full_scan);
        config.slow_start = slow_start!(cx, at, from.slow_start_config.as_ref());
        (policy, from.locality_lb_config)
    } else {
        refuse(cx, &list.index(index), name);
        return None;
    };
    config.fail_traffic_on_panic = localities.as_ref().is_some_and(fails_on_panic);
    Some(policy)
}

fn fails_on_panic(from: &LocalityLbConfig) -> bool {
    use locality_lb_config::LocalityConfigSpecifier;
    match &from.locality_config_specifier {
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) => zones.fail_traffic_on_panic,
        _ => false,
    }
}
