use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;

use crate::{
    Accept, Resource, ResourceType, Variant,
    wire::{Request, Response},
};

use super::{
    Event, RateLimit, ResourceStatus,
    delta::Delta,
    pace::Bucket,
    sotw::Sotw,
    topic::{Protocol, Topic, Verdict, fetch_until},
};

/// How a [`Subscriber`] talks.
#[derive(Debug, Clone)]
pub struct SubscriberConfig {
    /// Who we are.
    pub node: Node,
    /// How updates are told.
    pub variant: Variant,
    /// Whether the node is sent in the first request of a stream only. Envoy's default is false, and
    /// its own control planes need no more than the first.
    pub set_node_on_first_message_only: bool,
    /// After this time a first fetch counts as failed, and whoever waits goes on. Envoy's default is
    /// 15 s; `None` (`0s` in a config) waits for ever.
    pub initial_fetch_timeout: Option<Duration>,
    /// The most requests to send; `None` is no limit.
    pub rate_limit: Option<RateLimit>,
}

impl SubscriberConfig {
    /// Envoy's defaults.
    #[must_use]
    pub const fn new(node: Node, variant: Variant) -> Self {
        Self {
            node,
            variant,
            set_node_on_first_message_only: false,
            initial_fetch_timeout: Some(Duration::from_secs(15)),
            rate_limit: None,
        }
    }
}

/// The client's state machine: what is wanted, what is held, what must be said. See the
/// [module](crate::client).
#[derive(Debug)]
pub struct Subscriber {
    config: SubscriberConfig,
    topics: BTreeMap<ResourceType, Topic>,
    bucket: Option<Bucket>,
    /// No request before this.
    held_back: Option<Instant>,
    connected: bool,
    introduced: bool,
    control_plane: String,
}

impl Subscriber {
    /// A subscriber that wants nothing yet and is not connected.
    #[must_use]
    pub fn new(config: SubscriberConfig) -> Self {
        Self {
            bucket: config.rate_limit.map(Bucket::new),
            config,
            topics: BTreeMap::new(),
            held_back: None,
            connected: false,
            introduced: false,
            control_plane: String::new(),
        }
    }

    fn topic(&mut self, ty: ResourceType) -> &mut Topic {
        let variant = self.config.variant;
        self.topics.entry(ty).or_insert_with(|| {
            let protocol = match variant {
                Variant::StateOfTheWorld => Protocol::Sotw(Sotw::default()),
                Variant::Delta => Protocol::Delta(Delta::default()),
            };
            Topic::new(ty, protocol)
        })
    }

    /// Wants `name`. If it is held already, it is told again at once.
    pub fn subscribe(&mut self, now: Instant, ty: ResourceType, name: &str) -> Option<Event> {
        let until = fetch_until(now, self.config.initial_fetch_timeout);
        self.topic(ty).subscribe(Some(name), until)
    }

    /// Wants everything of the type.
    pub fn subscribe_all(&mut self, now: Instant, ty: ResourceType) {
        let until = fetch_until(now, self.config.initial_fetch_timeout);
        self.topic(ty).subscribe(None, until);
    }

    /// Wants `name` no more. What is held of it is dropped when the server is told.
    pub fn unsubscribe(&mut self, ty: ResourceType, name: &str) {
        self.topic(ty).unsubscribe(Some(name));
    }

    /// Wants no more than what was subscribed to by name.
    pub fn unsubscribe_all(&mut self, ty: ResourceType) {
        self.topic(ty).unsubscribe(None);
    }

    /// Asks the server to send `name` again, which is subscribed to: for one who announced a cluster
    /// anew and means its endpoints to come again.
    pub fn refresh(&mut self, ty: ResourceType, name: &str) {
        self.topic(ty).refresh(name);
    }

    /// Takes what a cache had kept, as if it had just arrived; what is not accepted is left out. With
    /// delta a server is then told of it and sends only what differs.
    pub fn restore(
        &mut self,
        now: Instant,
        ty: ResourceType,
        resources: Vec<Resource>,
        accept: &mut dyn Accept,
    ) -> Vec<Event> {
        let mut verdict = Verdict::default();
        let topic = self.topic(ty);
        for resource in resources {
            if topic.interest.wants(&resource.name) {
                topic.offer(now, resource, accept, &mut verdict);
            }
        }
        topic.complete(&mut verdict.events);
        verdict.events
    }

    /// A stream is open: everything that is wanted will be asked for.
    pub fn on_connected(&mut self) {
        self.connected = true;
        self.introduced = false;
        self.topics.values_mut().for_each(Topic::on_connected);
    }

