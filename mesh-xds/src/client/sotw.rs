//! State of the world: each request repeats everything that is wanted.

use std::{collections::BTreeSet, time::Instant};

use crate::{
    Accept, Rejection, Resource, ResourceType, name_of,
    resource::WILDCARD,
    wire::{self, Any, DiscoveryRequest, DiscoveryResponse, RESOURCE_TYPE_URL, Status},
};
use prost::Message as _;

use super::{
    interest::Interest,
    topic::{Protocol, Topic, Verdict},
};

/// The state of one type on the stream.
#[derive(Debug, Default)]
pub(super) struct Sotw {
    /// The last version that was accepted whole; survives the stream.
    pub(super) version: String,
    /// Parts of a later version were taken: what is held is no longer that version.
    mixed: bool,
    nonce: String,
    error: Option<Status>,
    /// A request must be sent.
    pub(super) due: bool,
    /// A name was sent on this stream: from then on an empty list means nothing, not everything.
    explicit: bool,
    /// What the server was told last on this stream.
    told: Interest,
}

impl Sotw {
    pub(super) fn on_connected(&mut self) {
        // A server that sees a version it still has may send nothing, and we would stay with a mixture.
        let version = std::mem::take(&mut self.version);
        *self = Self {
            version: if self.mixed { String::new() } else { version },
            due: true,
            ..Self::default()
        };
    }

    pub(super) fn told(&self, name: &str) -> bool {
        self.told.wants(name)
    }

    pub(super) fn is_due(&self, interest: &Interest) -> bool {
        // Before the first request there is nothing to take back, and a legacy wildcard cannot be.
        self.due && (!interest.is_empty() || self.explicit)
    }

    pub(super) fn request(&mut self, ty: ResourceType, interest: &Interest) -> DiscoveryRequest {
        self.due = false;
        self.told.clone_from(interest);
        let mut names: Vec<String> = interest.names.iter().cloned().collect();
        if interest.wildcard && (self.explicit || !names.is_empty()) {
            names.insert(0, WILDCARD.to_owned());
        }
        self.explicit |= !names.is_empty();
        DiscoveryRequest {
            version_info: self.version.clone(),
            resource_names: names,
            type_url: ty.type_url().to_owned(),
            response_nonce: self.nonce.clone(),
            error_detail: self.error.take(),
            node: None,
        }
    }
}

/// A resource of a response, unwrapped.
struct Item {
    name: String,
    version: String,
    ttl: Option<std::time::Duration>,
    /// None in a heartbeat.
    body: Option<bytes::Bytes>,
}

impl Topic {
    pub(super) fn on_sotw(
        &mut self,
        now: Instant,
        response: DiscoveryResponse,
        accept: &mut dyn Accept,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        let whole = match unwrap_all(self.ty, &response) {
            Ok(items) => {
                self.take_all(now, items, accept, &mut verdict);
                true
            }
            Err(rejection) => {
                verdict.reject(self.ty, String::new(), rejection);
                false
            }
        };
        if whole {
            self.complete(&mut verdict.events);
        }
        if let Protocol::Sotw(sotw) = &mut self.protocol {
            sotw.nonce = response.nonce;
            sotw.error = verdict.error_detail();
            sotw.mixed |= whole;
            if sotw.error.is_none() {
                sotw.version = response.version_info;
                sotw.mixed = false;
            }
            sotw.due = true;
        }
        verdict
    }

    fn take_all(
        &mut self,
        now: Instant,
        items: Vec<Item>,
        accept: &mut dyn Accept,
        verdict: &mut Verdict,
    ) {
        let mut seen = BTreeSet::new();
        for item in items {
            seen.insert(item.name.clone());
            // What nobody asked for is ignored.
            if !self.is_expected(&item.name) {
                continue;
            }
            let Some(body) = item.body else {
                self.held.renew(now, &item.name, item.ttl);
                continue;
            };
            let resource = Resource {
                name: item.name,
                version: item.version,
                body,
                ttl: item.ttl,
            };
            self.offer(now, resource, accept, verdict);
        }
        if self.ty.is_full_state() {
            let held = self.held.names().chain(&self.interest.names);
            let gone: BTreeSet<String> =
                held.filter(|name| !seen.contains(*name)).cloned().collect();
            for name in gone {
                self.remove(&name, &mut verdict.events);
            }
        }
    }
}

/// The resources of a response, or why the response as a whole is wrong.
fn unwrap_all(ty: ResourceType, response: &DiscoveryResponse) -> Result<Vec<Item>, Rejection> {
    let mut names = BTreeSet::new();
    let mut items = Vec::with_capacity(response.resources.len());
    for (index, any) in response.resources.iter().enumerate() {
        let field = || format!("resources[{index}]");
        let item = unwrap(ty, any, &response.version_info)
            .map_err(|reason| Rejection::at(field(), reason))?;
        if !names.insert(item.name.clone()) {
            let reason = format!("duplicate name {} found in the response", item.name);
            return Err(Rejection::at(field(), reason));
        }
        items.push(item);
    }
    Ok(items)
}

fn unwrap(ty: ResourceType, any: &Any, version: &str) -> Result<Item, String> {
    let version = version.to_owned();
    if any.type_url != RESOURCE_TYPE_URL {
        let body = typed(ty, any)?;
        return Ok(Item {
            name: name_of(&body)?,
            version,
            ttl: None,
            body: Some(body),
        });
    }
    let resource = wire::Resource::decode(any.value.clone())
        .map_err(|error| format!("the resource's wrapper cannot be decoded: {error}"))?;
    let body = resource
        .resource
        .as_ref()
        .map(|any| typed(ty, any))
        .transpose()?;
    let name = match (&body, resource.name) {
        (Some(body), name) if name.is_empty() => name_of(body)?,
        (None, name) if name.is_empty() => return Err("a heartbeat names no resource".to_owned()),
        (_, name) => name,
    };
    Ok(Item {
        name,
        version,
        ttl: resource.ttl.as_ref().map(wire::duration),
        body,
    })
}

/// The body of `any`, which must be of the response's type.
pub(super) fn typed(ty: ResourceType, any: &Any) -> Result<bytes::Bytes, String> {
    if ResourceType::from_type_url(&any.type_url) == Some(ty) {
        return Ok(any.value.clone());
    }
    Err(format!(
        "the resource is a {:?}, in a response of {:?}",
        any.type_url,
        ty.type_url()
    ))
}
