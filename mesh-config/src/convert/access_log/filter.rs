//! `AccessLogFilter`: which requests are logged.

use envoy_types::pb::envoy::config::{
    accesslog::v3::{
        self as pb, AccessLogFilter, ComparisonFilter, access_log_filter::FilterSpecifier,
        comparison_filter::Op,
    },
    route::v3::HeaderMatcher as HeaderMatcherMessage,
};
use mesh_core::{
    FractionalPercent, ResponseFlag, RuntimeFraction,
    format::{AccessLogType, RequestTest, RequestView},
};
use mesh_telemetry::{Comparison, ComparisonOp, Filter};

use crate::{
    convert::{context::Context, matcher, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.accesslog.v3.AccessLogFilter",
        fields: &[
            ("status_code_filter", Enforced),
            ("duration_filter", Enforced),
            ("not_health_check_filter", Enforced),
            ("runtime_filter", Enforced),
            ("and_filter", Enforced),
            ("or_filter", Enforced),
            ("header_filter", Enforced),
            ("response_flag_filter", Enforced),
            ("traceable_filter", Enforced),
            ("grpc_status_filter", Enforced),
            ("metadata_filter", Enforced),
            ("log_type_filter", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.StatusCodeFilter",
        fields: &[("comparison", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.DurationFilter",
        fields: &[("comparison", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.ComparisonFilter",
        fields: &[("op", Enforced), ("value", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.NotHealthCheckFilter",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.RuntimeFilter",
        fields: &[("runtime_key", Enforced), ("percent_sampled", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.AndFilter",
        fields: &[("filters", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.OrFilter",
        fields: &[("filters", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.HeaderFilter",
        fields: &[("header", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.TraceableFilter",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.GrpcStatusFilter",
        fields: &[("statuses", Enforced), ("exclude", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.MetadataFilter",
        // Nothing sets dynamic metadata, so that no key is ever found.
        fields: &[
            ("matcher", Meaningless),
            ("match_if_key_not_found", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.LogTypeFilter",
        fields: &[("types", Enforced), ("exclude", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.accesslog.v3.ResponseFlagFilter",
        fields: &[("flags", Enforced)],
    },
];

/// `None` for a filter that is not supported, as if there were none: rather too many lines than too few.
pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: &AccessLogFilter) -> Option<Filter> {
    match from.filter_specifier.as_ref()? {
        FilterSpecifier::StatusCodeFilter(from) => Some(Filter::StatusCode(comparison(
            cx,
            from.comparison.as_ref()?,
        ))),
        FilterSpecifier::DurationFilter(from) => {
            Some(Filter::Duration(comparison(cx, from.comparison.as_ref()?)))
        }
        FilterSpecifier::NotHealthCheckFilter(_) => Some(Filter::NotHealthCheck),
        FilterSpecifier::RuntimeFilter(from) => Some(Filter::Runtime(runtime(cx, from))),
        FilterSpecifier::AndFilter(from) => {
            let filters = all(cx, &at.field("and_filter"), &from.filters);
            Some(Filter::And(filters.into_iter().flatten().collect()))
        }
        FilterSpecifier::OrFilter(from) => {
            let filters = all(cx, &at.field("or_filter"), &from.filters);
            // One of them lets everything through.
            filters.into_iter().collect::<Option<_>>().map(Filter::Or)
        }
        FilterSpecifier::HeaderFilter(from) => {
            let at = at.field("header_filter");
            header(cx, &at.field("header"), from.header.as_ref()?)
        }
        FilterSpecifier::ResponseFlagFilter(from) => Some(Filter::ResponseFlag(flags(
            cx,
            &at.field("response_flag_filter"),
            from,
        )?)),
        FilterSpecifier::TraceableFilter(_) => Some(Filter::Request(RequestTest::new(is_traced))),
        FilterSpecifier::GrpcStatusFilter(from) => Some(Filter::GrpcStatus {
            statuses: from.statuses.iter().copied().map(i64::from).collect(),
            exclude: from.exclude,
        }),
        FilterSpecifier::MetadataFilter(from) => {
            let found = value::flag(from.match_if_key_not_found, true);
            Some(if found {
                Filter::And(Vec::new())
            } else {
                Filter::Or(Vec::new())
            })
        }
        FilterSpecifier::LogTypeFilter(from) => Some(Filter::LogType {
            types: log_types(from),
            exclude: from.exclude,
        }),
        FilterSpecifier::ExtensionFilter(_) => None,
    }
}

fn all(cx: &Context<'_>, at: &At<'_>, from: &[AccessLogFilter]) -> Vec<Option<Filter>> {
    let list = at.field("filters");
    let filters = from.iter().enumerate();
    filters
        .map(|(index, from)| convert(cx, &list.index(index), from))
        .collect()
}

fn comparison(cx: &Context<'_>, from: &ComparisonFilter) -> Comparison {
    let op = match from.op() {
        Op::Eq => ComparisonOp::Equal,
        Op::Ge => ComparisonOp::AtLeast,
        Op::Le => ComparisonOp::AtMost,
        Op::Ne => ComparisonOp::NotEqual,
    };
    let value = from.value.as_ref();
    Comparison {
        runtime_key: value.and_then(|value| cx.runtime_key(&value.runtime_key)),
        ..Comparison::new(op, value.map_or(0, |value| value.default_value))
    }
}

fn runtime(cx: &Context<'_>, from: &pb::RuntimeFilter) -> RuntimeFraction {
    RuntimeFraction {
        default: from
            .percent_sampled
            .as_ref()
            .map_or(FractionalPercent::ZERO, value::fractional_percent),
        runtime_key: cx.runtime_key(&from.runtime_key),
    }
}

/// Looks at request headers, as they are when the line is written.
fn header(cx: &Context<'_>, at: &At<'_>, from: &HeaderMatcherMessage) -> Option<Filter> {
    let matcher = matcher::header(cx, at, from)?;
    Some(Filter::Request(RequestTest::new(move |request| {
        matcher.matches_request(request)
    })))
}

/// Whether somebody decided to trace the request: the 15th character of `x-request-id` says so.
fn is_traced(request: &RequestView<'_>) -> bool {
    let id = request.headers.get("x-request-id");
    let mark = id.and_then(|id| id.as_bytes().get(14));
    // Sampled; forced by a service; forced by the client.
    matches!(mark, Some(b'9' | b'a' | b'b'))
}

/// Lines of the other types are never written.
fn log_types(from: &pb::LogTypeFilter) -> Vec<AccessLogType> {
    let types = from.types();
    let types = types.map(|wanted| {
        let mut known = AccessLogType::ALL.into_iter();
        known.find(|known| known.text() == wanted.as_str_name())
    });
    types.flatten().collect()
}

fn flags(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::ResponseFlagFilter,
) -> Option<Vec<ResponseFlag>> {
    let list = at.field("flags");
    let flags = from.flags.iter().enumerate().map(|(index, name)| {
        let known = ResponseFlag::ALL.iter().find(|flag| flag.short() == name);
        if known.is_none() {
            // Known to Envoy, or the protos' own rules would have refused it; never set here.
            let field = "envoy.config.accesslog.v3.ResponseFlagFilter.flags";
            cx.unsupported(&list.index(index), field, Some(name));
        }
        known.copied()
    });
    let flags: Vec<Option<ResponseFlag>> = flags.collect();
    let known: Vec<ResponseFlag> = flags.iter().copied().flatten().collect();
    // An empty list would stand for any flag.
    (known.is_empty() == flags.is_empty()).then_some(known)
}
