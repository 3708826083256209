//! What arrives, and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Instant,
};

use mesh_config::{
    dynamic::{Assembly, Change, Checked, Key, Kind, Needs},
    language::Language,
    model::{Config, Origin, Source},
};
use mesh_core::clock;
use mesh_xds::{
    Event, Rejection, ResourceType,
    transport::{Commands, Interest},
    warming::{self, Step, Warming},
};

use super::{
    FollowOptions, LOOK_AGAIN, RETIRE_AFTER, Shared,
    apply::News,
    kind_of,
    sources::{SourceKey, Sources},
    status::{ConfigOrigin, Status},
    type_of,
};

/// What all streams together have brought.
pub(super) struct Receiver {
    assembly: Assembly,
    pub(super) status: Status,
    /// Clusters and listeners that are in use.
    live: BTreeSet<warming::Key>,
    /// Types that everything of is wanted, and those of them that the control plane has answered for.
    wildcards: BTreeSet<ResourceType>,
    answered: BTreeSet<ResourceType>,
    pub(super) warming: Warming<Checked>,
    /// What each accepted resource needs.
    needs: BTreeMap<Key, Needs>,
    /// How many resources need it, and where it comes from.
    needed: BTreeMap<Key, (usize, SourceKey)>,
    /// Accepted, and not yet told of.
    pub(super) checked: BTreeMap<Key, Checked>,
    /// Accepted once, told of again, and not usable at this moment: a file that it names cannot be read, for
    /// example. Looked at again at that time.
    unsettled: BTreeMap<Key, bytes::Bytes>,
    look_again: Option<Instant>,
    /// Types whose first answer is awaited.
    awaited: BTreeSet<ResourceType>,
    /// What the bootstrap itself needs and has not got yet.
    awaited_parts: BTreeSet<warming::Key>,
    /// The listener that a client waits for.
    awaited_listener: Option<String>,
    /// Where clusters come from; by name, if not all of them do.
    clusters: Option<Origin>,
    clusters_by_name: bool,
    sources: Sources,
    /// Changes of what is wanted from other sources than the one whose turn it is.
    changes: BTreeMap<SourceKey, Interest>,
    news: News,
}

impl Receiver {
    pub(super) fn new(
        assembly: Assembly,
        config: &Config,
        sources: Sources,
        status: Status,
        news: News,
    ) -> Self {
        let mut warming = Warming::new();
        for cluster in &config.clusters {
            // Nothing waits for them: they were there before.
            let key = (ResourceType::Cluster, cluster.name.to_string());
            warming.hold(key);
        }
        Self {
            assembly,
            status,
            live: BTreeSet::new(),
            wildcards: BTreeSet::new(),
            answered: BTreeSet::new(),
            warming,
            needs: BTreeMap::new(),
            needed: BTreeMap::new(),
            checked: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            look_again: None,
            awaited: BTreeSet::new(),
            awaited_parts: BTreeSet::new(),
            awaited_listener: None,
            clusters: config.dynamic.clusters.clone(),
            clusters_by_name: false,
            sources,
            changes: BTreeMap::new(),
            news,
        }
    }

    /// Asks for what the bootstrap wants.
    pub(super) fn begin(&mut self, shared: &Shared, config: &Config, options: &FollowOptions) {
        let dynamic = &config.dynamic;
        if let Some(origin) = &dynamic.clusters {
            self.want_all(&origin.source, ResourceType::Cluster);
        }
        match (&options.listener, &dynamic.listeners) {
            (Some(name), origin) if !self.assembly.is_static(Kind::Listener, name) => {
                let source = origin
                    .as_ref()
                    .map_or(&Source::Ads, |origin| &origin.source);
                let key = Sources::key(source, ResourceType::Listener);
                let interest = self.changes.entry(key).or_default();
                interest.subscribe(ResourceType::Listener, name.clone());
                self.awaited_listener = Some(name.clone());
                if self.clusters.is_none() {
                    self.clusters_by_name = true;
                    self.clusters.clone_from(origin);
                }
            }
            (Some(_), _) | (None, None) => {}
            (None, Some(origin)) => self.want_all(&origin.source, ResourceType::Listener),
        }
        let now = clock::now();
        let mut steps = Vec::new();
        for source in &dynamic.runtime {
            let key = (Kind::Runtime, source.name.clone());
            self.need(&key, Some(&source.origin));
            self.awaited_parts.insert(wire_key(&key));
        }
        for own in self.assembly.own() {
            let key = own.key();
            self.awaited_parts.insert(wire_key(&key));
            steps.extend(self.update(now, key, own));
        }
        self.flush(shared, None, &mut Interest::default());
        self.take(shared, steps);
    }

