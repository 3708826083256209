use std::{sync::Arc, time::Instant};

use mesh_core::{Endpoint, Rng};

use crate::{
    BalanceConfig, BalanceStats, EndpointSet, HashTables, NoHealthy, PriorityLoad,
    algorithm::{HashKey, SlowStart},
    level::{self, Level, Tables},
};

/// What one pick goes by.
#[derive(Debug, Clone, Copy)]
pub struct PickContext<'a> {
    /// Where random numbers come from.
    pub rng: &'a Rng,
    /// The request's hash, for policies that keep requests and endpoints together; drawn at random where it
    /// is missing.
    pub hash: Option<u64>,
    /// The time, where [`Balancer::needs_time`].
    pub now: Option<Instant>,
    /// How many requests run in the cluster, where [`Balancer::needs_active`]; counted over the endpoints where it
    /// is missing.
    pub active: Option<u64>,
    /// Endpoints that had their chance, for a retry that prefers others.
    pub avoid: &'a [Arc<Endpoint>],
    /// How often an endpoint to avoid is put back for another pick; the last pick stands whatever it
    /// is. Envoy: `host_selection_retry_max_attempts`.
    pub max_attempts: u32,
}

impl<'a> PickContext<'a> {
    /// Whatever comes up.
    #[must_use]
    pub const fn new(rng: &'a Rng) -> Self {
        Self {
            rng,
            hash: None,
            now: None,
            active: None,
            avoid: &[],
            max_attempts: 0,
        }
    }

    /// At this time.
    #[must_use]
    pub const fn at(mut self, now: Option<Instant>) -> Self {
        self.now = now;
        self
    }

    /// For a request of this hash.
    #[must_use]
    pub const fn hashed(mut self, hash: Option<u64>) -> Self {
        self.hash = hash;
        self
    }

    /// While so many requests run.
    #[must_use]
    pub const fn while_active(mut self, active: Option<u64>) -> Self {
        self.active = active;
        self
    }

    /// Prefers endpoints other than those of earlier attempts.
    ///
    /// # Envoy
    /// `envoy.retry_host_predicates.previous_hosts` with `host_selection_retry_max_attempts`
    #[must_use]
    pub const fn avoiding(mut self, tried: &'a [Arc<Endpoint>], max_attempts: u32) -> Self {
        self.avoid = tried;
        self.max_attempts = max_attempts;
        self
    }

    fn accepts(&self, endpoint: &Endpoint) -> bool {
        !self
            .avoid
            .iter()
            .any(|tried| Arc::ptr_eq(&tried.state, &endpoint.state))
    }
}

/// Picks endpoints for one worker.
///
/// Each worker has its own, so that a pick takes no lock; what they must agree on, health and running
/// requests, belongs to the endpoints. Lists are made again on the first pick after the set or the health
/// of an endpoint has changed, and so are the tables of hashing policies, unless they are shared:
/// [`HashTables`]. A pick allocates nothing.
#[derive(Debug)]
pub struct Balancer {
    config: BalanceConfig,
    set: Arc<EndpointSet>,
    stats: Arc<BalanceStats>,
    /// What the tables were built from: version of the set, generation of its health.
    built: Option<(u64, u64)>,
    /// The tables that all workers share, and the number of those that `levels` are of.
    tables: Option<(Arc<HashTables>, u64)>,
    levels: Vec<Level>,
    panic: Option<Panic>,
}

/// A pick that ignored health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panic {
    /// How many endpoints of the priority were usable.
    pub usable: u64,
    /// Of how many.
    pub total: u64,
}

impl Balancer {
    /// Picks from `set`, and counts without exporting.
    #[must_use]
    pub fn new(config: BalanceConfig, set: Arc<EndpointSet>) -> Self {
        Self::with_stats(config, set, BalanceStats::detached())
    }

    /// Picks from `set`, and counts in `stats`, which the balancers of all workers share.
    #[must_use]
    pub fn with_stats(
        config: BalanceConfig,
        set: Arc<EndpointSet>,
        stats: Arc<BalanceStats>,
    ) -> Self {
        Self {
            config,
            set,
            stats,
            built: None,
            tables: None,
            levels: Vec::new(),
            panic: None,
        }
    }

    /// Picks from the sets of `tables`, by tables that others have built.
    #[must_use]
    pub fn with_tables(mut self, tables: Option<Arc<HashTables>>) -> Self {
        self.tables = tables.map(|tables| (tables, 0));
        self
    }

    /// Picks from `set` from now on, unless sets come with tables. Costs next to nothing when it is the same.
    pub fn update(&mut self, set: &Arc<EndpointSet>) {
        if self.tables.is_none() && set.version() != self.set.version() {
            self.set = Arc::clone(set);
        }
    }

    /// Whether picks depend on the time: with slow start. Without it in the context, everybody has all of
    /// his weight.
    #[must_use]
    pub const fn needs_time(&self) -> bool {
        self.config.slow_start.is_some()
    }

    /// Whether picks go by the request's hash.
    #[must_use]
    pub const fn needs_hash(&self) -> bool {
        self.config.policy.goes_by_hash()
    }

