use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::ResourceType;

/// A type is saved once it has been quiet for so long …
const QUIET: Duration = Duration::from_millis(500);

/// … and after so long even if it has not.
const LATEST: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
struct Dirty {
    first: Instant,
    last: Instant,
}

impl Dirty {
    fn due(self) -> Instant {
        (self.last + QUIET).min(self.first + LATEST)
    }
}

/// Says when to save what: a storm of changes is written once.
#[derive(Debug, Default)]
pub struct SavePlan(BTreeMap<ResourceType, Dirty>);

impl SavePlan {
    /// Nothing to save.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something of this type was accepted or removed.
    pub fn on_change(&mut self, now: Instant, ty: ResourceType) {
        let first = Dirty {
            first: now,
            last: now,
        };
        self.0.entry(ty).or_insert(first).last = now;
    }

    /// The next type to be saved now, which then counts as saved.
    pub fn poll_save(&mut self, now: Instant) -> Option<ResourceType> {
        let (ty, _) = self.0.iter().find(|(_, dirty)| dirty.due() <= now)?;
        let ty = *ty;
        self.0.remove(&ty);
        Some(ty)
    }

    /// When [`SavePlan::poll_save`] has something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.values().map(|dirty| dirty.due()).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::SavePlan;
    use crate::ResourceType::{Cluster, Endpoints};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_storm_is_saved_once_and_not_for_ever_later() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut plan = SavePlan::new();
        plan.on_change(at(0), Cluster);
        plan.on_change(at(0), Endpoints);
        for ms in (100..=4900).step_by(100) {
            plan.on_change(at(ms), Endpoints);
        }
        assert_eq!(plan.poll_save(at(499)), None);
        assert_eq!(plan.poll_save(at(500)), Some(Cluster));
        assert_eq!(plan.poll_save(at(4999)), None);
        assert_eq!(plan.next_deadline(), Some(at(5000)));
        assert_eq!(plan.poll_save(at(5000)), Some(Endpoints));
        assert_eq!(
            (plan.poll_save(at(9000)), plan.next_deadline()),
            (None, None)
        );
    }
}
