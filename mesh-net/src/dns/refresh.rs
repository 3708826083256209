use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{ExponentialBackoff, InvalidBackoff};

use super::{Answer, DnsError};

/// Two lookups of one name are so far apart, whatever TTLs, jitter and back-off say, unless the config
/// itself names a shorter interval.
pub const LOOKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A longer TTL counts as this one: a day.
pub const TTL_MAX: Duration = Duration::from_secs(86_400);

/// Which of a name's addresses are endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DnsDiscovery {
    /// Each is one. `STRICT_DNS`.
    #[default]
    Strict,
    /// The first is, for new connections; established ones stay where they are. `LOGICAL_DNS`.
    Logical,
}

/// How often a name that does not resolve is asked for.
///
/// # Envoy
/// `Cluster.dns_failure_refresh_rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureRefreshRate {
    base_interval: Duration,
    backoff: ExponentialBackoff,
}

impl FailureRefreshRate {
    /// `base_interval`, twice that, … up to `max_interval` (ten times the base when `None`); each delay
    /// is random below its interval.
    ///
    /// # Errors
    /// When `base_interval` is zero or `max_interval` is shorter.
    pub fn new(
        base_interval: Duration,
        max_interval: Option<Duration>,
    ) -> Result<Self, InvalidBackoff> {
        Ok(Self {
            base_interval,
            backoff: ExponentialBackoff::new(base_interval, max_interval)?,
        })
    }
}

/// When a name is asked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshConfig {
    /// Which addresses are endpoints; default all.
    pub discovery: DnsDiscovery,
    /// The interval between lookups; default 5 s, at least 1 ms. Envoy: `Cluster.dns_refresh_rate`.
    pub dns_refresh_rate: Duration,
    /// The intervals after failures; default `dns_refresh_rate`. Envoy:
    /// `Cluster.dns_failure_refresh_rate`.
    pub dns_failure_refresh_rate: Option<FailureRefreshRate>,
    /// Whether the TTL of the records replaces `dns_refresh_rate`, unless it is zero; default false.
    /// Envoy: `Cluster.respect_dns_ttl`.
    pub respect_dns_ttl: bool,
    /// At most so much, at random, is added after a success; default 0. Envoy: `Cluster.dns_jitter`.
    pub dns_jitter: Duration,
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self {
            discovery: DnsDiscovery::default(),
            dns_refresh_rate: Duration::from_secs(5),
            dns_failure_refresh_rate: None,
            respect_dns_ttl: false,
            dns_jitter: Duration::ZERO,
        }
    }
}

/// What a lookup changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// There are other addresses than before.
    Changed,
    /// The addresses are those from before.
    Unchanged,
    /// There was no answer; the addresses from before are kept.
    Failed,
}

/// Decides when to look a name up and which addresses count.
#[derive(Debug, Clone)]
pub struct Refresh {
    config: RefreshConfig,
    interval_min: Duration,
    backoff: Option<ExponentialBackoff>,
    addresses: Arc<[IpAddr]>,
    /// `None` while a lookup runs.
    next: Option<Instant>,
    last_error: Option<DnsError>,
    settled: bool,
}

impl Refresh {
    /// Without addresses; the first lookup is due at once.
    #[must_use]
    pub fn new(mut config: RefreshConfig, now: Instant) -> Self {
        config.dns_refresh_rate = config.dns_refresh_rate.max(Duration::from_millis(1));
        let failure = config.dns_failure_refresh_rate;
        let shortest = failure.map_or(config.dns_refresh_rate, |rate| {
            rate.base_interval.min(config.dns_refresh_rate)
        });
        Self {
            interval_min: shortest.clamp(Duration::from_millis(1), LOOKUP_INTERVAL_MIN),
            backoff: failure.map(|rate| rate.backoff),
            config,
            addresses: Arc::new([]),
            next: Some(now),
            last_error: None,
            settled: false,
        }
    }

    /// When the next lookup is due; `None` while one runs.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// A lookup was started.
    pub fn on_start(&mut self) {
        self.next = None;
    }

    /// The lookup ended. `random` is any uniform 64-bit number.
    pub fn on_end(
        &mut self,
        now: Instant,
        result: Result<Answer, DnsError>,
        random: u64,
    ) -> Update {
        self.settled = true;
        let answer = match result {
            Ok(answer) if answer.addresses.is_empty() => Err(DnsError::NoRecords),
            other => other,
        };
        match answer {
            Ok(answer) => self.on_answer(now, answer, random),
            Err(error) => {
                let delay = match &mut self.backoff {
                    Some(backoff) => backoff.next_delay(random),
                    None => self.config.dns_refresh_rate,
                };
                self.next = Some(now + delay.max(self.interval_min));
                self.last_error = Some(error);
                Update::Failed
            }
        }
    }

    fn on_answer(&mut self, now: Instant, answer: Answer, random: u64) -> Update {
        if let Some(backoff) = &mut self.backoff {
            backoff.reset();
        }
        self.last_error = None;
        self.next = Some(now + self.success_delay(answer.ttl, random));
        let addresses = self.endpoints(answer.addresses);
        if *addresses == *self.addresses {
            return Update::Unchanged;
        }
        self.addresses = addresses.into();
        Update::Changed
    }

    fn success_delay(&self, ttl: Duration, random: u64) -> Duration {
        let rate = if self.config.respect_dns_ttl && !ttl.is_zero() {
            ttl.min(TTL_MAX)
        } else {
            self.config.dns_refresh_rate
        };
        let jitter_ms = u64::try_from(self.config.dns_jitter.as_millis()).unwrap_or(u64::MAX);
        let jitter = Duration::from_millis(random.checked_rem(jitter_ms).unwrap_or_default());
        rate.saturating_add(jitter).max(self.interval_min)
    }

    /// Name servers like to shuffle: what counts for strict discovery is the set, here in its order.
    fn endpoints(&self, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        match self.config.discovery {
            DnsDiscovery::Strict => {
                addresses.sort_unstable();
                addresses.dedup();
            }
            DnsDiscovery::Logical => addresses.truncate(1),
        }
        addresses
    }

    /// The last good addresses: sorted, or the one of logical discovery.
    #[must_use]
    pub const fn addresses(&self) -> &Arc<[IpAddr]> {
        &self.addresses
    }

    /// Whether a first lookup has ended, well or not: what waits for the cluster need wait no longer.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Why the last lookup failed, if it did.
    #[must_use]
    pub const fn last_error(&self) -> Option<&DnsError> {
        self.last_error.as_ref()
    }
}
