use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{Event, Rejection, Resource, ResourceType};

/// Where a resource stands, in the words of `envoy.admin.v3.ClientResourceStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientStatus {
    /// Asked for, nothing came yet.
    Requested,
    /// The control plane has none.
    DoesNotExist,
    /// Taken.
    Acked,
    /// The last one that came was rejected.
    Nacked,
    /// `initial_fetch_timeout` passed.
    Timeout,
}

/// What was wrong with the last version that came.
///
/// # Envoy
/// `envoy.admin.v3.UpdateFailureState`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorState {
    /// The version that was rejected.
    pub version: String,
    /// Why.
    pub details: Rejection,
    /// When it came.
    pub at: Instant,
}

/// One row of a config dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Its type.
    pub ty: ResourceType,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub status: ClientStatus,
    /// The version in force; empty when there is none.
    pub version: String,
    /// The resource in force; empty when there is none.
    pub body: Bytes,
    /// When the version in force came.
    pub last_updated: Option<Instant>,
    /// What was wrong with the last one, if it was rejected.
    pub error: Option<ErrorState>,
}

/// An accepted resource.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) version: String,
    pub(super) body: Bytes,
    pub(super) ttl: Option<Duration>,
    pub(super) updated: Instant,
    expires: Option<Instant>,
}

/// All that is known of the resources of one type.
#[derive(Debug, Default)]
pub(super) struct Held {
    kept: BTreeMap<String, Kept>,
    errors: BTreeMap<String, ErrorState>,
    missing: BTreeSet<String>,
    expiries: BTreeSet<(Instant, String)>,
}

impl Held {
    pub(super) fn get(&self, name: &str) -> Option<&Kept> {
        self.kept.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.kept.keys()
    }

    /// Takes a resource in. Its bytes are copied, so that they do not keep the response alive that
    /// brought them.
    pub(super) fn keep(&mut self, now: Instant, resource: &Resource) {
        self.keep_shared(now, resource, Bytes::copy_from_slice(&resource.body));
    }

    fn keep_shared(&mut self, now: Instant, resource: &Resource, body: Bytes) {
        self.forget(&resource.name);
        let kept = Kept {
            version: resource.version.clone(),
            body,
            ttl: None,
            updated: now,
            expires: None,
        };
        self.kept.insert(resource.name.clone(), kept);
        self.renew(now, &resource.name, resource.ttl);
    }

    /// The same bytes came again, maybe under another version.
    pub(super) fn touch(&mut self, now: Instant, name: &str, version: &str, ttl: Option<Duration>) {
        if let Some(kept) = self.kept.get_mut(name) {
            version.clone_into(&mut kept.version);
        }
        self.errors.remove(name);
        self.renew(now, name, ttl);
    }

    /// Sets when the resource expires; `None` means never.
    pub(super) fn renew(&mut self, now: Instant, name: &str, ttl: Option<Duration>) {
        let Some(kept) = self.kept.get_mut(name) else {
            return;
        };
        if let Some(at) = kept.expires.take() {
            self.expiries.remove(&(at, name.to_owned()));
        }
        kept.ttl = ttl;
        kept.expires = ttl.and_then(|ttl| now.checked_add(ttl));
        if let Some(at) = kept.expires {
            self.expiries.insert((at, name.to_owned()));
        }
    }

    pub(super) fn reject(&mut self, name: &str, error: ErrorState) {
        self.missing.remove(name);
        self.errors.insert(name.to_owned(), error);
    }

    /// The control plane says that there is none; whether that is news.
    pub(super) fn mark_missing(&mut self, name: &str) -> bool {
        self.errors.remove(name);
        self.missing.insert(name.to_owned())
    }

    /// Drops all that is known of `name`; whether a resource was there.
    pub(super) fn forget(&mut self, name: &str) -> bool {
        self.errors.remove(name);
        self.missing.remove(name);
        let Some(kept) = self.kept.remove(name) else {
            return false;
        };
        if let Some(at) = kept.expires {
            self.expiries.remove(&(at, name.to_owned()));
        }
        true
    }

    /// Drops all that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let known = self.kept.keys().chain(self.errors.keys());
        let unwanted: Vec<String> = known
            .chain(&self.missing)
            .filter(|name| !keep(name))
            .cloned()
            .collect();
        for name in unwanted {
            self.forget(&name);
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Drops one resource whose time has come.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<String> {
        let (at, _) = self.expiries.first()?;
        if *at > now {
            return None;
        }
        let (_, name) = self.expiries.pop_first()?;
        self.forget(&name);
        Some(name)
    }

    pub(super) fn resource(&self, name: &str) -> Option<Resource> {
        let kept = self.kept.get(name)?;
        Some(Resource {
            name: name.to_owned(),
            version: kept.version.clone(),
            body: kept.body.clone(),
            ttl: kept.ttl,
        })
    }

    /// What is known of `name`, as news for one who subscribes anew before the server heard that the
    /// subscription had ended: the server will not say it again.
    pub(super) fn event(&self, ty: ResourceType, name: &str) -> Option<Event> {
        if let Some(resource) = self.resource(name) {
            return Some(Event::Updated { ty, resource });
        }
        let name = name.to_owned();
        if let Some(error) = self.errors.get(&name) {
            let rejection = error.details.clone();
            return Some(Event::Rejected {
                ty,
                name,
                rejection,
            });
        }
        let missing = self.missing.contains(&name);
        missing.then_some(Event::Missing { ty, name })
    }

    /// The row of `name` for a dump.
    pub(super) fn status(&self, ty: ResourceType, name: &str, waits: bool) -> ResourceStatus {
        let kept = self.kept.get(name);
        let error = self.errors.get(name).cloned();
        let status = match (&error, kept) {
            (Some(_), _) => ClientStatus::Nacked,
            (None, Some(_)) => ClientStatus::Acked,
            (None, None) if self.missing.contains(name) => ClientStatus::DoesNotExist,
            (None, None) if waits => ClientStatus::Requested,
            (None, None) => ClientStatus::Timeout,
        };
        ResourceStatus {
            ty,
            name: name.to_owned(),
            status,
            version: kept.map(|k| k.version.clone()).unwrap_or_default(),
            body: kept.map(|k| k.body.clone()).unwrap_or_default(),
            last_updated: kept.map(|k| k.updated),
            error,
        }
    }

    /// Everything that anything is known of.
    pub(super) fn known(&self) -> BTreeSet<&String> {
        let known = self.kept.keys().chain(self.errors.keys());
        known.chain(&self.missing).collect()
    }
}
