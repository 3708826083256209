//! Make before break: when may what arrived be used?
//!
//! A cluster is of no use before its endpoints are there, a listener not before its routes, and a route
//! configuration should not send traffic to a cluster that is still empty. [`Warming`] holds the new
//! version of a resource back, beside the one in use, until everything that it needs is in use; and it
//! keeps what was removed for as long as something in use needs it. Both end at a deadline, and each
//! resource waits on its own: what is stuck holds up only what needs it.
//!
//! It knows nothing of what it holds: `T` is whatever the owner made of a resource.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::ResourceType;

/// A resource, by type and name.
pub type Key = (ResourceType, String);

/// Who needs whom: only what has a lower rank may be needed. This is not the order of a push, in which a
/// cluster is announced before its endpoints are asked for.
const fn rank(ty: ResourceType) -> u8 {
    match ty {
        ResourceType::Runtime | ResourceType::Secret => 0,
        ResourceType::Endpoints => 1,
        ResourceType::Cluster => 2,
        ResourceType::ExtensionConfig | ResourceType::VirtualHost => 3,
        ResourceType::RouteConfiguration => 4,
        ResourceType::ScopedRoute => 5,
        ResourceType::Listener => 6,
    }
}

/// What the owner must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// Use this version from now on, instead of the one before it.
    Activate {
        /// What it is.
        key: Key,
        /// The new version.
        value: T,
        /// What it needs and must do without, since its deadline has passed.
        without: Vec<Key>,
    },
    /// Nothing in use needs it any more.
    Retire {
        /// What it was.
        key: Key,
    },
}

/// Something that waits, for `/config/warming`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What waits.
    pub key: Key,
    /// What for.
    pub missing: Vec<Key>,
    /// Since when.
    pub since: Instant,
    /// Until when; then it is used without them.
    pub deadline: Option<Instant>,
    /// Whether an older version is in use meanwhile.
    pub has_active: bool,
}

#[derive(Debug)]
struct Candidate<T> {
    value: T,
    needs: BTreeSet<Key>,
    since: Instant,
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct Entry<T> {
    /// The needs of the version in use, if one is.
    active: Option<BTreeSet<Key>>,
    warming: Option<Candidate<T>>,
    /// It was removed, and goes at this time at the latest.
    retiring: Option<Option<Instant>>,
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self {
            active: None,
            warming: None,
            retiring: None,
        }
    }
}

/// The state machine. See the [module](self).
#[derive(Debug)]
pub struct Warming<T> {
    entries: BTreeMap<Key, Entry<T>>,
    /// What is known not to exist, or not to come in time: nothing waits for it.
    absent: BTreeSet<Key>,
}

impl<T> Default for Warming<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            absent: BTreeSet::new(),
        }
    }
}

impl<T> Warming<T> {
    /// Nothing there yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new version of `key` was accepted, which needs what is in `needs`. It replaces one that is still
    /// warming. What comes later in a push cannot be needed by what comes earlier, and is left out.
    pub fn update(
        &mut self,
        now: Instant,
        key: Key,
        value: T,
        needs: impl IntoIterator<Item = Key>,
        deadline: Option<Instant>,
    ) -> Vec<Step<T>> {
        let needs = needs
            .into_iter()
            .filter(|need| rank(need.0) < rank(key.0))
            .collect();
        self.absent.remove(&key);
        let entry = self.entries.entry(key).or_default();
        entry.retiring = None;
        let since = entry.warming.as_ref().map_or(now, |before| before.since);
        entry.warming = Some(Candidate {
            value,
            needs,
            since,
            deadline,
        });
        self.settle(now)
    }

