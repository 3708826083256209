use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{HeaderMutations, RouteConfigError};

/// How the cluster is found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ClusterSpecifier {
    /// Always this one. Envoy: `cluster`.
    Cluster(Arc<str>),
    /// The one that a request header names; without it, none. Envoy: `cluster_header`.
    ClusterHeader(HeaderName),
    /// One of several, by weight. Envoy: `weighted_clusters`.
    WeightedClusters(WeightedClusters),
}

impl ClusterSpecifier {
    /// The cluster for a request with these headers and this random number; `None` when a header should
    /// have named it. The same number gives the same cluster.
    #[must_use]
    pub fn pick<'a>(&'a self, headers: &'a HeaderMap, random: u64) -> Option<ClusterPick<'a>> {
        let name = match self {
            Self::Cluster(name) => name,
            Self::ClusterHeader(header) => named_by(headers, header)?,
            Self::WeightedClusters(clusters) => return clusters.pick(headers, random),
        };
        Some(ClusterPick {
            name,
            weighted: None,
        })
    }

    /// Whether the request's hash stands in for its random number. Envoy: `use_hash_policy`.
    #[must_use]
    pub const fn goes_by_hash(&self) -> bool {
        matches!(self, Self::WeightedClusters(clusters) if clusters.by_hash)
    }

    /// The names that the config mentions, to be checked against the clusters that exist.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Self::Cluster(name) => (Some(name.as_ref()), None),
            Self::ClusterHeader(_) => (None, None),
            Self::WeightedClusters(clusters) => (None, Some(clusters.clusters())),
        };
        let many = many.into_iter().flatten();
        one.into_iter()
            .chain(many.filter_map(WeightedCluster::name))
    }
}

/// The cluster that was picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClusterPick<'a> {
    /// Its name; whether it exists is not known here.
    pub name: &'a str,
    /// Its place among weighted clusters, for policies of its own, and its mutations and host rewrite.
    pub weighted: Option<(usize, &'a WeightedCluster)>,
}

fn named_by<'a>(headers: &'a HeaderMap, header: &HeaderName) -> Option<&'a str> {
    let name = headers.get(header)?.to_str().ok()?;
    (!name.is_empty()).then_some(name)
}

/// Several clusters that share the requests by weight.
///
/// The request's random number picks, the same that decides on fractions; or a header that holds a number.
///
/// # Envoy
/// `route.v3.WeightedCluster`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedClusters {
    clusters: Box<[WeightedCluster]>,
    total: u64,
    header_name: Option<HeaderName>,
    by_hash: bool,
}

impl WeightedClusters {
    /// Shares requests among `clusters`.
    ///
    /// # Errors
    /// When there is none, all weights are 0, or their sum is more than 4,294,967,295.
    pub fn new(clusters: Vec<WeightedCluster>) -> Result<Self, RouteConfigError> {
        let total: u64 = clusters
            .iter()
            .map(|cluster| u64::from(cluster.weight))
            .sum();
        if total == 0 {
            return Err(RouteConfigError::new(
                "the sum of weights in weighted_clusters must be at least 1",
            ));
        }
        if total > u64::from(u32::MAX) {
            return Err(RouteConfigError::new(format!(
                "the sum of weights in weighted_clusters exceeds {}",
                u32::MAX
            )));
        }
        Ok(Self {
            clusters: clusters.into(),
            total,
            header_name: None,
            by_hash: false,
        })
    }

    /// Takes the number from this header, where it holds one. Envoy: `header_name`.
    #[must_use]
    pub fn by_header(mut self, header: HeaderName) -> Self {
        self.header_name = Some(header);
        self
    }

    /// Takes the number from the request's hash, where it has one. Envoy: `use_hash_policy`.
    #[must_use]
    pub const fn by_hash(mut self) -> Self {
        self.by_hash = true;
        self
    }

    /// The clusters, in order.
    #[must_use]
    pub fn clusters(&self) -> &[WeightedCluster] {
        &self.clusters
    }

    pub(crate) fn clusters_mut(&mut self) -> &mut [WeightedCluster] {
        &mut self.clusters
    }

