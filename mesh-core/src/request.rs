use std::{
    any::Any,
    borrow::Cow,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Request, Version};
use smallvec::SmallVec;

use crate::{
    ConnectionInfo, Decision, DecisionTrace, Endpoint, Metadata, ResponseFlag, ResponseFlags,
    TlsFacts,
};

/// Facts that come to be known while a request runs. Written where they happen, read by the access log
/// at the end, also when the request fails.
#[derive(Default)]
#[non_exhaustive]
pub struct Facts {
    /// `%ROUTE_NAME%`.
    pub route_name: Option<Arc<str>>,
    /// `%UPSTREAM_CLUSTER%`.
    pub cluster: Option<Arc<str>>,
    /// `%METADATA(ROUTE:…)%`.
    pub route_metadata: Option<Arc<Metadata>>,
    /// `%METADATA(CLUSTER:…)%`, `%CLUSTER_METADATA(…)%`.
    pub cluster_metadata: Option<Arc<Metadata>>,
    /// The endpoint of the last attempt. `%UPSTREAM_HOST%`.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The endpoints of all attempts, in order, for previous-hosts predicates; bounded by the attempts.
    pub tried: SmallVec<[Arc<Endpoint>; 2]>,
    /// This process's end of the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// The client's protocol. `%PROTOCOL%`.
    pub protocol: Option<Version>,
    /// The upstream connection's protocol. `%UPSTREAM_PROTOCOL%`.
    pub upstream_protocol: Option<Version>,
    /// The upstream connection's number.
    pub upstream_connection_id: Option<u64>,
    /// What the upstream connection's handshake brought, if it is encrypted. `%UPSTREAM_TLS_*%`,
    /// `%UPSTREAM_PEER_*%`.
    pub upstream_tls: Option<Arc<dyn TlsFacts>>,
    /// The trusted client address, after `x-forwarded-for` was read. `%DOWNSTREAM_REMOTE_ADDRESS%`.
    pub remote: Option<SocketAddr>,
    /// Attempts begun. `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`.
    pub attempts: u32,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<Cow<'static, str>>,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub termination: Option<Cow<'static, str>>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub transport_failure: Option<Cow<'static, str>>,
    /// When the route timeout ends.
    pub deadline: Option<Instant>,
    /// The matched route's idle timeout for the stream, in place of the listener's; zero is off.
    pub idle_timeout: Option<Duration>,
    /// How long the stream may last, where the matched route says so; zero is for ever.
    pub max_stream_duration: Option<Duration>,
    /// The last byte of the request was received.
    pub request_received: Option<Instant>,
    /// The last attempt began. This and the other three times of an attempt are noted only where a format
    /// asks for them: see [`Captures::wants_timings`](crate::format::Captures::wants_timings).
    pub attempt_started: Option<Instant>,
    /// The last attempt got its connection.
    pub upstream_ready: Option<Instant>,
    /// The last byte of the request was sent upstream.
    pub request_sent: Option<Instant>,
    /// The first byte of the response was received.
    pub response_started: Option<Instant>,
    /// The last byte of the response was received.
    pub response_received: Option<Instant>,
    /// It asks whether this process is well, and is answered by the health check filter or as that says.
    pub health_check: bool,
    /// Request headers that the access log asked for, in the order it named them.
    pub captured: SmallVec<[Option<HeaderValue>; 8]>,
    /// The answers to tests on the request's head that log filters asked for, in their order.
    pub passed: SmallVec<[bool; 8]>,
    /// What was decided, and why.
    pub trace: DecisionTrace,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("route_name", &self.route_name)
            .field("cluster", &self.cluster)
            .field("attempts", &self.attempts)
            .field("details", &self.details)
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

/// Everything that is known about one request, from its first byte to its log line.
///
/// There is one per request, behind one key of its extensions, and every attempt shares it. What a
/// policy learns deep inside reaches the access log even when the request fails.
pub struct RequestInfo {
    /// When its first byte was read.
    pub start: Instant,
    /// The same on the wall clock.
    pub start_wall: SystemTime,
    /// One random number per request: the draw for fractions, weights and sampling, so that these agree.
    pub random: u64,
    /// The config that serves this request, from start to end.
    pub config_version: Arc<str>,
    /// The client's connection.
    pub connection: Arc<ConnectionInfo>,
    /// Why the response is what it is.
    pub flags: ResponseFlags,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    /// No fact, since every policy asks for it and it never changes.
    route: Option<Arc<dyn Any + Send + Sync>>,
    facts: Mutex<Facts>,
}

impl RequestInfo {
    /// A request that starts now.
    #[must_use]
    pub fn new(
        start: Instant,
        random: u64,
        connection: Arc<ConnectionInfo>,
        config_version: Arc<str>,
    ) -> Self {
        Self {
            start,
            start_wall: crate::clock::wall(),
            random,
            config_version,
            connection,
            flags: ResponseFlags::default(),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            route: None,
            facts: Mutex::default(),
        }
    }

