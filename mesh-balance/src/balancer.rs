use std::{sync::Arc, time::Instant};

use mesh_core::{Endpoint, Health, Rng};

use crate::{
    BalanceConfig, BalanceStats, EndpointSet, NoHealthy, PriorityCounts, PriorityLoad,
    algorithm::{Pool, SlowStart},
    priority_loads, set,
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
/// requests, belongs to the endpoints. Tables are rebuilt on the first pick after the set or the health
/// of an endpoint has changed. A pick allocates nothing.
#[derive(Debug)]
pub struct Balancer {
    config: BalanceConfig,
    set: Arc<EndpointSet>,
    stats: Arc<BalanceStats>,
    /// What the tables were built from: version of the set, generation of its health.
    built: Option<(u64, u64)>,
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

/// One priority.
#[derive(Debug, Default)]
struct Level {
    load: PriorityLoad,
    counts: PriorityCounts,
    healthy: Pool,
    degraded: Pool,
    all: Pool,
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
            levels: Vec::new(),
            panic: None,
        }
    }

    /// Picks from `set` from now on. Costs next to nothing when it is the same.
    pub fn update(&mut self, set: &Arc<EndpointSet>) {
        if set.version() != self.set.version() {
            self.set = Arc::clone(set);
        }
    }

    /// Whether picks depend on the time: with slow start. Without it in the context, everybody has all of
    /// his weight.
    #[must_use]
    pub const fn needs_time(&self) -> bool {
        self.config.slow_start.is_some()
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
        let hash = (context.hash.unwrap_or_default(), skipped);
        pool.pick(self.set.endpoints(), slow_start, hash, context.rng)
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
        // Before the flags are read: a change in between shows as a newer generation at the next pick.
        let now = (self.set.version(), self.set.generation());
        if self.built == Some(now) {
            return;
        }
        self.built = Some(now);
        self.rebuild(context);
        self.stats.refresh(&self.set);
    }

    fn rebuild(&mut self, context: &PickContext<'_>) {
        let slow_start = self.slow_start(context);
        let set = &self.set;
        let counts = PriorityCounts::of(set, &self.config);
        let loads = priority_loads(&counts, &self.config);
        self.levels.resize_with(loads.len(), Level::default);
        let levels = self.levels.iter_mut().zip(counts.into_iter().zip(loads));
        for (priority, (level, (counts, load))) in levels.enumerate() {
            let members = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<usize> {
                let places = set.endpoints().iter().enumerate();
                places
                    .filter(|(_, e)| set::priority(e) as usize == priority && wanted(e))
                    .map(|(place, _)| place)
                    .collect()
            };
            let class = |health| members(&|e: &Endpoint| e.state.health() == health);
            let all = if load.panic {
                members(&|_| true)
            } else {
                Vec::new()
            };
            let build = |pool: &mut Pool, members| {
                let policy = self.config.policy;
                pool.rebuild(members, set.endpoints(), policy, slow_start, context.rng);
            };
            build(&mut level.healthy, class(Health::Healthy));
            build(&mut level.degraded, class(Health::Degraded));
            build(&mut level.all, all);
            (level.counts, level.load) = (counts, load);
        }
    }
}
