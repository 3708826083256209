use std::time::Duration;

use mesh_core::{Address, Decision, Mode, Reason};

use crate::OutlierConfig;

/// Which detector noticed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detection {
    /// Answers of 500 and above in a row.
    Consecutive5xx,
    /// Answers of 502, 503 or 504 in a row.
    ConsecutiveGatewayFailure,
    /// Failures of this side in a row.
    ConsecutiveLocalOriginFailure,
    /// A success rate far below the others'.
    SuccessRate,
    /// The same of failures of this side.
    LocalOriginSuccessRate,
    /// Too large a share of failures.
    FailurePercentage,
    /// The same of failures of this side.
    LocalOriginFailurePercentage,
}

impl Detection {
    /// The type in Envoy's event log.
    #[must_use]
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "CONSECUTIVE_5XX",
            Self::ConsecutiveGatewayFailure => "CONSECUTIVE_GATEWAY_FAILURE",
            Self::ConsecutiveLocalOriginFailure => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
            Self::SuccessRate => "SUCCESS_RATE",
            Self::LocalOriginSuccessRate => "SUCCESS_RATE_LOCAL_ORIGIN",
            Self::FailurePercentage => "FAILURE_PERCENTAGE",
            Self::LocalOriginFailurePercentage => "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
        }
    }

    /// How often, in percent, a detection ejects.
    pub(super) const fn enforcing(self, config: &OutlierConfig) -> u32 {
        if matches!(config.mode(), Mode::Shadow) {
            return 0;
        }
        match self {
            Self::Consecutive5xx => config.enforcing_consecutive_5xx(),
            Self::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure(),
            Self::ConsecutiveLocalOriginFailure => {
                config.enforcing_consecutive_local_origin_failure()
            }
            Self::SuccessRate => config.enforcing_success_rate(),
            Self::LocalOriginSuccessRate => config.enforcing_local_origin_success_rate(),
            Self::FailurePercentage => config.enforcing_failure_percentage(),
            Self::LocalOriginFailurePercentage => {
                config.enforcing_failure_percentage_local_origin()
            }
        }
    }
}

/// The numbers behind a detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evidence {
    /// So many failures in a row.
    Consecutive {
        /// The limit, which was reached.
        failures: u32,
    },
    /// Rates in percent.
    SuccessRate {
        /// Of this endpoint.
        host: f64,
        /// The mean of those compared.
        average: f64,
        /// What this endpoint is below.
        threshold: f64,
    },
    /// Rates in percent.
    FailurePercentage {
        /// Of this endpoint: successes.
        host_success_rate: f64,
        /// The failures that are too many.
        threshold: u32,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// A detector noticed something.
    Detected {
        /// Which one.
        detection: Detection,
        /// On what numbers.
        evidence: Evidence,
        /// Whether the endpoint was ejected for it.
        verdict: Verdict,
    },
    /// The ejection is over.
    Uneject,
}

/// Whether a detection ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint is ejected.
    Ejected,
    /// It was let off: `enforcing_*` is below 100 %, or the mode is shadow.
    NotEnforced,
    /// It was let off: too many are ejected already.
    Overflow,
    /// Another detector had ejected it in the same sweep.
    AlreadyEjected,
}

/// One change, or refused change, of one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The endpoint.
    pub address: Address,
    /// What happened.
    pub action: Action,
    /// How often it was ejected so far, this time included.
    pub num_ejections: u32,
    /// When ejecting, how long ago the last ejection ended; when un-ejecting, how long ago it began.
    pub since_last_action: Option<Duration>,
    /// How many endpoints are ejected now.
    pub ejected: u32,
    /// How many endpoints there are.
    pub endpoints: u32,
    /// The largest share that may be ejected, in percent.
    pub max_ejection_percent: u32,
}

impl Change {
    /// The change as a decision with its reason and the numbers compared: rates are in percent, an
    /// overflow compares the share that would have been ejected with `max_ejection_percent`. `None` for
    /// the end of an ejection.
    #[must_use]
    pub fn decision(&self) -> Option<Decision> {
        let Action::Detected {
            evidence, verdict, ..
        } = self.action
        else {
            return None;
        };
        let (observed, limit) = match evidence {
            Evidence::Consecutive { failures } => (failures.into(), failures.into()),
            Evidence::SuccessRate {
                host, threshold, ..
            } => (host as u64, threshold as u64),
            Evidence::FailurePercentage {
                host_success_rate,
                threshold,
            } => ((100.0 - host_success_rate) as u64, threshold.into()),
        };
        Some(match verdict {
            Verdict::Ejected | Verdict::AlreadyEjected => {
                Decision::new("outlier", Reason::Ejected, observed, limit)
            }
            Verdict::NotEnforced => {
                Decision::new("outlier", Reason::EjectionNotEnforced, observed, limit)
            }
            Verdict::Overflow => Decision::new(
                "outlier",
                Reason::EjectionOverflow,
                u64::from(self.ejected + 1) * 100 / u64::from(self.endpoints.max(1)),
                self.max_ejection_percent.into(),
            ),
        })
    }
}
