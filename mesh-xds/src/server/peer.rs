use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crate::{ResourceType, Variant, wire::Request};

use super::{
    Diff, Snapshot, TypeSet,
    topic::{
        ACK_WAIT_MAX, Content, InFlight, Topic, everything, first_delta, first_sotw,
        keep_for_later, next_delta, next_sotw,
    },
};

/// A client that can unpack resources which carry a TTL in state-of-the-world responses.
const SUPPORTS_TTL: &str = "xds.config.supports-resource-ttl";

/// A response to send.
#[derive(Debug)]
pub struct Push {
    pub(super) ty: ResourceType,
    pub(super) variant: Variant,
    pub(super) version: Arc<str>,
    pub(super) nonce: String,
    pub(super) content: Content,
    pub(super) removed: Vec<Arc<str>>,
    pub(super) ttl: bool,
}

impl Push {
    /// The type it is about.
    #[must_use]
    pub const fn ty(&self) -> ResourceType {
        self.ty
    }
}

/// The differences between two sets, from a memory that all clients share.
pub(super) type Differ<'a> = dyn FnMut(&Arc<TypeSet>, &Arc<TypeSet>) -> Arc<Diff> + 'a;

/// One stream of one client. See the [module](crate::server).
///
/// At most one response of a type is on its way at any time: the next one waits for its answer, and is
/// then made from the newest snapshot.
#[derive(Debug)]
pub struct Peer {
    variant: Variant,
    /// On a stream of its own: the only type spoken of.
    only: Option<ResourceType>,
    pub(super) topics: BTreeMap<ResourceType, Topic>,
    sent: u64,
    ttl: bool,
}

impl Peer {
    /// A client that has just connected; `only` when the stream is for a single type.
    #[must_use]
    pub const fn new(variant: Variant, only: Option<ResourceType>) -> Self {
        Self {
            variant,
            only,
            topics: BTreeMap::new(),
            sent: 0,
            ttl: false,
        }
    }

    /// Takes a request in. One for a type that we do not know, or that does not belong on this stream, is
    /// left unanswered, as one about a response that has been overtaken.
    pub fn on_request(&mut self, now: Instant, request: &Request) {
        if let Some(node) = request.node() {
            self.ttl |= node.client_features.iter().any(|f| f == SUPPORTS_TTL);
        }
        let (nonce, error, url) = match request {
            Request::Sotw(r) => (&r.response_nonce, &r.error_detail, &r.type_url),
            Request::Delta(r) => (&r.response_nonce, &r.error_detail, &r.type_url),
        };
        let ty = if url.is_empty() {
            self.only
        } else {
            request.resource_type()
        };
        let Some(ty) = ty.filter(|ty| self.only.is_none_or(|only| only == *ty)) else {
            return;
        };
        let is_new = !self.topics.contains_key(&ty);
        let topic = self.topics.entry(ty).or_default();
        let answers = !nonce.is_empty() && *nonce == topic.nonce;
        if answers {
            topic.on_answer(now, error.as_ref());
        }
        let had_wildcard = topic.interest.wildcard;
        let grown = match request {
            // A client repeats all names with each request, so one that was overtaken says nothing new.
            Request::Sotw(_) if !is_new && !answers && !nonce.is_empty() => return,
            Request::Sotw(request) => topic.interest.on_sotw(request),
            Request::Delta(request) => topic.interest.on_delta(request),
        };
        topic.due |= grown;
        if !is_new && topic.interest.wildcard && !had_wildcard {
            topic.start_over();
        }
    }

    /// Forgets what the client was sent, so that it is all sent again.
    pub fn resync(&mut self) {
        self.topics.values_mut().for_each(Topic::start_over);
    }

    /// The next response to send, towards `snapshot`; `None` when the client has all that it can get now.
    pub fn poll_push(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        differ: &mut Differ<'_>,
    ) -> Option<Push> {
        let types: Vec<ResourceType> = self.topics.keys().copied().collect();
        let mut blocked = false;
        for ty in types {
            let waiting = self.topics[&ty].is_waiting(now);
            let its_turn = !waiting && (!blocked || !ty.sends_traffic());
            if its_turn {
                let push = self.next(now, ty, snapshot.set(ty), differ);
                let push = push.or_else(|| self.heartbeat(now, ty, snapshot.set(ty)));
                if push.is_some() {
                    return push;
                }
            }
            blocked |= waiting && ty.takes_traffic();
        }
        self.flush_removals(now, snapshot)
    }

