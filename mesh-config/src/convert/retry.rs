//! `RetryPolicy` and `HedgePolicy`.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::route::v3::{
        self as pb,
        retry_policy::{ResetHeaderFormat, retry_host_predicate},
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
};
use http::StatusCode;
use mesh_core::{ExponentialBackoff, format::RequestView};
use mesh_retry::{
    RateLimitedBackoff, RequestPredicate, ResetFormat, ResetHeader, ResponsePredicate, RetryConfig,
    RetryConfigBuilder, RetryOn,
};

use super::{context::Context, matcher, value};
use crate::language::{At, MessageSupport, Support::Enforced};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("retry_on", Enforced),
            ("num_retries", Enforced),
            ("per_try_timeout", Enforced),
            ("per_try_idle_timeout", Enforced),
            ("retry_host_predicate", Enforced),
            ("host_selection_retry_max_attempts", Enforced),
            ("retriable_status_codes", Enforced),
            ("retry_back_off", Enforced),
            ("rate_limited_retry_back_off", Enforced),
            ("retriable_headers", Enforced),
            ("retriable_request_headers", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RetryPolicy.RetryBackOff",
        fields: &[("base_interval", Enforced), ("max_interval", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RetryPolicy.RateLimitedRetryBackOff",
        fields: &[("reset_headers", Enforced), ("max_interval", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RetryPolicy.ResetHeader",
        fields: &[("name", Enforced), ("format", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RetryPolicy.RetryHostPredicate",
        fields: &[("name", Enforced), ("typed_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.route.v3.HedgePolicy",
        fields: &[("hedge_on_per_try_timeout", Enforced)],
    },
];

const MESSAGE: &str = "envoy.config.route.v3.RetryPolicy";

/// The policy, for further settings that stand elsewhere.
pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: &pb::RetryPolicy) -> RetryConfigBuilder {
    let (on, unknown) = RetryOn::parse(&from.retry_on);
    for token in unknown {
        // Envoy ignores it; nobody should have to find that out.
        cx.unsupported(
            &at.field("retry_on"),
            &format!("{MESSAGE}.retry_on"),
            Some(token),
        );
    }
    let mut builder = RetryConfig::builder()
        .retry_on(on)
        .retriable_status_codes(status_codes(&from.retriable_status_codes))
        .retriable_headers(response_predicates(cx, at, from))
        .retriable_request_headers(request_predicates(cx, at, from))
        .previous_hosts(previous_hosts(cx, at, from));
    if let Some(retries) = value::number(from.num_retries) {
        builder = builder.num_retries(retries);
    }
    let timeout = |field, from| value::duration(cx, &at.field(field), from);
    if let Some(timeout) = timeout("per_try_timeout", from.per_try_timeout.as_ref()) {
        builder = builder.per_try_timeout(timeout);
    }
    if let Some(timeout) = timeout("per_try_idle_timeout", from.per_try_idle_timeout.as_ref()) {
        builder = builder.per_try_idle_timeout(timeout);
    }
    if from.host_selection_retry_max_attempts > 0 {
        let attempts = u32::try_from(from.host_selection_retry_max_attempts);
        builder = builder.host_selection_retry_max_attempts(attempts.unwrap_or(u32::MAX));
    }
    if let Some(back_off) = exponential(cx, at, from) {
        builder = builder.retry_back_off(back_off);
    }
    if let Some(back_off) = rate_limited(cx, at, from) {
        builder = builder.rate_limited_retry_back_off(back_off);
    }
    builder
}

/// Those that a response can have.
fn status_codes(codes: &[u32]) -> impl Iterator<Item = StatusCode> {
    let narrow = codes.iter().filter_map(|&code| u16::try_from(code).ok());
    narrow.filter_map(|code| StatusCode::from_u16(code).ok())
}

fn response_predicates(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RetryPolicy,
) -> Vec<ResponsePredicate> {
    let matchers = matcher::headers(cx, &at.field("retriable_headers"), &from.retriable_headers);
    let predicate = |matcher: mesh_route::HeaderMatcher| {
        ResponsePredicate::new(move |status, headers| matcher.matches_response(status, headers))
    };
    matchers.into_iter().map(predicate).collect()
}

fn request_predicates(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RetryPolicy,
) -> Vec<RequestPredicate> {
    let at = at.field("retriable_request_headers");
    let matchers = matcher::headers(cx, &at, &from.retriable_request_headers);
    let predicate = |matcher: mesh_route::HeaderMatcher| {
        RequestPredicate::new(move |head| {
            matcher.matches_request(&RequestView::new(head.method, head.uri, head.headers))
        })
    };
    matchers.into_iter().map(predicate).collect()
}

/// Whether previous hosts are avoided; other predicates are in the report, by their types.
fn previous_hosts(cx: &Context<'_>, at: &At<'_>, from: &pb::RetryPolicy) -> bool {
    let list = at.field("retry_host_predicate");
    let mut found = false;
    for (index, predicate) in from.retry_host_predicate.iter().enumerate() {
        match &predicate.config_type {
            Some(retry_host_predicate::ConfigType::TypedConfig(any)) => {
                found |= cx.unpack::<PreviousHostsPredicate>(any).is_some();
            }
            None => cx.invalid(&list.index(index), "typed_config is missing"),
        }
    }
    found
}

fn exponential(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RetryPolicy,
) -> Option<ExponentialBackoff> {
    let at = at.field("retry_back_off");
    let from = from.retry_back_off.as_ref()?;
    let base = value::duration(cx, &at.field("base_interval"), from.base_interval.as_ref())?;
    let max_at = at.field("max_interval");
    let max = value::duration(cx, &max_at, from.max_interval.as_ref());
    cx.ok(&max_at, ExponentialBackoff::new(base, max))
}

fn rate_limited(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RetryPolicy,
) -> Option<RateLimitedBackoff> {
    let at = at.field("rate_limited_retry_back_off");
    let from = from.rate_limited_retry_back_off.as_ref()?;
    let list = at.field("reset_headers");
    let headers = from.reset_headers.iter().enumerate();
    let headers = headers.filter_map(|(index, header)| {
        Some(ResetHeader {
            name: value::header_name(cx, &list.index(index).field("name"), &header.name)?,
            format: match header.format() {
                ResetHeaderFormat::Seconds => ResetFormat::Seconds,
                ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
            },
        })
    });
    let headers: Vec<ResetHeader> = headers.collect();
    let max_at = at.field("max_interval");
    let max: Option<Duration> = value::duration(cx, &max_at, from.max_interval.as_ref());
    if headers.len() < from.reset_headers.len() {
        return None;
    }
    cx.ok(&at, RateLimitedBackoff::new(headers, max))
}
