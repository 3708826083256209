use std::sync::Arc;

use mesh_core::{EndpointState, HealthFlag};

use super::{EndpointReport, bucket::Bucket, ejection::Ejection, streak::Streaks};

/// What the workers count about one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) streaks: Streaks,
    pub(crate) external: Bucket,
    pub(crate) local: Bucket,
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Host {
    endpoint: Arc<EndpointState>,
    pub(super) counters: Arc<Counters>,
    pub(super) ejection: Ejection,
    /// As of the last sweep, with enough requests.
    pub(super) success_rate: Option<f64>,
    pub(super) local_success_rate: Option<f64>,
}

impl Host {
    pub(super) fn new(endpoint: Arc<EndpointState>) -> Self {
        Self {
            endpoint,
            counters: Arc::default(),
            ejection: Ejection::default(),
            success_rate: None,
            local_success_rate: None,
        }
    }

    /// The same endpoint under a new state: what is known about it moves there.
    pub(super) fn adopt(&mut self, endpoint: &Arc<EndpointState>) {
        if !Arc::ptr_eq(&self.endpoint, endpoint) {
            self.endpoint = Arc::clone(endpoint);
            self.mark(self.ejection.is_active());
        }
    }

    /// Writes what balancers read.
    pub(super) fn mark(&self, ejected: bool) {
        self.endpoint.set_health(HealthFlag::FailedOutlier, ejected);
    }

    pub(super) fn endpoint(&self) -> &EndpointState {
        &self.endpoint
    }

    pub(super) fn report(&self) -> EndpointReport {
        EndpointReport {
            address: self.endpoint.address().clone(),
            ejected: self.ejection.is_active(),
            num_ejections: self.ejection.count(),
            success_rate: self.success_rate,
            local_origin_success_rate: self.local_success_rate,
        }
    }
}
