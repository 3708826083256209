use crate::state::{Action, Change, Detection, Verdict};

mesh_core::stats! {
    /// What a detector counts, under Envoy's names; scope: `cluster.<name>.outlier_detection.`.
    pub struct OutlierStats {
        /// Endpoints that are ejected now.
        gauge ejections_active,
        /// Ejections.
        counter ejections_enforced_total,
        /// Detections that did not eject because too many were ejected already.
        counter ejections_overflow,
        /// Rows of answers of 500 and above.
        counter ejections_detected_consecutive_5xx,
        /// Ejections for them.
        counter ejections_enforced_consecutive_5xx,
        /// Rows of answers of 502, 503 and 504.
        counter ejections_detected_consecutive_gateway_failure,
        /// Ejections for them.
        counter ejections_enforced_consecutive_gateway_failure,
        /// Rows of failures of this side.
        counter ejections_detected_consecutive_local_origin_failure,
        /// Ejections for them.
        counter ejections_enforced_consecutive_local_origin_failure,
        /// Success rates far below the others'.
        counter ejections_detected_success_rate,
        /// Ejections for them.
        counter ejections_enforced_success_rate,
        /// The same of failures of this side.
        counter ejections_detected_local_origin_success_rate,
        /// Ejections for them.
        counter ejections_enforced_local_origin_success_rate,
        /// Too large shares of failures.
        counter ejections_detected_failure_percentage,
        /// Ejections for them.
        counter ejections_enforced_failure_percentage,
        /// The same of failures of this side.
        counter ejections_detected_local_origin_failure_percentage,
        /// Ejections for them.
        counter ejections_enforced_local_origin_failure_percentage,
        /// Always 0: degradation is not detected. Exported because Envoy does.
        counter ejections_detected_degradation,
        /// Deprecated in Envoy: detections by row of 5xx or by success rate that were allowed to eject.
        counter ejections_total,
        /// Deprecated in Envoy: as `ejections_detected_consecutive_5xx`.
        counter ejections_consecutive_5xx,
        /// Deprecated in Envoy: detections by either success rate.
        counter ejections_success_rate,
    }
}

impl OutlierStats {
    /// Counts one change.
    pub(crate) fn count(&self, change: &Change) {
        let Action::Detected {
            detection, verdict, ..
        } = change.action
        else {
            return;
        };
        let (detected, enforced) = self.of(detection);
        detected.inc();
        match detection {
            Detection::Consecutive5xx => self.ejections_consecutive_5xx().inc(),
            Detection::SuccessRate | Detection::LocalOriginSuccessRate => {
                self.ejections_success_rate().inc();
            }
            _ => {}
        }
        let allowed = matches!(verdict, Verdict::Ejected | Verdict::NotEnforced);
        if allowed
            && matches!(
                detection,
                Detection::Consecutive5xx | Detection::SuccessRate
            )
        {
            self.ejections_total().inc();
        }
        match verdict {
            Verdict::Ejected => {
                self.ejections_enforced_total().inc();
                enforced.inc();
            }
            Verdict::Overflow => self.ejections_overflow().inc(),
            Verdict::NotEnforced | Verdict::AlreadyEjected => {}
        }
    }

    fn of(
        &self,
        detection: Detection,
    ) -> (mesh_core::stats::Counter<'_>, mesh_core::stats::Counter<'_>) {
        match detection {
            Detection::Consecutive5xx => (
                self.ejections_detected_consecutive_5xx(),
                self.ejections_enforced_consecutive_5xx(),
            ),
            Detection::ConsecutiveGatewayFailure => (
                self.ejections_detected_consecutive_gateway_failure(),
                self.ejections_enforced_consecutive_gateway_failure(),
            ),
            Detection::ConsecutiveLocalOriginFailure => (
                self.ejections_detected_consecutive_local_origin_failure(),
                self.ejections_enforced_consecutive_local_origin_failure(),
            ),
            Detection::SuccessRate => (
                self.ejections_detected_success_rate(),
                self.ejections_enforced_success_rate(),
            ),
            Detection::LocalOriginSuccessRate => (
                self.ejections_detected_local_origin_success_rate(),
                self.ejections_enforced_local_origin_success_rate(),
            ),
            Detection::FailurePercentage => (
                self.ejections_detected_failure_percentage(),
                self.ejections_enforced_failure_percentage(),
            ),
            Detection::LocalOriginFailurePercentage => (
                self.ejections_detected_local_origin_failure_percentage(),
                self.ejections_enforced_local_origin_failure_percentage(),
            ),
        }
    }
}
