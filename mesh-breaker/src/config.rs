use std::{fmt, time::Duration};

use mesh_core::{Mode, Percent};

/// A breaker opens on a share of failures or slow calls within a window of time.
///
/// The window is made of buckets: it slides by one bucket at a time, so that `window / buckets` is how
/// late it forgets. It is looked at when a call failed (or was slow); a good call never opens a breaker.
/// All numbers are checked when the [`BreakerConfig`] is built.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// How far back calls count. At least one millisecond per bucket; default 10 s.
    pub window: Duration,
    /// How many buckets make the window, 1 to [`BUCKETS_MAX`]; default 10.
    pub buckets: u32,
    /// Below so many calls in the window the shares are not looked at. At least 1; default 20.
    pub minimum_calls: u32,
    /// Opens when at least this share of the calls failed. Above 0 %; default 50 %.
    pub failures: Percent,
    /// Opens when at least this share of the calls was slow, whatever their outcome. Default: not looked
    /// at.
    pub slow: Option<SlowCalls>,
}

/// What a slow call is, and how many of them open the breaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowCalls {
    /// A call is slow when its response head takes at least this long. Above zero.
    pub duration: Duration,
    /// Opens when at least this share of the calls is slow. Above 0 %.
    pub share: Percent,
}

/// More buckets than this would cost memory and gain nothing: the builder refuses.
pub const BUCKETS_MAX: u32 = 256;

/// More concurrent probes than this are no probes: the builder refuses.
pub const PROBES_MAX: u32 = 65_536;

/// A breaker that stays open for longer than a day is an outage: the builder refuses.
pub const OPEN_DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Ratio {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            buckets: 10,
            minimum_calls: 20,
            failures: Percent::whole(50),
            slow: None,
        }
    }
}

/// When a breaker opens, how long it stays open, and what closes it again.
///
/// The default opens after five failures in a row, or when half of at least twenty calls within ten
/// seconds failed; stays open for 5 s, then 10 s, 20 s, up to a minute; and closes after two successful
/// probes.
///
/// # Envoy
/// None: Envoy's `circuit_breakers` are [`mesh_core::Thresholds`].
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerConfig {
    consecutive_failures: Option<u32>,
    ratio: Option<Ratio>,
    open_duration: Duration,
    open_duration_max: Duration,
    open_growth: u32,
    open_jitter: Percent,
    half_open_probes_max: u32,
    half_open_successes: u32,
    mode: Mode,
}

impl BreakerConfig {
    /// Starts from the default.
    #[must_use]
    pub fn builder() -> BreakerConfigBuilder {
        BreakerConfigBuilder(Self::default())
    }

    /// So many failures in a row open the breaker.
    #[must_use]
    pub const fn consecutive_failures(&self) -> Option<u32> {
        self.consecutive_failures
    }

    /// Which share of failures or slow calls opens the breaker.
    #[must_use]
    pub const fn ratio(&self) -> Option<&Ratio> {
        self.ratio.as_ref()
    }

    /// The call duration from which on a call is slow, when slow calls matter.
    #[must_use]
    pub fn slow_duration(&self) -> Option<Duration> {
        Some(self.ratio?.slow?.duration)
    }

    /// How long the breaker stays open at first.
    #[must_use]
    pub const fn open_duration(&self) -> Duration {
        self.open_duration
    }

    /// How long it stays open at most, jitter aside.
    #[must_use]
    pub const fn open_duration_max(&self) -> Duration {
        self.open_duration_max
    }

    /// What the open duration is multiplied with after each failed round of probes.
    #[must_use]
    pub const fn open_growth(&self) -> u32 {
        self.open_growth
    }

    /// Up to this share of the open duration is added to it at random.
    #[must_use]
    pub const fn open_jitter(&self) -> Percent {
        self.open_jitter
    }

    /// How many probes may run at once.
    #[must_use]
    pub const fn half_open_probes_max(&self) -> u32 {
        self.half_open_probes_max
    }

    /// How many probes must succeed to close the breaker.
    #[must_use]
    pub const fn half_open_successes(&self) -> u32 {
        self.half_open_successes
    }

    /// Whether the breaker refuses, or only counts what it would have refused.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            ratio: Some(Ratio::default()),
            open_duration: Duration::from_secs(5),
            open_duration_max: Duration::from_secs(60),
            open_growth: 2,
            open_jitter: Percent::whole(10),
            half_open_probes_max: 2,
            half_open_successes: 2,
            mode: Mode::Enforce,
        }
    }
}

/// Collects the settings of a [`BreakerConfig`].
#[derive(Debug, Clone)]
pub struct BreakerConfigBuilder(BreakerConfig);

impl BreakerConfigBuilder {
    /// So many failures in a row open the breaker, at least 1; `None` does not look at rows. Default 5.
    #[must_use]
    pub const fn consecutive_failures(mut self, failures: Option<u32>) -> Self {
        self.0.consecutive_failures = failures;
        self
    }

    /// Which share of failures or slow calls opens the breaker; `None` does not look at shares.
    /// Default: [`Ratio::default`].
    #[must_use]
    pub const fn ratio(mut self, ratio: Option<Ratio>) -> Self {
        self.0.ratio = ratio;
        self
    }

    /// How long the breaker stays open at first, `base`, and at most, `max`; the first is above zero and
    /// not more than the second, which is at most [`OPEN_DURATION_MAX`]. Default 5 s and 60 s: long enough for a restart, short enough not to be
    /// noticed after one.
    #[must_use]
    pub const fn open_duration(mut self, base: Duration, max: Duration) -> Self {
        self.0.open_duration = base;
        self.0.open_duration_max = max;
        self
    }