    /// The info of `request`, if some layer above put it there.
    pub fn of<B>(request: &Request<B>) -> Option<&Arc<Self>> {
        request.extensions().get::<Arc<Self>>()
    }

    /// Puts `info` onto `request`.
    pub fn attach<B>(info: &Arc<Self>, request: &mut Request<B>) {
        request.extensions_mut().insert(Arc::clone(info));
    }

    /// Reads or writes the facts. Never call it from within itself.
    pub fn with<T>(&self, f: impl FnOnce(&mut Facts) -> T) -> T {
        // A panic while a fact was written leaves plain data behind: go on with it.
        f(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The facts, while nobody else has this info.
    pub fn facts_mut(&mut self) -> &mut Facts {
        self.facts.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The matched route, as whoever matched it knows its type.
    #[must_use]
    pub fn route<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.route.as_ref()?.downcast_ref()
    }

    /// Remembers the matched route, before anybody else has this info: what was decided about a request holds
    /// for all of its policies, from start to end.
    pub fn set_route(&mut self, route: Arc<dyn Any + Send + Sync>) {
        self.route = Some(route);
    }

    /// Remembers a decision.
    pub fn decide(&self, decision: Decision) {
        self.with(|facts| facts.trace.push(decision));
    }

    /// Remembers a decision about `request`, if it has an info.
    pub fn trace<B>(request: &Request<B>, decision: impl FnOnce() -> Decision) {
        if let Some(info) = Self::of(request) {
            info.decide(decision());
        }
    }

    /// Sets a response flag.
    pub fn flag(&self, flag: ResponseFlag) {
        self.flags.set(flag);
    }

    /// Sets the details; the last word counts.
    pub fn set_details(&self, details: impl Into<Cow<'static, str>>) {
        self.with(|facts| facts.details = Some(details.into()));
    }

    /// Body bytes received from the client so far.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received.load(Ordering::Relaxed)
    }

    /// Body bytes sent to the client so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Counts body bytes from the client.
    pub fn add_received(&self, bytes: u64) {
        // Most requests have none, and a locked addition is not for nothing.
        if bytes > 0 {
            self.bytes_received.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts body bytes to the client.
    pub fn add_sent(&self, bytes: u64) {
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for RequestInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestInfo")
            .field("connection", &self.connection.id)
            .field("flags", &self.flags.to_string())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;

    use super::RequestInfo;
    use crate::{ConnectionInfo, Decision, Reason, clock};

    #[test]
    fn what_one_attempt_learns_is_seen_by_all() {
        let mut info = RequestInfo::new(
            clock::now(),
            0,
            Arc::new(ConnectionInfo::in_process()),
            Arc::from("1"),
        );
        info.set_route(Arc::new(7u32));
        let info = Arc::new(info);
        let mut request = Request::new(());
        RequestInfo::attach(&info, &mut request);
        let attempt = request.clone();
        RequestInfo::trace(&attempt, || Decision::new("retry", Reason::Retried, 1, 2));
        assert_eq!(
            info.with(|facts| facts.trace.to_string()),
            "retry:retried 1/2"
        );
        assert_eq!(info.route::<u32>(), Some(&7));
        assert!(info.route::<u8>().is_none());
    }
}
