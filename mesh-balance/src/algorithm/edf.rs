use std::{cmp::Reverse, collections::BinaryHeap};

use mesh_core::Rng;

/// Earliest deadline first: whoever has weight `w` comes up every `1/w`.
///
/// Over a full cycle each index is picked exactly as often as its weight says, and as evenly spread as
/// can be. Times are whole units of 2^-64, so that whole weights stay exact; they would take 2^64 rounds
/// to run over.
#[derive(Debug)]
pub(crate) struct Edf {
    queue: BinaryHeap<Reverse<Entry>>,
    /// Numbers insertions: between equal deadlines, who came first goes first.
    inserted: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deadline: u128,
    inserted: u64,
    index: usize,
}

/// How long `1` lasts, in units.
const ONE: u128 = 1 << 64;

/// The time between two turns of whoever has `weight`.
pub(crate) fn turn(weight: u32) -> u128 {
    ONE / u128::from(weight.max(1))
}

/// The same for a weight that is not whole: at least one unit, at most 2^32 rounds.
pub(crate) fn turn_of(weight: f64) -> u128 {
    ((ONE as f64 / weight) as u128).clamp(1, ONE << 32)
}

impl Edf {
    /// Indexes `0..len`, somewhere within a cycle: schedulers of several workers should not march in
    /// step.
    pub(crate) fn new(len: usize, turn: impl Fn(usize) -> u128, rng: &Rng) -> Self {
        let queue = (0..len)
            .map(|index| {
                Reverse(Entry {
                    deadline: turn(index),
                    inserted: index as u64,
                    index,
                })
            })
            .collect();
        let mut this = Self {
            queue,
            inserted: len as u64,
        };
        for _ in 0..rng.below(len as u64) {
            this.pick(&turn);
        }
        this
    }

    /// The next index; `turn` says when its next turn is.
    pub(crate) fn pick(&mut self, turn: impl FnOnce(usize) -> u128) -> usize {
        let Some(mut first) = self.queue.peek_mut() else {
            return 0;
        };
        let entry = &mut first.0;
        entry.deadline = entry.deadline.saturating_add(turn(entry.index));
        entry.inserted = self.inserted;
        self.inserted += 1;
        entry.index
    }
}
