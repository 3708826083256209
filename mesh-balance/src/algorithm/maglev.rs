use xxhash_rust::xxh64::xxh64;

use super::{Members, hash::key};
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
}

const FREE: u32 = u32::MAX;

impl Maglev {
    pub(super) fn new(config: MaglevConfig, members: &Members<'_>) -> Self {
        let size = u64::from(config.table_size.get());
        let heaviest = (0..members.len()).map(|i| members.weight(i)).max();
        let heaviest = f64::from(heaviest.unwrap_or(1));
        let mut keys: Vec<_> = (0..members.len())
            .map(|index| {
                (
                    key(members.get(index), config.use_hostname_for_hashing),
                    index,
                )
            })
            .collect();
        // So that the order of the config does not matter.
        keys.sort_unstable();
        let mut takers: Vec<Taker> = keys
            .iter()
            .map(|(key, index)| Taker {
                index: *index as u32,
                weight: f64::from(members.weight(*index)),
                target: 0.0,
                next: xxh64(key.as_bytes(), 0) % size,
                skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1,
            })
            .collect();
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
                left -= 1;
            }
            round += 1.0;
        }
        Self { slots }
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
