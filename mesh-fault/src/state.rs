use std::{num::NonZeroU64, str::FromStr, time::Duration};

use http::{HeaderMap, StatusCode};
use mesh_core::FractionalPercent;

use crate::{Abort, Delay, FaultConfig, RateLimit};

const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_PERCENTAGE: &str = "x-envoy-fault-abort-request-percentage";
const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_PERCENTAGE: &str = "x-envoy-fault-delay-request-percentage";
const THROUGHPUT: &str = "x-envoy-fault-throughput-response";
const THROUGHPUT_PERCENTAGE: &str = "x-envoy-fault-throughput-response-percentage";

/// What one request shall meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Its answer arrives at so many KiB per second.
    pub limit_kbps: Option<NonZeroU64>,
    /// It waits for so long, which is longer than zero.
    pub delay: Option<Duration>,
    /// It fails, after the delay.
    pub abort: Option<AbortWith>,
}

/// What a request fails with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortWith {
    /// The status; 200 beside a gRPC status.
    pub status: StatusCode,
    /// The gRPC status.
    pub grpc: Option<u32>,
}

impl Faults {
    /// Whether the request is left alone.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Decides what a request shall meet: each fault draws a number of its own.
#[must_use]
pub fn decide(config: &FaultConfig, headers: &HeaderMap, mut draw: impl FnMut() -> u64) -> Faults {
    // In Envoy's order, so that the same numbers mean the same.
    let limit_kbps = config.response_rate_limit.and_then(|limit| {
        let by_header = limit.limit == RateLimit::Header;
        let share = share(limit.percentage, by_header, headers, THROUGHPUT_PERCENTAGE);
        let kbps = match limit.limit {
            RateLimit::Fixed(kbps) => Some(kbps),
            RateLimit::Header => number::<u64>(headers, THROUGHPUT).and_then(NonZeroU64::new),
        };
        kbps.filter(|_| share.includes(draw()))
    });
    let delay = config.delay.and_then(|delay| {
        let by_header = delay.delay == Delay::Header;
        let share = share(delay.percentage, by_header, headers, DELAY_PERCENTAGE);
        let duration = match delay.delay {
            Delay::Fixed(duration) => Some(duration),
            Delay::Header => number(headers, DELAY).map(Duration::from_millis),
        };
        // Envoy counts in milliseconds.
        duration.filter(|d| d.as_millis() > 0 && share.includes(draw()))
    });
    let abort = config.abort.as_ref().and_then(|abort| {
        let by_header = abort.abort == Abort::Header;
        let share = share(abort.percentage, by_header, headers, ABORT_PERCENTAGE);
        abort_with(abort.abort, headers).filter(|_| share.includes(draw()))
    });
    Faults {
        limit_kbps,
        delay,
        abort,
    }
}

fn abort_with(abort: Abort, headers: &HeaderMap) -> Option<AbortWith> {
    let http = |status| AbortWith { status, grpc: None };
    let grpc = |code| AbortWith {
        status: StatusCode::OK,
        grpc: Some(code),
    };
    match abort {
        Abort::Http(status) => Some(http(status)),
        Abort::Grpc(code) => Some(grpc(code)),
        Abort::Header => {
            let status = number::<u16>(headers, ABORT).filter(|code| (200..600).contains(code));
            let status = status.and_then(|code| StatusCode::from_u16(code).ok());
            status
                .map(http)
                .or_else(|| number(headers, ABORT_GRPC).map(grpc))
        }
    }
}

/// The share of the config, which a header may lower.
fn share(
    percentage: FractionalPercent,
    by_header: bool,
    headers: &HeaderMap,
    name: &str,
) -> FractionalPercent {
    let asked = number(headers, name).filter(|_| by_header);
    asked.map_or(percentage, |numerator| percentage.at_most(numerator))
}

fn number<T: FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