    /// `key` was removed. It stays in use until nothing in use or warming needs it, or until `deadline`.
    pub fn remove(&mut self, now: Instant, key: &Key, deadline: Option<Instant>) -> Vec<Step<T>> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        entry.warming = None;
        if entry.active.is_none() {
            self.entries.remove(key);
            return Vec::new();
        }
        entry.retiring = Some(deadline);
        self.settle(now)
    }

    /// There is no `key`, or it does not come in time: whoever needs it goes on without it.
    pub fn on_absent(&mut self, now: Instant, key: Key) -> Vec<Step<T>> {
        // Only what is waited for is remembered, so that this cannot grow beyond the needs.
        let is_needed = self
            .entries
            .values()
            .filter_map(|entry| entry.warming.as_ref());
        if is_needed
            .clone()
            .any(|candidate| candidate.needs.contains(&key))
        {
            self.absent.insert(key);
        }
        self.settle(now)
    }

    /// When [`Warming::on_deadline`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let of = |entry: &Entry<T>| {
            let warming = entry
                .warming
                .as_ref()
                .and_then(|candidate| candidate.deadline);
            [warming, entry.retiring.flatten()]
                .into_iter()
                .flatten()
                .min()
        };
        self.entries.values().filter_map(of).min()
    }

    /// Ends what has waited long enough.
    pub fn on_deadline(&mut self, now: Instant) -> Vec<Step<T>> {
        self.settle(now)
    }

    /// Whether a version of `key` is in use.
    #[must_use]
    pub fn is_active(&self, key: &Key) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| entry.active.is_some())
    }

    /// Everything that waits, and what for.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let row = |(key, entry): (&Key, &Entry<T>)| {
            let candidate = entry.warming.as_ref()?;
            Some(Waiting {
                key: key.clone(),
                missing: self.missing(candidate),
                since: candidate.since,
                deadline: candidate.deadline,
                has_active: entry.active.is_some(),
            })
        };
        self.entries.iter().filter_map(row).collect()
    }

    fn missing(&self, candidate: &Candidate<T>) -> Vec<Key> {
        let lacks = |need: &&Key| !self.is_active(need) && !self.absent.contains(*need);
        candidate.needs.iter().filter(lacks).cloned().collect()
    }

    /// Does all that can be done. Needs point to lower ranks, so one pass upwards
    /// activates, and one pass downwards retires.
    fn settle(&mut self, now: Instant) -> Vec<Step<T>> {
        let mut steps = Vec::new();
        let warming = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.warming.is_some());
        let mut keys: Vec<Key> = warming.map(|(key, _)| key.clone()).collect();
        keys.sort_by_key(|key| rank(key.0));
        for key in keys {
            if let Some(step) = self.activate(now, key) {
                steps.push(step);
            }
        }
        let retiring = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.retiring.is_some());
        let mut keys: Vec<Key> = retiring.map(|(key, _)| key.clone()).collect();
        keys.sort_by_key(|key| rank(key.0));
        for key in keys.into_iter().rev() {
            let late = self.entries[&key]
                .retiring
                .flatten()
                .is_some_and(|at| at <= now);
            if late || !self.is_needed(&key) {
                self.entries.remove(&key);
                steps.push(Step::Retire { key });
            }
        }
        steps
    }

    fn activate(&mut self, now: Instant, key: Key) -> Option<Step<T>> {
        let candidate = self.entries.get(&key)?.warming.as_ref()?;
        let without = self.missing(candidate);
        let late = candidate.deadline.is_some_and(|at| at <= now);
        if !without.is_empty() && !late {
            return None;
        }
        let entry = self.entries.get_mut(&key)?;
        let Candidate { value, needs, .. } = entry.warming.take()?;
        entry.active = Some(needs);
        self.forget_absent();
        Some(Step::Activate {
            key,
            value,
            without,
        })
    }

    /// Drops from the absent what nothing waits for any more.
    fn forget_absent(&mut self) {
        if self.absent.is_empty() {
            return;
        }
        let warming = self
            .entries
            .values()
            .filter_map(|entry| entry.warming.as_ref());
        let needed: BTreeSet<&Key> = warming.flat_map(|candidate| &candidate.needs).collect();
        let stale: Vec<Key> = self
            .absent
            .iter()
            .filter(|key| !needed.contains(key))
            .cloned()
            .collect();
        for key in stale {
            self.absent.remove(&key);
        }
    }

    fn is_needed(&self, key: &Key) -> bool {
        self.entries.values().any(|entry| {
            let active = entry
                .active
                .as_ref()
                .is_some_and(|needs| needs.contains(key));
            let warming = entry.warming.as_ref();
            active || warming.is_some_and(|candidate| candidate.needs.contains(key))
        })
    }
}