    /// Whether picks depend on how many requests run in the cluster: where a hash may lead to no more than a
    /// share of them.
    #[must_use]
    pub const fn needs_active(&self) -> bool {
        self.config.hash_balance_factor.is_some() && self.needs_hash()
    }

    fn slow_start(&self, context: &PickContext<'_>) -> Option<SlowStart> {
        let config = self.config.slow_start?;
        Some(SlowStart::new(config, context.now?))
    }

    /// The set that is picked from.
    #[must_use]
    pub const fn set(&self) -> &Arc<EndpointSet> {
        &self.set
    }

    /// Picks an endpoint. The caller counts the request in its `rq_active` as long as it runs.
    ///
    /// # Errors
    /// When the priority whose turn it is has no endpoint to offer.
    pub fn pick(&mut self, context: &PickContext<'_>) -> Result<Arc<Endpoint>, NoHealthy> {
        self.pick_place(context)
            .map(|place| Arc::clone(&self.set.endpoints()[place]))
    }

    /// The same as a place in the set.
    pub(crate) fn pick_place(&mut self, context: &PickContext<'_>) -> Result<usize, NoHealthy> {
        self.refresh(context);
        let mut context = *context;
        if self.config.policy.goes_by_hash() && context.hash.is_none() {
            // One for all turns, so that a request without a hash goes through the same table.
            context.hash = Some(context.rng.next_u64());
        }
        let mut turns_left = context.max_attempts;
        loop {
            let skipped = context.max_attempts - turns_left;
            let Some(place) = self.pick_once(&context, skipped) else {
                let total = self.set.endpoints().len();
                return Err(NoHealthy { total });
            };
            if turns_left == 0 || context.accepts(&self.set.endpoints()[place]) {
                return Ok(place);
            }
            turns_left -= 1;
        }
    }

    /// Whether the last pick ignored health because too few endpoints were usable.
    #[must_use]
    pub const fn panicked(&self) -> bool {
        self.panic.is_some()
    }

    /// The same with the numbers that were compared.
    #[must_use]
    pub const fn panic(&self) -> Option<Panic> {
        self.panic
    }

    /// Each priority's share of the traffic, as of the last pick.
    pub fn loads(&self) -> impl Iterator<Item = PriorityLoad> {
        self.levels.iter().map(|level| level.load)
    }

    fn pick_once(&mut self, context: &PickContext<'_>, skipped: u32) -> Option<usize> {
        self.panic = None;
        let slow_start = self.slow_start(context);
        let (level, degraded) = self.level(context)?;
        let level = &mut self.levels[level];
        let pool = if level.load.panic {
            self.panic = Some(Panic {
                usable: level.counts.usable,
                total: level.counts.counted,
            });
            self.stats.stats().lb_healthy_panic().inc();
            if self.config.fail_traffic_on_panic {
                return None;
            }
            &mut level.all
        } else if degraded {
            &mut level.degraded
        } else {
            &mut level.healthy
        };
        let key = HashKey {
            hash: context.hash.unwrap_or_default(),
            skipped,
            active: context.active,
        };
        pool.pick(self.set.endpoints(), slow_start, key, context.rng)
    }

    /// The priority whose share the request falls into, and whether its degraded endpoints are meant.
    fn level(&self, context: &PickContext<'_>) -> Option<(usize, bool)> {
        // Most clusters have one priority and nobody degraded: spare them the draw.
        if let [only] = &self.levels[..]
            && only.load.healthy == 100
        {
            return Some((0, false));
        }
        let draw = context.hash.unwrap_or_else(|| context.rng.next_u64());
        let mut left = (draw % 100) as u32;
        for degraded in [false, true] {
            for (index, level) in self.levels.iter().enumerate() {
                let load = if degraded {
                    level.load.degraded
                } else {
                    level.load.healthy
                };
                if left < load {
                    return Some((index, degraded));
                }
                left -= load;
            }
        }
        None
    }

    fn refresh(&mut self, context: &PickContext<'_>) {
        if self.tables.is_some() {
            return self.adopt();
        }
        // Before the flags are read: a change in between shows as a newer generation at the next pick.
        let now = (self.set.version(), self.set.generation());
        if self.built == Some(now) {
            return;
        }
        self.built = Some(now);
        if self.config.policy.goes_by_hash() {
            self.levels = Tables::new(&self.set, &self.config).levels();
        } else {
            let slow_start = self.slow_start(context);
            let (set, config) = (&self.set, &self.config);
            level::rebuild(&mut self.levels, set, config, slow_start, context.rng);
        }
        self.stats.refresh(&self.set);
    }

    /// Takes over tables that have been built since the last pick, and asks for others when they are out of date.
    fn adopt(&mut self) {
        let Some((tables, serial)) = &mut self.tables else {
            return;
        };
        if tables.serial() != *serial {
            let (current, number) = tables.current();
            *serial = number;
            self.levels = current.levels();
            self.set = Arc::clone(&current.set);
            self.built = Some((current.set.version(), current.generation));
            self.stats.refresh(&self.set);
        }
        let generation = self.set.generation();
        if self.built.is_some_and(|(_, built)| built != generation) {
            tables.ask(generation);
        }
    }
}
