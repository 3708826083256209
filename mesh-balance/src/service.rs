use std::{
    collections::HashMap,
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use mesh_core::{
    BoxError, Decision, EndGuard, Endpoint, Error, Http, Reason, RequestInfo, Requests,
    ResponseFlag, Responses, Rng, StreamEnd, clock, sync::Ordering,
};
use tower_service::Service;

use crate::{BalanceConfig, Balancer, EndpointSet, NoHealthy, PickContext, ResponseFuture};

/// Spreads requests over services, one for each endpoint; see the [crate's page](crate).
///
/// It is always ready: which service gets a request is known only in `call`, and that one is driven
/// ready inside the future. Clones share endpoints, services and the algorithm's place in them.
///
/// A request counts in its endpoint's `rq_active` until the response's body ends. With
/// [`Generic`](mesh_core::Generic) in place of [`Http`], it balances services of any kind, and a
/// response is over when it is there.
pub struct Balance<S, K = Http> {
    shared: Arc<Mutex<Shared<S>>>,
    rng: Rng,
    avoid_attempts: u32,
    protocol: PhantomData<fn() -> K>,
}

struct Shared<S> {
    balancer: Balancer,
    /// In the order of the balancer's set.
    services: Vec<S>,
}

impl<S, K> Balance<S, K> {
    /// Balances over `members`; of those with the same address, the first is kept.
    #[must_use]
    pub fn new(config: impl Into<BalanceConfig>, members: Vec<(Endpoint, S)>) -> Self {
        let (set, services) = split(members);
        let balancer = Balancer::new(config.into(), set);
        Self {
            shared: Arc::new(Mutex::new(Shared { balancer, services })),
            rng: Rng::default(),
            avoid_attempts: 0,
            protocol: PhantomData,
        }
    }

    /// Draws from `rng`, so that a test knows the outcome.
    #[must_use]
    pub fn with_rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Picks again, up to `attempts` times, while an endpoint comes up that the request has been to
    /// already. That is known when a retry above keeps a [`RequestInfo`] on its requests.
    #[must_use]
    pub const fn avoiding_tried(mut self, attempts: u32) -> Self {
        self.avoid_attempts = attempts;
        self
    }

    /// Balances over other members from now on, in all clones. Running requests go on.
    pub fn replace(&self, members: Vec<(Endpoint, S)>) {
        let (set, services) = split(members);
        let mut shared = self.lock();
        shared.balancer.update(&set);
        shared.services = services;
    }

    /// The endpoints.
    #[must_use]
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        Arc::clone(self.lock().balancer.set())
    }

    fn lock(&self) -> MutexGuard<'_, Shared<S>> {
        // A panic within a pick or a clone of a service leaves valid tables behind: go on with them.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn split<S>(members: Vec<(Endpoint, S)>) -> (Arc<EndpointSet>, Vec<S>) {
    let mut services = HashMap::new();
    let mut endpoints = Vec::new();
    for (endpoint, service) in members {
        services
            .entry(endpoint.address().clone())
            .or_insert(service);
        endpoints.push(endpoint);
    }
    let set = EndpointSet::new(endpoints);
    let in_order = set.endpoints().iter();
    let in_order = in_order.filter_map(|endpoint| services.remove(endpoint.address()));
    let in_order = in_order.collect();
    (set, in_order)
}

impl<S: Clone, K> Balance<S, K> {
    fn pick(&self, info: Option<&Arc<RequestInfo>>) -> Result<(Arc<Endpoint>, S), NoHealthy> {
        let tried = match info {
            Some(info) if self.avoid_attempts > 0 => info.with(|facts| facts.tried.clone()),
            _ => Default::default(),
        };
        let context = PickContext::new(&self.rng).avoiding(&tried, self.avoid_attempts);
        let mut shared = self.lock();
        let now = shared.balancer.needs_time().then(clock::now);
        let place = shared.balancer.pick_place(&context.at(now));
        if let (Some(info), Some(panic)) = (info, shared.balancer.panic()) {
            info.decide(Decision::new(
                "balance",
                Reason::Panic,
                panic.usable,
                panic.total,
            ));
        }
        let place = place?;
        let endpoint = Arc::clone(&shared.balancer.set().endpoints()[place]);
        Ok((endpoint, shared.services[place].clone()))
    }
}

impl<S, K> Clone for Balance<S, K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            rng: self.rng.clone(),
            avoid_attempts: self.avoid_attempts,
            protocol: PhantomData,
        }
    }
}

impl<S, K> fmt::Debug for Balance<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("balancer", &self.lock().balancer)
            .finish_non_exhaustive()
    }
}

impl<S, R, K> Service<R> for Balance<S, K>
where
    S: Service<R, Error: Into<BoxError>> + Clone,
    K: Requests<R> + Responses<S::Response, ActiveRequest>,
{
    type Response = K::Held;
    type Error = Error;
    type Future = ResponseFuture<S, R, K>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let info = K::info(&request);
        match self.pick(info) {
            Ok((endpoint, service)) => {
                if let Some(info) = info {
                    info.with(|facts| {
                        facts.tried.push(Arc::clone(&endpoint));
                        facts.endpoint = Some(Arc::clone(&endpoint));
                    });
                }
                ResponseFuture::new(service, request, ActiveRequest::start(endpoint))
            }
            Err(none) => {
                if let Some(info) = info {
                    info.flag(ResponseFlag::NoHealthyUpstream);
                    let total = none.total as u64;
                    info.decide(Decision::new(
                        "balance",
                        Reason::NoHealthyUpstream,
                        0,
                        total,
                    ));
                }
                ResponseFuture::refuse(none.into())
            }
        }
    }
}

/// Counts one request of an endpoint in its `rq_active` for as long as it lives.
#[derive(Debug)]
pub struct ActiveRequest(Arc<Endpoint>);

impl ActiveRequest {
    /// A request that starts now; it counts in `rq_total` too.
    #[must_use]
    pub fn start(endpoint: Arc<Endpoint>) -> Self {
        // Relaxed: numbers to compare and to show, nothing is published with them.
        let stats = &endpoint.state.stats;
        stats.rq_total.fetch_add(1, Ordering::Relaxed);
        stats.rq_active.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    /// Whose request it is.
    #[must_use]
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.state.stats.rq_active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EndGuard for ActiveRequest {
    fn on_end(&mut self, _: StreamEnd) {}
}
