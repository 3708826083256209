use std::{
    collections::HashSet,
    sync::{Arc, atomic::AtomicU64 as StdAtomicU64},
};

use mesh_core::{
    Endpoint, Health,
    sync::{AtomicU64, Ordering},
};
use smallvec::SmallVec;

/// The endpoints of a cluster as one config or resolution has them: all priorities and localities.
///
/// It never changes; their health, weights of slow start and measurements live in what they share. A new
/// set is made when members come, go or change weight.
#[derive(Debug)]
pub struct EndpointSet {
    version: u64,
    endpoints: Vec<Arc<Endpoint>>,
    priorities: u32,
    /// The distinct counters of health changes: one per cluster, hence usually one.
    generations: SmallVec<[Arc<AtomicU64>; 1]>,
}

/// The highest priority level of a set; endpoints beyond it are put there. Envoy: `priority <= 128`.
pub const PRIORITY_MAX: u32 = 128;

static VERSIONS: StdAtomicU64 = StdAtomicU64::new(1);

impl EndpointSet {
    /// A set of `endpoints`, in this order; of those with the same address, the first is kept.
    #[must_use]
    pub fn new<E: Into<Arc<Endpoint>>>(endpoints: impl IntoIterator<Item = E>) -> Arc<Self> {
        let mut seen = HashSet::new();
        let endpoints: Vec<Arc<Endpoint>> = endpoints
            .into_iter()
            .map(Into::into)
            .filter(|endpoint| seen.insert(endpoint.address().clone()))
            .collect();
        let mut generations: SmallVec<[Arc<AtomicU64>; 1]> = SmallVec::new();
        let mut known = HashSet::new();
        for endpoint in &endpoints {
            let generation = endpoint.state.generation();
            if known.insert(Arc::as_ptr(generation)) {
                generations.push(Arc::clone(generation));
            }
        }
        let highest = endpoints.iter().map(|e| priority(e) + 1).max();
        Arc::new(Self {
            // Relaxed: only that the numbers differ and grow matters.
            version: VERSIONS.fetch_add(1, Ordering::Relaxed),
            endpoints,
            priorities: highest.unwrap_or(1),
            generations,
        })
    }

    /// No endpoints.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Self::new(std::iter::empty::<Endpoint>())
    }

    /// Differs between any two sets of the process; a later set has a higher one.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The endpoints, in order.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// How many priority levels there are: at least one.
    #[must_use]
    pub const fn priorities(&self) -> u32 {
        self.priorities
    }

    /// Grows whenever the health of any endpoint changes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        // Acquire: whoever sees a new generation sees the flags that made it.
        self.generations
            .iter()
            .map(|generation| generation.load(Ordering::Acquire))
            .fold(0, u64::wrapping_add)
    }

    /// How many there are of each class at this moment.
    #[must_use]
    pub fn membership(&self) -> Membership {
        let mut membership = Membership {
            total: self.endpoints.len() as u64,
            ..Membership::default()
        };
        for endpoint in &self.endpoints {
            match endpoint.state.health() {
                Health::Healthy => membership.healthy += 1,
                Health::Degraded => membership.degraded += 1,
                Health::Unhealthy => {}
            }
            membership.excluded += u64::from(endpoint.state.is_excluded());
        }
        membership
    }
}

pub(crate) fn priority(endpoint: &Endpoint) -> u32 {
    endpoint.priority.min(PRIORITY_MAX)
}

/// How many endpoints a set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Membership {
    /// All.
    pub total: u64,
    /// Those that take traffic.
    pub healthy: u64,
    /// Those that take traffic when too few are healthy.
    pub degraded: u64,
    /// Those that count neither way.
    pub excluded: u64,
}
