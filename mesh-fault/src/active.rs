use mesh_core::{EndGuard, StreamEnd};

use crate::FaultStats;

/// One request that is being disturbed, until its answer has ended.
#[derive(Debug)]
pub(crate) struct ActiveFault(FaultStats);

impl ActiveFault {
    /// Unless there are `max` already. Threads that claim in the very same moment may all be refused, or,
    /// as in Envoy, be let through together.
    pub(crate) fn claim(stats: &FaultStats, max: Option<u32>) -> Option<Self> {
        stats.active_faults().inc();
        let active = Self(stats.clone());
        if max.is_some_and(|max| stats.active_faults().value() > u64::from(max)) {
            stats.faults_overflow().inc();
            return None;
        }
        Some(active)
    }
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.active_faults().dec();
    }
}

impl EndGuard for ActiveFault {
    fn on_end(&mut self, _: StreamEnd) {}
}
