//! `OutlierDetection`.

use envoy_types::pb::envoy::config::cluster::v3::OutlierDetection;
use mesh_outlier::{OutlierConfig, OutlierConfigBuilder};

use super::MESSAGE;
use crate::{
    convert::{context::Context, value},
    language::{At, MessageSupport, Support::Enforced},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[("outlier_detection", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.OutlierDetection",
        fields: &[
            ("consecutive_5xx", Enforced),
            ("interval", Enforced),
            ("base_ejection_time", Enforced),
            ("max_ejection_percent", Enforced),
            ("enforcing_consecutive_5xx", Enforced),
            ("enforcing_success_rate", Enforced),
            ("success_rate_minimum_hosts", Enforced),
            ("success_rate_request_volume", Enforced),
            ("success_rate_stdev_factor", Enforced),
            ("consecutive_gateway_failure", Enforced),
            ("enforcing_consecutive_gateway_failure", Enforced),
            ("split_external_local_origin_errors", Enforced),
            ("consecutive_local_origin_failure", Enforced),
            ("enforcing_consecutive_local_origin_failure", Enforced),
            ("enforcing_local_origin_success_rate", Enforced),
            ("failure_percentage_threshold", Enforced),
            ("enforcing_failure_percentage", Enforced),
            ("enforcing_failure_percentage_local_origin", Enforced),
            ("failure_percentage_minimum_hosts", Enforced),
            ("failure_percentage_request_volume", Enforced),
            ("max_ejection_time", Enforced),
            ("max_ejection_time_jitter", Enforced),
            ("successful_active_health_check_uneject_host", Enforced),
            ("always_eject_one_host", Enforced),
        ],
    },
];

/// Calls a setter with what is set; leaves the default otherwise.
macro_rules! set {
    ($builder:ident, $from:expr, $($field:ident),* $(,)?) => {
        $(if let Some(set) = $from.$field {
            $builder = $builder.$field(set.value);
        })*
    };
}

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &OutlierDetection,
) -> Option<OutlierConfig> {
    let mut builder = durations(cx, at, from)
        .split_external_local_origin_errors(from.split_external_local_origin_errors);
    set!(
        builder,
        from,
        max_ejection_percent,
        always_eject_one_host,
        successful_active_health_check_uneject_host,
        consecutive_5xx,
        enforcing_consecutive_5xx,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        enforcing_success_rate,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
    );
    cx.ok(at, builder.build())
}

fn durations(cx: &Context<'_>, at: &At<'_>, from: &OutlierDetection) -> OutlierConfigBuilder {
    let duration = |field, from| value::duration(cx, &at.field(field), from);
    let mut builder = OutlierConfig::builder();
    if let Some(interval) = duration("interval", from.interval.as_ref()) {
        builder = builder.interval(interval);
    }
    if let Some(time) = duration("base_ejection_time", from.base_ejection_time.as_ref()) {
        builder = builder.base_ejection_time(time);
    }
    if let Some(time) = duration("max_ejection_time", from.max_ejection_time.as_ref()) {
        builder = builder.max_ejection_time(time);
    }
    let jitter = from.max_ejection_time_jitter.as_ref();
    if let Some(jitter) = duration("max_ejection_time_jitter", jitter) {
        builder = builder.max_ejection_time_jitter(jitter);
    }
    builder
}
