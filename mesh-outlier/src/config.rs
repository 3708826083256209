use std::{fmt, time::Duration};

use mesh_core::Mode;

/// One list of settings: getters on the config, setters on the builder, one default each.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        /// When an endpoint is ejected, and for how long.
        ///
        /// It cannot hold a combination that makes no sense: [`OutlierConfig::builder`] refuses those. The
        /// default is what Envoy does for `outlier_detection: {}`.
        ///
        /// # Envoy
        /// `Cluster.outlier_detection` (`config.cluster.v3.OutlierDetection`); every method is named after
        /// its field.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct OutlierConfig {
            $($name: $type,)*
            max_ejection_time: Duration,
        }

        impl OutlierConfig {
            $($(#[$doc])* #[must_use] pub const fn $name(&self) -> $type { self.$name })*
        }

        /// Collects the settings of an [`OutlierConfig`].
        #[derive(Debug, Clone)]
        pub struct OutlierConfigBuilder {
            $($name: $type,)*
            max_ejection_time: Option<Duration>,
        }

        impl Default for OutlierConfigBuilder {
            fn default() -> Self {
                Self { $($name: $default,)* max_ejection_time: None }
            }
        }

        impl OutlierConfigBuilder {
            $($(#[$doc])* #[must_use] pub const fn $name(mut self, value: $type) -> Self {
                self.$name = value;
                self
            })*

            fn finish(self, max_ejection_time: Duration) -> OutlierConfig {
                OutlierConfig { $($name: self.$name,)* max_ejection_time }
            }
        }
    };
}

settings! {
    /// How often the statistical detectors look, and how often ejections end: an ejection therefore lasts
    /// up to one interval longer than computed. Above zero; default 10 s.
    interval: Duration = Duration::from_secs(10),
    /// How long a first ejection lasts; each further one lasts one `base_ejection_time` longer, up to
    /// `max_ejection_time`. Above zero; default 30 s.
    base_ejection_time: Duration = Duration::from_secs(30),
    /// At most so much is added to each ejection, drawn evenly, so that endpoints ejected together do not
    /// return together. Default 0.
    max_ejection_time_jitter: Duration = Duration::ZERO,
    /// At most this share of the cluster is ejected at a time. 0 to 100; default 10. With fewer than ten
    /// endpoints the default ejects nobody, as Envoy: raise it, or set `always_eject_one_host`.
    max_ejection_percent: u32 = 10,
    /// One endpoint may always be ejected, whatever `max_ejection_percent` says. Default false.
    always_eject_one_host: bool = false,
    /// A passed active health check ends an ejection at once. Default true.
    successful_active_health_check_uneject_host: bool = true,
    /// Failures of this side (refused or broken connections, timeouts) are counted apart from statuses
    /// that the endpoint sent. Default false: they count as 503 and 504.
    split_external_local_origin_errors: bool = false,
    /// So many answers of 500 to 599 in a row eject; 0 never matches. Default 5.
    consecutive_5xx: u32 = 5,
    /// How often a detection by `consecutive_5xx` ejects. 0 to 100 percent; default 100.
    enforcing_consecutive_5xx: u32 = 100,
    /// So many answers of 502, 503 or 504 in a row eject; 0 never matches. Default 5.
    consecutive_gateway_failure: u32 = 5,
    /// How often a detection by `consecutive_gateway_failure` ejects. 0 to 100 percent; default 0.
    enforcing_consecutive_gateway_failure: u32 = 0,
    /// So many local-origin failures in a row eject, when these are split; 0 never matches. Default 5.
    consecutive_local_origin_failure: u32 = 5,
    /// How often a detection by `consecutive_local_origin_failure` ejects. 0 to 100 percent; default 100.
    enforcing_consecutive_local_origin_failure: u32 = 100,
    /// Success rates are compared only between at least so many endpoints. Default 5.
    success_rate_minimum_hosts: u32 = 5,
    /// An endpoint takes part in that with at least so many requests per interval. Default 100.
    success_rate_request_volume: u32 = 100,
    /// An endpoint is ejected when its success rate is below the mean by more than this many thousandths
    /// of the standard deviation. Default 1900, that is 1.9.
    success_rate_stdev_factor: u32 = 1900,
    /// How often a detection by success rate ejects. 0 to 100 percent; default 100.
    enforcing_success_rate: u32 = 100,
    /// How often a detection by local-origin success rate ejects. 0 to 100 percent; default 100.
    enforcing_local_origin_success_rate: u32 = 100,
    /// An endpoint is ejected when at least this percentage of its requests fail. 0 to 100; default 85.
    failure_percentage_threshold: u32 = 85,
    /// Failure percentages are looked at only with at least so many endpoints. Default 5.
    failure_percentage_minimum_hosts: u32 = 5,
    /// An endpoint takes part in that with at least so many requests per interval. Default 50.
    failure_percentage_request_volume: u32 = 50,
    /// How often a detection by failure percentage ejects. 0 to 100 percent; default 0.
    enforcing_failure_percentage: u32 = 0,
    /// How often a detection by local-origin failure percentage ejects. 0 to 100 percent; default 0.
    enforcing_failure_percentage_local_origin: u32 = 0,
    /// Whether detections eject, or are only counted and logged as not enforced. Not in Envoy.
    mode: Mode = Mode::Enforce,
}

