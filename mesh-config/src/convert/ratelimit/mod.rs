//! `LocalRateLimit`: the filter's config, and that of routes which have their own.

mod action;
mod headers;

use std::{num::NonZeroU32, sync::Arc};

use envoy_types::pb::envoy::{
    extensions::{
        common::ratelimit::v3::{
            LocalRateLimitDescriptor, VhRateLimitsOptions, XRateLimitHeadersRfcVersion,
        },
        filters::http::local_ratelimit::v3::LocalRateLimit,
    },
    r#type::v3::TokenBucket,
};
use http::StatusCode;
use mesh_core::{FractionalPercent, RuntimeFraction};
use mesh_ratelimit::{
    Descriptor, DescriptorEntry, Descriptors, LocalRateLimitConfig, RateLimitRule, RateLimits,
    TokenBucketConfig, XRateLimitHeaders,
};

use super::{context::Context, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, EnforcedFor},
    },
    model::RateLimitFilter,
};

pub(super) use action::SUPPORT as ACTION_SUPPORT;
pub(super) use action::{StagedRule, rules};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        fields: &[
            ("stat_prefix", Enforced),
            ("status", Enforced),
            ("token_bucket", Enforced),
            ("filter_enabled", Enforced),
            ("filter_enforced", Enforced),
            ("request_headers_to_add_when_not_enforced", Enforced),
            ("response_headers_to_add", Enforced),
            ("descriptors", Enforced),
            ("stage", Enforced),
            ("local_rate_limit_per_downstream_connection", Enforced),
            (
                "enable_x_ratelimit_headers",
                EnforcedFor(&["OFF", "DRAFT_VERSION_03"]),
            ),
            ("vh_rate_limits", Enforced),
            ("always_consume_default_token_bucket", Enforced),
            ("rate_limited_as_resource_exhausted", Enforced),
            ("rate_limits", Enforced),
            ("max_dynamic_descriptors", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.type.v3.HttpStatus",
        fields: &[("code", Enforced)],
    },
    MessageSupport {
        message: "envoy.type.v3.TokenBucket",
        fields: &[
            ("max_tokens", Enforced),
            ("tokens_per_fill", Enforced),
            ("fill_interval", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor",
        fields: &[("entries", Enforced), ("token_bucket", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry",
        fields: &[("key", Enforced), ("value", Enforced)],
    },
];

/// Which of the rate limits of a route and its virtual host build a request's descriptors.
#[derive(Debug, Clone, Copy)]
pub struct RuleSelection {
    /// Those of the config itself count, or there is no descriptor to look for.
    none: bool,
    stage: u32,
    virtual_host: VhRateLimitsOptions,
}

impl RuleSelection {
    /// The rules for a route with rate limits of its own and of its virtual host.
    pub(super) fn select(
        self,
        route: &[StagedRule],
        include_virtual_host: bool,
        virtual_host: &[StagedRule],
    ) -> Vec<RateLimitRule> {
        if self.none {
            return Vec::new();
        }
        let of_stage = |rules: &[StagedRule]| -> Vec<RateLimitRule> {
            let rules = rules.iter().filter(|staged| staged.stage == self.stage);
            rules.map(|staged| staged.rule.clone()).collect()
        };
        let mut selected = of_stage(route);
        let included = include_virtual_host
            || match self.virtual_host {
                VhRateLimitsOptions::Override => route.is_empty(),
                VhRateLimitsOptions::Include => true,
                VhRateLimitsOptions::Ignore => false,
            };
        if included {
            selected.extend(of_stage(virtual_host));
        }
        selected
    }
}

/// `node_cluster` is what the action `source_cluster` says.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &LocalRateLimit,
    node_cluster: &str,
) -> Option<RateLimitFilter> {
    let default = LocalRateLimitConfig::default();
    let token_bucket = from
        .token_bucket
        .as_ref()
        .map(|from| token_bucket(cx, &at.field("token_bucket"), from));
    let descriptors = descriptors(cx, &at.field("descriptors"), &from.descriptors)?;
    let embedded = own_rules(cx, &at.field("rate_limits"), from, node_cluster);
    let rules = RuleSelection {
        none: !from.rate_limits.is_empty() || from.descriptors.is_empty(),
        stage: from.stage,
        virtual_host: from.vh_rate_limits(),
    };
    let fraction = |from: Option<&_>| {
        from.map_or_else(
            || RuntimeFraction::fixed(FractionalPercent::ZERO),
            |from| value::runtime_fraction(cx, from),
        )
    };
    let headers = |field, list| headers::to_add(cx, &at.field(field), list);
    let config = LocalRateLimitConfig {
        stat_prefix: Arc::from(from.stat_prefix.as_str()),
        status: from
            .status
            .as_ref()
            .and_then(|status| StatusCode::from_u16(u16::try_from(status.code).ok()?).ok())
            .unwrap_or(default.status),
        token_bucket: match token_bucket {
            Some(bucket) => Some(bucket?),
            None => None,
        },
        filter_enabled: fraction(from.filter_enabled.as_ref()),
        filter_enforced: fraction(from.filter_enforced.as_ref()),
        request_headers_to_add_when_not_enforced: headers(
            "request_headers_to_add_when_not_enforced",
            &from.request_headers_to_add_when_not_enforced,
        ),
        response_headers_to_add: headers("response_headers_to_add", &from.response_headers_to_add),
        descriptors,
        rate_limits: RateLimits::from(embedded),
        local_rate_limit_per_downstream_connection: from.local_rate_limit_per_downstream_connection,
        enable_x_ratelimit_headers: match from.enable_x_ratelimit_headers() {
            XRateLimitHeadersRfcVersion::Off => XRateLimitHeaders::Off,
            XRateLimitHeadersRfcVersion::DraftVersion03 => XRateLimitHeaders::DraftVersion03,
        },
        always_consume_default_token_bucket: value::flag(
            from.always_consume_default_token_bucket,
            true,
        ),
        rate_limited_as_resource_exhausted: from.rate_limited_as_resource_exhausted,
        max_dynamic_descriptors: value::number(from.max_dynamic_descriptors)
            .and_then(NonZeroU32::new)
            .unwrap_or(default.max_dynamic_descriptors),
        mode: default.mode,
    };
    let config = Arc::new(config);
    Some(RateLimitFilter { config, rules })
}

/// The rules of the filter itself, which have neither stages nor keys to disable them.
fn own_rules(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &LocalRateLimit,
    node_cluster: &str,
) -> Vec<RateLimitRule> {
    for (index, rule) in from.rate_limits.iter().enumerate() {
        let at = at.index(index);
        for (field, set) in [
            ("stage", rule.stage.is_some()),
            ("disable_key", !rule.disable_key.is_empty()),
            ("limit", rule.limit.is_some()),
        ] {
            if set {
                let reason = "has no meaning for rules of the filter itself";
                cx.invalid(&at.field(field), reason);
            }
        }
    }
    let rules = rules(cx, at, &from.rate_limits, node_cluster);
    rules.into_iter().map(|staged| staged.rule).collect()
}

fn token_bucket(cx: &Context<'_>, at: &At<'_>, from: &TokenBucket) -> Option<TokenBucketConfig> {
    let interval_at = at.field("fill_interval");
    let interval = value::duration(cx, &interval_at, from.fill_interval.as_ref());
    let tokens_per_fill = value::number(from.tokens_per_fill).unwrap_or(1);
    let bucket = TokenBucketConfig::new(
        from.max_tokens,
        tokens_per_fill,
        interval.unwrap_or_default(),
    );
    cx.ok(at, bucket)
}

fn descriptors(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[LocalRateLimitDescriptor],
) -> Option<Descriptors> {
    let list = from.iter().enumerate().filter_map(|(index, from)| {
        let at = at.index(index);
        let bucket = from.token_bucket.as_ref()?;
        let entries = from.entries.iter().map(|entry| DescriptorEntry {
            key: Arc::from(entry.key.as_str()),
            value: Arc::from(entry.value.as_str()),
        });
        Some(Descriptor {
            entries: entries.collect(),
            token_bucket: token_bucket(cx, &at.field("token_bucket"), bucket)?,
        })
    });
    let list: Vec<Descriptor> = list.collect();
    // A place in a shortened list would be misleading, and what is missing was complained about.
    if list.len() < from.len() {
        return None;
    }
    cx.ok(at, Descriptors::new(list))
}
