//! `RequestMirrorPolicy`, of routes and everything above them, and of clusters.

use std::sync::Arc;

use envoy_types::pb::envoy::config::{
    common::mutation_rules::v3::{HeaderMutation as MutationMessage, header_mutation::Action},
    route::v3::route_action::RequestMirrorPolicy,
};
use mesh_route::{HeaderMutation, MirrorCluster, MirrorHost, MirrorPolicy};

use super::{context::Context, mutation, value};
use crate::language::{At, MessageSupport, Support::Enforced};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.RequestMirrorPolicy",
        fields: &[
            ("cluster", Enforced),
            ("cluster_header", Enforced),
            ("runtime_fraction", Enforced),
            ("disable_shadow_host_suffix_append", Enforced),
            ("request_headers_mutations", Enforced),
            ("host_rewrite_literal", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.common.mutation_rules.v3.HeaderMutation",
        fields: &[("remove", Enforced), ("append", Enforced)],
    },
];

/// The policies at `at`; `check` complains about a cluster that should exist and does not.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[RequestMirrorPolicy],
    check: impl Fn(&At<'_>, &str),
) -> Arc<[MirrorPolicy]> {
    let policies = from.iter().enumerate();
    let policies = policies.filter_map(|(index, from)| policy(cx, &at.index(index), from, &check));
    policies.collect()
}

fn policy(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &RequestMirrorPolicy,
    check: impl Fn(&At<'_>, &str),
) -> Option<MirrorPolicy> {
    let named = value::nonempty(&from.cluster);
    let cluster = match (named, value::nonempty(&from.cluster_header)) {
        (Some(name), None) => {
            check(&at.field("cluster"), name);
            MirrorCluster::Named(name.into())
        }
        (None, Some(name)) => {
            let at = at.field("cluster_header");
            MirrorCluster::Header(value::header_name(cx, &at, name)?)
        }
        _ => {
            cx.invalid(at, "exactly one of cluster and cluster_header must be set");
            return None;
        }
    };
    let mut policy = MirrorPolicy::new(cluster);
    let fraction = from.runtime_fraction.as_ref();
    policy.runtime_fraction = fraction.map(|from| value::runtime_fraction(cx, from));
    policy.host = match value::nonempty(&from.host_rewrite_literal) {
        Some(host) => {
            let at = at.field("host_rewrite_literal");
            MirrorHost::Literal(value::header_value(cx, &at, host)?)
        }
        None if from.disable_shadow_host_suffix_append => MirrorHost::Unchanged,
        None => MirrorHost::Suffixed,
    };
    let list = at.field("request_headers_mutations");
    let mutations = from.request_headers_mutations.iter().enumerate();
    let mutations = mutations.filter_map(|(index, from)| mutated(cx, &list.index(index), from));
    policy.mutations = mutations.collect();
    Some(policy)
}

/// One step of a list of mutations. Removing what a pattern matches is in the report.
fn mutated(cx: &Context<'_>, at: &At<'_>, from: &MutationMessage) -> Option<HeaderMutation> {
    match from.action.as_ref()? {
        Action::Remove(name) => {
            let name = mutation::removal(cx, &at.field("remove"), name)?;
            cx.ok(at, HeaderMutation::new(Vec::new(), vec![name]))
        }
        Action::Append(option) => {
            let add = mutation::addition(cx, &at.field("append"), option)?;
            cx.ok(
                at,
                HeaderMutation::new(vec![add.into_header_add()], Vec::new()),
            )
        }
        Action::RemoveOnMatch(_) => None,
    }
}
