use super::state::{FailureKind, Outcome};

mesh_core::stats! {
    /// What a cluster's checks count, as `cluster.<name>.health_check.<stat>`.
    pub struct HealthStats {
        /// Checks begun.
        counter attempt,
        /// Checks that passed.
        counter success,
        /// Checks that failed, and failures that requests told of.
        counter failure,
        /// Failures that requests told of.
        counter passive_failure,
        /// Checks without an answer.
        counter network_failure,
        /// Answers whose service name was compared.
        counter verify_cluster,
        /// Endpoints that are checked and do not count as failed.
        gauge healthy,
        /// Endpoints that are checked and say that they are degraded.
        gauge degraded,
    }
}

impl HealthStats {
    /// Counts a result.
    pub(crate) fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed(_) => self.success().inc(),
            Outcome::Failed(failure) => {
                self.failure().inc();
                match failure.kind {
                    FailureKind::Active => {}
                    FailureKind::Passive => self.passive_failure().inc(),
                    FailureKind::Network | FailureKind::NetworkTimeout => {
                        self.network_failure().inc();
                    }
                }
            }
        }
    }
}