    /// What the open duration is multiplied with after each failed round of probes, at least 1; it starts
    /// over when the breaker closes. Default 2.
    #[must_use]
    pub const fn open_growth(mut self, factor: u32) -> Self {
        self.0.open_growth = factor;
        self
    }

    /// Up to this share of the open duration is added to it at random, so that the breakers of many
    /// clients do not probe together. Default 10 %.
    #[must_use]
    pub const fn open_jitter(mut self, share: Percent) -> Self {
        self.0.open_jitter = share;
        self
    }

    /// When half open, how many probes may run at once (1 to [`PROBES_MAX`]) and how many must succeed to
    /// close (at least 1). One failure opens again. Default 2 and 2.
    ///
    /// A probe lasts until its response body ends, so when probes may be long streams, keep `successes`
    /// at or below `at_once`: then heads alone are enough to close.
    #[must_use]
    pub const fn half_open(mut self, at_once: u32, successes: u32) -> Self {
        self.0.half_open_probes_max = at_once;
        self.0.half_open_successes = successes;
        self
    }

    /// Whether the breaker refuses, or only counts what it would have refused. Default: refuses.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.0.mode = mode;
        self
    }

    /// The finished config.
    ///
    /// # Errors
    /// When a number is outside its range, or nothing could ever open the breaker.
    pub fn build(self) -> Result<BreakerConfig, InvalidBreakerConfig> {
        use InvalidBreakerConfig as Invalid;
        let config = self.0;
        if config.consecutive_failures.is_none() && config.ratio.is_none() {
            return Err(Invalid::NeverOpens);
        }
        check(
            "consecutive_failures",
            config.consecutive_failures != Some(0),
        )?;
        if let Some(ratio) = &config.ratio {
            check_ratio(ratio)?;
        }
        check("open_duration", !config.open_duration.is_zero())?;
        if config.open_duration_max < config.open_duration {
            return Err(Invalid::MaxBelowBase);
        }
        check(
            "open_duration",
            config.open_duration_max <= OPEN_DURATION_MAX,
        )?;
        check("open_growth", config.open_growth >= 1)?;
        check(
            "half_open at_once",
            (1..=PROBES_MAX).contains(&config.half_open_probes_max),
        )?;
        check("half_open successes", config.half_open_successes >= 1)?;
        Ok(config)
    }
}

fn check(field: &'static str, in_range: bool) -> Result<(), InvalidBreakerConfig> {
    if in_range {
        Ok(())
    } else {
        Err(InvalidBreakerConfig::OutOfRange { field })
    }
}

fn check_ratio(ratio: &Ratio) -> Result<(), InvalidBreakerConfig> {
    check("ratio.buckets", (1..=BUCKETS_MAX).contains(&ratio.buckets))?;
    check(
        "ratio.window",
        ratio.window / ratio.buckets >= Duration::from_millis(1),
    )?;
    check("ratio.minimum_calls", ratio.minimum_calls >= 1)?;
    check("ratio.failures", ratio.failures > Percent::ZERO)?;
    if let Some(slow) = &ratio.slow {
        check("ratio.slow.duration", !slow.duration.is_zero())?;
        check("ratio.slow.share", slow.share > Percent::ZERO)?;
    }
    Ok(())
}

/// Why settings do not make a [`BreakerConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidBreakerConfig {
    /// A number is outside the range that its documentation gives.
    OutOfRange {
        /// Which one.
        field: &'static str,
    },
    /// The longest open duration is below the first.
    MaxBelowBase,
    /// Neither rows nor shares of failures are looked at.
    NeverOpens,
}

impl fmt::Display for InvalidBreakerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { field } => write!(f, "{field} is out of range"),
            Self::MaxBelowBase => f.write_str("the maximum of open_duration is below its base"),
            Self::NeverOpens => {
                f.write_str("neither consecutive_failures nor ratio is set: nothing could open it")
            }
        }
    }
}

impl std::error::Error for InvalidBreakerConfig {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::Percent;

    use super::{BreakerConfig, BreakerConfigBuilder, InvalidBreakerConfig, Ratio, SlowCalls};

    #[test]
    fn the_builder_untouched_is_the_default() {
        assert_eq!(
            BreakerConfig::builder().build(),
            Ok(BreakerConfig::default())
        );
    }

    #[test]
    fn refuses_what_makes_no_sense_and_names_the_field() {
        let refused = |builder: BreakerConfigBuilder| builder.build().unwrap_err().to_string();
        let builder = BreakerConfig::builder;
        let ratio = |ratio| refused(builder().ratio(Some(ratio)));
        assert_eq!(
            builder().consecutive_failures(None).ratio(None).build(),
            Err(InvalidBreakerConfig::NeverOpens)
        );
        assert_eq!(
            refused(builder().consecutive_failures(Some(0))),
            "consecutive_failures is out of range"
        );
        assert_eq!(
            refused(builder().open_duration(Duration::from_secs(2), Duration::from_secs(1))),
            "the maximum of open_duration is below its base"
        );
        assert_eq!(
            refused(builder().half_open(0, 1)),
            "half_open at_once is out of range"
        );
        assert_eq!(
            ratio(Ratio {
                buckets: 0,
                ..Ratio::default()
            }),
            "ratio.buckets is out of range"
        );
        assert_eq!(
            ratio(Ratio {
                failures: Percent::ZERO,
                ..Ratio::default()
            }),
            "ratio.failures is out of range"
        );
        assert_eq!(
            ratio(Ratio {
                slow: Some(SlowCalls {
                    duration: Duration::ZERO,
                    share: Percent::HUNDRED
                }),
                ..Ratio::default()
            }),
            "ratio.slow.duration is out of range"
        );
    }
}
