//! `CircuitBreakers`: the bounds of a cluster.

use envoy_types::pb::envoy::config::{
    cluster::v3::{CircuitBreakers, circuit_breakers},
    core::v3::RoutingPriority,
};
use mesh_core::{Percent, RetryLimit, Thresholds};

use super::MESSAGE;
use crate::{
    convert::{context::Context, value},
    language::{At, MessageSupport, Support::Enforced},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[("circuit_breakers", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.CircuitBreakers",
        fields: &[("thresholds", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
        fields: &[
            ("priority", Enforced),
            ("max_connections", Enforced),
            ("max_pending_requests", Enforced),
            ("max_requests", Enforced),
            ("max_retries", Enforced),
            ("retry_budget", Enforced),
            ("track_remaining", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget",
        fields: &[
            ("budget_percent", Enforced),
            ("min_retry_concurrency", Enforced),
        ],
    },
];

/// Both priorities.
#[derive(Default)]
pub(super) struct Converted {
    pub(super) default: Thresholds,
    pub(super) high: Thresholds,
    pub(super) track_remaining: (bool, bool),
}

pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: Option<&CircuitBreakers>) -> Converted {
    let at = at.field("circuit_breakers");
    let list = at.field("thresholds");
    let mut converted = Converted::default();
    let mut seen = [false; 2];
    for (index, from) in from
        .map_or(&[][..], |from| &from.thresholds)
        .iter()
        .enumerate()
    {
        let at = list.index(index);
        let (slot, target, track) = match from.priority() {
            RoutingPriority::Default => {
                (0, &mut converted.default, &mut converted.track_remaining.0)
            }
            RoutingPriority::High => (1, &mut converted.high, &mut converted.track_remaining.1),
        };
        if seen[slot] {
            // The first of a priority counts, as in Envoy; nobody should have to find that out.
            let field = "envoy.config.cluster.v3.CircuitBreakers.thresholds";
            cx.unsupported(&at, field, Some("a further entry of the same priority"));
            continue;
        }
        seen[slot] = true;
        *track = from.track_remaining;
        *target = one(cx, &at, from);
    }
    converted
}

fn one(cx: &Context<'_>, at: &At<'_>, from: &circuit_breakers::Thresholds) -> Thresholds {
    let default = Thresholds::default();
    let number = |from, default| value::number(from).unwrap_or(default);
    Thresholds {
        max_connections: number(from.max_connections, default.max_connections),
        max_pending_requests: number(from.max_pending_requests, default.max_pending_requests),
        max_requests: number(from.max_requests, default.max_requests),
        retries: match (&from.retry_budget, value::number(from.max_retries)) {
            (Some(budget), _) => {
                let at = at.field("retry_budget");
                let percent = budget.budget_percent.as_ref();
                let percent = value::percent(cx, &at.field("budget_percent"), percent);
                RetryLimit::Budget {
                    percent: percent.unwrap_or(Percent::whole(20)),
                    min: number(budget.min_retry_concurrency, 3),
                }
            }
            (None, Some(max)) => RetryLimit::Max(max),
            (None, None) => default.retries,
        },
    }
}
