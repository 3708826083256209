//! One priority: who is in it, and what its share is.

use std::sync::Arc;

use mesh_core::{Endpoint, Health, Rng};

use crate::{
    BalanceConfig, EndpointSet, PriorityCounts, PriorityLoad,
    algorithm::{HashTable, Pool, SlowStart},
    priority_loads, set,
};

/// One priority as a balancer picks from it.
#[derive(Debug, Default)]
pub(crate) struct Level {
    pub(crate) load: PriorityLoad,
    pub(crate) counts: PriorityCounts,
    pub(crate) healthy: Pool,
    pub(crate) degraded: Pool,
    pub(crate) all: Pool,
}

/// Who is in it at one moment, as places in the set.
struct Members {
    load: PriorityLoad,
    counts: PriorityCounts,
    healthy: Vec<usize>,
    degraded: Vec<usize>,
    /// Only in panic.
    all: Vec<usize>,
}

fn members(set: &EndpointSet, config: &BalanceConfig) -> Vec<Members> {
    let counts = PriorityCounts::of(set, config);
    let loads = priority_loads(&counts, config);
    let list = |priority: usize, wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<usize> {
        let places = set.endpoints().iter().enumerate();
        places
            .filter(|(_, e)| set::priority(e) as usize == priority && wanted(e))
            .map(|(place, _)| place)
            .collect()
    };
    let levels = counts.into_iter().zip(loads).enumerate();
    levels
        .map(|(priority, (counts, load))| Members {
            load,
            counts,
            healthy: list(priority, &|e| e.state.health() == Health::Healthy),
            degraded: list(priority, &|e| e.state.health() == Health::Degraded),
            all: if load.panic {
                list(priority, &|_| true)
            } else {
                Vec::new()
            },
        })
        .collect()
}

/// Brings `levels` to where the set is now.
pub(crate) fn rebuild(
    levels: &mut Vec<Level>,
    set: &EndpointSet,
    config: &BalanceConfig,
    slow_start: Option<SlowStart>,
    rng: &Rng,
) {
    let members = members(set, config);
    levels.resize_with(members.len(), Level::default);
    for (level, members) in levels.iter_mut().zip(members) {
        let build = |pool: &mut Pool, members| {
            pool.rebuild(members, set.endpoints(), config.policy, slow_start, rng);
        };
        build(&mut level.healthy, members.healthy);
        build(&mut level.degraded, members.degraded);
        build(&mut level.all, members.all);
        (level.counts, level.load) = (members.counts, members.load);
    }
}

/// What a hashing policy picks by: all priorities of one set, at one moment of its health. Workers share it.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) set: Arc<EndpointSet>,
    /// Of the set, when its health was looked at.
    pub(crate) generation: u64,
    levels: Vec<TableLevel>,
}

#[derive(Debug)]
struct TableLevel {
    load: PriorityLoad,
    counts: PriorityCounts,
    healthy: Arc<HashTable>,
    degraded: Arc<HashTable>,
    all: Arc<HashTable>,
}

impl Tables {
    pub(crate) fn new(set: &Arc<EndpointSet>, config: &BalanceConfig) -> Self {
        // Before the flags are read: a change in between shows as a newer generation.
        let generation = set.generation();
        let table = |places| Arc::new(HashTable::new(config, places, set.endpoints()));
        let levels = members(set, config).into_iter().map(|members| {
            let healthy = table(members.healthy);
            // As in Envoy, what falls to the degraded goes by the same table, as long as anybody is in it.
            let degraded = match healthy.is_empty() {
                false => Arc::clone(&healthy),
                true => table(members.degraded),
            };
            TableLevel {
                load: members.load,
                counts: members.counts,
                healthy,
                degraded,
                all: table(members.all),
            }
        });
        Self {
            set: Arc::clone(set),
            generation,
            levels: levels.collect(),
        }
    }

    /// The same as a balancer picks from.
    pub(crate) fn levels(&self) -> Vec<Level> {
        let level = |level: &TableLevel| Level {
            load: level.load,
            counts: level.counts,
            healthy: Pool::of_table(&level.healthy),
            degraded: Pool::of_table(&level.degraded),
            all: Pool::of_table(&level.all),
        };
        self.levels.iter().map(level).collect()
    }

    /// The tables that are in use, highest priority first.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = &HashTable> {
        self.levels.iter().map(|level| {
            let panics = level.load.panic;
            &**if panics { &level.all } else { &level.healthy }
        })
    }
}
