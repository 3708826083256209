//! Incremental: requests and responses tell differences only.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Instant,
};

use crate::{
    Accept, Rejection, Resource, ResourceType, name_of,
    resource::WILDCARD,
    wire::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status},
};

use super::{
    held::Held,
    interest::Interest,
    sotw::typed,
    topic::{Changed, Protocol, Topic, Verdict},
};

/// How the server was told of the wildcard on this stream.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    /// By an empty first list.
    Legacy,
    /// By its name.
    Explicit,
}

/// The state of one type on the stream. What was sent is remembered and compared with what is wanted when
/// the next request is made, for each name whose subscription changed, so that no order of calls can lose a
/// change.
#[derive(Debug, Default)]
pub(super) struct Delta {
    started: bool,
    wildcard: Told,
    sent: BTreeSet<String>,
    /// To be subscribed to again, though the server knows of them.
    again: BTreeSet<String>,
    /// Responses not answered yet. It grows by one with each response and is emptied by the requests; the
    /// transport reads no response while requests cannot be sent.
    answers: VecDeque<(String, Option<Status>)>,
}

impl Delta {
    pub(super) fn on_connected(&mut self) {
        *self = Self {
            again: std::mem::take(&mut self.again),
            ..Self::default()
        };
    }

    pub(super) fn again(&mut self, name: &str) {
        self.again.insert(name.to_owned());
    }

    pub(super) fn told(&self, name: &str) -> bool {
        self.wildcard != Told::Nothing || self.sent.contains(name)
    }

    pub(super) fn is_due(&self, interest: &Interest, changed: &Changed) -> bool {
        if !self.started {
            return !interest.is_empty();
        }
        !self.answers.is_empty()
            || !self.again.is_empty()
            || changed
                .names
                .iter()
                .any(|name| self.sent.contains(name) != interest.names.contains(name))
            || (self.wildcard != Told::Nothing) != interest.wildcard
    }

    pub(super) fn request(
        &mut self,
        ty: ResourceType,
        interest: &Interest,
        held: &Held,
        changed: &Changed,
    ) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest {
            type_url: ty.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        if !self.started {
            let mut versions = versions(held, interest);
            versions.retain(|name, _| !self.again.contains(name));
            request.initial_resource_versions = versions;
        }
        if let Some((nonce, error)) = self.answers.pop_front() {
            request.response_nonce = nonce;
            request.error_detail = error;
        }
        let again = std::mem::take(&mut self.again);
        let wanted = &interest.names;
        if self.started {
            let mut subscribe = BTreeSet::new();
            for name in &changed.names {
                match (wanted.contains(name), self.sent.contains(name)) {
                    (true, false) => drop(subscribe.insert(name.clone())),
                    (false, true) => request.resource_names_unsubscribe.push(name.clone()),
                    _ => {}
                }
            }
            for name in &request.resource_names_unsubscribe {
                self.sent.remove(name);
            }
            self.sent.extend(subscribe.iter().cloned());
            subscribe.extend(again.into_iter().filter(|name| wanted.contains(name)));
            request.resource_names_subscribe = subscribe.into_iter().collect();
        } else {
            self.sent.clone_from(wanted);
            request.resource_names_subscribe = wanted.iter().cloned().collect();
        }
        self.tell_wildcard(interest, &mut request);
        self.started = true;
        request
    }

    fn tell_wildcard(&mut self, interest: &Interest, request: &mut DeltaDiscoveryRequest) {
        let names = &mut request.resource_names_subscribe;
        match (interest.wildcard, self.wildcard) {
            // The empty list of a first request is understood by every server.
            (true, Told::Nothing) if !self.started && names.is_empty() => {
                self.wildcard = Told::Legacy;
            }
            (true, Told::Nothing) => {
                names.insert(0, WILDCARD.to_owned());
                self.wildcard = Told::Explicit;
            }
            // The first explicit name ends the legacy wildcard, so it is said again by its name.
            (true, Told::Legacy) if !names.is_empty() => {
                names.insert(0, WILDCARD.to_owned());
                self.wildcard = Told::Explicit;
            }
            (false, Told::Legacy | Told::Explicit) => {
                let names = &mut request.resource_names_unsubscribe;
                names.insert(0, WILDCARD.to_owned());
                self.wildcard = Told::Nothing;
            }
            _ => {}
        }
    }
}

/// What a new stream's server is told that we hold.
fn versions(held: &Held, interest: &Interest) -> HashMap<String, String> {
    let wanted = held.names().filter(|name| interest.wants(name));
    let versions = wanted.filter_map(|name| {
        let kept = held.get(name)?;
        Some((name.clone(), kept.version.clone()))
    });
    versions.collect()
}

impl Topic {
    pub(super) fn on_delta(
        &mut self,
        now: Instant,
        response: DeltaDiscoveryResponse,
        accept: &mut dyn Accept,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        match check(&response) {
            Ok(()) => {
                for (index, resource) in response.resources.into_iter().enumerate() {
                    self.take(now, index, resource, accept, &mut verdict);
                }
                for name in &response.removed_resources {
                    self.remove(name, &mut verdict.events);
                }
                self.complete(&mut verdict.events);
            }
            Err(rejection) => verdict.reject(self.ty, String::new(), rejection),
        }
        if let Protocol::Delta(delta) = &mut self.protocol {
            let answer = (response.nonce, verdict.error_detail());
            delta.answers.push_back(answer);
        }
        verdict
    }

    fn take(
        &mut self,
        now: Instant,
        index: usize,
        resource: wire::Resource,
        accept: &mut dyn Accept,
        verdict: &mut Verdict,
    ) {
        let ttl = resource.ttl.as_ref().map(wire::duration);
        let Some(any) = &resource.resource else {
            self.held.renew(now, &resource.name, ttl);
            return;
        };
        let named = typed(self.ty, any).and_then(|body| match resource.name.as_str() {
            "" => Ok((name_of(&body)?, body)),
            name => Ok((name.to_owned(), body)),
        });
        match named {
            Ok((name, body)) if self.wants_any(&name, &resource.aliases) => {
                let version = resource.version;
                let resource = Resource {
                    name,
                    version,
                    body,
                    ttl,
                };
                self.offer(now, resource, accept, verdict);
            }
            Ok(_) => {}
            Err(reason) => {
                let rejection = Rejection::at(format!("resources[{index}]"), reason);
                verdict.reject(self.ty, resource.name, rejection);
            }
        }
    }

    /// A virtual host may come under an alias that was asked for.
    fn wants_any(&mut self, name: &str, aliases: &[String]) -> bool {
        let mut wanted = self.is_expected(name);
        for alias in aliases {
            if self.interest.names.contains(alias) {
                self.resolve(alias);
                wanted = true;
            }
        }
        wanted
    }
}

/// No name may be there twice, be it as a resource or as a removal.
fn check(response: &DeltaDiscoveryResponse) -> Result<(), Rejection> {
    let mut names = BTreeSet::new();
    let resources = response.resources.iter().map(|resource| &resource.name);
    for name in resources.chain(&response.removed_resources) {
        if !name.is_empty() && !names.insert(name) {
            return Err(Rejection::new(format!(
                "duplicate name {name} found among added, updated and removed resources"
            )));
        }
    }
    Ok(())
}
