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
    /// Those of them that are neither in use nor known to be absent.
    missing: BTreeSet<Key>,
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

impl<T> Entry<T> {
    /// What it needs, in use or warming.
    fn needs(&self) -> impl Iterator<Item = &Key> {
        let warming = self.warming.iter().flat_map(|candidate| &candidate.needs);
        self.active.iter().flatten().chain(warming)
    }

    fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let warming = self.warming.as_ref().and_then(|c| c.deadline);
        [warming, self.retiring.flatten()].into_iter().flatten()
    }
}

/// The state machine. See the [module](self).
///
/// What an event costs depends on how much waits for what it brings, not on how much there is.
#[derive(Debug)]
pub struct Warming<T> {
    entries: BTreeMap<Key, Entry<T>>,
    /// For each key, who needs it, in use or warming.
    dependents: BTreeMap<Key, BTreeSet<Key>>,
    /// What was removed and is still in use.
    retiring: BTreeSet<Key>,
    deadlines: BTreeSet<(Instant, Key)>,
    /// How many resources of each type have never been in use, and warm.
    starting: BTreeMap<ResourceType, usize>,
    /// What is known not to exist, or not to come in time: nothing waits for it.
    absent: BTreeSet<Key>,
}

impl<T> Default for Warming<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            dependents: BTreeMap::new(),
            retiring: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            starting: BTreeMap::new(),
            absent: BTreeSet::new(),
        }
    }
}

/// What to look at, lowest rank first.
type Work = BTreeSet<(u8, Key)>;

impl<T> Warming<T> {
    /// Nothing there yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `key` is in use, for ever, whatever comes: it was there before.
    pub fn hold(&mut self, key: Key) {
        self.change(key, |entry| entry.active = Some(BTreeSet::new()));
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
        let needs: BTreeSet<Key> = needs
            .into_iter()
            .filter(|need| rank(need.0) < rank(key.0))
            .collect();
        if self.absent.remove(&key) {
            self.misses(&key);
        }
        let lacks = |need: &&Key| !self.is_active(need) && !self.absent.contains(*need);
        let missing = needs.iter().filter(lacks).cloned().collect();
        self.retiring.remove(&key);
        self.change(key.clone(), |entry| {
            entry.retiring = None;
            let since = entry.warming.as_ref().map_or(now, |before| before.since);
            entry.warming = Some(Candidate {
                value,
                needs,
                missing,
                since,
                deadline,
            });
        });
        self.settle(now, Work::from([(rank(key.0), key)]))
    }

    /// `key` was removed. It stays in use until nothing in use or warming needs it, or until `deadline`.
    pub fn remove(&mut self, now: Instant, key: &Key, deadline: Option<Instant>) -> Vec<Step<T>> {
        let Some(entry) = self.entries.get(key) else {
            return Vec::new();
        };
        if entry.active.is_none() {
            self.drop_entry(key);
            return Vec::new();
        }
        self.change(key.clone(), |entry| {
            entry.warming = None;
            entry.retiring = Some(deadline);
        });
        self.retiring.insert(key.clone());
        self.settle(now, Work::new())
    }

    /// There is no `key`, or it does not come in time: whoever needs it goes on without it.
    pub fn on_absent(&mut self, now: Instant, key: Key) -> Vec<Step<T>> {
        let mut work = Work::new();
        // Only what is waited for is remembered, so that this cannot grow beyond the needs.
        for dependent in self.dependents.get(&key).into_iter().flatten() {
            let entry = self.entries.get_mut(dependent);
            let Some(candidate) = entry.and_then(|entry| entry.warming.as_mut()) else {
                continue;
            };
            if candidate.needs.contains(&key) {
                candidate.missing.remove(&key);
                work.insert((rank(dependent.0), dependent.clone()));
            }
        }
        if !work.is_empty() {
            self.absent.insert(key);
        }
        self.settle(now, work)
    }

    /// When [`Warming::on_deadline`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Ends what has waited long enough.
    pub fn on_deadline(&mut self, now: Instant) -> Vec<Step<T>> {
        let late = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let work = late.map(|(_, key)| (rank(key.0), key.clone())).collect();
        self.settle(now, work)
    }

