//! Pings that tell whether the peer is alive, on either side.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use h2::{Ping, PingPong};
use mesh_core::Timer;

use super::config::KeepaliveConfig;

/// Pings a connection, and tells when no answer comes in time.
pub(crate) struct Keepalive {
    config: KeepaliveConfig,
    pings: PingPong,
    timer: Timer,
    awaiting: bool,
}

impl Keepalive {
    pub(crate) fn new(config: KeepaliveConfig, pings: PingPong, now: Instant) -> Self {
        let mut keepalive = Self {
            config,
            pings,
            timer: Timer::new(),
            awaiting: false,
        };
        keepalive.schedule(now);
        keepalive
    }

    fn schedule(&mut self, now: Instant) {
        let percent = u32::from(self.config.interval_jitter_percent);
        // Only to keep connections from pinging in step; nothing is decided by it.
        let draw = fastrand::u32(0..=percent);
        let next = self.config.interval.map(|interval| {
            let jitter = interval.checked_mul(draw).unwrap_or(Duration::MAX) / 100;
            now + interval.saturating_add(jitter)
        });
        self.timer.set(next);
    }

    /// Ready when the peer owes an answer for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        loop {
            if self.awaiting
                && let Poll::Ready(pong) = self.pings.poll_pong(cx)
            {
                if pong.is_err() {
                    // The connection is over, and says so itself.
                    return Poll::Pending;
                }
                self.awaiting = false;
                self.schedule(now);
            }
            if self.timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.awaiting {
                return Poll::Ready(());
            }
            if self.pings.send_ping(Ping::opaque()).is_ok() {
                self.awaiting = true;
                self.timer.arm(now + self.config.timeout);
            } else {
                self.schedule(now);
            }
        }
    }
}
