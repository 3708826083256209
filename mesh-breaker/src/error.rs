use std::{fmt, time::Duration};

use mesh_core::{Decision, Error, ErrorKind, Percent, Reason, Sent};

/// What opened a breaker, with the numbers that were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trip {
    /// What was looked at.
    pub cause: TripCause,
    /// What was measured: failures in a row, or a share in percent.
    pub observed: u64,
    /// What it was compared with.
    pub limit: u64,
}

/// What was looked at when a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TripCause {
    /// Failures in a row.
    ConsecutiveFailures,
    /// The percentage of failures in the window.
    FailureRatio,
    /// The percentage of slow calls in the window.
    SlowRatio,
    /// A probe, after `observed` of them had succeeded.
    Probe,
}

/// Of a breaker that never opened.
impl Default for Trip {
    fn default() -> Self {
        Self {
            cause: TripCause::ConsecutiveFailures,
            observed: 0,
            limit: 0,
        }
    }
}

impl Trip {
    pub(crate) fn in_a_row(failures: u32, limit: u32) -> Self {
        Self {
            cause: TripCause::ConsecutiveFailures,
            observed: failures.into(),
            limit: limit.into(),
        }
    }

    pub(crate) fn failures(failures: u32, calls: u32, limit: Percent) -> Self {
        Self::share(TripCause::FailureRatio, failures, calls, limit)
    }

    pub(crate) fn slow(slow: u32, calls: u32, limit: Percent) -> Self {
        Self::share(TripCause::SlowRatio, slow, calls, limit)
    }

    pub(crate) const fn probe(succeeded: u64) -> Self {
        Self {
            cause: TripCause::Probe,
            observed: succeeded,
            limit: 0,
        }
    }

    fn share(cause: TripCause, part: u32, all: u32, limit: Percent) -> Self {
        Self {
            cause,
            observed: u64::from(part) * 100 / u64::from(all.max(1)),
            limit: limit.get() as u64,
        }
    }
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cause,
            observed,
            limit,
        } = self;
        match cause {
            TripCause::ConsecutiveFailures => {
                write!(f, "{observed} failures in a row, limit {limit}")
            }
            TripCause::FailureRatio => write!(f, "{observed} % failed, limit {limit} %"),
            TripCause::SlowRatio => write!(f, "{observed} % were slow, limit {limit} %"),
            TripCause::Probe => write!(f, "a probe failed after {observed} had succeeded"),
        }
    }
}

/// Why a breaker refused a call: the source of the [`Error`] that the caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// [`Reason::BreakerOpen`], or [`Reason::BreakerProbing`] when all probes are out.
    pub reason: Reason,
    /// What had opened the breaker.
    pub trip: Trip,
    /// While open, what tripped it; while probing, the probes that run.
    pub observed: u64,
    /// What that is compared with.
    pub limit: u64,
    /// While open, when the breaker will probe.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn decision(&self) -> Decision {
        Decision::new("breaker", self.reason, self.observed, self.limit)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(after) => write!(f, "{}; probes in {} ms", self.trip, after.as_millis()),
            None => write!(f, "{} of {} probes are out", self.observed, self.limit),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(ErrorKind::BreakerOpen)
            .with_sent(Sent::Nothing)
            .with_source(refusal)
    }
}
