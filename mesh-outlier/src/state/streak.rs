use mesh_core::sync::{AtomicBool, AtomicU32, Ordering};

use crate::OutlierConfig;

/// How many failures in a row fire; shared by the monitors of one detector, changed by a config push.
///
/// Relaxed throughout: each number stands for itself, and a monitor that reads an old one for a moment is
/// as good as one that came a moment earlier.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    five_xx: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    split: AtomicBool,
}

impl Limits {
    pub(crate) fn update(&self, config: &OutlierConfig) {
        self.five_xx
            .store(config.consecutive_5xx(), Ordering::Relaxed);
        self.gateway
            .store(config.consecutive_gateway_failure(), Ordering::Relaxed);
        self.local
            .store(config.consecutive_local_origin_failure(), Ordering::Relaxed);
        self.split.store(
            config.split_external_local_origin_errors(),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn split(&self) -> bool {
        self.split.load(Ordering::Relaxed)
    }
}

/// Failures in a row, of one endpoint and one kind, counted by all workers.
///
/// A row fires when it *equals* its limit, so that exactly one of the callers that count it up sees that;
/// whoever handles the detection starts the row over. A limit of 0 never fires.
#[derive(Debug, Default)]
struct Streak(AtomicU32);

impl Streak {
    /// Counts one and returns whether it is the one that fires. Relaxed: additions to one atomic have one
    /// order, and nothing else is published with them.
    fn count(&self, limit: &AtomicU32) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1) == limit.load(Ordering::Relaxed)
    }

    /// Writes only when there is something to clear, so that good answers do not fight over the line.
    fn clear(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// A row that is beyond a limit which was just lowered could never equal it: it starts over.
    fn fit(&self, limit: &AtomicU32) {
        if self.0.load(Ordering::Relaxed) >= limit.load(Ordering::Relaxed) {
            self.clear();
        }
    }
}

/// The rows of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Streaks {
    five_xx: Streak,
    gateway: Streak,
    local: Streak,
}

/// Which rows one status completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fired {
    pub(crate) gateway: bool,
    pub(crate) five_xx: bool,
}

impl Streaks {
    pub(crate) fn on_status(&self, status: u16, limits: &Limits) -> Fired {
        if !(500..600).contains(&status) {
            self.five_xx.clear();
            self.gateway.clear();
            return Fired::default();
        }
        let gateway = if matches!(status, 502..=504) {
            self.gateway.count(&limits.gateway)
        } else {
            self.gateway.clear();
            false
        };
        Fired {
            gateway,
            five_xx: self.five_xx.count(&limits.five_xx),
        }
    }

    /// Returns whether the row is complete.
    pub(crate) fn on_local_failure(&self, limits: &Limits) -> bool {
        self.local.count(&limits.local)
    }

    pub(crate) fn clear_local(&self) {
        self.local.clear();
    }

    pub(crate) fn clear_five_xx(&self) {
        self.five_xx.clear();
    }

    pub(crate) fn clear_gateway(&self) {
        self.gateway.clear();
    }

    /// The limits changed.
    pub(crate) fn fit(&self, limits: &Limits) {
        self.five_xx.fit(&limits.five_xx);
        self.gateway.fit(&limits.gateway);
        self.local.fit(&limits.local);
    }

    pub(crate) fn clear_all(&self) {
        self.clear_five_xx();
        self.clear_gateway();
        self.clear_local();
    }
}
