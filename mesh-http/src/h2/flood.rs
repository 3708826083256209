//! Recognises connections that keep us busy for nothing, by the heads of their frames alone.
//!
//! What h2 does not bound by itself is bounded here: it answers pings and settings for as long as they come.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::config::FloodLimits;

/// One control frame more may come in each such span beyond the limit.
const CONTROL_REFILL: Duration = Duration::from_millis(100);

/// What a connection does too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Flood {
    /// Empty frames that end nothing. CVE-2019-9518.
    EmptyFrames = 1,
    /// PRIORITY frames. CVE-2019-9513.
    Priority,
    /// WINDOW_UPDATE frames. CVE-2019-9517 and its kin.
    WindowUpdates,
    /// Pings, settings, unknown frames, resets of nothing. CVE-2019-9512, CVE-2019-9515.
    Control,
    /// Streams that are reset before they are answered. CVE-2023-44487, rapid reset.
    PrematureResets,
}

impl Flood {
    const ALL: [Self; 5] = [
        Self::EmptyFrames,
        Self::Priority,
        Self::WindowUpdates,
        Self::Control,
        Self::PrematureResets,
    ];

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|flood| *flood as u8 == code)
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyFrames => "too many empty frames in a row",
            Self::Priority => "too many PRIORITY frames",
            Self::WindowUpdates => "too many WINDOW_UPDATE frames",
            Self::Control => "too many control frames",
            Self::PrematureResets => "too many streams reset before their answer",
        })
    }
}

impl std::error::Error for Flood {}

/// The head of a frame. RFC 9113, section 4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
}

impl FrameHead {
    pub(crate) const fn is_settings_ack(self) -> bool {
        self.kind == SETTINGS && self.flags & FLAG_ACK != 0
    }
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const FLAG_END_STREAM: u8 = 1;
const FLAG_ACK: u8 = 1;

/// Finds the heads of frames in a stream of bytes, however it is cut into pieces.
#[derive(Debug)]
pub(crate) struct FrameScan {
    head: [u8; 9],
    have: usize,
    skip: usize,
}

impl FrameScan {
    /// `preface` bytes come before the first frame.
    pub(crate) const fn new(preface: usize) -> Self {
        Self {
            head: [0; 9],
            have: 0,
            skip: preface,
        }
    }

    /// Calls `on` with each head that is complete now.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.head.len() - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.head.len() {
                let [a, b, c, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.have = 0;
                self.skip = length as usize;
                on(FrameHead {
                    length,
                    kind,
                    flags,
                });
            }
        }
    }
}

/// Counts what a peer sends against what it may.
#[derive(Debug)]
pub(crate) struct FloodGuard {
    limits: FloodLimits,
    streams: u64,
    data_sent: u64,
    resets: u64,
    empty: u32,
    priority: u64,
    window_updates: u64,
    control: u32,
    refilled: Option<Instant>,
}

impl FloodGuard {
    pub(crate) const fn new(limits: FloodLimits) -> Self {
        Self {
            limits,
            streams: 0,
            data_sent: 0,
            resets: 0,
            empty: 0,
            priority: 0,
            window_updates: 0,
            control: 0,
            refilled: None,
        }
    }

    /// This side sent `frame`: what the peer says about it is no flood.
    pub(crate) fn on_sent(&mut self, frame: FrameHead) {
        match frame.kind {
            DATA => self.data_sent += 1,
            HEADERS => self.streams += 1,
            _ => {}
        }
    }

    /// The peer sent `frame`. `now` is asked for only where it counts.
    pub(crate) fn on_received(
        &mut self,
        frame: FrameHead,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Flood> {
        match frame.kind {
            DATA | HEADERS | CONTINUATION => {
                // Envoy counts a stream once per HEADERS; trailers make the bound no tighter.
                self.streams += u64::from(frame.kind == HEADERS);
                self.on_payload(frame)
            }
            PRIORITY => {
                self.priority += 1;
                let each = u64::from(self.limits.max_inbound_priority_frames_per_stream);
                within(self.priority, each * (1 + self.streams), Flood::Priority)
            }
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let each = u64::from(
                    self.limits
                        .max_inbound_window_update_frames_per_data_frame_sent,
                );
                let most = 5 + 2 * (self.streams + each * self.data_sent);
                within(self.window_updates, most, Flood::WindowUpdates)
            }
            RST_STREAM => {
                self.resets += 1;
                if self.resets > self.streams {
                    return self.on_control(now());
                }
                Ok(())
            }
            SETTINGS | PING if frame.flags & FLAG_ACK != 0 => Ok(()),
            GOAWAY => Ok(()),
            _ => self.on_control(now()),
        }
    }

    fn on_payload(&mut self, frame: FrameHead) -> Result<(), Flood> {
        if frame.length > 0 || frame.flags & FLAG_END_STREAM != 0 {
            self.empty = 0;
            return Ok(());
        }
        self.empty += 1;
        let most = self
            .limits
            .max_consecutive_inbound_frames_with_empty_payload;
        within(self.empty.into(), most.into(), Flood::EmptyFrames)
    }

    fn on_control(&mut self, now: Instant) -> Result<(), Flood> {
        let last = *self.refilled.get_or_insert(now);
        let refills = now.saturating_duration_since(last).as_millis() / CONTROL_REFILL.as_millis();
        if refills > 0 {
            let refills = u32::try_from(refills).unwrap_or(u32::MAX);
            self.control = self.control.saturating_sub(refills);
            self.refilled = Some(now);
        }
        self.control += 1;
        let most = self.limits.max_inbound_control_frames;
        within(self.control.into(), most.into(), Flood::Control)
    }
}