/// Without `max_ejection_time`, an ejection lasts at most this, or `base_ejection_time` when that is more.
const MAX_EJECTION_TIME_DEFAULT: Duration = Duration::from_secs(300);

impl OutlierConfig {
    /// Starts from Envoy's defaults.
    #[must_use]
    pub fn builder() -> OutlierConfigBuilder {
        OutlierConfigBuilder::default()
    }

    /// No ejection lasts longer, jitter aside. Default 300 s, or `base_ejection_time` if that is more.
    #[must_use]
    pub const fn max_ejection_time(&self) -> Duration {
        self.max_ejection_time
    }
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self::builder().finish(MAX_EJECTION_TIME_DEFAULT)
    }
}

impl OutlierConfigBuilder {
    /// No ejection lasts longer, jitter aside. At least `base_ejection_time`; default 300 s, or
    /// `base_ejection_time` if that is more.
    #[must_use]
    pub const fn max_ejection_time(mut self, value: Duration) -> Self {
        self.max_ejection_time = Some(value);
        self
    }

    /// The finished config.
    ///
    /// # Errors
    /// When a duration is zero, a percentage is above 100, or `max_ejection_time` is below
    /// `base_ejection_time`.
    pub fn build(self) -> Result<OutlierConfig, InvalidOutlierConfig> {
        for (field, duration) in [
            ("interval", self.interval),
            ("base_ejection_time", self.base_ejection_time),
        ] {
            if duration.is_zero() {
                return Err(InvalidOutlierConfig::ZeroDuration { field });
            }
        }
        if let Some((field, value)) = self.percentages().into_iter().find(|(_, v)| *v > 100) {
            return Err(InvalidOutlierConfig::Percentage { field, value });
        }
        let max = self
            .max_ejection_time
            .unwrap_or_else(|| MAX_EJECTION_TIME_DEFAULT.max(self.base_ejection_time));
        if max < self.base_ejection_time {
            return Err(InvalidOutlierConfig::MaxBelowBase);
        }
        Ok(self.finish(max))
    }

    const fn percentages(&self) -> [(&'static str, u32); 9] {
        [
            ("max_ejection_percent", self.max_ejection_percent),
            ("enforcing_consecutive_5xx", self.enforcing_consecutive_5xx),
            (
                "enforcing_consecutive_gateway_failure",
                self.enforcing_consecutive_gateway_failure,
            ),
            (
                "enforcing_consecutive_local_origin_failure",
                self.enforcing_consecutive_local_origin_failure,
            ),
            ("enforcing_success_rate", self.enforcing_success_rate),
            (
                "enforcing_local_origin_success_rate",
                self.enforcing_local_origin_success_rate,
            ),
            (
                "failure_percentage_threshold",
                self.failure_percentage_threshold,
            ),
            (
                "enforcing_failure_percentage",
                self.enforcing_failure_percentage,
            ),
            (
                "enforcing_failure_percentage_local_origin",
                self.enforcing_failure_percentage_local_origin,
            ),
        ]
    }
}

/// Why settings do not make an [`OutlierConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidOutlierConfig {
    /// A duration that must be above zero is zero.
    ZeroDuration {
        /// Which one.
        field: &'static str,
    },
    /// A percentage is above 100.
    Percentage {
        /// Which one.
        field: &'static str,
        /// What it says.
        value: u32,
    },
    /// `max_ejection_time` is below `base_ejection_time`.
    MaxBelowBase,
}

impl fmt::Display for InvalidOutlierConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroDuration { field } => write!(f, "{field} must be greater than zero"),
            Self::Percentage { field, value } => {
                write!(f, "{field} is {value}, but must be at most 100")
            }
            Self::MaxBelowBase => {
                f.write_str("max_ejection_time must be greater than or equal to base_ejection_time")
            }
        }
    }
}

impl std::error::Error for InvalidOutlierConfig {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{InvalidOutlierConfig, OutlierConfig};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_builder_untouched_is_the_default() {
        assert_eq!(
            OutlierConfig::builder().build(),
            Ok(OutlierConfig::default())
        );
    }

    #[test]
    fn the_longest_ejection_follows_a_long_base() {
        let config = OutlierConfig::builder().base_ejection_time(400 * SECOND);
        assert_eq!(config.build().unwrap().max_ejection_time(), 400 * SECOND);
    }

    #[test]
    fn refuses_what_makes_no_sense_and_names_the_field() {
        let refused = |builder: super::OutlierConfigBuilder| builder.build().unwrap_err();
        let builder = OutlierConfig::builder;
        assert_eq!(
            refused(builder().interval(Duration::ZERO)).to_string(),
            "interval must be greater than zero"
        );
        assert_eq!(
            refused(builder().enforcing_success_rate(101)).to_string(),
            "enforcing_success_rate is 101, but must be at most 100"
        );
        assert_eq!(
            refused(builder().max_ejection_time(29 * SECOND)),
            InvalidOutlierConfig::MaxBelowBase
        );
    }
}
