use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_core::{Address, stats::Scope};

use crate::EndpointSet;

mesh_core::stats! {
    /// What a cluster's balancers count, as `cluster.<name>.<stat>`.
    pub struct LbStats {
        /// Picks that ignored health because too few endpoints were usable.
        counter lb_healthy_panic,
        /// How often members came or went.
        counter membership_change,
        /// Endpoints.
        gauge membership_total,
        /// Endpoints that take traffic.
        gauge membership_healthy,
        /// Endpoints that take traffic when too few are healthy.
        gauge membership_degraded,
        /// Endpoints that count neither way.
        gauge membership_excluded,
    }
}

/// The stats of one cluster's balancers, whichever worker they belong to.
#[derive(Debug)]
pub struct BalanceStats {
    stats: LbStats,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    version: u64,
    generation: u64,
    members: HashSet<Address>,
}

impl BalanceStats {
    /// Registers under the cluster's scope, `cluster.<name>.`.
    #[must_use]
    pub fn register(scope: &Scope) -> Arc<Self> {
        Arc::new(Self {
            stats: LbStats::register(scope),
            seen: Mutex::default(),
        })
    }

    /// Counts without being exported.
    #[must_use]
    pub fn detached() -> Arc<Self> {
        Self::register(&Scope::detached())
    }

    /// The numbers.
    #[must_use]
    pub const fn stats(&self) -> &LbStats {
        &self.stats
    }

    /// Sets the gauges, unless another worker has done so already. Balancers call it whenever they
    /// notice a change; a cluster calls it when it gets a new set, so that the gauges are right before
    /// the first request.
    pub fn refresh(&self, set: &EndpointSet) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (set.version(), set.generation());
        if now <= (seen.version, seen.generation) {
            return;
        }
        if set.version() != seen.version {
            let members = set.endpoints().iter().map(|e| e.address().clone());
            let members: HashSet<Address> = members.collect();
            if members != seen.members {
                self.stats.membership_change().inc();
                seen.members = members;
            }
        }
        (seen.version, seen.generation) = now;
        // Under the lock: a gauge may be set by one thread at a time.
        let membership = set.membership();
        self.stats.membership_total().set(membership.total);
        self.stats.membership_healthy().set(membership.healthy);
        self.stats.membership_degraded().set(membership.degraded);
        self.stats.membership_excluded().set(membership.excluded);
    }
}