    /// When [`Peer::poll_push`] may have something to say without anything having come in.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let of = |topic: &Topic| {
            let flight = topic.in_flight.as_ref();
            let answer = flight.map(|flight| flight.since + ACK_WAIT_MAX);
            answer.or(topic.next_heartbeat)
        };
        self.topics.values().filter_map(of).min()
    }

    /// Whether clusters that are gone shall go last: only where routes come over the same stream.
    fn removes_last(&self, ty: ResourceType) -> bool {
        let routes = [ResourceType::Listener, ResourceType::RouteConfiguration];
        ty == ResourceType::Cluster && routes.iter().any(|ty| self.topics.contains_key(ty))
    }

    fn next(
        &mut self,
        now: Instant,
        ty: ResourceType,
        set: &Arc<TypeSet>,
        differ: &mut Differ<'_>,
    ) -> Option<Push> {
        let last = self.removes_last(ty);
        let variant = self.variant;
        let topic = self.topics.get_mut(&ty)?;
        let found = match (topic.base.clone(), variant) {
            (None, Variant::StateOfTheWorld) => first_sotw(topic, set),
            (None, Variant::Delta) => first_delta(topic, set, last),
            (Some(base), _)
                if base.id() == set.id() && topic.interest.fresh.is_empty() && !topic.due =>
            {
                None
            }
            (Some(base), variant) => {
                let diff = differ(&base, set);
                if last {
                    keep_for_later(topic, &base, set, &diff);
                }
                match variant {
                    Variant::StateOfTheWorld => next_sotw(topic, set, &diff),
                    Variant::Delta => next_delta(topic, set, &diff, last),
                }
            }
        };
        topic.base = Some(set.clone());
        topic.interest.fresh.clear();
        topic.interest.initial.clear();
        topic.due = false;
        let (content, removed) = found?;
        let version = match (variant, topic.keepsakes.len()) {
            // With what goes last still in it, this is not yet the version of the set.
            (Variant::StateOfTheWorld, n @ 1..) => format!("{}+{n}", set.version()).into(),
            _ => set.version().clone(),
        };
        Some(self.push(now, ty, set, content, removed, version))
    }

    /// Tells what is gone, once everything else has arrived.
    fn flush_removals(&mut self, now: Instant, snapshot: &Snapshot) -> Option<Push> {
        let ty = ResourceType::Cluster;
        let settled = |(ty, topic): (&ResourceType, &Topic)| {
            !(ty.takes_traffic() || ty.sends_traffic()) || topic.is_settled(now, snapshot.set(*ty))
        };
        if self.topics.get(&ty)?.keepsakes.is_empty() || !self.topics.iter().all(settled) {
            return None;
        }
        let set = snapshot.set(ty);
        let topic = self.topics.get_mut(&ty)?;
        let gone: Vec<_> = std::mem::take(&mut topic.keepsakes).into_keys().collect();
        let (content, removed) = match self.variant {
            Variant::StateOfTheWorld => (everything(&topic.interest, set), Vec::new()),
            Variant::Delta => (Content::Some(Vec::new()), gone),
        };
        let version = set.version().clone();
        Some(self.push(now, ty, set, content, removed, version))
    }

    /// Renews what has a TTL, three times within it.
    fn heartbeat(&mut self, now: Instant, ty: ResourceType, set: &Arc<TypeSet>) -> Option<Push> {
        let topic = self.topics.get_mut(&ty)?;
        if topic.next_heartbeat.is_none_or(|at| at > now) {
            return None;
        }
        let mut living = topic.interest.all(set);
        living.retain(|entry| entry.ttl.is_some());
        if living.is_empty() {
            topic.next_heartbeat = None;
            return None;
        }
        let content = match self.variant {
            // What is missing in a full state is gone, so all of it is said again.
            Variant::StateOfTheWorld if ty.is_full_state() => everything(&topic.interest, set),
            _ => Content::Heartbeat(living),
        };
        Some(self.push(now, ty, set, content, Vec::new(), set.version().clone()))
    }

    fn push(
        &mut self,
        now: Instant,
        ty: ResourceType,
        set: &Arc<TypeSet>,
        content: Content,
        removed: Vec<Arc<str>>,
        version: Arc<str>,
    ) -> Push {
        self.sent += 1;
        let nonce = self.sent.to_string();
        let speaks_ttl = self.variant == Variant::Delta || self.ttl;
        let topic = self.topics.entry(ty).or_default();
        topic.nonce.clone_from(&nonce);
        let names = match &content {
            Content::Full(_) => None,
            content => {
                let mut names = Vec::new();
                content.for_each(|entry| names.push(entry.name.clone()));
                Some(names)
            }
        };
        topic.in_flight = Some(InFlight {
            since: now,
            set: set.clone(),
            names,
            removed: removed.clone(),
        });
        let mut ttls = Vec::new();
        if speaks_ttl {
            let wanted = set
                .entries()
                .filter(|entry| topic.interest.wants(&entry.name));
            ttls.extend(wanted.filter_map(|entry| entry.ttl));
        }
        let shortest = ttls.into_iter().min();
        topic.next_heartbeat = shortest.and_then(|ttl| now.checked_add(ttl / 3));
        Push {
            ty,
            variant: self.variant,
            version,
            nonce,
            content,
            removed,
            ttl: self.ttl,
        }
    }
}
