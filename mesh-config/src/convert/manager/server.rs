//! Timeouts and limits of the codec.

use envoy_types::pb::{
    envoy::{
        config::core::v3 as core,
        extensions::filters::network::http_connection_manager::v3::{
            self as pb, http_connection_manager::CodecType,
        },
    },
    google::protobuf::UInt32Value,
};
use mesh_http::{
    h1::HeadLimits,
    server::{self, ServerConfig},
};

use super::MESSAGE;
use crate::{
    convert::{context::Context, http2, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("codec_type", Enforced),
            ("common_http_protocol_options", Enforced),
            ("http_protocol_options", Enforced),
            ("http2_protocol_options", Enforced),
            ("max_request_headers_kb", Enforced),
            ("stream_idle_timeout", Enforced),
            ("request_timeout", Enforced),
            ("request_headers_timeout", Enforced),
            // Of connections that are too old; those of a config that goes have the process's own times.
            ("drain_timeout", Enforced),
            ("delayed_close_timeout", Enforced),
        ],
    },
    // Also of clusters; each side reports what it has no use for.
    MessageSupport {
        message: "envoy.config.core.v3.HttpProtocolOptions",
        fields: &[
            ("idle_timeout", Enforced),
            ("max_connection_duration", Enforced),
            ("max_stream_duration", Enforced),
            ("max_headers_count", Enforced),
            ("max_response_headers_kb", Enforced),
            ("headers_with_underscores_action", Enforced),
            ("max_requests_per_connection", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.Http1ProtocolOptions",
        fields: &[
            ("accept_http_10", Enforced),
            ("default_host_for_http_10", Enforced),
            ("enable_trailers", Enforced),
            ("allow_absolute_url", Enforced),
            ("use_balsa_parser", Meaningless),
        ],
    },
];

const COMMON: &str = "envoy.config.core.v3.HttpProtocolOptions";

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::HttpConnectionManager,
) -> ServerConfig {
    let default = ServerConfig::default();
    let codec = match from.codec_type() {
        CodecType::Auto => server::CodecType::Auto,
        CodecType::Http1 => server::CodecType::Http1,
        CodecType::Http2 => server::CodecType::Http2,
        CodecType::Http3 => {
            let reason = "HTTP3 is not supported: use AUTO, HTTP1 or HTTP2";
            cx.invalid(&at.field("codec_type"), reason);
            server::CodecType::Auto
        }
    };
    let http2 = from.http2_protocol_options.as_ref();
    let limits = HeadLimits {
        bytes: value::number(from.max_request_headers_kb)
            .map_or(default.limits.bytes, |kb| kb as usize * 1024),
        ..default.limits
    };
    let timeout = |field, from, default| value::timeout(cx, &at.field(field), from, default);
    let mut config = ServerConfig {
        codec,
        http2: http2::convert(cx, &at.field("http2_protocol_options"), http2),
        limits,
        stream_idle_timeout: timeout(
            "stream_idle_timeout",
            from.stream_idle_timeout.as_ref(),
            default.stream_idle_timeout,
        ),
        request_timeout: timeout("request_timeout", from.request_timeout.as_ref(), None),
        headers_timeout: timeout(
            "request_headers_timeout",
            from.request_headers_timeout.as_ref(),
            default.headers_timeout,
        ),
        delayed_close: timeout(
            "delayed_close_timeout",
            from.delayed_close_timeout.as_ref(),
            Some(default.delayed_close),
        )
        .unwrap_or_default(),
        ..default
    };
    if let Some(options) = &from.common_http_protocol_options {
        common(
            cx,
            &at.field("common_http_protocol_options"),
            options,
            &mut config,
        );
    }
    if let Some(options) = &from.http_protocol_options {
        let at = at.field("http_protocol_options");
        config.accept_http_10 = options.accept_http_10;
        config.trailers = options.enable_trailers;
        let host = value::nonempty(&options.default_host_for_http_10);
        let host_at = at.field("default_host_for_http_10");
        config.default_host_for_http_10 =
            host.and_then(|host| value::header_value(cx, &host_at, host));
        if !value::flag(options.allow_absolute_url, true) {
            cx.unsupported(
                &at.field("allow_absolute_url"),
                "envoy.config.core.v3.Http1ProtocolOptions.allow_absolute_url",
                Some("false"),
            );
        }
    }
    config
}

fn common(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &core::HttpProtocolOptions,
    config: &mut ServerConfig,
) {
    config.idle_timeout = value::timeout(
        cx,
        &at.field("idle_timeout"),
        from.idle_timeout.as_ref(),
        config.idle_timeout,
    );
    let limit = count_limit(cx, &at.field("max_headers_count"), from.max_headers_count);
    config.limits.count = limit.unwrap_or(config.limits.count);
    config.max_requests = nonzero(from.max_requests_per_connection);
    if from.max_response_headers_kb.is_some() {
        let field = "max_response_headers_kb";
        cx.unsupported(&at.field(field), &format!("{COMMON}.{field}"), None);
    }
}

/// A number of headers, of which the codec keeps at most [`HeadLimits::COUNT_MAX`].
pub(in crate::convert) fn count_limit(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<UInt32Value>,
) -> Option<usize> {
    let count = value::number(from)? as usize;
    if count > HeadLimits::COUNT_MAX {
        let value = format!("{count}, of which {} are enforced", HeadLimits::COUNT_MAX);
        cx.unsupported(at, &format!("{COMMON}.max_headers_count"), Some(&value));
    }
    Some(count.min(HeadLimits::COUNT_MAX))
}

/// A bound that 0 turns off.
pub(in crate::convert) fn nonzero(from: Option<UInt32Value>) -> Option<u64> {
    value::number(from).filter(|n| *n > 0).map(u64::from)
}
