//! One type on one stream: what the client was sent, and what it must be sent to have what is published.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::wire::Status;

use super::{Diff, Entry, TypeSet, interest::Interest};

/// How long the next response of a type, or of those that go after it, waits for an acknowledgement.
/// Then the client counts as one that does not acknowledge.
pub(super) const ACK_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a response carries.
#[derive(Debug)]
pub(super) enum Content {
    Full(Arc<TypeSet>),
    Changed(Arc<Diff>),
    Some(Vec<Entry>),
    /// Names and TTLs without bodies.
    Heartbeat(Vec<Entry>),
}

impl Content {
    pub(super) fn for_each<'a>(&'a self, each: impl FnMut(&'a Entry)) {
        match self {
            Self::Full(set) => set.entries().for_each(each),
            Self::Changed(diff) => diff.changed.iter().for_each(each),
            Self::Some(entries) | Self::Heartbeat(entries) => entries.iter().for_each(each),
        }
    }
}

/// Why a client did not take a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nack {
    pub(super) version: Arc<str>,
    pub(super) message: String,
    pub(super) at: Instant,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) since: Instant,
    pub(super) set: Arc<TypeSet>,
    pub(super) names: Option<Vec<Arc<str>>>,
    pub(super) removed: Vec<Arc<str>>,
}

/// One type on one stream.
#[derive(Debug, Default)]
pub(super) struct Topic {
    pub(super) interest: Interest,
    /// What the client was sent: this set, as far as it wants it.
    pub(super) base: Option<Arc<TypeSet>>,
    pub(super) acked: Option<Arc<TypeSet>>,
    pub(super) nacked: BTreeMap<Arc<str>, Nack>,
    /// An answer is owed even if there is nothing new.
    pub(super) due: bool,
    pub(super) nonce: String,
    pub(super) in_flight: Option<InFlight>,
    /// What goes last: clusters that are gone, while routes that name them may still be in use.
    pub(super) keepsakes: BTreeMap<Arc<str>, Entry>,
    /// Removals in a response that was rejected. Maybe none of it was applied, so they are told again with
    /// the next change.
    pub(super) unconfirmed: BTreeSet<Arc<str>>,
    /// The last answer was a rejection. With state-of-the-world, the next version of the set is sent even
    /// if nothing in it concerns the client: what it has may be older than what it was sent.
    rejected: bool,
    pub(super) next_heartbeat: Option<Instant>,
}

impl Topic {
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        let waits = |flight: &InFlight| now.saturating_duration_since(flight.since) < ACK_WAIT_MAX;
        self.in_flight.as_ref().is_some_and(waits)
    }

    pub(super) fn is_settled(&self, now: Instant, set: &TypeSet) -> bool {
        let knows = self.base.as_ref().is_some_and(|base| base.id() == set.id());
        knows && !self.due && self.interest.fresh.is_empty() && !self.is_waiting(now)
    }

    /// The answer to the response in flight.
    pub(super) fn on_answer(&mut self, now: Instant, error: Option<&Status>) {
        let Some(flight) = self.in_flight.take() else {
            return;
        };
        self.rejected = error.is_some();
        let all = || {
            flight
                .set
                .entries()
                .map(|entry| entry.name.clone())
                .collect()
        };
        let names: Vec<Arc<str>> = flight.names.unwrap_or_else(all);
        let Some(error) = error else {
            for name in &flight.removed {
                self.unconfirmed.remove(name);
            }
            names.iter().for_each(|name| drop(self.nacked.remove(name)));
            self.acked = Some(flight.set);
            return;
        };
        self.unconfirmed.extend(flight.removed);
        // The protocol says which response was bad, and only people can read which resource was. Ours
        // are named in the message; when none is, all are suspected.
        let is_named = |name: &&Arc<str>| error.message.contains(&***name);
        let mut bad: Vec<_> = names.iter().filter(is_named).collect();
        if bad.is_empty() {
            bad = names.iter().collect();
        }
        for name in bad {
            let version = flight.set.get(name).map(|entry| entry.version.clone());
            let nack = Nack {
                version: version.unwrap_or_default(),
                message: error.message.clone(),
                at: now,
            };
            self.nacked.insert(name.clone(), nack);
        }
    }

    /// Forgets which versions the client has, but not which names: those that are gone by now must
    /// still be told so.
    pub(super) fn start_over(&mut self) {
        let base = self.base.take();
        let sent = base.iter().flat_map(|base| base.entries());
        let wanted = sent.filter(|entry| self.interest.wants(&entry.name));
        let initial = wanted.map(|entry| (entry.name.clone(), String::new()));
        self.interest.initial = initial.collect();
        self.due = true;
    }
}

