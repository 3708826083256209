//! `envoy.filters.http.buffer`.

use std::num::NonZeroU32;

use envoy_types::pb::envoy::extensions::filters::http::buffer::v3::{
    Buffer, BufferPerRoute, buffer_per_route::Override,
};

use super::registry::{Filter, RouteSays};
use crate::{
    convert::{context::Context, listener::Surroundings, value},
    language::{At, MessageSupport, Support::Enforced},
    model::{BufferConfig, HttpFilterKind, RouteFilterKind},
};

pub(super) struct BufferFilter;

impl Filter for BufferFilter {
    type Config = Buffer;
    type Route = BufferPerRoute;

    const SUPPORT: &'static [MessageSupport] = &[
        MessageSupport {
            message: "envoy.extensions.filters.http.buffer.v3.Buffer",
            fields: &[("max_request_bytes", Enforced)],
        },
        MessageSupport {
            message: "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
            fields: &[("disabled", Enforced), ("buffer", Enforced)],
        },
    ];

    fn convert(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &Buffer,
        _: &Surroundings<'_>,
    ) -> Option<HttpFilterKind> {
        Some(HttpFilterKind::Buffer(buffer(cx, at, from)?))
    }

    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &BufferPerRoute,
        _: &Surroundings<'_>,
        _: Option<&RouteFilterKind>,
    ) -> Option<RouteSays> {
        Some(match from.r#override.as_ref()? {
            Override::Disabled(_) => RouteSays::Disabled,
            Override::Buffer(from) => {
                let buffer = buffer(cx, &at.field("buffer"), from)?;
                RouteSays::Config(RouteFilterKind::Buffer(buffer))
            }
        })
    }
}

fn buffer(cx: &Context<'_>, at: &At<'_>, from: &Buffer) -> Option<BufferConfig> {
    let max_request_bytes = value::number(from.max_request_bytes).and_then(NonZeroU32::new);
    if max_request_bytes.is_none() {
        cx.invalid(&at.field("max_request_bytes"), "must be greater than 0");
    }
    Some(BufferConfig {
        max_request_bytes: max_request_bytes?,
    })
}
