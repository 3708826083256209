//! Load reports (LRS): what was sent to each locality of each cluster, since the last report.
//!
//! [`LoadReporter`] only adds up; whoever counts requests feeds it, and whoever owns the stream asks it
//! when a report is due.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::{
    config::{
        core::v3::{Locality as WireLocality, Node},
        endpoint::v3::{ClusterStats, UpstreamLocalityStats, cluster_stats::DroppedRequests},
    },
    service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
};
use mesh_core::Locality;

use crate::wire::{duration, proto_duration};

/// The shortest interval that a server may ask for; anything less is raised to it, so that a zero cannot
/// make us spin.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The most endpoints of a cluster that are reported one by one; what happens to more is only in their locality.
pub const ENDPOINTS_MAX: usize = 10_000;

/// What happened to one locality.
///
/// # Envoy
/// `UpstreamLocalityStats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalityLoad {
    /// Requests that were answered well.
    pub total_successful_requests: u64,
    /// Requests still running, now.
    pub total_requests_in_progress: u64,
    /// Requests that failed: 5xx, resets, gRPC server faults.
    pub total_error_requests: u64,
    /// Requests that were begun.
    pub total_issued_requests: u64,
}

impl LocalityLoad {
    fn add(&mut self, more: &Self) {
        self.total_successful_requests += more.total_successful_requests;
        self.total_error_requests += more.total_error_requests;
        self.total_issued_requests += more.total_issued_requests;
        self.total_requests_in_progress = more.total_requests_in_progress;
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What happened to one endpoint, and what is thought of it.
///
/// # Envoy
/// `UpstreamEndpointStats`. Its health travels in the `metadata` that is free for use, under `health`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointLoad {
    /// The locality and priority that it is of.
    pub of: (Locality, u32),
    /// Its requests.
    pub load: LocalityLoad,
    /// `healthy`, or what is wrong with it, as `/clusters` says it; empty when nothing was said.
    pub health: String,
}

/// What happened to one cluster.
///
/// # Envoy
/// `ClusterStats`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterLoad {
    /// The cluster.
    pub cluster_name: String,
    /// Its EDS service name, when it has another one.
    pub cluster_service_name: String,
    /// By locality and priority.
    pub localities: BTreeMap<(Locality, u32), LocalityLoad>,
    /// By address, when the server asked for that.
    pub endpoints: BTreeMap<SocketAddr, EndpointLoad>,
    /// Requests dropped by policy, by category; the empty one stands for drops without a category.
    pub dropped: BTreeMap<String, u64>,
    /// How long it took to collect this.
    pub load_report_interval: Duration,
}

impl From<ClusterStats> for ClusterLoad {
    fn from(stats: ClusterStats) -> Self {
        let endpoints = endpoints::read(&stats);
        let localities = stats.upstream_locality_stats.into_iter().map(|stats| {
            let load = LocalityLoad {
                total_successful_requests: stats.total_successful_requests,
                total_requests_in_progress: stats.total_requests_in_progress,
                total_error_requests: stats.total_error_requests,
                total_issued_requests: stats.total_issued_requests,
            };
            ((locality(stats.locality), stats.priority), load)
        });
        let dropped = stats.dropped_requests.into_iter();
        let mut dropped: BTreeMap<_, _> = dropped
            .map(|drop| (drop.category, drop.dropped_count))
            .collect();
        let named = dropped
            .values()
            .fold(0, |sum: u64, n| sum.saturating_add(*n));
        if let Some(rest) = stats
            .total_dropped_requests
            .checked_sub(named)
            .filter(|n| *n > 0)
        {
            dropped.insert(String::new(), rest);
        }
        Self {
            cluster_name: stats.cluster_name,
            cluster_service_name: stats.cluster_service_name,
            localities: localities.collect(),
            endpoints,
            dropped,
            load_report_interval: stats
                .load_report_interval
                .as_ref()
                .map(duration)
                .unwrap_or_default(),
        }
    }
}

fn locality(wire: Option<WireLocality>) -> Locality {
    let wire = wire.unwrap_or_default();
    Locality {
        region: wire.region,
        zone: wire.zone,
        sub_zone: wire.sub_zone,
    }
}

#[derive(Debug)]
struct Collected {
    load: ClusterLoad,
    since: Instant,
}

/// Collects, and makes reports of it.
#[derive(Debug, Default)]
pub struct LoadReporter {
    clusters: BTreeMap<(String, String), Collected>,
    /// What the server asked for; nothing is sent before it does.
    wanted: Option<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    interval: Duration,
    /// Endpoints are reported one by one.
    endpoints: bool,
    /// Empty means all.
    clusters: Vec<String>,
    due: Instant,
}

