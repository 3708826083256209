use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    resource::WILDCARD,
    wire::{DeltaDiscoveryRequest, DiscoveryRequest},
};

use super::{Diff, Entry, TypeSet};

/// The most names that one client may subscribe to in one type. What goes beyond is not answered; it is
/// above any real mesh and bounds what a broken client can make us keep.
const NAMES_MAX: usize = 200_000;

/// What one client wants of one type, as the server understood it.
#[derive(Debug, Default)]
pub(super) struct Interest {
    pub(super) wildcard: bool,
    pub(super) names: BTreeSet<Arc<str>>,
    /// Names asked for since the last push: they are sent whether they changed or not.
    pub(super) fresh: BTreeSet<Arc<str>>,
    /// What a reconnecting delta client said that it holds.
    pub(super) initial: BTreeMap<Arc<str>, String>,
    /// A name was named: the empty list means nothing from now on.
    explicit: bool,
    started: bool,
}

impl Interest {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Takes the list of a state-of-the-world request; whether anything was added.
    pub(super) fn on_sotw(&mut self, request: &DiscoveryRequest) -> bool {
        let first = !std::mem::replace(&mut self.started, true);
        self.explicit |= !request.resource_names.is_empty();
        let had_wildcard = self.wildcard;
        self.wildcard = !self.explicit || request.resource_names.iter().any(|n| n == WILDCARD);
        let wanted: BTreeSet<Arc<str>> = request
            .resource_names
            .iter()
            .filter(|name| *name != WILDCARD)
            .take(NAMES_MAX)
            .map(|name| name.as_str().into())
            .collect();
        let added = wanted.difference(&self.names).cloned();
        let before = self.fresh.len();
        self.fresh.extend(added);
        let grown = self.fresh.len() > before;
        self.fresh.retain(|name| wanted.contains(name));
        self.names = wanted;
        first || grown || (self.wildcard && !had_wildcard)
    }

    /// Takes the differences of a delta request; whether anything was added.
    pub(super) fn on_delta(&mut self, request: &DeltaDiscoveryRequest) -> bool {
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            let initial = request.initial_resource_versions.iter().take(NAMES_MAX);
            self.initial = initial
                .map(|(name, version)| (name.as_str().into(), version.clone()))
                .collect();
            self.wildcard = request.resource_names_subscribe.is_empty();
        }
        for name in &request.resource_names_unsubscribe {
            match name.as_str() {
                WILDCARD => self.wildcard = false,
                name => {
                    self.names.remove(name);
                    self.fresh.remove(name);
                    // A client that takes a name back drops what it held.
                    self.initial.remove(name);
                }
            }
        }
        let mut grown = first;
        for name in &request.resource_names_subscribe {
            grown = true;
            if name == WILDCARD {
                self.wildcard = true;
            } else if self.names.len() < NAMES_MAX {
                let name: Arc<str> = name.as_str().into();
                if !first {
                    self.initial.remove(&name);
                }
                self.fresh.insert(name.clone());
                self.names.insert(name);
            }
        }
        grown
    }

    /// What is wanted of `set`.
    pub(super) fn all(&self, set: &TypeSet) -> Vec<Entry> {
        if self.wildcard {
            return set.entries().cloned().collect();
        }
        let found = self.names.iter().filter_map(|name| set.get(name));
        found.cloned().collect()
    }

    /// What is wanted of what changed, and what was asked for anew.
    pub(super) fn news(&self, diff: &Diff, set: &TypeSet) -> Vec<Entry> {
        let mut news: BTreeMap<&Arc<str>, &Entry> = BTreeMap::new();
        let changed = diff.changed.iter().filter(|entry| self.wants(&entry.name));
        news.extend(changed.map(|entry| (&entry.name, entry)));
        let fresh = self.fresh.iter().filter_map(|name| set.get(name));
        news.extend(fresh.map(|entry| (&entry.name, entry)));
        news.into_values().cloned().collect()
    }

    /// What a delta client must be told is not there: what went, and what it asked for in vain.
    pub(super) fn gone(&self, diff: &Diff, set: &TypeSet) -> Vec<Arc<str>> {
        let removed = diff.removed.iter().filter(|name| self.wants(name));
        let absent = self.fresh.iter().filter(|name| set.get(name).is_none());
        let gone: BTreeSet<_> = removed.chain(absent).cloned().collect();
        gone.into_iter().collect()
    }
}
