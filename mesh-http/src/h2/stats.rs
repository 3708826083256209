use super::flood::Flood;

mesh_core::stats! {
    /// What is counted about HTTP/2; Envoy's names, under `http2.` for clients and `cluster.<name>.http2.`
    /// for upstreams.
    pub struct Http2Stats {
        /// Streams that run.
        gauge streams_active,
        /// Streams that the peer reset.
        counter rx_reset,
        /// Streams that were reset from here.
        counter tx_reset,
        /// Connections cut off for empty frames.
        counter inbound_empty_frames_flood,
        /// Connections cut off for PRIORITY frames.
        counter inbound_priority_frames_flood,
        /// Connections cut off for WINDOW_UPDATE frames.
        counter inbound_window_update_frames_flood,
        /// Connections cut off for pings and settings, which Envoy notices by their answers.
        counter outbound_control_flood,
        /// Connections whose peer answered no pings.
        counter keepalive_timeout,
    }
}

impl Http2Stats {
    /// Counts a connection that is cut off. Premature resets are counted where Envoy does, with the
    /// connection manager.
    pub fn count_flood(&self, flood: Flood) {
        match flood {
            Flood::EmptyFrames => self.inbound_empty_frames_flood().inc(),
            Flood::Priority => self.inbound_priority_frames_flood().inc(),
            Flood::WindowUpdates => self.inbound_window_update_frames_flood().inc(),
            Flood::Control => self.outbound_control_flood().inc(),
            Flood::PrematureResets => {}
        }
    }
}
