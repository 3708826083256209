//! One type on one stream: what is common to both variants.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{Accept, Event, Rejection, Resource, ResourceStatus, ResourceType, wire::Status};

use super::{
    Cause,
    delta::Delta,
    held::{ErrorState, Held},
    interest::Interest,
    sotw::Sotw,
};

/// The longest message of a NACK; what goes beyond is cut, so that one bad push cannot make requests
/// that a server refuses.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// `google.rpc.Code.INTERNAL`, which is what Envoy sends.
const INTERNAL: i32 = 13;

/// What either variant remembers of the stream.
#[derive(Debug)]
pub(super) enum Protocol {
    Sotw(Sotw),
    Delta(Delta),
}

/// Names that were subscribed to, or not any longer, since the server was told what is wanted; so that what a
/// request costs depends on what has changed, not on what there is.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) names: BTreeSet<String>,
    /// Anything may have changed.
    pub(super) all: bool,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) ty: ResourceType,
    pub(super) interest: Interest,
    pub(super) held: Held,
    pub(super) protocol: Protocol,
    /// What may be wanted otherwise than when the server was told last.
    pub(super) changed: Changed,
    /// First fetches that still wait, and until when; the wildcard is `None`.
    waits: BTreeMap<Option<String>, Option<Instant>>,
}

impl Topic {
    pub(super) fn new(ty: ResourceType, protocol: Protocol) -> Self {
        Self {
            ty,
            interest: Interest::default(),
            held: Held::default(),
            protocol,
            changed: Changed::default(),
            waits: BTreeMap::new(),
        }
    }

    /// Subscribes to `name`, or to everything. What is held of it already is told at once.
    pub(super) fn subscribe(
        &mut self,
        name: Option<&str>,
        until: Option<Instant>,
    ) -> Option<Event> {
        let is_new = match name {
            Some(name) => self.interest.names.insert(name.to_owned()),
            None => !std::mem::replace(&mut self.interest.wildcard, true),
        };
        if !is_new {
            return None;
        }
        self.interest_changed(name);
        let known = name.and_then(|name| self.held.event(self.ty, name));
        if known.is_none() {
            self.waits.insert(name.map(str::to_owned), until);
        }
        known
    }

    pub(super) fn unsubscribe(&mut self, name: Option<&str>) {
        let was = match name {
            Some(name) => self.interest.names.remove(name),
            None => std::mem::replace(&mut self.interest.wildcard, false),
        };
        if was {
            self.waits.remove(&name.map(str::to_owned));
            self.interest_changed(name);
        }
    }

    fn interest_changed(&mut self, name: Option<&str>) {
        match name {
            Some(name) => drop(self.changed.names.insert(name.to_owned())),
            None => self.changed.all = true,
        }
        if let Protocol::Sotw(sotw) = &mut self.protocol {
            sotw.due = true;
        }
    }

    /// Asks for `name` once more, though it is subscribed to already.
    pub(super) fn refresh(&mut self, name: &str) {
        if !self.interest.names.contains(name) {
            return;
        }
        match &mut self.protocol {
            Protocol::Sotw(sotw) => sotw.due = true,
            Protocol::Delta(delta) => delta.again(name),
        }
    }

    pub(super) fn on_connected(&mut self) {
        self.changed.all = true;
        match &mut self.protocol {
            Protocol::Sotw(sotw) => sotw.on_connected(),
            Protocol::Delta(delta) => delta.on_connected(),
        }
    }