    pub(super) fn language(&self) -> Language {
        self.assembly.language().clone()
    }

    pub(super) fn commands(&self) -> Vec<Commands> {
        self.sources.commands()
    }

    /// Nothing is followed any more.
    pub(super) fn close(&mut self) {
        self.sources.close();
    }

    fn want_all(&mut self, source: &Source, ty: ResourceType) {
        let key = Sources::key(source, ty);
        self.changes.entry(key).or_default().subscribe_all(ty);
        self.awaited.insert(ty);
        self.wildcards.insert(ty);
        self.status.on_subscribe(ty, "");
    }

    /// Looks at a resource that arrived.
    pub(super) fn check(
        &mut self,
        kind: Kind,
        name: &str,
        body: &bytes::Bytes,
    ) -> Result<Checked, Rejection> {
        self.assembly.check(kind, name, body).map_err(|refusal| {
            let what = type_of(kind);
            tracing::warn!(
                "{what} {name:?} rejected: {}: {}",
                refusal.field,
                refusal.reason
            );
            Rejection::at(refusal.field, refusal.reason)
        })
    }

    /// A whole response was looked at.
    pub(super) fn on_response(&mut self, ty: ResourceType, version: &str, refused: bool) {
        if !refused {
            self.status.versions.insert(ty, version.to_owned());
        }
        if ty.is_full_state() {
            match refused {
                true => self.status.on_rejected(ty, ""),
                false => self.status.on_success(ty, "", version),
            }
        }
        self.answered.insert(ty);
        if self.wildcards.is_subset(&self.answered) {
            self.status.on_origin(ConfigOrigin::ControlPlane, None);
        }
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Updated { ty, resource } if !ty.is_full_state() => {
                self.status
                    .on_success(*ty, &resource.name, &resource.version);
            }
            Event::Rejected { ty, name, .. } if !ty.is_full_state() => {
                self.status.on_rejected(*ty, name);
            }
            Event::TimedOut { ty, name } => {
                self.status
                    .on_timeout(*ty, name.as_deref().unwrap_or_default());
            }
            _ => {}
        }
    }

    /// Something is in use from now on, or is not any more.
    fn count_step(&mut self, step: &Step<Checked>) {
        let Status {
            clusters,
            listeners,
            ..
        } = &self.status;
        match step {
            Step::Activate { key, .. } => {
                let modified = !self.live.insert(key.clone());
                match (key.0, modified) {
                    (ResourceType::Cluster, false) => clusters.cluster_added().inc(),
                    (ResourceType::Cluster, true) => clusters.cluster_modified().inc(),
                    (ResourceType::Listener, false) => listeners.listener_added().inc(),
                    (ResourceType::Listener, true) => listeners.listener_modified().inc(),
                    _ => drop(self.live.remove(key)),
                }
            }
            Step::Retire { key } => {
                self.live.remove(key);
                match key.0 {
                    ResourceType::Cluster => clusters.cluster_removed().inc(),
                    ResourceType::Listener => listeners.listener_removed().inc(),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn on_event(&mut self, now: Instant, event: Event) -> Vec<Step<Checked>> {
        self.count(&event);
        match event {
            Event::Updated { ty, resource } => {
                let Some(kind) = kind_of(ty) else {
                    return Vec::new();
                };
                let key = (kind, resource.name);
                self.unsettled.remove(&key);
                match self.checked.remove(&key) {
                    Some(checked) => self.update(now, key, checked),
                    // What is subscribed to again may be told again.
                    None => self.look(now, key, resource.body),
                }
            }
            Event::Removed { ty, name, .. } => {
                let mut steps =
                    self.warming
                        .remove(now, &(ty, name.clone()), Some(now + RETIRE_AFTER));
                if let Some(kind) = kind_of(ty) {
                    let key = (kind, name);
                    self.unsettled.remove(&key);
                    let needs = self.needs.remove(&key).unwrap_or_default();
                    steps.extend(self.let_go(now, needs.keys()));
                }
                steps
            }
            Event::Missing { ty, name }
            | Event::TimedOut {
                ty,
                name: Some(name),
            } => self.absent(now, ty, name),
            // What came before stays; if nothing did, nobody waits for it any longer.
            Event::Rejected { ty, name, .. } if !name.is_empty() => self.absent(now, ty, name),
            Event::Rejected { .. } => Vec::new(),
            Event::Complete { ty } | Event::TimedOut { ty, name: None } => {
                self.awaited.remove(&ty);
                Vec::new()
            }
        }
    }

    /// Takes what was accepted before, as soon as it can be.
    fn look(&mut self, now: Instant, key: Key, body: bytes::Bytes) -> Vec<Step<Checked>> {
        match self.check(key.0, &key.1, &body) {
            Ok(checked) => self.update(now, key, checked),
            Err(_) => {
                self.unsettled.insert(key, body);
                self.look_again.get_or_insert(now + LOOK_AGAIN);
                Vec::new()
            }
        }
    }

    /// When [`on_deadline`](Self::on_deadline) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let warming = self.warming.next_deadline();
        self.look_again.into_iter().chain(warming).min()
    }

    /// Time has passed.
    pub(super) fn on_deadline(&mut self, now: Instant) -> Vec<Step<Checked>> {
        let mut steps = self.warming.on_deadline(now);
        if self.look_again.is_some_and(|at| at <= now) {
            self.look_again = None;
            for (key, body) in mem::take(&mut self.unsettled) {
                steps.extend(self.look(now, key, body));
            }
        }
        steps
    }

    fn absent(&mut self, now: Instant, ty: ResourceType, name: String) -> Vec<Step<Checked>> {
        if ty == ResourceType::Listener && self.awaited_listener.as_ref() == Some(&name) {
            self.awaited_listener = None;
        }
        let key = (ty, name);
        self.awaited_parts.remove(&key);
        self.warming.on_absent(now, key)
    }

    fn update(&mut self, now: Instant, key: Key, checked: Checked) -> Vec<Step<Checked>> {
        let needs = checked.needs().clone();
        let managers = checked.listener().into_iter().flat_map(|l| l.managers());
        for manager in managers.filter(|manager| manager.rds) {
            self.status
                .on_manager(&manager.route_config_name, &manager.stat_prefix);
        }
        let before = self.needs.insert(key.clone(), needs.clone());
        let before = before.unwrap_or_default();
        for (need, origin) in &needs {
            if !before.contains_key(need) {
                self.need(need, origin.as_ref());
            }
        }
        let gone: Vec<&Key> = before
            .keys()
            .filter(|need| !needs.contains_key(need))
            .collect();
        let mut steps = self.let_go(now, gone);
        // Without a deadline for one, there is none for all.
        let mut timeouts = needs.values().map(|origin| {
            let origin = origin.as_ref().or(self.clusters.as_ref());
            origin.map_or(Some(super::INITIAL_FETCH_TIMEOUT), |origin| {
                origin.initial_fetch_timeout
            })
        });
        let timeout = timeouts.try_fold(std::time::Duration::ZERO, |longest, timeout| {
            Some(longest.max(timeout?))
        });
        let deadline = timeout.map(|timeout| now + timeout);
        let keys: Vec<warming::Key> = needs.keys().map(wire_key).collect();
        let key = wire_key(&key);
        steps.extend(self.warming.update(now, key, checked, keys, deadline));
        steps
    }

    /// Somebody needs `key`: it is subscribed to, if it does not come by itself.
    fn need(&mut self, key: &Key, origin: Option<&Origin>) {
        let ty = type_of(key.0);
        if key.0 == Kind::Cluster && !self.clusters_by_name {
            return;
        }
        let origin = origin.or(self.clusters.as_ref());
        let source = origin.map_or(&Source::Ads, |origin| &origin.source);
        let source = Sources::key(source, ty);
        match self.needed.get_mut(key) {
            Some((count, from)) if *from == source => *count += 1,
            Some((count, from)) => {
                // It comes from elsewhere now.
                *count += 1;
                let old = mem::replace(from, source.clone());
                self.changes
                    .entry(old)
                    .or_default()
                    .unsubscribe(ty, key.1.clone());
                self.changes
                    .entry(source)
                    .or_default()
                    .subscribe(ty, key.1.clone());
            }
            None => {
                self.needed.insert(key.clone(), (1, source.clone()));
                self.status.on_subscribe(ty, &key.1);
                self.changes
                    .entry(source)
                    .or_default()
                    .subscribe(ty, key.1.clone());
            }
        }
    }

    /// Somebody does not need these any more: what nobody else needs is not subscribed to any longer.
    fn let_go<'a>(
        &mut self,
        now: Instant,
        keys: impl IntoIterator<Item = &'a Key>,
    ) -> Vec<Step<Checked>> {
        let mut steps = Vec::new();
        for key in keys {
            let Some((count, source)) = self.needed.get_mut(key) else {
                continue;
            };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            let (source, ty) = (source.clone(), type_of(key.0));
            self.needed.remove(key);
            self.unsettled.remove(key);
            self.status.on_unsubscribe(ty, &key.1);
            self.changes
                .entry(source)
                .or_default()
                .unsubscribe(ty, key.1.clone());
            let gone = wire_key(key);
            steps.extend(self.warming.remove(now, &gone, Some(now + RETIRE_AFTER)));
            if let Some(needs) = self.needs.remove(key) {
                steps.extend(self.let_go(now, needs.keys()));
            }
        }
        steps
    }

    /// Tells the sources what is wanted now; `interest` is that of `own`.
    pub(super) fn flush(
        &mut self,
        shared: &Shared,
        own: Option<&SourceKey>,
        interest: &mut Interest,
    ) {
        for (key, changes) in mem::take(&mut self.changes) {
            if Some(&key) == own {
                interest.extend(changes);
            } else {
                self.sources.change(shared, &key, changes);
            }
        }
    }

    /// Does what warming says, and publishes the outcome.
    pub(super) fn take(&mut self, shared: &Shared, steps: Vec<Step<Checked>>) {
        let changed = !steps.is_empty();
        for step in steps {
            self.count_step(&step);
            match step {
                Step::Activate {
                    key,
                    value,
                    without,
                } => {
                    if !without.is_empty() {
                        tracing::warn!("{} {:?} is used without {without:?}", key.0, key.1);
                    }
                    self.awaited_parts.remove(&key);
                    self.assembly.put(value);
                }
                Step::Retire { key } => {
                    if let Some(kind) = kind_of(key.0) {
                        self.assembly.remove(kind, &key.1);
                    }
                    if key.0 == ResourceType::Listener {
                        shared.listen.release(&key.1);
                    }
                }
            }
        }
        let change = changed.then(|| self.assembly.change());
        self.publish(change);
    }

    fn publish(&self, change: Option<Change>) {
        if let Some(Change::Whole(_, misfits)) = &change {
            for misfit in misfits {
                tracing::error!(
                    "listener {:?} stays as it was: {}",
                    misfit.listener,
                    misfit.error
                );
            }
        }
        let settled = self.is_settled();
        self.news.publish(|latest| {
            let news = change.is_some() || settled != latest.settled;
            latest.settled |= settled;
            match change {
                // One that nobody has taken yet is superseded, not lost.
                Some(Change::Whole(config, _)) => {
                    latest.config = Some(Arc::new(*config));
                    latest.endpoints.clear();
                }
                Some(Change::Endpoints(clusters)) => {
                    let named = clusters.into_iter();
                    let named = named.map(|cluster| (Arc::clone(&cluster.name), cluster));
                    latest.endpoints.extend(named);
                }
                None => {}
            }
            news
        });
    }

    /// Whether the first of everything that is waited for has come, or will not.
    fn is_settled(&self) -> bool {
        if let Some(name) = &self.awaited_listener
            && !self
                .warming
                .is_active(&(ResourceType::Listener, name.clone()))
        {
            return false;
        }
        self.awaited.is_empty()
            && self.awaited_parts.is_empty()
            && !self.warming.is_starting(ResourceType::Listener)
    }
}

fn wire_key(key: &Key) -> warming::Key {
    (type_of(key.0), key.1.clone())
}
