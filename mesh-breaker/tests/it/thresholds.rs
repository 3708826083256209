use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use mesh_breaker::{ThresholdsLayer, ThresholdsStats, export_gauges};
use mesh_core::{
    Body, Error, ErrorKind, FromRequest, Mode, Overflow, RequestInfo, Resource, Resources,
    ResponseFlag, Sent, Thresholds,
    stats::{Registry, Value},
};
use mesh_testkit::{Gate, Laws, Polled, Reply, ScriptedBody, Upstream, call, info, request};
use tower::ServiceExt as _;
use tower_layer::Layer as _;
use tower_service::Service;

fn bounds(max_pending_requests: u32, max_requests: u32) -> Arc<Resources> {
    Resources::new(&Thresholds {
        max_pending_requests,
        max_requests,
        ..Thresholds::default()
    })
}

fn in_use(resources: &Resources) -> (u32, u32) {
    (
        resources.in_use(Resource::Pending),
        resources.in_use(Resource::Requests),
    )
}

#[tokio::test(start_paused = true)]
async fn keeps_the_service_laws() {
    let resources = bounds(1024, 1024);
    let layer = ThresholdsLayer::shared(&resources).http();
    let seen = Arc::clone(&resources);
    Laws::new(move |upstream| layer.layer(upstream))
        .in_use(move || {
            let (pending, active) = in_use(&seen);
            (pending + active).into()
        })
        .check()
        .await;
    assert_eq!(in_use(&resources), (0, 0));
    let layer = ThresholdsLayer::new(&Thresholds::default());
    Laws::new(move |upstream| layer.layer(upstream))
        .check()
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_service_refuses_with_overflow_and_says_so_in_the_trace() {
    let (upstream, resources) = (Upstream::new(), bounds(0, 1));
    let stats = ThresholdsStats::detached();
    let mut service = ThresholdsLayer::shared(&resources)
        .stats(stats.clone())
        .http()
        .layer(upstream.service());
    upstream.reply(Reply::never());
    let mut first = Polled::new(service.clone().oneshot(request("http://a/")));
    assert!(first.run().is_pending());

    let (mut request, info) = (request("http://a/"), info());
    RequestInfo::attach(&info, &mut request);
    let error = call(&mut service, request).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Overflow(Resource::Requests));
    assert_eq!(error.kind().flag(), Some(ResponseFlag::UpstreamOverflow));
    assert_eq!(error.sent(), Sent::Nothing);
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.downcast_ref::<Overflow>().unwrap().limit, 1);
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "thresholds:requests_overflow 1/1"
    );
    assert_eq!(upstream.count(), 1);
    assert_eq!(stats.upstream_rq_active_overflow().value(), 1);
    assert_eq!(stats.upstream_rq_pending_overflow().value(), 0);

    drop(first);
    upstream.reply(Reply::status(200));
    assert!(call(&mut service, self::request("http://a/")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_takes_a_place_among_the_waiting_only_while_it_waits() {
    let (upstream, resources) = (Upstream::new(), bounds(1, 1));
    let stats = ThresholdsStats::detached();
    let service = ThresholdsLayer::shared(&resources)
        .stats(stats.clone())
        .http()
        .layer(upstream.service());
    let gate = Gate::new();
    upstream.reply(Reply::status(200).held(&gate));
    upstream.set_ready(false);

    let mut first = Polled::new(service.clone().oneshot(request("http://a/")));
    assert!(first.run().is_pending());
    assert_eq!(in_use(&resources), (1, 0));
    assert_eq!(stats.upstream_rq_pending_active().value(), 1);

    // A second finds the queue full.
    let error = service
        .clone()
        .oneshot(request("http://a/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overflow(Resource::Pending));
    assert_eq!(stats.upstream_rq_pending_overflow().value(), 1);

    upstream.set_ready(true);
    assert!(first.is_woken());
    assert!(first.run().is_pending());
    assert_eq!(in_use(&resources), (0, 1));
    gate.open();
    assert!(first.run().is_ready());
    assert_eq!(in_use(&resources), (0, 0));
    assert_eq!(stats.upstream_rq_pending_active().value(), 0);
    assert_eq!(stats.upstream_rq_pending_total().value(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_places_to_wait_a_ready_service_still_serves() {
    let (upstream, resources) = (Upstream::new(), bounds(0, 1));
    let service = ThresholdsLayer::shared(&resources)
        .http()
        .layer(upstream.service());
    upstream.reply(Reply::status(200));
    assert!(service.clone().oneshot(request("http://a/")).await.is_ok());
    upstream.set_ready(false);
    let error = service.oneshot(request("http://a/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overflow(Resource::Pending));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_request_gives_its_place_back() {
    let (upstream, resources) = (Upstream::new(), bounds(1, 1));
    let service = ThresholdsLayer::shared(&resources)
        .http()
        .layer(upstream.service());
    upstream.set_ready(false);
    let mut waiting = Polled::new(service.clone().oneshot(request("http://a/")));
    assert!(waiting.run().is_pending());
    drop(waiting);
    assert_eq!(in_use(&resources), (0, 0));

    upstream.set_ready(true);
    upstream.reply(Reply::never());
    let mut running = Polled::new(service.oneshot(request("http://a/")));
    assert!(running.run().is_pending());
    assert_eq!(in_use(&resources), (0, 1));
    drop(running);
    assert_eq!(in_use(&resources), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_http_request_runs_until_its_response_body_ends() {
    let (upstream, resources) = (Upstream::new(), bounds(1, 1));
    let layer = ThresholdsLayer::shared(&resources);
    let streaming = || Reply::status(200).body(ScriptedBody::new().data("a").data("b"));

    upstream.reply(streaming());
    let http = layer.clone().http().layer(upstream.service());
    let response = http.oneshot(request("http://a/")).await.unwrap();
    assert_eq!(in_use(&resources), (0, 1));
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "ab"
    );
    assert_eq!(in_use(&resources), (0, 0));

    // Around any service, only until its response is there.
    upstream.reply(streaming());
    let generic = layer.layer(upstream.service());
    let response = generic.oneshot(request("http://a/")).await.unwrap();
    assert_eq!(in_use(&resources), (0, 0));
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_gives_its_permit_back() {
    let (upstream, resources) = (Upstream::new(), bounds(1, 1));
    let service = ThresholdsLayer::shared(&resources)
        .http()
        .layer(upstream.service());
    upstream.reply(Reply::error(ErrorKind::RemoteReset));
    let mut failing = Polled::new(service.oneshot(request("http://a/")));
    let std::task::Poll::Ready(Err(error)) = failing.run() else {
        panic!("the scripted failure did not arrive");
    };
    assert_eq!(error.kind(), ErrorKind::RemoteReset);
    assert_eq!(in_use(&resources), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn each_request_is_bounded_by_the_resources_its_policy_names() {
    let upstream = Upstream::new();
    let (none, high) = (bounds(0, 0), bounds(1, 1));
    let source = {
        let (none, high) = (Arc::clone(&none), Arc::clone(&high));
        FromRequest(move |request: &Request<Body>| match request.uri().path() {
            "/none" => Some(Arc::clone(&none)),
            "/high" => Some(Arc::clone(&high)),
            _ => None,
        })
    };
    let service = ThresholdsLayer::from_source(source)
        .http()
        .layer(upstream.service());
    let send = |path: &str| service.clone().oneshot(request(&format!("http://a{path}")));
    assert_eq!(
        send("/none").await.unwrap_err().kind(),
        ErrorKind::Overflow(Resource::Requests)
    );
    upstream.script([Reply::status(200), Reply::status(200)]);
    assert!(send("/high").await.is_ok());
    assert!(send("/unbounded").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_lets_everything_through_and_counts_what_it_would_have_refused() {
    let (upstream, resources) = (Upstream::new(), bounds(0, 0));
    let stats = ThresholdsStats::detached();
    let service = ThresholdsLayer::shared(&resources)
        .stats(stats.clone())
        .mode(Mode::Shadow)
        .http()
        .layer(upstream.service());
    upstream.reply(Reply::status(200));
    let (mut request, info) = (request("http://a/"), info());
    RequestInfo::attach(&info, &mut request);
    assert!(service.oneshot(request).await.is_ok());
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "~thresholds:requests_overflow 0/0"
    );
    assert_eq!(stats.shadow_rq_overflow().value(), 1);
    assert_eq!(stats.upstream_rq_active_overflow().value(), 0);
    assert_eq!(in_use(&resources), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn works_around_a_service_that_is_not_http() {
    let resources = bounds(1, 1);
    let twice = tower::service_fn(|n: u32| async move { Ok::<_, std::io::Error>(2 * n) });
    let mut service = ThresholdsLayer::shared(&resources).layer(twice);
    assert_eq!(call(&mut service, 21).await.unwrap(), 42);
    let permit = resources.try_acquire(Resource::Requests).unwrap();
    let error: Error = call(&mut service, 21).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overflow(Resource::Requests));
    drop(permit);
}

#[test]
fn gauges_show_what_is_left_under_envoys_names() {
    let registry = Registry::new();
    let resources = bounds(2, 1);
    let guard = export_gauges(
        &registry,
        "cluster.a.circuit_breakers.default.",
        &resources,
        true,
    );
    let _permit = resources.try_acquire(Resource::Requests).unwrap();
    let gauges: Vec<String> = registry
        .snapshot()
        .into_iter()
        .map(|stat| match stat.value {
            Value::Gauge(value) => format!("{}={value}", stat.name),
            other => format!("{}: {other:?}", stat.name),
        })
        .collect();
    let prefix = "cluster.a.circuit_breakers.default.";
    let expected = [
        "cx_open=0",
        "remaining_cx=1024",
        "remaining_pending=2",
        "remaining_retries=3",
        "remaining_rq=0",
        "rq_open=1",
        "rq_pending_open=0",
        "rq_retry_open=0",
    ]
    .map(|gauge| format!("{prefix}{gauge}"));
    assert_eq!(gauges, expected);
    drop(guard);
    assert!(registry.snapshot().is_empty());
}

/// A compile-time check: the sidecar's service type fits.
fn _is_an_http_service<S>(
    service: S,
) -> impl Service<
    Request<Body>,
    Response = Response<mesh_core::GuardedBody<Body, Option<mesh_core::Permit>>>,
>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error> + Clone,
{
    ThresholdsLayer::new(&Thresholds::default())
        .http()
        .layer(service)
}
