use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use crate::sync::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP.
    Socket(SocketAddr),
    /// A Unix socket; `@name` is abstract.
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Where an endpoint stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Locality {
    /// The largest unit.
    pub region: String,
    /// Within the region.
    pub zone: String,
    /// Within the zone.
    pub sub_zone: String,
}

/// One reason to think ill of an endpoint, as `/clusters` prints in `health_flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum HealthFlag {
    /// Active health checks fail.
    FailedActive = 1 << 0,
    /// Ejected by outlier detection.
    FailedOutlier = 1 << 1,
    /// The assignment says unhealthy.
    FailedEds = 1 << 2,
    /// Active health checks say degraded.
    DegradedActive = 1 << 3,
    /// The assignment says degraded.
    DegradedEds = 1 << 4,
    /// Not checked yet.
    PendingActive = 1 << 5,
    /// The assignment says draining.
    Draining = 1 << 6,
    /// The endpoint asked to be left out.
    Excluded = 1 << 7,
    /// The latest active health check was not answered in time.
    ActiveTimeout = 1 << 8,
    /// It has left the assignment, and stays as long as its active health checks pass.
    PendingRemoval = 1 << 9,
}

impl HealthFlag {
    const NAMES: [(Self, &'static str); 10] = [
        (Self::FailedActive, "/failed_active_hc"),
        (Self::FailedOutlier, "/failed_outlier_check"),
        (Self::FailedEds, "/failed_eds_health"),
        (Self::DegradedActive, "/degraded_active_hc"),
        (Self::DegradedEds, "/degraded_eds_health"),
        (Self::PendingRemoval, "/pending_dynamic_removal"),
        (Self::PendingActive, "/pending_active_hc"),
        (Self::Excluded, "/excluded_via_immediate_hc_fail"),
        (Self::ActiveTimeout, "/active_hc_timeout"),
        (Self::Draining, "/eds_status_draining"),
    ];
}

/// The class that a balancer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Takes traffic.
    Healthy,
    /// Takes traffic when too few are healthy.
    Degraded,
    /// Takes traffic only in panic.
    Unhealthy,
}

/// What is measured about an endpoint, over all workers: the row of `/clusters`.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "Envoy's names")]
pub struct EndpointStats {
    pub cx_active: AtomicU64,
    pub cx_total: AtomicU64,
    pub cx_connect_fail: AtomicU64,
    pub rq_active: AtomicU64,
    pub rq_pending_active: AtomicU64,
    pub rq_total: AtomicU64,
    pub rq_success: AtomicU64,
    pub rq_error: AtomicU64,
    pub rq_timeout: AtomicU64,
}

/// What is known about an endpoint, shared by every policy that notices something about it.
///
/// It belongs to the endpoint (its cluster and address), not to the policy that wrote it, and it outlives
/// config pushes. Every change bumps a generation, so that balancers rebuild their tables only when
/// something changed.
#[derive(Debug)]
pub struct EndpointState {
    address: Address,
    address_text: Box<str>,
    flags: AtomicU32,
    generation: Arc<AtomicU64>,
    /// In the process's own milliseconds; [`NEVER`] until somebody says so.
    well_since: AtomicI64,
    /// The measurements.
    pub stats: EndpointStats,
}

