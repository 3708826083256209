use xxhash_rust::xxh64::xxh64;

use super::{
    Members,
    hash::{Spread, key},
};
use crate::MaglevConfig;

/// A table whose slots the endpoints take in turn, each in an order of its own; a request looks its slot up.
///
/// # Envoy
/// `envoy.load_balancing_policies.maglev`
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Vec<u32>,
}

/// An endpoint that takes slots.
struct Taker {
    index: u32,
    weight: f64,
    /// What it must have waited for before it takes the next.
    target: f64,
    /// The next slot of its order, and the step to the one after.
    next: u64,
    skip: u64,
    taken: u64,
}

/// In an order that does not depend on that of the config.
fn takers(config: MaglevConfig, members: &Members<'_>, shares: &[f64]) -> Vec<Taker> {
    let size = u64::from(config.table_size.get());
    let mut keys: Vec<_> = (0..members.len())
        .map(|index| {
            let key = key(members.get(index), config.use_hostname_for_hashing);
            (key, index)
        })
        .collect();
    keys.sort_unstable();
    let taker = |(key, index): &(&str, usize)| Taker {
        index: *index as u32,
        weight: shares[*index],
        target: 0.0,
        next: xxh64(key.as_bytes(), 0) % size,
        skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1,
        taken: 0,
    };
    keys.iter().map(taker).collect()
}

const FREE: u32 = u32::MAX;

impl Maglev {
    /// `shares` are the members' weights as parts of 1: the same numbers that Envoy compares, so that what is
    /// rounded away is the same.
    pub(super) fn new(
        config: MaglevConfig,
        members: &Members<'_>,
        shares: &[f64],
    ) -> (Self, Spread) {
        let size = u64::from(config.table_size.get());
        let heaviest = shares.iter().copied().fold(0.0, f64::max);
        let mut takers = takers(config, members, shares);
        let mut slots = vec![FREE; size as usize];
        let mut left = slots.len();
        let mut round = 1.0;
        while left > 0 {
            for taker in &mut takers {
                if left == 0 || round * taker.weight < taker.target {
                    continue;
                }
                taker.target += heaviest;
                while slots[taker.next as usize] != FREE {
                    taker.next = (taker.next + taker.skip) % size;
                }
                slots[taker.next as usize] = taker.index;
                taker.taken += 1;
                left -= 1;
            }
            round += 1.0;
        }
        let mut spread = Spread {
            size,
            ..Spread::default()
        };
        takers.iter().for_each(|taker| spread.count(taker.taken));
        (Self { slots }, spread)
    }

    /// `skipped` is how many picks for the same request were put back before.
    pub(super) fn pick(&self, hash: u64, skipped: u32) -> usize {
        let hash = match skipped {
            0 => hash,
            // As Envoy does: another hash of which nothing is known.
            again => hash ^ (u64::MAX - u64::from(again) + 1),
        };
        let slot = hash % self.slots.len().max(1) as u64;
        self.slots
            .get(slot as usize)
            .map_or(0, |index| *index as usize)
    }
}
