use std::time::Duration;

/// How HTTP/2 connections behave, on either side. Envoy: `Http2ProtocolOptions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Config {
    /// Streams at once on one connection. Downstream, more are refused; upstream, more open another
    /// connection, as they do beyond what the peer allows. 1 to 2^31-1. Envoy: `max_concurrent_streams`,
    /// 1024.
    pub max_concurrent_streams: u32,
    /// Bytes of one stream that may be on their way to us or wait here unread; 65,535 to 2^31-1. Envoy:
    /// `initial_stream_window_size`, 16 MiB there. 1 MiB here: what nobody reads stays in memory.
    pub initial_stream_window_size: u32,
    /// The same for all streams of a connection together. Envoy: `initial_connection_window_size`, 24 MiB
    /// there. 16 MiB here, so that it takes sixteen unread streams to hold up the rest.
    pub initial_connection_window_size: u32,
    /// Bytes of header compression state that the peer may make us keep. Envoy: `hpack_table_size`, 4096.
    pub hpack_table_size: u32,
    /// Bytes that wait to be sent on one stream before its body is asked for more; part of what Envoy bounds
    /// with `per_connection_buffer_limit_bytes`. 64 KiB.
    pub max_send_buffer_size: usize,
    /// Pings that tell whether the peer is alive. Envoy: `connection_keepalive`, off.
    pub keepalive: Option<KeepaliveConfig>,
    /// Whether tunnels (extended CONNECT) may be asked for. Envoy: `allow_connect`, off.
    pub allow_connect: bool,
    /// What ends a connection that keeps us busy for nothing.
    pub flood: FloodLimits,
}

impl Default for Http2Config {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window_size: 1024 * 1024,
            initial_connection_window_size: 16 * 1024 * 1024,
            hpack_table_size: 4096,
            max_send_buffer_size: 64 * 1024,
            keepalive: None,
            allow_connect: false,
            flood: FloodLimits::default(),
        }
    }
}

/// Pings on HTTP/2 connections. Envoy: `KeepaliveSettings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// From one ping to the next; `None` pings only before an idle connection is used again. At least 1 ms.
    /// Envoy: `interval`.
    pub interval: Option<Duration>,
    /// How long an answer may take before the connection is given up. At least 1 ms. Envoy: `timeout`.
    pub timeout: Duration,
    /// How much later than `interval` a ping may be, at random; 0 to 100. Envoy: `interval_jitter`, 15.
    pub interval_jitter_percent: u8,
}

/// How much of what costs the peer little and us much a connection may send. Each has Envoy's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloodLimits {
    /// DATA, HEADERS and CONTINUATION frames in a row that are empty and do not end their stream. Envoy:
    /// `max_consecutive_inbound_frames_with_empty_payload`, 1.
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// PRIORITY frames, for each stream that was opened and once more. Envoy:
    /// `max_inbound_priority_frames_per_stream`, 100.
    pub max_inbound_priority_frames_per_stream: u32,
    /// WINDOW_UPDATE frames: 5, and 2 for each stream, and twice this for each DATA frame that was sent. Envoy:
    /// `max_inbound_window_update_frames_per_data_frame_sent`, 10.
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// PING, SETTINGS and unknown frames, and resets of streams that do not run, beyond ten in a second. Envoy
    /// bounds their answers: `max_outbound_control_frames`, 1000.
    pub max_inbound_control_frames: u32,
    /// From so many streams on, a connection ends whose client reset most of them before they were
    /// answered. Envoy: `overload.premature_reset_total_stream_count`, 500.
    pub premature_reset_total_stream_count: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            max_inbound_control_frames: 1000,
            premature_reset_total_stream_count: 500,
        }
    }
}