impl LoadReporter {
    /// A reporter with nothing to report, whom nobody has asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first message of a stream.
    #[must_use]
    pub fn hello(node: Node) -> LoadStatsRequest {
        LoadStatsRequest {
            node: Some(node),
            cluster_stats: Vec::new(),
        }
    }

    /// A cluster is there: its interval starts now, unless it has one.
    pub fn on_cluster(&mut self, now: Instant, cluster: &str, service: &str) {
        self.collected(now, cluster, service);
    }

    /// A cluster is gone, and what was not reported with it.
    pub fn on_cluster_removed(&mut self, cluster: &str) {
        self.clusters.retain(|(name, _), _| name != cluster);
    }

    /// Adds what happened since the last call.
    pub fn add(
        &mut self,
        now: Instant,
        (cluster, service): (&str, &str),
        (locality, priority): (&Locality, u32),
        load: &LocalityLoad,
    ) {
        let collected = self.collected(now, cluster, service);
        let key = (locality.clone(), priority);
        collected.load.localities.entry(key).or_default().add(load);
    }

    /// Adds what happened to one endpoint since the last call; its locality is told for itself. Of its health,
    /// the last word counts.
    pub fn add_endpoint(
        &mut self,
        now: Instant,
        (cluster, service): (&str, &str),
        address: SocketAddr,
        endpoint: &EndpointLoad,
    ) {
        let endpoints = &mut self.collected(now, cluster, service).load.endpoints;
        if endpoints.len() >= ENDPOINTS_MAX && !endpoints.contains_key(&address) {
            return;
        }
        let own = endpoints.entry(address).or_default();
        own.of.clone_from(&endpoint.of);
        own.load.add(&endpoint.load);
        own.health.clone_from(&endpoint.health);
    }

    /// Whether the server wants to know of each endpoint.
    #[must_use]
    pub fn wants_endpoints(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.endpoints)
    }

    /// Adds drops of a category.
    pub fn add_dropped(
        &mut self,
        now: Instant,
        (cluster, service): (&str, &str),
        category: &str,
        n: u64,
    ) {
        let collected = self.collected(now, cluster, service);
        *collected
            .load
            .dropped
            .entry(category.to_owned())
            .or_default() += n;
    }

    fn collected(&mut self, now: Instant, cluster: &str, service: &str) -> &mut Collected {
        let key = (cluster.to_owned(), service.to_owned());
        self.clusters.entry(key).or_insert_with(|| Collected {
            load: ClusterLoad {
                cluster_name: cluster.to_owned(),
                cluster_service_name: service.to_owned(),
                ..ClusterLoad::default()
            },
            since: now,
        })
    }

    /// The server says what it wants.
    pub fn on_response(&mut self, now: Instant, response: &LoadStatsResponse) {
        let interval = response.load_reporting_interval.as_ref().map(duration);
        let interval = interval.unwrap_or_default().max(INTERVAL_MIN);
        if !response.send_all_clusters && response.clusters.is_empty() {
            self.wanted = None;
            return;
        }
        let all = response.send_all_clusters;
        self.wanted = Some(Wanted {
            interval,
            endpoints: response.report_endpoint_granularity,
            clusters: if all {
                Vec::new()
            } else {
                response.clusters.clone()
            },
            due: now
                .checked_add(interval)
                .unwrap_or(now + Duration::from_secs(86_400)),
        });
    }

    /// The stream is gone: nothing is sent until the next server asks. What was collected stays.
    pub fn on_disconnected(&mut self) {
        self.wanted = None;
    }

    /// When the next report is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wanted.as_ref().map(|wanted| wanted.due)
    }

    /// The report, if it is due; what is in it is no longer held.
    pub fn poll_report(&mut self, now: Instant) -> Option<LoadStatsRequest> {
        let wanted = self.wanted.as_mut().filter(|wanted| wanted.due <= now)?;
        wanted.due = now + wanted.interval;
        let named = &wanted.clusters;
        let mut cluster_stats = Vec::new();
        for collected in self.clusters.values_mut() {
            if named.is_empty() || named.contains(&collected.load.cluster_name) {
                cluster_stats.push(latch(now, collected, wanted.endpoints));
            }
        }
        Some(LoadStatsRequest {
            node: None,
            cluster_stats,
        })
    }
}