impl EndpointState {
    /// A healthy endpoint. `generation` is shared by the endpoints of one cluster and counts their
    /// changes of health.
    #[must_use]
    pub fn new(address: Address, generation: Arc<AtomicU64>) -> Self {
        Self {
            address_text: address.to_string().into(),
            address,
            flags: AtomicU32::new(0),
            generation,
            well_since: AtomicI64::new(NEVER),
            stats: EndpointStats::default(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The same as logs print it, made once.
    #[must_use]
    pub fn address_text(&self) -> &str {
        &self.address_text
    }

    /// The counter of health changes that this endpoint shares with its cluster.
    #[must_use]
    pub const fn generation(&self) -> &Arc<AtomicU64> {
        &self.generation
    }

    /// When it became well, as far as anybody has said: its slow start begins there. Whole milliseconds.
    #[must_use]
    pub fn well_since(&self) -> Option<Instant> {
        // Relaxed: a time by itself.
        match self.well_since.load(Ordering::Relaxed) {
            NEVER => None,
            millis => Some(instant(millis)),
        }
    }

    /// It is well from `now` on.
    pub fn set_well_since(&self, now: Instant) {
        self.well_since.store(millis(now), Ordering::Relaxed);
    }

    /// Sets or clears one flag. Returns whether that changed anything.
    pub fn set_health(&self, flag: HealthFlag, on: bool) -> bool {
        let bit = flag as u32;
        // AcqRel: whoever sees the new generation below must see the new flags.
        let before = if on {
            self.flags.fetch_or(bit, Ordering::AcqRel)
        } else {
            self.flags.fetch_and(!bit, Ordering::AcqRel)
        };
        let changed = (before & bit != 0) != on;
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Whether `flag` is set.
    #[must_use]
    pub fn has(&self, flag: HealthFlag) -> bool {
        self.flags.load(Ordering::Acquire) & flag as u32 != 0
    }

    /// Whether it counts neither as well nor as ill: it asked for that, or was never checked.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.has(HealthFlag::Excluded) || self.has(HealthFlag::PendingActive)
    }

    /// The class that a balancer sees.
    #[must_use]
    pub fn health(&self) -> Health {
        const UNHEALTHY: u32 = HealthFlag::FailedActive as u32
            | HealthFlag::FailedOutlier as u32
            | HealthFlag::FailedEds as u32
            | HealthFlag::Draining as u32;
        const DEGRADED: u32 = HealthFlag::DegradedActive as u32 | HealthFlag::DegradedEds as u32;
        let flags = self.flags.load(Ordering::Acquire);
        if flags & UNHEALTHY != 0 {
            Health::Unhealthy
        } else if flags & DEGRADED != 0 {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    /// `healthy`, or the flags joined, as `/clusters` prints them.
    #[must_use]
    pub fn health_flags(&self) -> String {
        let text: String = HealthFlag::NAMES
            .iter()
            .filter(|(f, _)| self.has(*f))
            .map(|(_, name)| *name)
            .collect();
        if text.is_empty() {
            "healthy".to_owned()
        } else {
            text
        }
    }
}

const NEVER: i64 = i64::MIN;

/// Where the process's own milliseconds begin: at the first time that is noted.
fn beginning(or: Instant) -> Instant {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    *BEGINNING.get_or_init(|| or)
}

fn millis(at: Instant) -> i64 {
    let beginning = beginning(at);
    let count = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match at.checked_duration_since(beginning) {
        Some(after) => count(after),
        None => -count(beginning.saturating_duration_since(at)),
    }
}

fn instant(millis: i64) -> Instant {
    let beginning = beginning(crate::clock::now());
    let distance = Duration::from_millis(millis.unsigned_abs());
    let at = if millis < 0 {
        beginning.checked_sub(distance)
    } else {
        beginning.checked_add(distance)
    };
    at.unwrap_or(beginning)
}

/// One endpoint of a cluster, as one config version describes it, with its lasting state.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Health and measurements; outlives this description.
    pub state: Arc<EndpointState>,
    /// The name it was resolved from, or the `hostname` of the config; empty if neither.
    pub hostname: Arc<str>,
    /// Its share among its peers, at least 1. Envoy: `load_balancing_weight`.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// Where it stands.
    pub locality: Arc<Locality>,
    /// Flat `envoy.lb` metadata, for subsets and logs.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// How connections to it are made: 0 as the cluster says, `n` by its `n`-th match. Envoy:
    /// `transport_socket_matches`.
    pub transport_socket: usize,
}

impl Endpoint {
    /// An endpoint of weight 1 at priority 0.
    #[must_use]
    pub fn new(state: Arc<EndpointState>) -> Self {
        Self {
            state,
            hostname: Arc::from(""),
            weight: 1,
            priority: 0,
            locality: Arc::default(),
            metadata: Arc::default(),
            transport_socket: 0,
        }
    }

    /// An endpoint that no cluster shares, at a TCP address: for library use and tests.
    #[must_use]
    pub fn standalone(address: SocketAddr) -> Self {
        Self::new(Arc::new(EndpointState::new(
            address.into(),
            Arc::new(AtomicU64::new(0)),
        )))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.state.address()
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use std::sync::Arc;

    use std::time::Duration;

    use super::{Address, Endpoint, EndpointState, Health, HealthFlag};
    use crate::sync::{AtomicU64, Ordering};

    #[test]
    fn the_time_it_became_well_is_kept_before_and_after_the_first() {
        let endpoint = Endpoint::standalone(([127, 0, 0, 1], 80).into());
        assert_eq!(endpoint.state.well_since(), None);
        let first = crate::clock::now() + Duration::from_secs(100);
        let apart = |at, other: std::time::Instant| {
            endpoint.state.set_well_since(at);
            let kept = endpoint.state.well_since().unwrap();
            let apart =
                kept.saturating_duration_since(other) + other.saturating_duration_since(kept);
            apart.as_millis()
        };
        assert!(apart(first, first) <= 1);
        let (later, earlier) = (
            first + Duration::from_secs(5),
            first - Duration::from_secs(50),
        );
        assert!(apart(later, later) <= 1);
        assert!(apart(earlier, earlier) <= 1);
    }

    #[test]
    fn health_is_the_worst_of_all_flags_and_bumps_the_generation_once() {
        let generation = Arc::new(AtomicU64::new(0));
        let address: std::net::SocketAddr = "127.0.0.1:80".parse().unwrap();
        let state = EndpointState::new(Address::Socket(address), Arc::clone(&generation));
        assert_eq!(
            (state.health(), state.health_flags().as_str()),
            (Health::Healthy, "healthy")
        );
        assert!(state.set_health(HealthFlag::DegradedEds, true));
        assert_eq!(state.health(), Health::Degraded);
        assert!(state.set_health(HealthFlag::FailedOutlier, true));
        assert!(!state.set_health(HealthFlag::FailedOutlier, true));
        assert_eq!(state.health(), Health::Unhealthy);
        assert_eq!(
            state.health_flags(),
            "/failed_outlier_check/degraded_eds_health"
        );
        assert_eq!(generation.load(Ordering::Acquire), 2);
    }
}
