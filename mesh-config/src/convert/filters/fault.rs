//! `envoy.filters.http.fault`.

use std::{num::NonZeroU64, sync::Arc};

use envoy_types::pb::envoy::{
    extensions::filters::{
        common::fault::v3::{
            FaultDelay as FaultDelayProto, FaultRateLimit as FaultRateLimitProto,
            fault_delay::FaultDelaySecifier, fault_rate_limit::LimitType,
        },
        http::fault::v3::{FaultAbort as FaultAbortProto, HttpFault, fault_abort::ErrorType},
    },
    r#type::v3 as ty,
};
use http::StatusCode;
use mesh_core::FractionalPercent;
use mesh_fault::{
    Abort, Delay, FaultAbort, FaultConfig, FaultDelay, FaultRateLimit, Matches, RateLimit,
};

use super::registry::{Filter, RouteSays};
use crate::{
    convert::{context::Context, listener::Surroundings, matcher, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::{HttpFilterKind, RouteFilterKind},
};

pub(super) struct FaultFilter;

impl Filter for FaultFilter {
    type Config = HttpFault;
    type Route = HttpFault;

    const SUPPORT: &'static [MessageSupport] = SUPPORT;

    fn convert(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &HttpFault,
        _: &Surroundings<'_>,
    ) -> Option<HttpFilterKind> {
        Some(HttpFilterKind::Fault(Arc::new(fault(cx, at, from))))
    }

    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &HttpFault,
        _: &Surroundings<'_>,
        _: Option<&RouteFilterKind>,
    ) -> Option<RouteSays> {
        let fault = Arc::new(fault(cx, at, from));
        Some(RouteSays::Config(RouteFilterKind::Fault(fault)))
    }
}

const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.filters.http.fault.v3.HTTPFault",
        fields: &[
            ("delay", Enforced),
            ("abort", Enforced),
            ("upstream_cluster", Enforced),
            ("headers", Enforced),
            ("downstream_nodes", Enforced),
            ("max_active_faults", Enforced),
            ("response_rate_limit", Enforced),
            // No runtime layer is read, so that no key can override anything.
            ("delay_percent_runtime", Meaningless),
            ("abort_percent_runtime", Meaningless),
            ("delay_duration_runtime", Meaningless),
            ("abort_http_status_runtime", Meaningless),
            ("max_active_faults_runtime", Meaningless),
            ("response_rate_limit_percent_runtime", Meaningless),
            ("abort_grpc_status_runtime", Meaningless),
            // There are none: their names would come from traffic.
            ("disable_downstream_cluster_stats", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.fault.v3.FaultAbort",
        fields: &[
            ("http_status", Enforced),
            ("grpc_status", Enforced),
            ("header_abort", Enforced),
            ("percentage", Enforced),
            ("response_body", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.fault.v3.FaultAbort.HeaderAbort",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.extensions.filters.common.fault.v3.FaultDelay",
        fields: &[
            ("fixed_delay", Enforced),
            ("header_delay", Enforced),
            ("percentage", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.common.fault.v3.FaultDelay.HeaderDelay",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.extensions.filters.common.fault.v3.FaultRateLimit",
        fields: &[
            ("fixed_limit", Enforced),
            ("header_limit", Enforced),
            ("percentage", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.common.fault.v3.FaultRateLimit.FixedLimit",
        fields: &[("limit_kbps", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.filters.common.fault.v3.FaultRateLimit.HeaderLimit",
        fields: &[],
    },
];

fn fault(cx: &Context<'_>, at: &At<'_>, from: &HttpFault) -> FaultConfig {
    let headers = matcher::headers(cx, &at.field("headers"), &from.headers);
    let headers = (!headers.is_empty()).then(|| {
        Matches::new(move |request| headers.iter().all(|header| header.matches_request(request)))
    });
    // What is wrong is complained about, and then nothing of the config counts.
    let (delay, abort) = (from.delay.as_ref(), from.abort.as_ref());
    let delay = delay.and_then(|from| delay_of(cx, &at.field("delay"), from));
    let abort = abort.and_then(|from| abort_of(cx, &at.field("abort"), from));
    let limit = from.response_rate_limit.as_ref();
    let limit = limit.and_then(|from| limit_of(cx, &at.field("response_rate_limit"), from));
    let nodes = from.downstream_nodes.iter();
    FaultConfig {
        delay,
        abort,
        response_rate_limit: limit,
        upstream_cluster: value::nonempty(&from.upstream_cluster).map(Arc::from),
        headers,
        downstream_nodes: nodes.map(|node| Arc::from(node.as_str())).collect(),
        max_active_faults: value::number(from.max_active_faults),
        ..FaultConfig::default()
    }
}

fn delay_of(cx: &Context<'_>, at: &At<'_>, from: &FaultDelayProto) -> Option<FaultDelay> {
    let delay = match from.fault_delay_secifier.as_ref()? {
        FaultDelaySecifier::FixedDelay(from) => {
            Delay::Fixed(value::duration(cx, &at.field("fixed_delay"), Some(from))?)
        }
        FaultDelaySecifier::HeaderDelay(_) => Delay::Header,
    };
    Some(FaultDelay {
        delay,
        percentage: percentage(from.percentage.as_ref()),
    })
}

fn abort_of(cx: &Context<'_>, at: &At<'_>, from: &FaultAbortProto) -> Option<FaultAbort> {
    let abort = match from.error_type.as_ref()? {
        ErrorType::HttpStatus(code) => {
            let status = u16::try_from(*code).ok();
            let status = status.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.ok_or("must be a status from 200 to 599");
            Abort::Http(cx.ok(&at.field("http_status"), status)?)
        }
        ErrorType::GrpcStatus(code) => Abort::Grpc(*code),
        ErrorType::HeaderAbort(_) => Abort::Header,
    };
    let mut fault = FaultAbort::new(abort, percentage(from.percentage.as_ref()));
    if let Some(body) = value::nonempty(&from.response_body) {
        fault.response_body = body.to_owned().into();
    }
    Some(fault)
}

fn limit_of(cx: &Context<'_>, at: &At<'_>, from: &FaultRateLimitProto) -> Option<FaultRateLimit> {
    let limit = match from.limit_type.as_ref()? {
        LimitType::FixedLimit(from) => {
            let kbps = NonZeroU64::new(from.limit_kbps).ok_or("must be at least 1");
            let at = at.field("fixed_limit");
            RateLimit::Fixed(cx.ok(&at.field("limit_kbps"), kbps)?)
        }
        LimitType::HeaderLimit(_) => RateLimit::Header,
    };
    Some(FaultRateLimit {
        limit,
        percentage: percentage(from.percentage.as_ref()),
    })
}

/// Never, unless it says otherwise.
fn percentage(from: Option<&ty::FractionalPercent>) -> FractionalPercent {
    from.map_or(FractionalPercent::ZERO, value::fractional_percent)
}
