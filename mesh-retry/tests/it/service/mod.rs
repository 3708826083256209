mod conditions;
mod deadline;
mod facts;
mod hedging;
mod limits;
mod per_try;
mod replay;
mod threads;
mod waits;

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use mesh_core::{
    Body, Error, Fixed, RequestInfo, Resource, RetryLimit, Rng, Thresholds,
    stats::{Registry, Value},
};
use mesh_retry::{
    OwnBudget, ResponseFuture, Retry, RetryBody, RetryConfig, RetryConfigBuilder, RetryContext,
    RetryLayer, RetryOn,
};
use mesh_testkit::{Polled, Reply, Upstream, UpstreamService};
use tower::Layer;

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Retries on gateway errors and resets.
pub(super) fn usual() -> RetryConfigBuilder {
    RetryConfig::builder().retry_on(RetryOn::GATEWAY_ERROR | RetryOn::RETRIABLE_4XX)
}

pub(super) type Service = Retry<UpstreamService, Fixed<RetryConfig>, OwnBudget>;
pub(super) type Future = ResponseFuture<UpstreamService, Body, OwnBudget>;
pub(super) type Answer = Result<Response<RetryBody<Body>>, Error>;

/// A retry service over a scripted upstream, and everything that a test may look at.
pub(super) struct Bench {
    pub(super) upstream: Upstream,
    pub(super) service: Service,
    pub(super) budget: OwnBudget,
    pub(super) info: Arc<RequestInfo>,
    registry: Registry,
}

impl Bench {
    pub(super) fn new(config: RetryConfig) -> Self {
        Self::with_thresholds(config, &Thresholds::default())
    }

    pub(super) fn with_max_retries(config: RetryConfig, max: u32) -> Self {
        let thresholds = Thresholds {
            retries: RetryLimit::Max(max),
            ..Thresholds::default()
        };
        Self::with_thresholds(config, &thresholds)
    }

    fn with_thresholds(config: RetryConfig, thresholds: &Thresholds) -> Self {
        let registry = Registry::new();
        let budget = OwnBudget::new(thresholds).with_stats(&registry.scope(""));
        let upstream = Upstream::new();
        let layer = RetryLayer::new(config)
            .with_budget(budget.clone())
            .with_rng(Rng::seeded(1));
        Self {
            service: layer.layer(upstream.service()),
            upstream,
            budget,
            info: mesh_testkit::info(),
            registry,
        }
    }

    /// With this script for the upstream.
    pub(super) fn script(self, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.upstream.script(replies);
        self
    }

    pub(super) async fn send(&mut self, mut request: Request<Body>) -> Answer {
        RequestInfo::attach(&self.info, &mut request);
        mesh_testkit::call(&mut self.service, request).await
    }

    pub(super) async fn get(&mut self) -> Answer {
        self.send(mesh_testkit::request("http://test/")).await
    }

    /// A `GET` with these headers.
    pub(super) async fn get_with(&mut self, headers: &[(&'static str, &str)]) -> Answer {
        let mut request = mesh_testkit::request("http://test/");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        self.send(request).await
    }

    /// A `GET` that is under way, not polled yet.
    pub(super) async fn start(&mut self) -> Polled<Future> {
        self.start_with(mesh_testkit::request("http://test/")).await
    }

    pub(super) async fn start_with(&mut self, request: Request<Body>) -> Polled<Future> {
        mesh_testkit::ready::<_, Request<Body>>(&mut self.service)
            .await
            .unwrap();
        Polled::new(tower::Service::call(&mut self.service, request))
    }

    /// The status of a `GET`.
    pub(super) async fn status(&mut self) -> u16 {
        self.get().await.unwrap().status().as_u16()
    }

    pub(super) fn counter(&self, name: &str) -> u64 {
        let stats = self.registry.snapshot();
        match stats.iter().find(|stat| stat.name == name).unwrap().value {
            Value::Counter(value) => value,
            ref other => panic!("{name} is no counter: {other:?}"),
        }
    }

    /// All counters that are not zero.
    pub(super) fn counters(&self) -> Vec<String> {
        let stats = self.registry.snapshot();
        let counted = stats.into_iter().filter_map(|stat| match stat.value {
            Value::Counter(value) if value > 0 => Some(format!("{}={value}", stat.name)),
            _ => None,
        });
        counted.collect()
    }

    pub(super) fn retries_in_use(&self) -> u32 {
        self.budget.resources().in_use(Resource::Retries)
    }

    pub(super) fn requests_in_use(&self) -> u32 {
        self.budget.resources().in_use(Resource::Requests)
    }

    pub(super) fn flags(&self) -> String {
        self.info.flags.to_string()
    }

    pub(super) fn trace(&self) -> String {
        self.info.with(|facts| facts.trace.to_string())
    }

    pub(super) fn attempts(&self) -> u32 {
        self.info.with(|facts| facts.attempts)
    }
}
