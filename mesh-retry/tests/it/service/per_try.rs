use std::{convert::Infallible, sync::Mutex};

use http::{Request, Response};
use mesh_core::{Attempt, Body, ErrorKind, RequestInfo, clock};
use mesh_retry::{ReplayBody, RetryConfig, RetryLayer, RetryOn};
use mesh_testkit::{Gate, Reply, ScriptedBody, Stopwatch, advance, settle};
use tower::{Layer, ServiceExt as _, service_fn};

use super::{Bench, ms, usual};

fn config() -> RetryConfig {
    usual().per_try_timeout(ms(100)).build()
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_ended_and_repeated() {
    let mut bench = Bench::new(
        usual()
            .per_try_timeout(ms(100))
            .include_is_timeout_retry_header(true)
            .build(),
    )
    .script([Reply::never(), Reply::ok("fast")]);
    let watch = Stopwatch::start();
    assert_eq!(bench.status().await, 200);
    assert!((100..=126).contains(&watch.ms()));
    assert_eq!(bench.upstream.in_flight(), 0);
    assert_eq!(bench.counter("upstream_rq_per_try_timeout"), 1);
    assert_eq!(
        bench.trace(),
        "retry:per_try_timeout 100/100;retry:retried 1/2"
    );
    let seen = bench.upstream.requests();
    assert_eq!(seen[1].headers["x-envoy-is-timeout-retry"], "true");
    // Whoever watches the endpoint can tell why the attempt ended.
    assert!(seen[0].extensions.get::<Attempt>().unwrap().is_timed_out());
    assert!(!seen[1].extensions.get::<Attempt>().unwrap().is_timed_out());
}

#[tokio::test(start_paused = true)]
async fn the_last_timeout_is_the_error() {
    let mut bench = Bench::new(config()).script([Reply::never(), Reply::never()]);
    let error = bench.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PerTryTimeout);
    assert_eq!(bench.flags(), "URX");
    assert_eq!(bench.counter("upstream_rq_per_try_timeout"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_a_reset_and_no_connect_failure() {
    for (on, attempts) in [
        (RetryOn::CONNECT_FAILURE, 1),
        (RetryOn::RESET_BEFORE_REQUEST, 1),
        (RetryOn::RESET, 2),
        (RetryOn::FIVE_XX, 2),
    ] {
        let config = RetryConfig::builder()
            .retry_on(on)
            .per_try_timeout(ms(10))
            .build();
        let mut bench = Bench::new(config).script([Reply::never(), Reply::status(200)]);
        let _ = bench.get().await;
        assert_eq!(bench.upstream.count(), attempts, "{on}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_applies_without_any_condition() {
    let config = RetryConfig::builder().per_try_timeout(ms(10)).build();
    let mut bench = Bench::new(config).script([Reply::never()]);
    let error = bench.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PerTryTimeout);
    assert_eq!((bench.upstream.count(), bench.flags()), (1, "-".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_header_replaces_it_and_zero_switches_it_off() {
    let name = "x-envoy-upstream-rq-per-try-timeout-ms";
    let slow = || Reply::status(200).after(ms(150));
    let mut bench = Bench::new(config()).script([slow(), slow()]);
    assert_eq!(
        bench.get().await.unwrap_err().kind(),
        ErrorKind::PerTryTimeout
    );
    for off in ["0", "200", "18446744073709551615"] {
        let mut bench = Bench::new(config()).script([slow()]);
        assert_eq!(bench.get_with(&[(name, off)]).await.unwrap().status(), 200);
        assert_eq!(bench.upstream.count(), 1);
    }
    let mut bench = Bench::new(RetryConfig::builder().build()).script([slow()]);
    let error = bench.get_with(&[(name, "100")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PerTryTimeout);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_response_headers() {
    let body = ScriptedBody::new().data("a").stall();
    let mut bench = Bench::new(config()).script([Reply::status(200).body(body)]);
    let response = bench.get().await.unwrap();
    advance(ms(1000)).await;
    let mut body = Body::from(response.into_body());
    let frame = http_body_util::BodyExt::frame(&mut body).await;
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "a");
    assert_eq!(bench.counter("upstream_rq_per_try_timeout"), 0);
}

#[tokio::test(start_paused = true)]
async fn it_starts_when_the_request_is_complete() {
    let gate = Gate::new();
    let body = ScriptedBody::new().data("a").wait(&gate).data("b");
    let mut bench = Bench::new(config()).script([Reply::never(), Reply::status(200)]);
    let watch = Stopwatch::start();
    let sending = async {
        advance(ms(500)).await;
        gate.open();
    };
    let request = mesh_testkit::request_with(http::Method::POST, "http://test/", body);
    let (answer, ()) = tokio::join!(bench.send(request), sending);
    assert_eq!(answer.unwrap().status(), 200);
    assert!((600..=626).contains(&watch.ms()), "{}", watch.ms());
    assert_eq!(bench.upstream.requests()[1].body, "ab");
}

/// A transport that needs 300 ms for a connection and then never answers.
#[tokio::test(start_paused = true)]
async fn it_starts_when_a_connection_is_ready() {
    let inner = service_fn(|request: Request<ReplayBody<Body>>| async move {
        let attempt = request.extensions().get::<Attempt>().unwrap().clone();
        attempt.defer();
        attempt.request_complete();
        tokio::time::sleep(ms(300)).await;
        attempt.connected();
        std::future::pending::<()>().await;
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let config = RetryConfig::builder().per_try_timeout(ms(100)).build();
    let service = RetryLayer::new(config).layer(inner);
    let watch = Stopwatch::start();
    let error = service
        .oneshot(mesh_testkit::request("http://test/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PerTryTimeout);
    assert_eq!(watch.ms(), 400);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_has_a_marker_of_its_own() {
    let seen = Mutex::new(Vec::<Attempt>::new());
    let inner = service_fn(|request: Request<ReplayBody<Body>>| {
        let attempt = request.extensions().get::<Attempt>().unwrap().clone();
        assert!(!attempt.is_connected());
        attempt.connected();
        seen.lock().unwrap().push(attempt);
        async { Err::<Response<Body>, _>(mesh_core::Error::new(ErrorKind::RemoteReset)) }
    });
    let service = RetryLayer::new(config()).layer(inner);
    let answer = service.oneshot(mesh_testkit::request("http://test/")).await;
    assert!(answer.is_err());
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_would_fire_after_the_route_timeout_has_no_say() {
    let mut bench = Bench::new(config()).script([Reply::status(200).after(ms(150))]);
    let deadline = clock::now() + ms(100);
    bench.info.with(|facts| facts.deadline = Some(deadline));
    assert_eq!(bench.status().await, 200);
    assert_eq!(bench.counter("upstream_rq_per_try_timeout"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_attempt_is_ended_and_repeated() {
    let config = usual().per_try_idle_timeout(ms(50)).build();
    let mut bench = Bench::new(config).script([Reply::never(), Reply::never()]);
    let error = bench.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PerTryIdleTimeout);
    assert_eq!(bench.upstream.count(), 2);
    assert_eq!(bench.counter("upstream_rq_per_try_idle_timeout"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_be_silent_while_its_request_goes_on() {
    use http_body_util::BodyExt as _;
    let (upload, answer) = (Gate::new(), Gate::new());
    let request = ScriptedBody::new().data("a").wait(&upload).data("b");
    let body = ScriptedBody::new().wait(&answer).data("x");
    let config = usual().per_try_idle_timeout(ms(50)).build();
    let mut bench = Bench::new(config).script([Reply::status(200).early().body(body)]);
    let request = Request::new(Body::new(request));
    let mut response = Body::from(bench.send(request).await.unwrap().into_body());
    let opening = async {
        advance(ms(100)).await;
        answer.open();
    };
    let (frame, ()) = tokio::join!(response.frame(), opening);
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "x");
    assert_eq!(bench.counter("upstream_rq_per_try_idle_timeout"), 0);
    upload.open();
}

#[tokio::test(start_paused = true)]
async fn the_idle_timeout_goes_on_through_the_body_and_every_frame_restarts_it() {
    use http_body_util::BodyExt as _;
    let (first, second) = (Gate::new(), Gate::new());
    let body = ScriptedBody::new()
        .wait(&first)
        .data("a")
        .wait(&second)
        .data("b")
        .stall();
    let config = usual().per_try_idle_timeout(ms(50)).build();
    let mut bench = Bench::new(config).script([Reply::status(200).body(body)]);
    let mut response = Body::from(bench.get().await.unwrap().into_body());
    let watch = Stopwatch::start();
    let opening = async {
        advance(ms(40)).await;
        first.open();
        settle().await;
        advance(ms(40)).await;
        second.open();
    };
    let reading = async {
        let mut read = String::new();
        loop {
            match response.frame().await.unwrap() {
                Ok(frame) => read.push_str(str::from_utf8(frame.data_ref().unwrap()).unwrap()),
                Err(error) => return (read, error.kind()),
            }
        }
    };
    let ((read, kind), ()) = tokio::join!(reading, opening);
    assert_eq!((read.as_str(), kind), ("ab", ErrorKind::PerTryIdleTimeout));
    assert_eq!(watch.ms(), 130);
    assert_eq!(bench.upstream.open_bodies(), 0);
    assert_eq!(
        (
            bench.counter("upstream_rq_per_try_idle_timeout"),
            bench.requests_in_use()
        ),
        (1, 0)
    );
    assert!(response.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn no_marker_is_made_when_nothing_is_timed() {
    let mut bench = Bench::new(usual().build());
    bench.get().await.unwrap();
    let seen = bench.upstream.requests();
    assert!(seen[0].extensions.get::<Attempt>().is_none());
    let _: Option<&std::sync::Arc<RequestInfo>> = seen[0].extensions.get();
}