    /// The stream is gone. Everything held stays in force.
    pub fn on_disconnected(&mut self) {
        self.connected = false;
    }

    /// Whether a stream is open.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    /// The identifier that the control plane gave last.
    #[must_use]
    pub fn control_plane(&self) -> &str {
        &self.control_plane
    }

    /// Takes a response in. Those of a type that was never asked for are ignored, as Envoy does.
    pub fn on_response(
        &mut self,
        now: Instant,
        response: Response,
        accept: &mut dyn Accept,
    ) -> Vec<Event> {
        let (type_url, control_plane) = match &response {
            Response::Sotw(response) => (&response.type_url, &response.control_plane),
            Response::Delta(response) => (&response.type_url, &response.control_plane),
        };
        if let Some(control_plane) = control_plane {
            self.control_plane.clone_from(&control_plane.identifier);
        }
        let topic = ResourceType::from_type_url(type_url).and_then(|ty| self.topics.get_mut(&ty));
        let Some(topic) = topic.filter(|_| self.connected) else {
            return Vec::new();
        };
        let verdict = match response {
            Response::Sotw(response) => topic.on_sotw(now, response, accept),
            Response::Delta(response) => topic.on_delta(now, response, accept),
        };
        verdict.events
    }

    /// Whether something has to be said to the server, the rate limit aside.
    #[must_use]
    pub fn has_request(&self) -> bool {
        self.connected && self.topics.values().any(is_due)
    }

    /// Whether [`Subscriber::poll_request`] would give something now.
    #[must_use]
    pub fn may_send(&self, now: Instant) -> bool {
        self.has_request() && self.held_back.is_none_or(|at| at <= now)
    }

    /// The next request to send, if any, in the order of types that breaks nothing.
    pub fn poll_request(&mut self, now: Instant) -> Option<Request> {
        if !self.connected {
            return None;
        }
        let topic = self.topics.values_mut().find(|topic| is_due(topic))?;
        if let Some(Err(at)) = self.bucket.as_mut().map(|bucket| bucket.take(now)) {
            self.held_back = Some(at);
            return None;
        }
        self.held_back = None;
        let changed = std::mem::take(&mut topic.changed);
        let (ty, interest) = (topic.ty, &topic.interest);
        let mut request = match &mut topic.protocol {
            Protocol::Sotw(sotw) => Request::Sotw(sotw.request(ty, interest)),
            Protocol::Delta(delta) => {
                Request::Delta(delta.request(ty, interest, &topic.held, &changed))
            }
        };
        topic.on_told(&changed);
        if !self.introduced || !self.config.set_node_on_first_message_only {
            let node = Some(self.config.node.clone());
            match &mut request {
                Request::Sotw(request) => request.node = node,
                Request::Delta(request) => request.node = node,
            }
        }
        self.introduced = true;
        Some(request)
    }

    /// When [`Subscriber::on_timer`] or [`Subscriber::poll_request`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let topics = self.topics.values().filter_map(Topic::next_deadline);
        topics.chain(self.held_back).min()
    }

    /// Ends what has taken too long: first fetches, and resources that nobody renewed.
    pub fn on_timer(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for topic in self.topics.values_mut() {
            topic.on_timer(now, &mut events);
        }
        if self.held_back.is_some_and(|at| at <= now) {
            self.held_back = None;
        }
        events
    }

    /// The last version of `ty` that was accepted whole; empty with delta, which has none.
    #[must_use]
    pub fn version(&self, ty: ResourceType) -> &str {
        match self.topics.get(&ty).map(|topic| &topic.protocol) {
            Some(Protocol::Sotw(sotw)) => &sotw.version,
            _ => "",
        }
    }

    /// The accepted bytes of a resource, if it is held.
    #[must_use]
    pub fn held(&self, ty: ResourceType, name: &str) -> Option<&Bytes> {
        Some(&self.topics.get(&ty)?.held.get(name)?.body)
    }

    /// Everything held of a type, as a cache keeps it.
    #[must_use]
    pub fn all_held(&self, ty: ResourceType) -> Vec<Resource> {
        let Some(topic) = self.topics.get(&ty) else {
            return Vec::new();
        };
        let names = topic.held.names();
        names.filter_map(|name| topic.held.resource(name)).collect()
    }

    /// Where each resource stands.
    #[must_use]
    pub fn statuses(&self) -> Vec<ResourceStatus> {
        self.topics.values().flat_map(Topic::statuses).collect()
    }
}

fn is_due(topic: &Topic) -> bool {
    match &topic.protocol {
        Protocol::Sotw(sotw) => sotw.is_due(&topic.interest),
        Protocol::Delta(delta) => delta.is_due(&topic.interest, &topic.changed),
    }
}
