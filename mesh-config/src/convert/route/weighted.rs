//! `WeightedCluster`: several clusters that share the requests of a route.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{
    ClusterWeight, RandomValueSpecifier, cluster_weight::HostRewriteSpecifier,
};
use mesh_route::{WeightedCluster, WeightedClusters};

use super::{
    Scope,
    overrides::{Overrides, Site},
    owner,
};
use crate::{
    convert::{context::Context, mutation, value},
    language::At,
    model::FilterOverrides,
};

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::WeightedCluster,
    scope: &Scope<'_>,
) -> Option<WeightedClusters> {
    let list = at.field("clusters");
    let clusters = from.clusters.iter().enumerate();
    let clusters: Vec<_> = clusters
        .filter_map(|(index, from)| one(cx, &list.index(index), from, scope))
        .collect();
    if clusters.len() < from.clusters.len() {
        return None;
    }
    let clusters = cx.ok(&list, WeightedClusters::new(clusters))?;
    match &from.random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(name)) => {
            let name = value::header_name(cx, &at.field("header_name"), name)?;
            Some(clusters.by_header(name))
        }
        Some(RandomValueSpecifier::UseHashPolicy(by_hash)) if by_hash.value => {
            Some(clusters.by_hash())
        }
        Some(RandomValueSpecifier::UseHashPolicy(_)) | None => Some(clusters),
    }
}

fn one(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ClusterWeight,
    scope: &Scope<'_>,
) -> Option<WeightedCluster> {
    let Some(weight) = value::number(from.weight) else {
        cx.invalid(at, "weight is missing");
        return None;
    };
    let mut cluster = match (from.name.as_str(), from.cluster_header.as_str()) {
        ("", "") => {
            cx.invalid(at, "one of name and cluster_header must be set");
            return None;
        }
        (name, "") => {
            scope.check_cluster(cx, &at.field("name"), name);
            WeightedCluster::new(name, weight)
        }
        ("", header) => {
            let header = value::header_name(cx, &at.field("cluster_header"), header)?;
            WeightedCluster::by_header(header, weight)
        }
        (_, _) => {
            cx.invalid(at, "only one of name and cluster_header can be set");
            return None;
        }
    };
    cluster.mutations = mutation::convert(cx, at, &mutation::lists!(from));
    if let Some(HostRewriteSpecifier::HostRewriteLiteral(host)) = &from.host_rewrite_specifier {
        let at = at.field("host_rewrite_literal");
        cluster.host_rewrite_literal =
            value::nonempty(host).and_then(|host| value::header_value(cx, &at, host));
    }
    Some(cluster)
}

/// The overrides that hold for each cluster; nothing if no cluster has its own.
pub(super) fn overrides(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::WeightedCluster,
    overrides: &Overrides,
    site: &Site<'_>,
) -> Vec<Arc<FilterOverrides>> {
    if from
        .clusters
        .iter()
        .all(|cluster| cluster.typed_per_filter_config.is_empty())
    {
        return Vec::new();
    }
    let list = at.field("clusters");
    let clusters = from.clusters.iter().enumerate().map(|(index, from)| {
        let at = list.index(index);
        let owner = owner(site.owner, "cluster", index);
        let site = Site {
            owner: &owner,
            ..*site
        };
        let per_filter = at.field("typed_per_filter_config");
        let overrides = overrides.overridden(cx, &per_filter, &from.typed_per_filter_config, &site);
        overrides.to_model()
    });
    clusters.collect()
}
