use std::time::{Duration, Instant};

use mesh_core::{ExponentialBackoff, InvalidBackoff};

/// How many requests may be sent.
///
/// # Envoy
/// `ApiConfigSource.rate_limit_settings`; without it there is no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// The most that may be sent at once; default 100.
    pub max_tokens: u32,
    /// How many more each second; default 10, must be above 0.
    pub fill_rate: f64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            max_tokens: 100,
            fill_rate: 10.0,
        }
    }
}

/// A token bucket over [`RateLimit`].
#[derive(Debug)]
pub(super) struct Bucket {
    limit: RateLimit,
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            tokens: f64::from(limit.max_tokens.max(1)),
            filled: None,
        }
    }

    fn fill(&mut self, now: Instant) {
        let since = self
            .filled
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.filled = Some(self.filled.map_or(now, |at| at.max(now)));
        let more = since.as_secs_f64() * self.rate();
        self.tokens = (self.tokens + more).min(f64::from(self.limit.max_tokens.max(1)));
    }

    fn rate(&self) -> f64 {
        // A rate of zero would mean: never again. Envoy refuses anything below one in 1000 seconds.
        self.limit.fill_rate.max(0.001)
    }

    /// Takes one token; or says when there will be one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // One microsecond more, so that rounding never makes it a hair too early for ever.
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.rate());
        Err(now + wait + Duration::from_micros(1))
    }
}

/// When to connect next, and to which of several servers.
///
/// A server that answered before it went is tried again; one that never answered makes the next of the
/// list due, at once until each has had its turn. Back-off is `retry_back_off`: 500 ms doubling up to 30 s
/// by default, fully jittered, and starts over with the first response.
#[derive(Debug)]
pub struct Reconnect {
    backoff: ExponentialBackoff,
    servers: usize,
    current: usize,
    tried: usize,
    answered: bool,
}

impl Reconnect {
    /// Over `servers` servers (at least one is assumed), with Envoy's back-off.
    ///
    /// # Errors
    /// Never with these bounds; the signature is that of [`Reconnect::with_backoff`].
    pub fn new(servers: usize) -> Result<Self, InvalidBackoff> {
        Self::with_backoff(servers, Duration::from_millis(500), Duration::from_secs(30))
    }

    /// Over `servers` servers, with a back-off from `base` to `max`.
    ///
    /// # Errors
    /// When `base` is zero, or `max` is below it.
    ///
    /// # Envoy
    /// `EnvoyGrpc.retry_policy.retry_back_off`.
    pub fn with_backoff(
        servers: usize,
        base: Duration,
        max: Duration,
    ) -> Result<Self, InvalidBackoff> {
        Ok(Self {
            backoff: ExponentialBackoff::new(base, Some(max))?,
            servers: servers.max(1),
            current: 0,
            tried: 0,
            answered: false,
        })
    }

    /// The server to connect to now.
    #[must_use]
    pub const fn server(&self) -> usize {
        self.current
    }

    /// The server answered.
    pub fn on_response(&mut self) {
        self.answered = true;
        self.tried = 0;
        self.backoff.reset();
    }

    /// The stream ended, or could not be opened: how long to wait before [`Reconnect::server`] is tried.
    /// After a stream that worked, the first server of the list gets its chance again.
    pub fn on_failure(&mut self, random: u64) -> Duration {
        if std::mem::take(&mut self.answered) {
            self.current = 0;
            return self.backoff.next_delay(random);
        }
        self.tried += 1;
        self.current = (self.current + 1) % self.servers;
        if self.tried < self.servers {
            return Duration::ZERO;
        }
        self.tried = 0;
        self.current = 0;
        self.backoff.next_delay(random)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Bucket, RateLimit, Reconnect};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn the_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RateLimit {
            max_tokens: 2,
            fill_rate: 10.0,
        });
        assert!(bucket.take(start).is_ok() && bucket.take(start).is_ok());
        let at = bucket.take(start).unwrap_err();
        assert!(at - start >= Duration::from_millis(100), "{:?}", at - start);
        assert!(bucket.take(start + Duration::from_millis(50)).is_err());
        assert!(bucket.take(at).is_ok());
    }

    #[test]
    fn servers_take_turns_until_one_answers() {
        let mut next = Reconnect::new(3).unwrap();
        let worst = u64::MAX / 1000 * 1000 - 1; // as long as a delay can be
        assert_eq!((next.server(), next.on_failure(worst)), (0, Duration::ZERO));
        assert_eq!((next.server(), next.on_failure(worst)), (1, Duration::ZERO));
        assert!(next.server() == 2 && next.on_failure(worst) > Duration::ZERO);
        assert_eq!(next.server(), 0);
        next.on_failure(worst);
        next.on_response();
        // It worked: the first of the list is tried first again, after the shortest back-off.
        assert!(next.on_failure(499) < Duration::from_millis(500));
        assert_eq!(next.server(), 0);
    }
}
