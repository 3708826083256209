//! The one list of HTTP filters: a file each, and a row here.

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use super::{
    buffer::BufferFilter, compressor::CompressorRow, cors::CorsFilter,
    decompressor::DecompressorRow, fault::FaultFilter, header_mutation::HeaderMutationFilter,
    health_check::HealthCheckFilter, local_ratelimit::LocalRateLimitFilter,
};
use crate::{
    convert::{
        context::{Context, type_name},
        listener::Surroundings,
    },
    language::{At, MessageSupport},
    model::{HttpFilterKind, RouteFilterKind},
};

/// How the configs of one kind of filter are read.
pub(super) trait Filter {
    /// Its `typed_config`.
    type Config: Message + Name + Default;
    /// What a route may say to it, in `typed_per_filter_config`.
    type Route: Message + Name + Default;

    /// Which fields of its messages are enforced.
    const SUPPORT: &'static [MessageSupport];

    fn convert(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &Self::Config,
        around: &Surroundings<'_>,
    ) -> Option<HttpFilterKind>;

    /// `above` is what the levels above have said, for filters that listen to all of them.
    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &Self::Route,
        around: &Surroundings<'_>,
        above: Option<&RouteFilterKind>,
    ) -> Option<RouteSays>;
}

/// What one level says to a filter.
pub(in crate::convert) enum RouteSays {
    /// To let requests pass by: some filters have a field for that.
    Disabled,
    Config(RouteFilterKind),
}

type Convert = fn(&Context<'_>, &At<'_>, &Any, &Surroundings<'_>) -> Option<Option<HttpFilterKind>>;
type ConvertRoute = fn(
    &Context<'_>,
    &At<'_>,
    &Any,
    &Surroundings<'_>,
    Option<&RouteFilterKind>,
) -> Option<Option<RouteSays>>;

/// A kind of filter.
pub(in crate::convert) struct Row {
    pub(in crate::convert) support: &'static [MessageSupport],
    config_name: fn() -> String,
    convert: Convert,
    route: ConvertRoute,
}

impl Row {
    const fn of<F: Filter>() -> Self {
        Self {
            support: F::SUPPORT,
            config_name: F::Config::full_name,
            convert: |cx, at, any, around| {
                let from = cx.unpack::<F::Config>(any)?;
                Some(F::convert(cx, at, &from, around))
            },
            route: |cx, at, any, around, above| {
                let from = cx.unpack::<F::Route>(any)?;
                Some(F::route(cx, at, &from, around, above))
            },
        }
    }
}

pub(in crate::convert) static ROWS: &[Row] = &[
    Row::of::<BufferFilter>(),
    Row::of::<CompressorRow>(),
    Row::of::<CorsFilter>(),
    Row::of::<DecompressorRow>(),
    Row::of::<FaultFilter>(),
    Row::of::<HeaderMutationFilter>(),
    Row::of::<HealthCheckFilter>(),
    Row::of::<LocalRateLimitFilter>(),
];

/// The filter that `any` configures; `None` if it is that of no filter which is known, `Some(None)` if
/// something is wrong with it.
pub(super) fn filter(
    cx: &Context<'_>,
    at: &At<'_>,
    any: &Any,
    around: &Surroundings<'_>,
) -> Option<Option<HttpFilterKind>> {
    ROWS.iter()
        .find_map(|row| (row.convert)(cx, at, any, around))
}

/// What `any` says to a filter; `None` as for [`filter`].
pub(in crate::convert) fn route(
    cx: &Context<'_>,
    at: &At<'_>,
    any: &Any,
    around: &Surroundings<'_>,
    above: Option<&RouteFilterKind>,
) -> Option<Option<RouteSays>> {
    ROWS.iter()
        .find_map(|row| (row.route)(cx, at, any, around, above))
}

/// Whether `any` configures a filter of the chain that is known.
pub(in crate::convert) fn is_filter(any: &Any) -> bool {
    ROWS.iter().any(|row| (row.config_name)() == type_name(any))
}
