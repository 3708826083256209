use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName};

/// Envoy's default for `rate_limited_retry_back_off.max_interval`: five minutes.
pub const DEFAULT_RATE_LIMITED_MAX_INTERVAL: Duration = Duration::from_secs(300);

/// How a header says when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResetFormat {
    /// Seconds to wait, as `retry-after: 5`. HTTP dates are not read.
    #[default]
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

/// A header that says when to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its format.
    pub format: ResetFormat,
}

impl ResetHeader {
    /// `retry-after` in seconds.
    pub const RETRY_AFTER: Self = Self {
        name: http::header::RETRY_AFTER,
        format: ResetFormat::Seconds,
    };

    fn interval(&self, headers: &HeaderMap, unix_now: Duration) -> Option<Duration> {
        let value: u64 = headers
            .get(&self.name)?
            .to_str()
            .ok()?
            .trim()
            .parse()
            .ok()?;
        match self.format {
            ResetFormat::Seconds => Some(Duration::from_secs(value)),
            ResetFormat::UnixTimestamp => value
                .checked_sub(unix_now.as_secs())
                .map(Duration::from_secs),
        }
    }
}

/// Waits as long as the upstream asks for, and up to half as long again so that clients spread.
///
/// Only a repetition that was decided from response headers uses it, and each asks anew; without a usable
/// header it is the exponential back-off's turn.
///
/// # Envoy
/// `RetryPolicy.rate_limited_retry_back_off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitedBackoff {
    reset_headers: Vec<ResetHeader>,
    max_interval: Duration,
}

/// A rate-limited back-off that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidRateLimitedBackoff {
    /// `reset_headers` is empty.
    NoHeaders,
    /// `max_interval` is zero.
    ZeroMax,
}

impl fmt::Display for InvalidRateLimitedBackoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeaders => "reset_headers must name at least one header",
            Self::ZeroMax => "max_interval must be greater than zero",
        })
    }
}

impl std::error::Error for InvalidRateLimitedBackoff {}

impl RateLimitedBackoff {
    /// `reset_headers` are tried in order; one that asks for more than `max_interval` (default 300 s) is
    /// passed over.
    ///
    /// # Errors
    /// When there is no header, or `max_interval` is zero.
    pub fn new(
        reset_headers: Vec<ResetHeader>,
        max_interval: Option<Duration>,
    ) -> Result<Self, InvalidRateLimitedBackoff> {
        if reset_headers.is_empty() {
            return Err(InvalidRateLimitedBackoff::NoHeaders);
        }
        let max_interval = max_interval.unwrap_or(DEFAULT_RATE_LIMITED_MAX_INTERVAL);
        if max_interval.is_zero() {
            return Err(InvalidRateLimitedBackoff::ZeroMax);
        }
        Ok(Self {
            reset_headers,
            max_interval,
        })
    }

    /// The wait that a response asks for: uniform between the interval and half as much again.
    /// `unix_now` is the time since 1970, `random` any uniform 64-bit number.
    #[must_use]
    pub fn delay(&self, headers: &HeaderMap, unix_now: Duration, random: u64) -> Option<Duration> {
        let interval = self
            .reset_headers
            .iter()
            .filter_map(|header| header.interval(headers, unix_now))
            .find(|interval| *interval <= self.max_interval)?;
        let millis = u64::try_from(interval.as_millis()).ok()?;
        // The one that is chosen decides, even when it is too short to be of use.
        (millis > 1).then(|| Duration::from_millis(millis.saturating_add(random % (millis / 2))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName};

    use super::{InvalidRateLimitedBackoff, RateLimitedBackoff, ResetFormat, ResetHeader};

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn backoff() -> RateLimitedBackoff {
        let reset = ResetHeader {
            name: HeaderName::from_static("x-reset"),
            format: ResetFormat::UnixTimestamp,
        };
        RateLimitedBackoff::new(vec![reset, ResetHeader::RETRY_AFTER], None).unwrap()
    }

    fn delay(headers: &[(&'static str, &'static str)], random: u64) -> Option<u128> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        backoff()
            .delay(&map, NOW, random)
            .map(|delay| delay.as_millis())
    }

    #[test]
    fn waits_between_once_and_one_and_a_half_times_the_interval() {
        assert_eq!(delay(&[("retry-after", "4")], 0), Some(4000));
        assert_eq!(delay(&[("retry-after", "4")], 1999), Some(5999));
        assert_eq!(delay(&[("retry-after", "4")], 2000), Some(4000));
        assert_eq!(delay(&[("x-reset", "1000007")], 0), Some(7000));
    }

    #[test]
    fn passes_over_headers_of_no_use() {
        let fallback = ("retry-after", "2");
        for unusable in ["999999", "soon", "-1", "1000301"] {
            assert_eq!(delay(&[("x-reset", unusable), fallback], 0), Some(2000));
        }
        assert_eq!(delay(&[("retry-after", "301")], 0), None);
        assert_eq!(delay(&[("retry-after", "Wed, 21 Oct 2015")], 0), None);
        assert_eq!(delay(&[], 0), None);
    }

    #[test]
    fn an_interval_of_now_is_chosen_and_of_no_use() {
        assert_eq!(
            delay(&[("x-reset", "1000000"), ("retry-after", "2")], 0),
            None
        );
    }

    #[test]
    fn only_the_first_value_of_a_header_counts() {
        assert_eq!(
            delay(&[("retry-after", "x"), ("retry-after", "2")], 0),
            None
        );
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        assert_eq!(
            RateLimitedBackoff::new(Vec::new(), None),
            Err(InvalidRateLimitedBackoff::NoHeaders)
        );
        assert_eq!(
            RateLimitedBackoff::new(vec![ResetHeader::RETRY_AFTER], Some(Duration::ZERO)),
            Err(InvalidRateLimitedBackoff::ZeroMax)
        );
    }
}
