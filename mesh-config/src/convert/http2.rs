//! `Http2ProtocolOptions`, of listeners and of clusters.

use envoy_types::pb::{
    envoy::config::core::v3::{self as pb, KeepaliveSettings},
    google::protobuf::UInt32Value,
};
use mesh_http::h2::{FloodLimits, Http2Config, KeepaliveConfig};

use super::{context::Context, value};
use crate::language::{
    At, MessageSupport,
    Support::{Enforced, Meaningless},
};

const MESSAGE: &str = "envoy.config.core.v3.Http2ProtocolOptions";

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("hpack_table_size", Enforced),
            ("max_concurrent_streams", Enforced),
            ("initial_stream_window_size", Enforced),
            ("initial_connection_window_size", Enforced),
            ("allow_connect", Enforced),
            // Pings and settings wait for their answers to be sent, so that nothing piles up.
            ("max_outbound_frames", Meaningless),
            ("max_outbound_control_frames", Enforced),
            (
                "max_consecutive_inbound_frames_with_empty_payload",
                Enforced,
            ),
            ("max_inbound_priority_frames_per_stream", Enforced),
            (
                "max_inbound_window_update_frames_per_data_frame_sent",
                Enforced,
            ),
            // A bad stream costs only itself, whatever these say; see the conversion.
            ("stream_error_on_invalid_http_messaging", Enforced),
            ("override_stream_error_on_invalid_http_message", Enforced),
            ("connection_keepalive", Enforced),
            ("use_oghttp2_codec", Meaningless),
            ("enable_huffman_encoding", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.KeepaliveSettings",
        fields: &[
            ("interval", Enforced),
            ("timeout", Enforced),
            ("interval_jitter", Enforced),
        ],
    },
];

/// The options at `at`, or their defaults.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&pb::Http2ProtocolOptions>,
) -> Http2Config {
    let default = Http2Config::default();
    let Some(from) = from else {
        return default;
    };
    if from
        .override_stream_error_on_invalid_http_message
        .map(|flag| flag.value)
        == Some(false)
    {
        let field = "override_stream_error_on_invalid_http_message";
        cx.unsupported(
            &at.field(field),
            &format!("{MESSAGE}.{field}"),
            Some("false"),
        );
    }
    let number = |from: &Option<UInt32Value>, default: u32| value::number(*from).unwrap_or(default);
    let flood = FloodLimits::default();
    Http2Config {
        max_concurrent_streams: number(
            &from.max_concurrent_streams,
            default.max_concurrent_streams,
        ),
        initial_stream_window_size: number(
            &from.initial_stream_window_size,
            default.initial_stream_window_size,
        ),
        initial_connection_window_size: number(
            &from.initial_connection_window_size,
            default.initial_connection_window_size,
        ),
        hpack_table_size: number(&from.hpack_table_size, default.hpack_table_size),
        keepalive: from
            .connection_keepalive
            .as_ref()
            .and_then(|from| keepalive(cx, &at.field("connection_keepalive"), from)),
        allow_connect: from.allow_connect,
        flood: FloodLimits {
            max_consecutive_inbound_frames_with_empty_payload: number(
                &from.max_consecutive_inbound_frames_with_empty_payload,
                flood.max_consecutive_inbound_frames_with_empty_payload,
            ),
            max_inbound_priority_frames_per_stream: number(
                &from.max_inbound_priority_frames_per_stream,
                flood.max_inbound_priority_frames_per_stream,
            ),
            max_inbound_window_update_frames_per_data_frame_sent: number(
                &from.max_inbound_window_update_frames_per_data_frame_sent,
                flood.max_inbound_window_update_frames_per_data_frame_sent,
            ),
            max_inbound_control_frames: number(
                &from.max_outbound_control_frames,
                flood.max_inbound_control_frames,
            ),
            ..flood
        },
        ..default
    }
}

fn keepalive(cx: &Context<'_>, at: &At<'_>, from: &KeepaliveSettings) -> Option<KeepaliveConfig> {
    let timeout = value::duration(cx, &at.field("timeout"), from.timeout.as_ref())?;
    let jitter_at = at.field("interval_jitter");
    let jitter = value::percent(cx, &jitter_at, from.interval_jitter.as_ref());
    Some(KeepaliveConfig {
        interval: value::duration(cx, &at.field("interval"), from.interval.as_ref()),
        timeout,
        interval_jitter_percent: jitter.map_or(15, |percent| percent.get().round() as u8),
    })
}