    /// The server has been told what is wanted: what it is not asked for would go stale from now on.
    pub(super) fn on_told(&mut self, changed: &Changed) {
        let interest = &self.interest;
        if changed.all {
            self.held.retain(|name| interest.wants(name));
            return;
        }
        for name in changed.names.iter().filter(|name| !interest.wants(name)) {
            self.held.forget(name);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waits = self.waits.values().flatten().min().copied();
        waits.into_iter().chain(self.held.next_expiry()).min()
    }

    pub(super) fn on_timer(&mut self, now: Instant, events: &mut Vec<Event>) {
        let ty = self.ty;
        let late = |until: &Option<Instant>| until.is_some_and(|until| until <= now);
        self.waits.retain(|name, until| {
            let over = late(until);
            if over {
                let name = name.clone();
                events.push(Event::TimedOut { ty, name });
            }
            !over
        });
        while let Some(name) = self.held.pop_expired(now) {
            events.push(Event::Removed {
                ty,
                name,
                cause: Cause::Expired,
            });
        }
    }

    /// Whether the server has reason to send `name`: it is wanted, or was when the server was last told. In
    /// the second case it is held without a word: if it is wanted again before the server hears that it
    /// was not, the server will not send it again.
    pub(super) fn is_expected(&self, name: &str) -> bool {
        let told = match &self.protocol {
            Protocol::Sotw(sotw) => sotw.told(name),
            Protocol::Delta(delta) => delta.told(name),
        };
        told || self.interest.wants(name)
    }

    /// An answer to the wildcard came.
    pub(super) fn complete(&mut self, events: &mut Vec<Event>) {
        if self.waits.remove(&None).is_some() {
            events.push(Event::Complete { ty: self.ty });
        }
    }

    pub(super) fn resolve(&mut self, name: &str) {
        if !self.waits.is_empty() {
            self.waits.remove(&Some(name.to_owned()));
        }
    }

    /// Looks at one resource and takes it, or notes why not.
    pub(super) fn offer(
        &mut self,
        now: Instant,
        resource: Resource,
        accept: &mut dyn Accept,
        verdict: &mut Verdict,
    ) {
        let (ty, name) = (self.ty, resource.name.clone());
        self.resolve(&name);
        if self
            .held
            .get(&name)
            .is_some_and(|kept| kept.body == resource.body)
        {
            self.held.touch(now, &name, &resource.version, resource.ttl);
            return;
        }
        match accept.accept(ty, &name, &resource.body) {
            Ok(()) => {
                self.held.keep(now, &resource);
                let resource = self.held.resource(&name).unwrap_or(resource);
                if self.interest.wants(&name) {
                    verdict.events.push(Event::Updated { ty, resource });
                }
            }
            Err(rejection) => {
                let error = ErrorState {
                    version: resource.version,
                    details: rejection.clone(),
                    at: now,
                };
                self.held.reject(&name, error);
                verdict.reject(ty, name, rejection);
            }
        }
    }

    /// A resource is gone. Types that others refer to by name keep the last one: the subscription ends
    /// with the referrer, not with the resource.
    pub(super) fn remove(&mut self, name: &str, events: &mut Vec<Event>) {
        let ty = self.ty;
        self.resolve(name);
        if self.held.get(name).is_none() {
            let is_news = self.is_expected(name) && self.held.mark_missing(name);
            if is_news && self.interest.names.contains(name) {
                events.push(Event::Missing {
                    ty,
                    name: name.to_owned(),
                });
            }
        } else if ty.is_full_state() || self.interest.wildcard {
            self.held.forget(name);
            if self.interest.names.contains(name) {
                self.held.mark_missing(name);
            }
            events.push(Event::Removed {
                ty,
                name: name.to_owned(),
                cause: Cause::Deleted,
            });
        }
    }

    pub(super) fn statuses(&self) -> Vec<ResourceStatus> {
        let mut names: BTreeSet<&String> = self.held.known();
        names.extend(&self.interest.names);
        let row = |name: &String| {
            let waits = self.waits.contains_key(&Some(name.clone()));
            self.held.status(self.ty, name, waits)
        };
        names.into_iter().map(row).collect()
    }
}

/// What came of a response.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) events: Vec<Event>,
    message: String,
    rejected: usize,
}

impl Verdict {
    pub(super) fn reject(&mut self, ty: ResourceType, name: String, rejection: Rejection) {
        use std::fmt::Write as _;
        self.rejected += 1;
        if self.message.len() < MESSAGE_BYTES_MAX {
            let gap = if self.message.is_empty() { "" } else { "; " };
            let _ = match name.as_str() {
                "" => write!(self.message, "{gap}{ty}: {rejection}"),
                name => write!(self.message, "{gap}{ty} \"{name}\": {rejection}"),
            };
        }
        self.events.push(Event::Rejected {
            ty,
            name,
            rejection,
        });
    }

    /// What to tell the server: nothing when all went well.
    pub(super) fn error_detail(&self) -> Option<Status> {
        if self.rejected == 0 {
            return None;
        }
        let mut message = self.message.clone();
        if message.len() > MESSAGE_BYTES_MAX {
            let mut cut = MESSAGE_BYTES_MAX;
            while !message.is_char_boundary(cut) {
                cut -= 1;
            }
            message.truncate(cut);
        }
        Some(Status {
            code: INTERNAL,
            message,
        })
    }
}

/// When a first fetch that starts now is given up.
pub(super) fn fetch_until(now: Instant, timeout: Option<Duration>) -> Option<Instant> {
    now.checked_add(timeout?)
}
