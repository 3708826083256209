use std::{net::SocketAddr, sync::Arc};

use mesh_balance::{BalanceConfig, Balancer, EndpointSet, NoHealthy, PickContext};
use mesh_core::{
    Address, Endpoint, EndpointState, Health, HealthFlag, Rng,
    sync::{AtomicU64, Ordering},
};

/// What a test says about one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    pub(crate) health: Health,
    pub(crate) excluded: bool,
}

impl Spec {
    pub(crate) fn weight(weight: u32) -> Self {
        Self {
            weight,
            priority: 0,
            health: Health::Healthy,
            excluded: false,
        }
    }

    pub(crate) fn at(priority: u32, health: Health) -> Self {
        Self {
            priority,
            health,
            ..Self::weight(1)
        }
    }
}

/// The address of the endpoint with number `n`.
pub(crate) fn address(n: usize) -> Address {
    let octets = (n as u32).to_be_bytes();
    let ip = std::net::Ipv4Addr::new(10, octets[1], octets[2], octets[3]);
    Address::Socket(SocketAddr::from((ip, 80)))
}

pub(crate) fn set_health(state: &EndpointState, health: Health) {
    state.set_health(HealthFlag::FailedOutlier, health == Health::Unhealthy);
    state.set_health(HealthFlag::DegradedEds, health == Health::Degraded);
}

/// Endpoints numbered in order, of one cluster.
pub(crate) fn endpoints(specs: &[Spec]) -> Vec<Endpoint> {
    let generation = Arc::new(AtomicU64::new(0));
    specs
        .iter()
        .enumerate()
        .map(|(n, spec)| {
            let state = Arc::new(EndpointState::new(address(n), Arc::clone(&generation)));
            set_health(&state, spec.health);
            state.set_health(HealthFlag::Excluded, spec.excluded);
            let mut endpoint = Endpoint::new(state);
            endpoint.weight = spec.weight;
            endpoint.priority = spec.priority;
            endpoint
        })
        .collect()
}

pub(crate) fn set(specs: &[Spec]) -> Arc<EndpointSet> {
    EndpointSet::new(endpoints(specs))
}

/// A balancer and the generator it draws from.
pub(crate) struct Picker {
    pub(crate) balancer: Balancer,
    pub(crate) rng: Rng,
}

impl Picker {
    pub(crate) fn new(config: impl Into<BalanceConfig>, set: Arc<EndpointSet>, seed: u64) -> Self {
        Self {
            balancer: Balancer::new(config.into(), set),
            rng: Rng::seeded(seed),
        }
    }

    pub(crate) fn pick(&mut self) -> Result<Arc<Endpoint>, NoHealthy> {
        self.balancer.pick(&PickContext::new(&self.rng))
    }

    /// The number of the endpoint that is picked.
    pub(crate) fn number(&mut self) -> usize {
        let picked = self.pick().unwrap();
        let endpoints = self.balancer.set().endpoints();
        endpoints
            .iter()
            .position(|e| Arc::ptr_eq(e, &picked))
            .unwrap()
    }

    /// How often each endpoint comes up in `picks` picks.
    pub(crate) fn count(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; self.balancer.set().endpoints().len()];
        for _ in 0..picks {
            counts[self.number()] += 1;
        }
        counts
    }
}

pub(crate) fn set_active(set: &EndpointSet, place: usize, active: u64) {
    let stats = &set.endpoints()[place].state.stats;
    stats.rq_active.store(active, Ordering::Relaxed);
}

pub(crate) fn active(set: &EndpointSet) -> Vec<u64> {
    let active = |e: &Arc<Endpoint>| e.state.stats.rq_active.load(Ordering::Relaxed);
    set.endpoints().iter().map(active).collect()
}
