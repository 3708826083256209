//! The pure part: which endpoint is ejected, when and why. No clock and no randomness of its own.

mod bucket;
mod change;
mod ejection;
mod failure_percentage;
mod host;
mod streak;
mod success_rate;
mod sweep;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Instant,
};

use mesh_core::{Address, EndpointState, Rng};

pub use change::{Action, Change, Detection, Evidence, Verdict};
pub(crate) use host::Counters;
use host::Host;
pub(crate) use streak::Limits;
pub use success_rate::SuccessRates;
use sweep::Ejector;

use crate::OutlierConfig;

/// More endpoints than this in one cluster are not watched: they are never ejected.
pub const ENDPOINTS_MAX: usize = 65_536;

/// All endpoints of one cluster.
#[derive(Debug)]
pub(crate) struct Tracker {
    config: OutlierConfig,
    /// Ordered, so that a sweep decides in the same order everywhere.
    hosts: BTreeMap<Address, Host>,
    ejected: u32,
    external: Option<SuccessRates>,
    local: Option<SuccessRates>,
}

/// What `/clusters` shows about a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The success rates compared in the last interval, if enough endpoints took part.
    pub success_rates: Option<SuccessRates>,
    /// The same of failures of this side.
    pub local_origin_success_rates: Option<SuccessRates>,
    /// Each endpoint, by address.
    pub endpoints: Vec<EndpointReport>,
}

/// What `/clusters` shows about an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointReport {
    /// Where it listens.
    pub address: Address,
    /// Whether it is ejected.
    pub ejected: bool,
    /// How often it was ejected so far.
    pub num_ejections: u32,
    /// Its success rate in the last interval, if it had enough requests. Percent.
    pub success_rate: Option<f64>,
    /// The same of failures of this side.
    pub local_origin_success_rate: Option<f64>,
}

impl Tracker {
    pub(crate) const fn new(config: OutlierConfig) -> Self {
        Self {
            config,
            hosts: BTreeMap::new(),
            ejected: 0,
            external: None,
            local: None,
        }
    }

    pub(crate) const fn config(&self) -> &OutlierConfig {
        &self.config
    }

    pub(crate) const fn ejected(&self) -> u32 {
        self.ejected
    }

    /// Changes the rules; who is ejected stays so.
    pub(crate) fn update(&mut self, config: OutlierConfig, limits: &Limits) {
        limits.update(&config);
        for host in self.hosts.values() {
            host.counters.streaks.fit(limits);
        }
        self.config = config;
    }

    /// Adds an endpoint, or finds it; `None` when there are [`ENDPOINTS_MAX`].
    pub(crate) fn join(&mut self, endpoint: &Arc<EndpointState>) -> Option<&Arc<Counters>> {
        let full = self.hosts.len() >= ENDPOINTS_MAX;
        match self.hosts.entry(endpoint.address().clone()) {
            Entry::Occupied(known) => {
                let host = known.into_mut();
                host.adopt(endpoint);
                Some(&host.counters)
            }
            Entry::Vacant(_) if full => None,
            Entry::Vacant(new) => Some(&new.insert(Host::new(Arc::clone(endpoint))).counters),
        }
    }

    /// Forgets an endpoint.
    pub(crate) fn leave(&mut self, address: &Address) {
        if let Some(host) = self.hosts.remove(address) {
            self.forget(&host);
        }
    }

    /// Forgets all endpoints for which `keep` says no.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Address) -> bool) {
        let gone: Vec<_> = self
            .hosts
            .keys()
            .filter(|address| !keep(address))
            .cloned()
            .collect();
        gone.iter().for_each(|address| self.leave(address));
    }

    fn forget(&mut self, host: &Host) {
        if host.ejection.is_active() {
            host.mark(false);
            self.ejected -= 1;
        }
    }

    /// A row of failures is complete.
    pub(crate) fn on_consecutive(
        &mut self,
        now: Instant,
        address: &Address,
        counters: &Arc<Counters>,
        detection: Detection,
        rng: &Rng,
    ) -> Option<Change> {
        let endpoints = self.hosts.len() as u32;
        // The endpoint may have gone, or gone and come back, since its monitor was made.
        let host = self.hosts.get_mut(address)?;
        if !Arc::ptr_eq(&host.counters, counters) || host.ejection.is_active() {
            return None;
        }
        let streaks = &host.counters.streaks;
        let failures = match detection {
            Detection::ConsecutiveGatewayFailure => self.config.consecutive_gateway_failure(),
            Detection::ConsecutiveLocalOriginFailure => {
                self.config.consecutive_local_origin_failure()
            }
            _ => self.config.consecutive_5xx(),
        };
        // Also when nobody is ejected for it: the next row may fire again.
        match detection {
            Detection::ConsecutiveGatewayFailure => streaks.clear_gateway(),
            Detection::ConsecutiveLocalOriginFailure => streaks.clear_local(),
            _ => streaks.clear_five_xx(),
        }
        let mut ejector = Ejector {
            now,
            config: &self.config,
            rng,
            endpoints,
            ejected: &mut self.ejected,
        };
        Some(ejector.detected(host, detection, Evidence::Consecutive { failures }))
    }

    /// An active health check passed.
    pub(crate) fn on_health_check_passed(
        &mut self,
        now: Instant,
        address: &Address,
        rng: &Rng,
    ) -> Option<Change> {
        if !self.config.successful_active_health_check_uneject_host() {
            return None;
        }
        let endpoints = self.hosts.len() as u32;
        let host = self.hosts.get_mut(address)?;
        let mut ejector = Ejector {
            now,
            config: &self.config,
            rng,
            endpoints,
            ejected: &mut self.ejected,
        };
        host.ejection.is_active().then(|| ejector.uneject(host))
    }

    pub(crate) fn report(&self) -> Report {
        Report {
            success_rates: self.external,
            local_origin_success_rates: self.local,
            endpoints: self.hosts.values().map(Host::report).collect(),
        }
    }
}
