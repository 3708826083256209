use std::{sync::Arc, time::Duration};

use http::{Method, Request};
use http_body_util::BodyExt as _;
use mesh_core::{Body, ErrorKind, FromRequest, Mode, RequestInfo, clock};
use mesh_retry::{Deadline, DeadlineConfig, DeadlineLayer, RetryLayer};
use mesh_testkit::{
    Gate, Polled, Reply, ScriptedBody, Stopwatch, Upstream, UpstreamService, advance, ready,
};
use tower::{Layer, Service as _, ServiceBuilder};

use super::{ms, usual};

fn stack(
    upstream: &Upstream,
    timeout: Duration,
) -> Deadline<UpstreamService, mesh_core::Fixed<DeadlineConfig>> {
    DeadlineLayer::new(DeadlineConfig::new(timeout)).layer(upstream.service())
}

fn get(headers: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = mesh_testkit::request("http://test/");
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

async fn lasts(timeout: Duration, headers: &[(&'static str, &str)]) -> Result<u128, u128> {
    let upstream = Upstream::new();
    upstream.reply(Reply::status(200).after(ms(60_000)));
    let watch = Stopwatch::start();
    let answer = mesh_testkit::call(&mut stack(&upstream, timeout), get(headers)).await;
    assert_eq!(upstream.in_flight(), 0);
    match answer {
        Ok(_) => Ok(watch.ms()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::RequestTimeout);
            Err(watch.ms())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_ended() {
    assert_eq!(lasts(ms(500), &[]).await, Err(500));
    assert_eq!(
        lasts(DeadlineConfig::default().timeout, &[]).await,
        Err(15_000)
    );
    assert_eq!(lasts(ms(0), &[]).await, Ok(60_000));
    assert_eq!(lasts(Duration::MAX, &[]).await, Ok(60_000));
}

#[tokio::test(start_paused = true)]
async fn the_header_replaces_the_timeout_and_is_consumed() {
    let name = "x-envoy-upstream-rq-timeout-ms";
    assert_eq!(lasts(ms(500), &[(name, "70")]).await, Err(70));
    assert_eq!(lasts(ms(0), &[(name, "70")]).await, Err(70));
    assert_eq!(lasts(ms(500), &[(name, "0")]).await, Ok(60_000));
    assert_eq!(lasts(ms(500), &[(name, "soon")]).await, Err(500));
    assert_eq!(
        lasts(ms(500), &[(name, "18446744073709551615")]).await,
        Ok(60_000)
    );
    let upstream = Upstream::new();
    let request = get(&[
        (name, "70"),
        ("x-envoy-upstream-rq-timeout-alt-response", "1"),
    ]);
    mesh_testkit::call(&mut stack(&upstream, ms(1)), request)
        .await
        .unwrap();
    assert!(upstream.requests()[0].headers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_expectation_from_in_front_counts_only_when_it_is_respected() {
    let headers = [
        ("x-envoy-expected-rq-timeout-ms", "70"),
        ("x-envoy-upstream-rq-timeout-ms", "90"),
    ];
    assert_eq!(lasts(ms(500), &headers).await, Err(90));
    let upstream = Upstream::new();
    upstream.reply(Reply::never());
    let mut service = DeadlineLayer::default()
        .respect_expected_rq_timeout(true)
        .layer(upstream.service());
    let watch = Stopwatch::start();
    assert!(
        mesh_testkit::call(&mut service, get(&headers))
            .await
            .is_err()
    );
    assert_eq!(watch.ms(), 70);
}

#[tokio::test(start_paused = true)]
async fn the_client_may_ask_for_204_instead_of_504() {
    let upstream = Upstream::new();
    upstream.script([Reply::never(), Reply::never()]);
    let mut service = stack(&upstream, ms(10));
    let request = get(&[("x-envoy-upstream-rq-timeout-alt-response", "1")]);
    let error = mesh_testkit::call(&mut service, request).await.unwrap_err();
    assert_eq!(error.reply().unwrap().status, 204);
    let error = mesh_testkit::call(&mut service, get(&[]))
        .await
        .unwrap_err();
    assert!(error.reply().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_time_starts_when_the_request_is_complete() {
    let gate = Gate::new();
    let body = ScriptedBody::new().data("a").wait(&gate).data("b");
    let upstream = Upstream::new();
    upstream.reply(Reply::never());
    let mut service = stack(&upstream, ms(100));
    let mut request = mesh_testkit::request_with(Method::POST, "http://test/", body);
    let info = mesh_testkit::info();
    RequestInfo::attach(&info, &mut request);
    ready::<_, Request<Body>>(&mut service).await.unwrap();
    let mut call = Polled::new(service.call(request));
    assert!(call.poll().is_pending());
    advance(ms(5_000)).await;
    assert!(call.run().is_pending());
    assert_eq!(info.with(|facts| facts.deadline), None);
    gate.open();
    assert!(call.run().is_pending());
    let expected = clock::now() + ms(100);
    assert_eq!(info.with(|facts| facts.deadline), Some(expected));
    advance(ms(99)).await;
    assert!(call.run().is_pending());
    advance(ms(1)).await;
    assert!(call.is_woken());
    assert!(call.run().is_ready());
    assert_eq!(info.flags.to_string(), "UT");
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "deadline:request_timeout 100/100"
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_that_takes_too_long_fails_on_the_way() {
    let upstream = Upstream::new();
    let body = ScriptedBody::new().data("a").stall();
    upstream.reply(Reply::status(200).body(body).after(ms(60)));
    let watch = Stopwatch::start();
    let response = mesh_testkit::call(&mut stack(&upstream, ms(100)), get(&[]))
        .await
        .unwrap();
    let mut body = Body::from(response.into_body());
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "a"
    );
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);
    assert_eq!(watch.ms(), 100);
    assert_eq!(upstream.open_bodies(), 0);
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_time_may_start_only_after_the_response_has() {
    let gate = Gate::new();
    let request = ScriptedBody::new().data("a").wait(&gate).data("b").silent();
    let echo = tower::service_fn(|request: Request<mesh_retry::WatchedBody<Body>>| async {
        let body = Body::from(request.into_body());
        let (ends, rest) = (body, ScriptedBody::new().stall());
        let _keeps = tokio::spawn(async move { ends.collect().await });
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(rest)))
    });
    let service = DeadlineLayer::new(DeadlineConfig::new(ms(100))).layer(echo);
    let request = mesh_testkit::request_with(Method::POST, "http://test/", request);
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    advance(ms(1_000)).await;
    gate.open();
    let watch = Stopwatch::start();
    let mut body = Body::from(response.into_body());
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);
    assert_eq!(watch.ms(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_always_has_more_is_ended_too() {
    let upstream = Upstream::new();
    let body = (0..1000).fold(ScriptedBody::new(), |body, _| body.data("x"));
    upstream.reply(Reply::status(200).body(body));
    let response = mesh_testkit::call(&mut stack(&upstream, ms(100)), get(&[]))
        .await
        .unwrap();
    advance(ms(100)).await;
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);
}

#[tokio::test(start_paused = true)]
async fn all_attempts_and_waits_are_covered() {
    let upstream = Upstream::new();
    upstream.script((0..1_000).map(|_| Reply::status(503).after(ms(30))));
    let mut service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(DeadlineConfig::new(ms(1_000))))
        .layer(RetryLayer::new(usual().num_retries(1_000).build()))
        .service(upstream.service());
    let watch = Stopwatch::start();
    let error = mesh_testkit::call(&mut service, get(&[]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);
    assert_eq!(watch.ms(), 1_000);
    assert!(upstream.count() > 3);
}

#[tokio::test(start_paused = true)]
async fn a_per_try_timeout_that_is_not_shorter_is_ignored() {
    for (per_try, expected) in [(100, 1), (99, 2)] {
        let upstream = Upstream::new();
        upstream.script((0..9).map(|_| Reply::never()));
        let retry = usual().per_try_timeout(ms(per_try)).build();
        let mut service = ServiceBuilder::new()
            .layer(DeadlineLayer::new(DeadlineConfig::new(ms(100))))
            .layer(RetryLayer::new(retry).with_rng(mesh_core::Rng::seeded(0)))
            .service(upstream.service());
        let mut request = get(&[]);
        let info = mesh_testkit::info();
        RequestInfo::attach(&info, &mut request);
        let error = mesh_testkit::call(&mut service, request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestTimeout);
        let decisions = info.with(|facts| facts.trace.decisions().len());
        // The route timeout alone, or the per-try timeout and its retry before it.
        assert_eq!(decisions, if expected == 1 { 1 } else { 3 });
    }
}

#[tokio::test(start_paused = true)]
async fn in_memory_bodies_stay_in_memory_through_both_layers() {
    let upstream = tower::service_fn(|request: Request<Body>| async move {
        assert_eq!(request.body().as_full(), Some(&b"hello"[..]));
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from("hi")))
    });
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::default())
        .layer(RetryLayer::new(usual().build()))
        .map_request(
            |request: Request<mesh_retry::ReplayBody<mesh_retry::WatchedBody<Body>>>| {
                request.map(Body::from)
            },
        )
        .service(upstream);
    let request = mesh_testkit::request_with(Method::POST, "http://test/", "hello");
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    let body = Body::from(response.into_body());
    assert_eq!(body.as_full(), Some(&b"hi"[..]));
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_nothing_is_touched_or_timed() {
    let upstream = Upstream::new();
    upstream.reply(Reply::status(200).after(ms(60_000)));
    let none = FromRequest(|_: &Request<Body>| None::<Arc<DeadlineConfig>>);
    let mut service = DeadlineLayer::from_source(none).layer(upstream.service());
    let request = get(&[("x-envoy-upstream-rq-timeout-ms", "1")]);
    mesh_testkit::call(&mut service, request).await.unwrap();
    assert_eq!(upstream.requests()[0].headers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn shadow_says_so_and_goes_on() {
    let upstream = Upstream::new();
    upstream.reply(Reply::status(200).after(ms(200)));
    let config = DeadlineConfig {
        mode: Mode::Shadow,
        ..DeadlineConfig::new(ms(100))
    };
    let mut service = DeadlineLayer::new(config).layer(upstream.service());
    let mut request = get(&[]);
    let info = mesh_testkit::info();
    RequestInfo::attach(&info, &mut request);
    let response = mesh_testkit::call(&mut service, request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "~deadline:request_timeout 100/100"
    );
    assert_eq!(info.flags.to_string(), "-");
}

#[tokio::test(start_paused = true)]
async fn when_the_time_is_up_the_attempt_ends_before_the_future_is_dropped() {
    let upstream = Upstream::new();
    upstream.reply(Reply::never());
    let mut service = stack(&upstream, ms(100));
    ready::<_, Request<Body>>(&mut service).await.unwrap();
    let mut call = Polled::new(service.call(get(&[])));
    assert!(call.poll().is_pending());
    advance(ms(100)).await;
    assert!(call.run().is_ready());
    assert_eq!(upstream.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_reads_to_its_end_counts_as_ended_when_it_is_dropped() {
    let careless = tower::service_fn(|request: Request<mesh_retry::WatchedBody<Body>>| {
        drop(request);
        std::future::pending::<Result<http::Response<Body>, mesh_core::Error>>()
    });
    let service = DeadlineLayer::new(DeadlineConfig::new(ms(100))).layer(careless);
    let body = ScriptedBody::new().data("a").stall();
    let request = mesh_testkit::request_with(Method::POST, "http://test/", body);
    let watch = Stopwatch::start();
    let answer = tower::ServiceExt::oneshot(service, request).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::RequestTimeout);
    assert_eq!(watch.ms(), 100);
}