    fn pick<'a>(&'a self, headers: &'a HeaderMap, random: u64) -> Option<ClusterPick<'a>> {
        let number = self.header_name.as_ref().and_then(|name| {
            let text = headers.get(name)?.to_str().ok()?;
            text.trim().parse::<u64>().ok()
        });
        let mut value = number.unwrap_or(random) % self.total;
        for (index, cluster) in self.clusters.iter().enumerate() {
            let weight = u64::from(cluster.weight);
            if value < weight {
                let name = match &cluster.target {
                    Target::Name(name) => name,
                    Target::Header(header) => named_by(headers, header)?,
                };
                return Some(ClusterPick {
                    name,
                    weighted: Some((index, cluster)),
                });
            }
            value -= weight;
        }
        None
    }
}

/// One of several clusters.
///
/// # Envoy
/// `route.v3.WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    target: Target,
    /// Its share of the sum; 0 is never picked.
    pub weight: u32,
    /// Done to its requests and responses, more specific than the route's.
    pub mutations: HeaderMutations,
    /// The host that its requests carry, unless the route rewrites it again.
    pub host_rewrite_literal: Option<HeaderValue>,
}

#[derive(Debug, Clone, PartialEq)]
enum Target {
    Name(Arc<str>),
    Header(HeaderName),
}

impl WeightedCluster {
    /// The cluster of that name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, weight: u32) -> Self {
        Self::of(Target::Name(name.into()), weight)
    }

    /// The cluster that a request header names. Envoy: `cluster_header`.
    #[must_use]
    pub fn by_header(header: HeaderName, weight: u32) -> Self {
        Self::of(Target::Header(header), weight)
    }

    fn of(target: Target, weight: u32) -> Self {
        Self {
            target,
            weight,
            mutations: HeaderMutations::default(),
            host_rewrite_literal: None,
        }
    }

    /// Its name, unless a header says it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.target {
            Target::Name(name) => Some(name),
            Target::Header(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{ClusterSpecifier, WeightedCluster, WeightedClusters};

    fn weighted(weights: &[u32]) -> WeightedClusters {
        let clusters = weights.iter().enumerate();
        let clusters = clusters.map(|(i, &weight)| WeightedCluster::new(i.to_string(), weight));
        WeightedClusters::new(clusters.collect()).unwrap()
    }

    #[test]
    fn each_cluster_gets_exactly_its_share_of_the_numbers() {
        let specifier = ClusterSpecifier::WeightedClusters(weighted(&[2, 0, 5, 1]));
        let none = HeaderMap::new();
        let picked: Vec<&str> = (0..9)
            .map(|n| specifier.pick(&none, n).unwrap().name)
            .collect();
        assert_eq!(picked, ["0", "0", "2", "2", "2", "2", "2", "3", "0"]);
        assert_eq!(specifier.names().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }

    #[test]
    fn a_header_may_hold_the_number_or_the_name() {
        let header = HeaderName::from_static("x-n");
        let by_number =
            ClusterSpecifier::WeightedClusters(weighted(&[1, 1]).by_header(header.clone()));
        let by_name = ClusterSpecifier::ClusterHeader(header.clone());
        let share = WeightedCluster::by_header(header.clone(), 1);
        let either =
            ClusterSpecifier::WeightedClusters(WeightedClusters::new(vec![share]).unwrap());
        let with = |value: &'static str| {
            HeaderMap::from_iter([(header.clone(), HeaderValue::from_static(value))])
        };
        assert_eq!(by_number.pick(&with("3"), 0).unwrap().name, "1");
        assert_eq!(by_number.pick(&with("x"), 0).unwrap().name, "0");
        assert_eq!(by_name.pick(&with("c"), 0).unwrap().name, "c");
        assert_eq!(either.pick(&with("c"), 0).unwrap().name, "c");
        for nobody in [&by_name, &either] {
            assert!(nobody.pick(&with(""), 0).is_none());
            assert!(nobody.pick(&HeaderMap::new(), 0).is_none());
            assert_eq!(nobody.names().count(), 0);
        }
    }

    #[test]
    fn weights_must_add_up_to_something_and_not_too_much() {
        assert!(WeightedClusters::new(vec![]).is_err());
        assert!(WeightedClusters::new(vec![WeightedCluster::new("a", 0)]).is_err());
        let huge = || WeightedCluster::new("a", u32::MAX);
        assert!(WeightedClusters::new(vec![huge()]).is_ok());
        assert!(WeightedClusters::new(vec![huge(), WeightedCluster::new("b", 1)]).is_err());
    }
}
