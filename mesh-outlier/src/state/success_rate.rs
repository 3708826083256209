use super::bucket::Rate;
use crate::OutlierConfig;

/// What the success rates of a cluster's endpoints have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRates {
    /// Their mean, in percent.
    pub average: f64,
    /// Below this, an endpoint is an outlier. It may be negative: then none is.
    pub threshold: f64,
}

/// Whether `rate` takes part in the comparison.
pub(super) fn takes_part(rate: Rate, config: &OutlierConfig) -> bool {
    rate.requests >= config.success_rate_request_volume()
}

/// The mean, and the mean less the configured multiple of the (population's) standard deviation; `None`
/// with too few endpoints.
pub(super) fn compare(rates: &[f64], config: &OutlierConfig) -> Option<SuccessRates> {
    if rates.is_empty() || rates.len() < config.success_rate_minimum_hosts() as usize {
        return None;
    }
    let n = rates.len() as f64;
    let average = rates.iter().sum::<f64>() / n;
    let variance = rates
        .iter()
        .map(|rate| (rate - average).powi(2))
        .sum::<f64>()
        / n;
    let factor = f64::from(config.success_rate_stdev_factor()) / 1000.0;
    Some(SuccessRates {
        average,
        threshold: average - factor * variance.sqrt(),
    })
}

/// Strictly below: with equal rates nobody is an outlier.
pub(super) fn is_outlier(rate: f64, rates: SuccessRates) -> bool {
    rate < rates.threshold
}
