//! Which endpoint of a list: one file per algorithm.

mod bounded;
mod edf;
mod hash;
mod least_request;
mod maglev;
mod random;
mod ring;
mod round_robin;
mod slow_start;
mod table;

use std::sync::Arc;

use mesh_core::{Endpoint, Rng};

use crate::LbPolicy;
use least_request::LeastRequest;
use round_robin::RoundRobin;
pub(crate) use slow_start::SlowStart;
pub(crate) use table::{HashKey, HashTable};

/// A list of candidates and where its algorithm stands in it.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Places in the set.
    members: Vec<usize>,
    picker: Option<Picker>,
    /// Room for a pick that has to look around.
    order: Vec<u32>,
}

#[derive(Debug)]
enum Picker {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    Random,
    /// By hash, with members of its own.
    Hashed(Arc<HashTable>),
}

impl Pool {
    /// Picks by a table that others may pick by too.
    pub(crate) fn of_table(table: &Arc<HashTable>) -> Self {
        Self {
            members: Vec::new(),
            order: vec![0; table.room()],
            picker: Some(Picker::Hashed(Arc::clone(table))),
        }
    }

    /// Takes over new members, and goes on from where it stood as far as that makes sense.
    pub(crate) fn rebuild(
        &mut self,
        members: Vec<usize>,
        endpoints: &[Arc<Endpoint>],
        policy: LbPolicy,
        slow_start: Option<SlowStart>,
        rng: &Rng,
    ) {
        self.members = members;
        let members = Members {
            places: &self.members,
            endpoints,
            slow_start,
        };
        members.note_times();
        if members.len() < 2 {
            return;
        }
        self.picker = Some(match (policy, self.picker.take()) {
            (LbPolicy::RoundRobin, Some(Picker::RoundRobin(old))) => {
                Picker::RoundRobin(old.rebuild(&members, rng))
            }
            (LbPolicy::RoundRobin, _) => Picker::RoundRobin(RoundRobin::new(&members, rng)),
            (LbPolicy::LeastRequest(config), _) => {
                Picker::LeastRequest(LeastRequest::new(config, &members, rng))
            }
            (LbPolicy::Random, _) => Picker::Random,
            // These have tables, which are not built here.
            (LbPolicy::RingHash(_) | LbPolicy::Maglev(_), _) => return,
        });
    }

    /// The place in the set of the next endpoint.
    pub(crate) fn pick(
        &mut self,
        endpoints: &[Arc<Endpoint>],
        slow_start: Option<SlowStart>,
        key: HashKey,
        rng: &Rng,
    ) -> Option<usize> {
        if let Some(Picker::Hashed(table)) = &self.picker {
            return table.pick(endpoints, key, &mut self.order);
        }
        let members = Members {
            places: &self.members,
            endpoints,
            slow_start,
        };
        if members.len() < 2 {
            return self.members.first().copied();
        }
        let index = match self.picker.as_mut()? {
            Picker::RoundRobin(picker) => picker.pick(&members),
            Picker::LeastRequest(picker) => picker.pick(&members, rng),
            Picker::Random => random::pick(&members, rng),
            Picker::Hashed(_) => return None,
        };
        self.members.get(index).copied()
    }
}

/// What an algorithm sees: endpoints by their index in the pool. There are at least two.
pub(crate) struct Members<'a> {
    places: &'a [usize],
    endpoints: &'a [Arc<Endpoint>],
    slow_start: Option<SlowStart>,
}

impl Members<'_> {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn get(&self, index: usize) -> &Endpoint {
        &self.endpoints[self.places[index]]
    }

    /// At least 1, so that nobody waits for ever.
    fn weight(&self, index: usize) -> u32 {
        self.get(index).weight.max(1)
    }

    /// The share of its weight that an endpoint has by now; `None` is all of it.
    fn grown(&self, index: usize) -> Option<f64> {
        self.slow_start?.grown(&self.get(index).state)
    }

    /// Notes when those became well of whom nobody has said so.
    fn note_times(&self) {
        if let Some(slow_start) = self.slow_start {
            (0..self.len()).for_each(|index| slow_start.note(&self.get(index).state));
        }
    }

    /// Whether weights tell endpoints apart.
    fn are_alike(&self) -> bool {
        let first = self.weight(0);
        let alike = |index| self.weight(index) == first && self.grown(index).is_none();
        self.grown(0).is_none() && (1..self.len()).all(alike)
    }
}
