use std::sync::{Arc, atomic::Ordering};

use mesh_core::Endpoint;

use super::{
    Members,
    bounded::{Bound, shuffled},
    hash::Spread,
    maglev::Maglev,
    ring::Ring,
};
use crate::{BalanceConfig, HashBalanceFactor, LbPolicy};

/// A list of candidates and where each hash leads among them. It never changes, so that workers share it.
#[derive(Debug)]
pub(crate) struct HashTable {
    /// Places in the set.
    places: Vec<usize>,
    /// The weights as parts of 1.
    shares: Vec<f64>,
    kind: Kind,
    factor: Option<HashBalanceFactor>,
    spread: Spread,
}

#[derive(Debug)]
enum Kind {
    /// There is no choice.
    Only,
    Ring(Ring),
    Maglev(Maglev),
}

/// What a request is placed by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HashKey {
    pub(crate) hash: u64,
    /// How many picks for the same request were put back before.
    pub(crate) skipped: u32,
    /// Requests that run in the cluster, as far as the caller knows.
    pub(crate) active: Option<u64>,
}

impl HashTable {
    /// The table of `places` of a set.
    pub(crate) fn new(
        config: &BalanceConfig,
        places: Vec<usize>,
        endpoints: &[Arc<Endpoint>],
    ) -> Self {
        let members = Members {
            places: &places,
            endpoints,
            slow_start: None,
        };
        let weights = || (0..members.len()).map(|index| members.weight(index));
        let sum = weights().map(u64::from).sum::<u64>() as f64;
        let shares: Vec<f64> = weights().map(|weight| f64::from(weight) / sum).collect();
        let (kind, spread) = match config.policy {
            _ if shares.is_empty() => (Kind::Only, Spread::default()),
            LbPolicy::RingHash(config) => {
                let (ring, spread) = Ring::new(config, &members, &shares);
                (Kind::Ring(ring), spread)
            }
            LbPolicy::Maglev(config) => {
                let (maglev, spread) = Maglev::new(config, &members, &shares);
                (Kind::Maglev(maglev), spread)
            }
            _ => (Kind::Only, Spread::default()),
        };
        Self {
            places,
            shares,
            kind,
            factor: config.hash_balance_factor,
            spread,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) const fn spread(&self) -> Spread {
        self.spread
    }

    /// How much room a pick needs to find its way around a bound.
    pub(crate) fn room(&self) -> usize {
        self.factor.map_or(0, |_| self.places.len())
    }

    /// The place in the set that `key` leads to; `order` is as long as [`room`](Self::room) says.
    pub(crate) fn pick(
        &self,
        endpoints: &[Arc<Endpoint>],
        key: HashKey,
        order: &mut [u32],
    ) -> Option<usize> {
        let index = match &self.kind {
            Kind::Only => 0,
            Kind::Ring(ring) => ring.pick(key.hash, key.skipped),
            Kind::Maglev(maglev) => maglev.pick(key.hash, key.skipped),
        };
        let index = match self.factor {
            Some(factor) if !self.places.is_empty() => {
                let active = key.active.unwrap_or_else(|| running(endpoints));
                self.bounded(
                    endpoints,
                    index,
                    key.hash,
                    Bound::new(factor, active),
                    order,
                )
            }
            _ => index,
        };
        self.places.get(index).copied()
    }

    /// The endpoint at `index` if it has room, else another that has, else the one that lacks least.
    fn bounded(
        &self,
        endpoints: &[Arc<Endpoint>],
        index: usize,
        hash: u64,
        bound: Bound,
        order: &mut [u32],
    ) -> usize {
        let load = |index: usize| {
            let active = active(&endpoints[self.places[index]]);
            bound.load(active, self.shares[index])
        };
        let (mut best, mut least) = (index, load(index));
        if least <= 1.0 {
            return index;
        }
        for other in shuffled(hash, order).filter(|other| *other != index) {
            let load = load(other);
            if load <= 1.0 {
                return other;
            }
            if load < least {
                (best, least) = (other, load);
            }
        }
        best
    }
}

fn active(endpoint: &Endpoint) -> u64 {
    // Relaxed: a number to compare, whose age does not matter.
    endpoint.state.stats.rq_active.load(Ordering::Relaxed)
}

fn running(endpoints: &[Arc<Endpoint>]) -> u64 {
    endpoints.iter().map(|endpoint| active(endpoint)).sum()
}
