use std::time::Duration;

use http::HeaderName;

/// `x-envoy-expected-rq-timeout-ms`: how long whoever sent an attempt will wait for it.
pub const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// The per-try timeout that counts: one that is not shorter than the route timeout is ignored. Zero means
/// none in both places.
#[must_use]
pub fn effective_per_try_timeout(per_try: Duration, route: Duration) -> Option<Duration> {
    let moot = per_try.is_zero() || (!route.is_zero() && per_try >= route);
    (!moot).then_some(per_try)
}

/// The value of `x-envoy-expected-rq-timeout-ms` for one attempt, in milliseconds; `None` when there is
/// no timeout and the header must be absent.
///
/// `elapsed` is the time since the route timeout started, zero before that; `route` zero is off. What is
/// left of the route timeout bounds the per-try timeout, and is at least 1 ms even when it is used up.
#[must_use]
pub fn expected_rq_timeout(
    per_try: Option<Duration>,
    hedging: bool,
    route: Duration,
    elapsed: Duration,
) -> Option<u64> {
    let per_try = per_try.filter(|timeout| !hedging && !timeout.is_zero());
    let left =
        (!route.is_zero()).then(|| route.saturating_sub(elapsed).max(Duration::from_millis(1)));
    let expected = per_try.into_iter().chain(left).min()?;
    Some(u64::try_from(expected.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{effective_per_try_timeout, expected_rq_timeout};

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_per_try_timeout_counts_only_below_the_route_timeout() {
        assert_eq!(effective_per_try_timeout(ms(10), ms(11)), Some(ms(10)));
        assert_eq!(effective_per_try_timeout(ms(11), ms(11)), None);
        assert_eq!(effective_per_try_timeout(ms(0), ms(11)), None);
        assert_eq!(effective_per_try_timeout(ms(10), ms(0)), Some(ms(10)));
    }

    #[test]
    fn the_expected_timeout_is_the_shorter_one_and_never_zero() {
        let expected = |per_try, hedging, route, elapsed| {
            expected_rq_timeout(per_try, hedging, ms(route), ms(elapsed))
        };
        assert_eq!(expected(None, false, 0, 0), None);
        assert_eq!(expected(None, false, 100, 40), Some(60));
        assert_eq!(expected(Some(ms(30)), false, 100, 40), Some(30));
        assert_eq!(expected(Some(ms(30)), false, 100, 80), Some(20));
        assert_eq!(expected(Some(ms(30)), false, 0, 80), Some(30));
        assert_eq!(expected(Some(ms(30)), true, 100, 0), Some(100));
        assert_eq!(expected(None, false, 100, 200), Some(1));
    }
}
