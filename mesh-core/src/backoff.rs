use std::{fmt, time::Duration};

/// Envoy's fully jittered exponential back-off.
///
/// The interval is `B`, `2B`, `4B`, … capped at `max`; each delay is uniform in `[0, interval)`. The
/// ranges in Envoy's documentation differ from its code; this follows the code.
///
/// # Envoy
/// `RetryPolicy.retry_back_off`, `JitteredExponentialBackOffStrategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExponentialBackoff {
    base_ms: u64,
    max_ms: u64,
    next_ms: u64,
}

/// A back-off whose intervals make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidBackoff {
    /// `base_interval` is zero.
    ZeroBase,
    /// `max_interval` is shorter than `base_interval`.
    MaxBelowBase,
}

impl fmt::Display for InvalidBackoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroBase => "base_interval must be greater than zero",
            Self::MaxBelowBase => "max_interval must be greater than or equal to base_interval",
        })
    }
}

impl std::error::Error for InvalidBackoff {}

impl ExponentialBackoff {
    /// `base` below one millisecond is rounded up to it; `max` is `10 * base` when `None`.
    ///
    /// # Errors
    /// When `base` is zero or `max` is shorter than `base`.
    pub fn new(base: Duration, max: Option<Duration>) -> Result<Self, InvalidBackoff> {
        if base.is_zero() {
            return Err(InvalidBackoff::ZeroBase);
        }
        let base_ms = millis(base).max(1);
        let max_ms = max.map_or_else(|| base_ms.saturating_mul(10), |max| millis(max).max(1));
        if max_ms < base_ms {
            return Err(InvalidBackoff::MaxBelowBase);
        }
        Ok(Self {
            base_ms,
            max_ms,
            next_ms: base_ms,
        })
    }

    /// The next delay. `random` is any uniform 64-bit number.
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let current = self.next_ms;
        self.next_ms = if current < self.max_ms / 2 {
            current * 2
        } else {
            self.max_ms
        };
        Duration::from_millis(random % current)
    }

    /// Starts over at the base interval.
    pub fn reset(&mut self) {
        self.next_ms = self.base_ms;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ExponentialBackoff, InvalidBackoff};

    #[test]
    fn intervals_double_up_to_the_cap() {
        let mut backoff = ExponentialBackoff::new(Duration::from_millis(25), None).unwrap();
        // The largest delay below each interval: random ≡ interval - 1.
        let seen: Vec<u128> = [25u64, 50, 100, 200, 250, 250]
            .iter()
            .map(|interval| backoff.next_delay(interval - 1).as_millis())
            .collect();
        assert_eq!(seen, [24, 49, 99, 199, 249, 249]);
        backoff.reset();
        assert_eq!(backoff.next_delay(25), Duration::ZERO);
    }

    #[test]
    fn refuses_a_cap_below_the_base() {
        let ms = Duration::from_millis;
        assert_eq!(
            ExponentialBackoff::new(ms(10), Some(ms(9))),
            Err(InvalidBackoff::MaxBelowBase)
        );
        assert_eq!(
            ExponentialBackoff::new(ms(0), None),
            Err(InvalidBackoff::ZeroBase)
        );
    }
}