/// Makes a message of what was collected, and begins a new interval. Requests in progress stay so.
fn latch(now: Instant, collected: &mut Collected, with_endpoints: bool) -> ClusterStats {
    let load = &mut collected.load;
    // Of endpoints the next report says again what there is.
    let mut by_locality = endpoints::write(std::mem::take(&mut load.endpoints));
    if !with_endpoints {
        by_locality.clear();
    }
    let stats =
        |((locality, priority), load): (&(Locality, u32), &LocalityLoad)| UpstreamLocalityStats {
            upstream_endpoint_stats: by_locality
                .remove(&(locality.clone(), *priority))
                .unwrap_or_default(),
            locality: Some(WireLocality {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                sub_zone: locality.sub_zone.clone(),
            }),
            priority: *priority,
            total_successful_requests: load.total_successful_requests,
            total_requests_in_progress: load.total_requests_in_progress,
            total_error_requests: load.total_error_requests,
            total_issued_requests: load.total_issued_requests,
            ..UpstreamLocalityStats::default()
        };
    let upstream_locality_stats = load.localities.iter().map(stats).collect();
    let dropped = std::mem::take(&mut load.dropped);
    let message = ClusterStats {
        cluster_name: load.cluster_name.clone(),
        cluster_service_name: load.cluster_service_name.clone(),
        upstream_locality_stats,
        total_dropped_requests: dropped.values().sum(),
        dropped_requests: dropped
            .into_iter()
            .filter(|(category, _)| !category.is_empty())
            .map(|(category, dropped_count)| DroppedRequests {
                category,
                dropped_count,
            })
            .collect(),
        load_report_interval: Some(proto_duration(
            now.saturating_duration_since(collected.since),
        )),
    };
    collected.since = now;
    load.localities.retain(|_, load| {
        *load = LocalityLoad {
            total_requests_in_progress: load.total_requests_in_progress,
            ..LocalityLoad::default()
        };
        !load.is_empty()
    });
    message
}

/// Endpoints on the wire.
mod endpoints {
    use std::{collections::BTreeMap, net::SocketAddr};

    use envoy_types::pb::{
        envoy::config::{
            core::v3::{
                Address, SocketAddress, address::Address as Kind, socket_address::PortSpecifier,
            },
            endpoint::v3::{ClusterStats, UpstreamEndpointStats},
        },
        google::protobuf::{Struct, Value, value},
    };
    use mesh_core::Locality;

    use super::{EndpointLoad, LocalityLoad, locality};

    /// Where the health of an endpoint stands in its metadata.
    const HEALTH: &str = "health";

    type ByLocality = BTreeMap<(Locality, u32), Vec<UpstreamEndpointStats>>;

    pub(super) fn write(endpoints: BTreeMap<SocketAddr, EndpointLoad>) -> ByLocality {
        let mut by_locality = ByLocality::new();
        for (address, endpoint) in endpoints {
            let health = Value {
                kind: Some(value::Kind::StringValue(endpoint.health.clone())),
            };
            let metadata = (!endpoint.health.is_empty()).then(|| Struct {
                fields: [(HEALTH.to_owned(), health)].into(),
            });
            let stats = UpstreamEndpointStats {
                address: Some(Address {
                    address: Some(Kind::SocketAddress(SocketAddress {
                        address: address.ip().to_string(),
                        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
                        ..SocketAddress::default()
                    })),
                }),
                metadata,
                total_successful_requests: endpoint.load.total_successful_requests,
                total_requests_in_progress: endpoint.load.total_requests_in_progress,
                total_error_requests: endpoint.load.total_error_requests,
                total_issued_requests: endpoint.load.total_issued_requests,
                ..UpstreamEndpointStats::default()
            };
            by_locality.entry(endpoint.of).or_default().push(stats);
        }
        by_locality
    }

    /// What cannot be read is left out: whoever reports it may be newer.
    pub(super) fn read(stats: &ClusterStats) -> BTreeMap<SocketAddr, EndpointLoad> {
        let mut endpoints = BTreeMap::new();
        for of in &stats.upstream_locality_stats {
            let key = (locality(of.locality.clone()), of.priority);
            for endpoint in &of.upstream_endpoint_stats {
                if let Some(address) = address(endpoint) {
                    let load = LocalityLoad {
                        total_successful_requests: endpoint.total_successful_requests,
                        total_requests_in_progress: endpoint.total_requests_in_progress,
                        total_error_requests: endpoint.total_error_requests,
                        total_issued_requests: endpoint.total_issued_requests,
                    };
                    let health = health(endpoint).unwrap_or_default();
                    let of = key.clone();
                    endpoints.insert(address, EndpointLoad { of, load, health });
                }
            }
        }
        endpoints
    }

    fn address(endpoint: &UpstreamEndpointStats) -> Option<SocketAddr> {
        let Kind::SocketAddress(socket) = endpoint.address.as_ref()?.address.as_ref()? else {
            return None;
        };
        let PortSpecifier::PortValue(port) = socket.port_specifier.as_ref()? else {
            return None;
        };
        let port = u16::try_from(*port).ok()?;
        Some(SocketAddr::new(socket.address.parse().ok()?, port))
    }

    fn health(endpoint: &UpstreamEndpointStats) -> Option<String> {
        match endpoint
            .metadata
            .as_ref()?
            .fields
            .get(HEALTH)?
            .kind
            .as_ref()?
        {
            value::Kind::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    }
}