fn within(count: u64, most: u64, flood: Flood) -> Result<(), Flood> {
    if count > most { Err(flood) } else { Ok(()) }
}

/// Counts streams that a client resets before they are answered, over a connection's life.
#[derive(Debug, Default)]
pub(crate) struct ResetGuard {
    closed: u32,
    premature: u32,
}

impl ResetGuard {
    /// A stream has ended. A few early resets are usual; what ends the connection is that they are most
    /// of its streams.
    pub(crate) fn on_closed(&mut self, premature: bool, limits: &FloodLimits) -> Result<(), Flood> {
        self.closed = self.closed.saturating_add(1);
        self.premature = self.premature.saturating_add(premature.into());
        let few = limits.premature_reset_total_stream_count;
        let most = self.closed.max(few) / 2;
        within(self.premature.into(), most.into(), Flood::PrematureResets)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mesh_core::clock;
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u32) -> FrameHead {
        FrameHead {
            length,
            kind,
            flags,
        }
    }

    /// How many of these are let through, one every `gap`.
    fn allowed(frames: impl IntoIterator<Item = FrameHead>, gap: Duration) -> usize {
        let mut guard = FloodGuard::new(FloodLimits::default());
        let mut now: Instant = clock::now();
        frames
            .into_iter()
            .take_while(|frame| {
                now += gap;
                guard.on_received(*frame, || now).is_ok()
            })
            .count()
    }

    #[test]
    fn a_second_empty_frame_in_a_row_is_a_flood_and_one_that_ends_its_stream_is_not() {
        let empty = frame(DATA, 0, 0);
        assert_eq!(allowed([empty; 9], Duration::ZERO), 1);
        let last = frame(DATA, FLAG_END_STREAM, 0);
        assert_eq!(allowed([last; 9], Duration::ZERO), 9);
        let mixed = [empty, frame(DATA, 0, 1)].into_iter().cycle().take(100);
        assert_eq!(allowed(mixed, Duration::ZERO), 100);
    }

    #[test]
    fn pings_at_a_human_pace_go_on_for_ever_and_a_burst_does_not() {
        let pings = || std::iter::repeat_n(frame(PING, 0, 8), 5000);
        assert_eq!(allowed(pings(), Duration::ZERO), 1000);
        assert_eq!(allowed(pings(), Duration::from_millis(100)), 5000);
        let answers = std::iter::repeat_n(frame(PING, FLAG_ACK, 8), 5000);
        assert_eq!(allowed(answers, Duration::ZERO), 5000);
    }

    #[test]
    fn resets_count_only_beyond_the_streams() {
        let pairs = [frame(HEADERS, 4, 10), frame(RST_STREAM, 0, 4)];
        let pairs = pairs.into_iter().cycle().take(10_000);
        assert_eq!(allowed(pairs, Duration::ZERO), 10_000);
        let resets = std::iter::repeat_n(frame(RST_STREAM, 0, 4), 5000);
        assert_eq!(allowed(resets, Duration::ZERO), 1000);
    }

    #[test]
    fn window_updates_follow_what_was_sent() {
        let updates = std::iter::repeat_n(frame(WINDOW_UPDATE, 0, 4), 500);
        assert_eq!(allowed(updates.clone(), Duration::ZERO), 5);
        let mut guard = FloodGuard::new(FloodLimits::default());
        for _ in 0..5 {
            guard.on_sent(frame(DATA, 0, 100));
        }
        let count = updates
            .take_while(|frame| guard.on_received(*frame, clock::now).is_ok())
            .count();
        assert_eq!(count, 5 + 2 * 10 * 5);
    }

    #[test]
    fn priorities_follow_the_streams() {
        let frames = std::iter::repeat_n(frame(PRIORITY, 0, 5), 500);
        let opened = [frame(HEADERS, 4, 10); 2].into_iter().chain(frames);
        assert_eq!(allowed(opened, Duration::ZERO), 302);
    }

    #[test]
    fn resets_are_premature_when_they_are_most() {
        let limits = FloodLimits::default();
        let mut guard = ResetGuard::default();
        let resets = (0..1000).take_while(|_| guard.on_closed(true, &limits).is_ok());
        assert_eq!(resets.count(), 250);
        let mut guard = ResetGuard::default();
        let half = (0..10_000).take_while(|n| guard.on_closed(n % 2 == 1, &limits).is_ok());
        assert_eq!(half.count(), 10_000);
    }

    proptest! {
        /// However the bytes are cut, the same heads come out.
        #[test]
        fn model_frames_are_found_however_bytes_are_cut(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..20),
            preface in 0usize..30,
            cuts in prop::collection::vec(1usize..50, 1..10),
        ) {
            let mut bytes = vec![7u8; preface];
            let mut expected = Vec::new();
            for (kind, flags, length) in frames {
                expected.push(frame(kind, flags, length as u32));
                bytes.extend([0, 0, length as u8, kind, flags, 0, 0, 0, 1]);
                bytes.extend(std::iter::repeat_n(0xff, length));
            }
            let mut scan = FrameScan::new(preface);
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                scan.feed(piece, |head| found.push(head));
                rest = after;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