pub(super) type Found = Option<(Content, Vec<Arc<str>>)>;

pub(super) fn everything(interest: &Interest, set: &Arc<TypeSet>) -> Content {
    if interest.wildcard {
        Content::Full(set.clone())
    } else {
        Content::Some(interest.all(set))
    }
}

/// The first answer on a stream: all that is wanted. It comes even if the client says that it has this very
/// version, for that is the last one that it took whole: it may have taken parts of later ones.
pub(super) fn first_sotw(topic: &Topic, set: &Arc<TypeSet>) -> Found {
    let content = everything(&topic.interest, set);
    let empty = matches!(&content, Content::Some(entries) if entries.is_empty());
    (!empty || set.ty().is_full_state()).then_some((content, Vec::new()))
}

pub(super) fn next_sotw(topic: &Topic, set: &Arc<TypeSet>, diff: &Diff) -> Found {
    let interest = &topic.interest;
    if !set.ty().is_full_state() {
        let news = interest.news(diff, set);
        return (!news.is_empty()).then_some((Content::Some(news), Vec::new()));
    }
    let kept = |name: &Arc<str>| topic.keepsakes.contains_key(name);
    let changed = diff.changed.iter().any(|entry| interest.wants(&entry.name));
    let removed = diff
        .removed
        .iter()
        .any(|name| interest.wants(name) && !kept(name));
    if !changed && !removed && !topic.due && !topic.rejected {
        return None;
    }
    if topic.keepsakes.is_empty() {
        return Some((everything(interest, set), Vec::new()));
    }
    let mut entries = interest.all(set);
    entries.extend(topic.keepsakes.values().cloned());
    Some((Content::Some(entries), Vec::new()))
}

/// The first answer on a stream: what the client does not say that it holds.
pub(super) fn first_delta(topic: &mut Topic, set: &Arc<TypeSet>, last: bool) -> Found {
    let interest = &topic.interest;
    let initial = &interest.initial;
    let held = |entry: &Entry| {
        initial
            .get(&entry.name)
            .is_some_and(|v| **v == *entry.version)
    };
    let absent = initial.keys().chain(&interest.names);
    let removed: BTreeSet<Arc<str>> = absent
        .filter(|name| interest.wants(name) && set.get(name).is_none())
        .cloned()
        .collect();
    let content = if initial.is_empty() {
        everything(interest, set)
    } else {
        let mut news = interest.all(set);
        news.retain(|entry| !held(entry));
        Content::Some(news)
    };
    let mut removed: Vec<_> = removed.into_iter().collect();
    if last {
        let (later, now): (Vec<_>, Vec<_>) = removed
            .into_iter()
            .partition(|name| initial.contains_key(name));
        removed = now;
        let keepsake = |name: Arc<str>| (name.clone(), Entry::new(name, Vec::new()));
        topic.keepsakes.extend(later.into_iter().map(keepsake));
    }
    let empty = matches!(&content, Content::Some(entries) if entries.is_empty());
    let owed = topic.interest.wildcard || !empty || !removed.is_empty();
    if !owed {
        // It has what there is, and said so.
        topic.acked = Some(set.clone());
        return None;
    }
    Some((content, removed))
}

pub(super) fn next_delta(topic: &Topic, set: &Arc<TypeSet>, diff: &Arc<Diff>, last: bool) -> Found {
    let interest = &topic.interest;
    let mut gone = interest.gone(diff, set);
    if last {
        gone.retain(|name| !topic.keepsakes.contains_key(name));
    }
    let (content, any) = if interest.wildcard && interest.fresh.is_empty() {
        (Content::Changed(diff.clone()), !diff.changed.is_empty())
    } else {
        let news = interest.news(diff, set);
        let any = !news.is_empty();
        (Content::Some(news), any)
    };
    let again = topic
        .unconfirmed
        .iter()
        .filter(|name| interest.wants(name) && set.get(name).is_none() && !gone.contains(*name));
    let again: Vec<_> = again.cloned().collect();
    gone.extend(again);
    (any || !gone.is_empty()).then_some((content, gone))
}

/// Remembers clusters that went, and forgets those that came back.
pub(super) fn keep_for_later(topic: &mut Topic, base: &TypeSet, set: &TypeSet, diff: &Diff) {
    let interest = &topic.interest;
    let gone = diff.removed.iter().filter(|name| interest.wants(name));
    let entries: Vec<Entry> = gone.filter_map(|name| base.get(name)).cloned().collect();
    topic
        .keepsakes
        .extend(entries.into_iter().map(|entry| (entry.name.clone(), entry)));
    topic
        .keepsakes
        .retain(|name, _| set.get(name).is_none() && topic.interest.wants(name));
}
