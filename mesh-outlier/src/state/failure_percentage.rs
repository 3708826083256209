use super::bucket::Rate;
use crate::OutlierConfig;

/// Whether `rate` is looked at.
pub(super) fn takes_part(rate: Rate, config: &OutlierConfig) -> bool {
    rate.requests >= config.failure_percentage_request_volume()
}

/// Whether enough endpoints take part.
pub(super) fn applies(endpoints: usize, config: &OutlierConfig) -> bool {
    endpoints > 0 && endpoints >= config.failure_percentage_minimum_hosts() as usize
}

/// At or above: a threshold of 100 still means those that always fail.
pub(super) fn is_outlier(rate: Rate, config: &OutlierConfig) -> bool {
    100.0 - rate.success >= f64::from(config.failure_percentage_threshold())
}
