//! How much of the traffic each priority gets: Envoy's arithmetic, in whole percents.

use mesh_core::{Endpoint, Health};

use crate::{BalanceConfig, set};

/// What one priority has, in endpoints or, with `weighted_priority_health`, in weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriorityCounts {
    /// Endpoints, excluded ones among them; always a number of endpoints.
    pub hosts: u64,
    /// The same without excluded ones; always a number of endpoints.
    pub counted: u64,
    /// Those that are healthy or degraded; always a number of endpoints.
    pub usable: u64,
    /// Endpoints or weights, without excluded ones.
    pub total: u64,
    /// Endpoints or weights that are healthy.
    pub healthy: u64,
    /// Endpoints or weights that are degraded.
    pub degraded: u64,
}

impl PriorityCounts {
    pub(crate) fn add(&mut self, endpoint: &Endpoint, config: &BalanceConfig) {
        let share = if config.weighted_priority_health {
            u64::from(endpoint.weight)
        } else {
            1
        };
        self.hosts += 1;
        if !endpoint.state.is_excluded() {
            self.counted += 1;
            self.total += share;
        }
        match endpoint.state.health() {
            Health::Healthy => self.healthy += share,
            Health::Degraded => self.degraded += share,
            Health::Unhealthy => return,
        }
        self.usable += 1;
    }

    /// Per priority of a set, as its endpoints are at this moment.
    #[must_use]
    pub fn of(set: &crate::EndpointSet, config: &BalanceConfig) -> Vec<Self> {
        let mut counts = vec![Self::default(); set.priorities() as usize];
        for endpoint in set.endpoints() {
            counts[set::priority(endpoint) as usize].add(endpoint, config);
        }
        counts
    }
}

/// One priority's share of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriorityLoad {
    /// Percent of all traffic that goes to its healthy endpoints; in panic, to all of them.
    pub healthy: u32,
    /// Percent of all traffic that goes to its degraded endpoints.
    pub degraded: u32,
    /// Too few are usable: health is ignored.
    pub panic: bool,
}

/// Splits 100 percent over the priorities. There is at least one.
///
/// # Envoy
/// `LoadBalancerBase::recalculatePerPriorityState`, `recalculatePerPriorityPanic`
#[must_use]
pub fn priority_loads(counts: &[PriorityCounts], config: &BalanceConfig) -> Vec<PriorityLoad> {
    let share = |part: u64, total: u64| percent(part, total, config.overprovisioning_factor);
    let healthy: Vec<u32> = counts.iter().map(|c| share(c.healthy, c.total)).collect();
    let degraded: Vec<u32> = counts.iter().map(|c| share(c.degraded, c.total)).collect();
    let available = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    let threshold = config.healthy_panic_threshold.get() as u64;

    let mut loads = distribute(&healthy, &degraded, available);
    if available == 0 && threshold == 0 {
        // Panic is off and nobody is there: the picks of priority 0 will find nothing.
        if let Some(first) = loads.first_mut() {
            first.healthy = 100;
        }
        return loads;
    }
    for (load, count) in loads.iter_mut().zip(counts) {
        load.panic = available < 100 && panics(count, threshold);
    }
    if loads.iter().all(|load| load.panic) {
        total_panic(&mut loads, counts);
    } else if available == 0 {
        rounded_away(&mut loads, counts);
    }
    loads
}

/// A tiny overprovisioning factor made every share round to nothing, although some are usable.
fn rounded_away(loads: &mut [PriorityLoad], counts: &[PriorityCounts]) {
    if let Some(first) = counts.iter().position(|count| count.healthy > 0) {
        loads[first].healthy = 100;
    } else if let Some(first) = counts.iter().position(|count| count.degraded > 0) {
        loads[first].degraded = 100;
    }
}

/// `min(100, floor(factor * part / total))`; 0 of nothing.
fn percent(part: u64, total: u64, factor: u32) -> u32 {
    let share = u128::from(factor) * u128::from(part);
    share
        .checked_div(u128::from(total))
        .map_or(0, |percent| percent.min(100) as u32)
}

fn panics(count: &PriorityCounts, threshold: u64) -> bool {
    // A priority without endpoints has 0 percent.
    let percent = (count.usable * 100).checked_div(count.counted).unwrap_or(0);
    percent < threshold
}

/// Healthy endpoints first, in order of priority; then degraded ones; what rounding left over goes to
/// the first priority that has any.
fn distribute(healthy: &[u32], degraded: &[u32], available: u32) -> Vec<PriorityLoad> {
    let mut loads = vec![PriorityLoad::default(); healthy.len()];
    if available == 0 {
        return loads;
    }
    let mut left = 100;
    let mut take = |share: u32| {
        let load = (share * 100 / available).min(left);
        left -= load;
        load
    };
    for (load, &share) in loads.iter_mut().zip(healthy) {
        load.healthy = take(share);
    }
    for (load, &share) in loads.iter_mut().zip(degraded) {
        load.degraded = take(share);
    }
    if let Some(first) = healthy.iter().position(|&share| share > 0) {
        loads[first].healthy += left;
    } else if let Some(first) = degraded.iter().position(|&share| share > 0) {
        loads[first].degraded += left;
    }
    loads
}

/// All priorities panic: each gets what its number of endpoints says, whatever their health.
fn total_panic(loads: &mut [PriorityLoad], counts: &[PriorityCounts]) {
    let hosts: u64 = counts.iter().map(|count| count.hosts).sum();
    let mut left = 100;
    for (load, count) in loads.iter_mut().zip(counts) {
        let share = (100 * count.hosts).checked_div(hosts).unwrap_or(0) as u32;
        (load.healthy, load.degraded) = (share, 0);
        left -= share;
    }
    let first = counts.iter().position(|count| count.hosts > 0).unwrap_or(0);
    if let Some(load) = loads.get_mut(first) {
        load.healthy += left;
    }
}
