//! The tables of hashing policies, made once for all workers.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64 as StdAtomicU64, atomic::Ordering},
};

use mesh_core::stats::Scope;

use crate::{BalanceConfig, EndpointSet, LbPolicy, level::Tables};

mesh_core::stats! {
    /// How even a ring is, as `cluster.<name>.ring_hash_lb.<stat>`.
    pub struct RingHashStats {
        /// Places of the ring.
        gauge size,
        /// The fewest places that an endpoint has.
        gauge min_hashes_per_host,
        /// The most.
        gauge max_hashes_per_host,
    }
}

mesh_core::stats! {
    /// How even a Maglev table is, as `cluster.<name>.maglev_lb.<stat>`.
    pub struct MaglevStats {
        /// The fewest slots that an endpoint has.
        gauge min_entries_per_host,
        /// The most.
        gauge max_entries_per_host,
    }
}

/// The tables of a cluster with ring hash or Maglev, which the balancers of all workers share.
///
/// A table is made where [`HashTables::build`] is called, off the path of requests, by whoever has a new set of
/// endpoints; balancers take the set from here. When the health of an endpoint has changed, the first balancer
/// that notices calls `stale`, and all go on with the table that is there until the next one is built.
pub struct HashTables {
    config: BalanceConfig,
    current: Mutex<Arc<Tables>>,
    /// Counts what `current` has been; starts with 1.
    serial: StdAtomicU64,
    /// The generation of health that was asked for last.
    asked: StdAtomicU64,
    stale: Box<dyn Fn() + Send + Sync>,
    stats: Option<HashStats>,
}

/// The stats of one cluster's tables, whichever version of the cluster they belong to. Cloning shares them.
#[derive(Debug, Clone)]
pub struct HashStats(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Ring(RingHashStats),
    Maglev(MaglevStats),
}

impl HashTables {
    /// The tables of `set`; `None` with a policy that has none. `stale` is called from the path of requests, and must do no more than to wake who builds.
    #[must_use]
    pub fn new(
        config: BalanceConfig,
        set: &Arc<EndpointSet>,
        stats: Option<HashStats>,
        stale: impl Fn() + Send + Sync + 'static,
    ) -> Option<Arc<Self>> {
        if !config.policy.goes_by_hash() {
            return None;
        }
        let tables = Arc::new(Tables::new(set, &config));
        if let Some(stats) = &stats {
            stats.set(&tables);
        }
        Some(Arc::new(Self {
            config,
            asked: StdAtomicU64::new(tables.generation),
            current: Mutex::new(tables),
            serial: StdAtomicU64::new(1),
            stale: Box::new(stale),
            stats,
        }))
    }

    /// Makes the tables of `set` as its health is now, unless there are newer ones by then.
    pub fn build(&self, set: &Arc<EndpointSet>) {
        let next = Arc::new(Tables::new(set, &self.config));
        let age = |tables: &Tables| (tables.set.version(), tables.generation);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if age(&next) < age(&current) {
            return;
        }
        // Under the lock: a gauge may be set by one thread at a time.
        if let Some(stats) = &self.stats {
            stats.set(&next);
        }
        *current = next;
        // Release: whoever sees the number takes the lock anyway.
        self.serial.fetch_add(1, Ordering::Release);
    }

    /// The same for the set that it has.
    pub fn rebuild(&self) {
        let set = Arc::clone(&self.current().0.set);
        self.build(&set);
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }

    /// The tables, with their number.
    pub(crate) fn current(&self) -> (Arc<Tables>, u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&current), self.serial())
    }

    /// The health of endpoints is at `generation`: asks for tables of it, once.
    pub(crate) fn ask(&self, generation: u64) {
        // Relaxed: two workers may both ask, which does no harm.
        if self.asked.swap(generation, Ordering::Relaxed) != generation {
            (self.stale)();
        }
    }
}

impl HashStats {
    /// Registers under the cluster's scope, `cluster.<name>.`; `None` with a policy that has no tables.
    #[must_use]
    pub fn register(policy: &LbPolicy, scope: &Scope) -> Option<Self> {
        let kind = match policy {
            LbPolicy::RingHash(_) => {
                Kind::Ring(RingHashStats::register(&scope.scope("ring_hash_lb.")))
            }
            LbPolicy::Maglev(_) => Kind::Maglev(MaglevStats::register(&scope.scope("maglev_lb."))),
            _ => return None,
        };
        Some(Self(kind))
    }

    /// Whether they are those of tables of `policy`.
    #[must_use]
    pub const fn are_of(&self, policy: &LbPolicy) -> bool {
        matches!(
            (&self.0, policy),
            (Kind::Ring(_), LbPolicy::RingHash(_)) | (Kind::Maglev(_), LbPolicy::Maglev(_))
        )
    }

    /// As in Envoy, the lowest priority counts.
    fn set(&self, tables: &Tables) {
        let Some(spread) = tables.in_use().last().map(|table| table.spread()) else {
            return;
        };
        let least = spread.least.min(spread.size);
        match &self.0 {
            Kind::Ring(stats) => {
                stats.size().set(spread.size);
                stats.min_hashes_per_host().set(least);
                stats.max_hashes_per_host().set(spread.most);
            }
            Kind::Maglev(stats) => {
                stats.min_entries_per_host().set(least);
                stats.max_entries_per_host().set(spread.most);
            }
        }
    }
}

impl fmt::Debug for HashTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashTables")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