    /// Whether a version of `key` is in use.
    #[must_use]
    pub fn is_active(&self, key: &Key) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| entry.active.is_some())
    }

    /// Whether something of that type warms that has never been in use.
    #[must_use]
    pub fn is_starting(&self, ty: ResourceType) -> bool {
        self.starting.get(&ty).is_some_and(|count| *count > 0)
    }

    /// Everything that waits, and what for.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let row = |(key, entry): (&Key, &Entry<T>)| {
            let candidate = entry.warming.as_ref()?;
            Some(Waiting {
                key: key.clone(),
                missing: candidate.missing.iter().cloned().collect(),
                since: candidate.since,
                deadline: candidate.deadline,
                has_active: entry.active.is_some(),
            })
        };
        self.entries.iter().filter_map(row).collect()
    }

    /// Does all that can be done about `work` and what follows from it. Needs point to lower ranks, so one
    /// pass upwards activates, and one pass downwards retires.
    fn settle(&mut self, now: Instant, mut work: Work) -> Vec<Step<T>> {
        let mut steps = Vec::new();
        while let Some((_, key)) = work.pop_first() {
            if let Some(step) = self.activate(now, &key, &mut work) {
                steps.push(step);
            }
        }
        let mut keys: Vec<Key> = self.retiring.iter().cloned().collect();
        keys.sort_by_key(|key| rank(key.0));
        for key in keys.into_iter().rev() {
            let until = self.entries.get(&key).and_then(|entry| entry.retiring);
            let late = until.flatten().is_some_and(|at| at <= now);
            if late || !self.dependents.contains_key(&key) {
                self.retiring.remove(&key);
                self.drop_entry(&key);
                steps.push(Step::Retire { key });
            }
        }
        steps
    }

    /// Uses the candidate of `key`, if it waits for nothing, or no longer. Those that waited for it are work.
    fn activate(&mut self, now: Instant, key: &Key, work: &mut Work) -> Option<Step<T>> {
        let candidate = self.entries.get(key)?.warming.as_ref()?;
        let late = candidate.deadline.is_some_and(|at| at <= now);
        if !candidate.missing.is_empty() && !late {
            return None;
        }
        let mut taken = None;
        self.change(key.clone(), |entry| {
            taken = entry.warming.take();
            entry.active = taken.as_ref().map(|candidate| candidate.needs.clone());
        });
        let Candidate {
            value,
            needs,
            missing,
            ..
        } = taken?;
        for dependent in self.dependents.get(key).into_iter().flatten() {
            let entry = self.entries.get_mut(dependent);
            if let Some(candidate) = entry.and_then(|entry| entry.warming.as_mut())
                && candidate.missing.remove(key)
            {
                work.insert((rank(dependent.0), dependent.clone()));
            }
        }
        self.forget_absent(&needs);
        Some(Step::Activate {
            key: key.clone(),
            value,
            without: missing.into_iter().collect(),
        })
    }

    /// Drops from the absent those of `keys` that nothing waits for any more.
    fn forget_absent(&mut self, keys: &BTreeSet<Key>) {
        if self.absent.is_empty() {
            return;
        }
        for key in keys {
            let mut dependents = self.dependents.get(key).into_iter().flatten();
            let waits = dependents.any(|dependent| {
                let entry = self.entries.get(dependent);
                let warming = entry.and_then(|entry| entry.warming.as_ref());
                warming.is_some_and(|candidate| candidate.needs.contains(key))
            });
            if !waits {
                self.absent.remove(key);
            }
        }
    }

    /// `key`, which is not in use, is waited for again.
    fn misses(&mut self, key: &Key) {
        if self.is_active(key) {
            return;
        }
        for dependent in self.dependents.get(key).into_iter().flatten() {
            let entry = self.entries.get_mut(dependent);
            if let Some(candidate) = entry.and_then(|entry| entry.warming.as_mut())
                && candidate.needs.contains(key)
            {
                candidate.missing.insert(key.clone());
            }
        }
    }

    fn drop_entry(&mut self, key: &Key) {
        self.change(key.clone(), |entry| *entry = Entry::default());
        self.entries.remove(key);
        self.misses(key);
    }

    /// Changes an entry, and all that is kept about it elsewhere.
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Entry<T>)) {
        let entry = self.entries.entry(key.clone()).or_default();
        let before: BTreeSet<Key> = entry.needs().cloned().collect();
        let was_starting = entry.active.is_none() && entry.warming.is_some();
        for at in entry.deadlines() {
            self.deadlines.remove(&(at, key.clone()));
        }
        change(entry);
        for at in entry.deadlines() {
            self.deadlines.insert((at, key.clone()));
        }
        let starts = entry.active.is_none() && entry.warming.is_some();
        let after: BTreeSet<Key> = entry.needs().cloned().collect();
        if was_starting != starts {
            let count = self.starting.entry(key.0).or_default();
            *count = if starts { *count + 1 } else { *count - 1 };
        }
        for need in after.difference(&before) {
            let dependents = self.dependents.entry(need.clone()).or_default();
            dependents.insert(key.clone());
        }
        for need in before.difference(&after) {
            if let Some(dependents) = self.dependents.get_mut(need) {
                dependents.remove(&key);
                if dependents.is_empty() {
                    self.dependents.remove(need);
                }
            }
        }
    }
}
