//! The end of a process or of a filter chain, in two steps.

use tokio::sync::watch;

/// How far something is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It serves.
    Running,
    /// It still accepts, and tells everybody to go elsewhere.
    Announcing,
    /// It accepts no more; what runs may finish.
    Finishing,
    /// What still runs is ended.
    Over,
}

/// Tells everybody about the [`Phase`].
#[derive(Debug, Clone)]
pub(crate) struct Drain(watch::Sender<Phase>);

impl Drain {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }

    /// Goes on to `phase`, never back.
    pub(crate) fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let later = phase > *current;
            *current = (*current).max(phase);
            later
        });
    }

    /// Whether both are one and the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}
