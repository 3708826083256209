use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use mesh_core::{Body, Error, ErrorKind, ExponentialBackoff, Sent};
use mesh_retry::{ReplayBody, RetryLayer};
use mesh_testkit::{Gate, Reply, ScriptedBody, Upstream, advance};
use tower::Layer as _;

use super::{Bench, ms, usual};

fn post(body: impl Into<Body>) -> Request<Body> {
    mesh_testkit::request_with(Method::POST, "http://test/", body)
}

#[tokio::test(start_paused = true)]
async fn the_whole_request_is_sent_again() {
    let body = ScriptedBody::new()
        .data("one ")
        .data("two")
        .trailers([("x-sum", "7")])
        .silent();
    for body in [Body::from(body), Body::from("one two")] {
        let trailers = body.as_full().is_none();
        let mut bench = Bench::new(usual().build()).script([Reply::status(503)]);
        assert_eq!(bench.send(post(body)).await.unwrap().status(), 200);
        for seen in bench.upstream.requests() {
            assert_eq!(seen.body, "one two");
            assert_eq!(seen.trailers.is_some_and(|t| t["x-sum"] == "7"), trailers);
        }
        assert_eq!(bench.upstream.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_starts_before_the_request_is_complete() {
    let gate = Gate::new();
    let body = ScriptedBody::new().data("one ").wait(&gate).data("two");
    // Answers without waiting for the body, as a server that is overloaded does.
    let mut bench =
        Bench::new(usual().build()).script([Reply::status(503).early(), Reply::status(200)]);
    let mut call = bench.start_with(post(body)).await;
    assert!(call.poll().is_pending());
    advance(ms(25)).await;
    assert!(call.run().is_pending());
    assert_eq!(bench.upstream.requests()[1].body, "one ");
    gate.open();
    assert!(call.run().is_ready());
    assert_eq!(bench.upstream.requests()[1].body, "one two");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_outgrows_the_buffer_is_sent_once_and_counted() {
    let config = || usual().request_body_buffer_limit(5).build();
    let body = || ScriptedBody::new().data("123").data("456");
    for body in [
        Body::from(body()),
        Body::from(body().silent()),
        Body::from("123456"),
    ] {
        let mut bench = Bench::new(config()).script([Reply::status(503), Reply::status(200)]);
        assert_eq!(bench.send(post(body)).await.unwrap().status(), 503);
        assert_eq!(bench.upstream.requests()[0].body, "123456");
        assert_eq!(bench.upstream.count(), 1);
        assert_eq!(
            bench.counters(),
            [
                "retry_or_shadow_abandoned=1",
                "upstream_rq_retry_skipped_body=1"
            ]
        );
        assert_eq!(bench.trace(), "retry:retry_body_too_large 6/5");
        assert_eq!(bench.flags(), "-");
    }
}

#[tokio::test(start_paused = true)]
async fn an_overflow_during_a_retry_gives_the_slot_back() {
    let config = usual().request_body_buffer_limit(5).num_retries(3).build();
    let body = ScriptedBody::new().data("123").data("456").silent();
    let mut bench = Bench::new(config).script([
        Reply::error(ErrorKind::RemoteReset).early(),
        Reply::error(ErrorKind::RemoteReset),
    ]);
    let error = bench.send(post(body)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RemoteReset);
    assert_eq!(bench.upstream.requests()[1].body, "123456");
    assert_eq!(
        bench.trace(),
        "retry:retried 1/4;retry:retry_body_too_large 6/5"
    );
    assert_eq!(bench.retries_in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_body_that_needs_no_retry_is_no_loss() {
    let config = usual().request_body_buffer_limit(0).build();
    let mut bench = Bench::new(config).script([Reply::ok("thanks")]);
    assert_eq!(bench.send(post("much")).await.unwrap().status(), 200);
    assert_eq!(bench.counters(), ["retry_or_shadow_abandoned=1"]);
    assert_eq!(bench.trace(), "-");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_is_repeated_whatever_the_limit() {
    let config = usual().request_body_buffer_limit(0).build();
    let mut bench = Bench::new(config).script([Reply::status(503)]);
    assert_eq!(bench.status().await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_client_broke_off_is_not_repeated() {
    let body = ScriptedBody::new()
        .data("a")
        .fail(ErrorKind::DownstreamGone);
    let mut bench = Bench::new(usual().build());
    let error = bench.send(post(body)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DownstreamGone);

    // Even where the transport reports it as a reset.
    let upstream = tower::service_fn(|request: Request<ReplayBody<Body>>| async {
        let _ = request.into_body().collect().await;
        Err::<Response<Body>, _>(Error::new(ErrorKind::LocalReset))
    });
    let body = ScriptedBody::new()
        .data("a")
        .fail(ErrorKind::DownstreamGone);
    let bench = Bench::new(usual().build());
    let layer = RetryLayer::new(usual().build()).with_budget(bench.budget.clone());
    let answer = tower::ServiceExt::oneshot(layer.layer(upstream), post(body)).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::LocalReset);
    assert!(bench.counters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn between_attempts_the_client_is_held_back() {
    let body = ScriptedBody::new()
        .data("one ")
        .data("two ")
        .data("three")
        .silent();
    let config = usual().request_body_buffer_limit(5).build();
    let first = Reply::error(ErrorKind::ConnectFailure)
        .sent(Sent::Nothing)
        .early();
    let mut bench = Bench::new(config).script([first, Reply::status(200)]);
    // More than the buffer is on its way, but nobody reads it before the retry does.
    assert_eq!(bench.send(post(body)).await.unwrap().status(), 200);
    assert_eq!(bench.upstream.requests()[1].body, "one two three");
}

#[tokio::test(start_paused = true)]
async fn any_body_type_is_replayed() {
    let upstream = Upstream::new();
    upstream.script([Reply::status(503)]);
    let mut service = RetryLayer::new(usual().build()).layer(upstream.service());
    let request = Request::new(Full::new(Bytes::from("hello")));
    let response = mesh_testkit::call(&mut service, request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(upstream.requests()[1].body, "hello");
}

#[tokio::test(start_paused = true)]
async fn an_answered_request_streams_on_without_being_kept() {
    let gate = Gate::new();
    let config = usual().request_body_buffer_limit(5).build();
    let body = ScriptedBody::new().data("123").wait(&gate).data("456");
    // Answers at once and goes on reading, as an echo does.
    let echo = tower::service_fn(|request: Request<ReplayBody<Body>>| async {
        Ok::<_, std::convert::Infallible>(Response::new(request.into_body().into_body()))
    });
    let bench = Bench::new(config.clone());
    let layer = RetryLayer::new(config).with_budget(bench.budget.clone());
    let answer = tower::ServiceExt::oneshot(layer.layer(echo), post(body))
        .await
        .unwrap();
    gate.open();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "123456"
    );
    assert!(bench.counters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_back_while_an_answer_after_an_overflow_streams() {
    let config = usual().request_body_buffer_limit(5).build();
    let body = ScriptedBody::new().data("123").data("456").silent();
    let answer = ScriptedBody::new().data("sorry").stall();
    let mut bench =
        Bench::new(config).script([Reply::status(503).early(), Reply::status(503).body(answer)]);
    let response = bench.send(post(body)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(
        (bench.retries_in_use(), bench.upstream.open_bodies()),
        (0, 1)
    );
}

/// A transport whose connection goes on reading a request after it has failed.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_given_up_takes_nothing_from_the_next() {
    let gate = Gate::new();
    let lingering = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&lingering);
    let upstream = tower::service_fn(move |request: Request<ReplayBody<Body>>| {
        let slot = Arc::clone(&slot);
        async move {
            let body = request.into_body();
            if slot.lock().unwrap().is_none() {
                *slot.lock().unwrap() = Some(tokio::spawn(body.collect()));
                return Err(Error::new(ErrorKind::RemoteReset));
            }
            let body = body.collect().await.unwrap().to_bytes();
            Ok(Response::new(Body::from(body)))
        }
    });
    let back_off = ExponentialBackoff::new(ms(100_000), None).unwrap();
    let config = usual()
        .retry_back_off(back_off)
        .request_body_buffer_limit(5)
        .build();
    let service = RetryLayer::new(config).layer(upstream);
    // All of it comes while the back-off lasts, and is more than can be kept.
    let body = ScriptedBody::new().wait(&gate).data("one ").data("two");
    let opening = async {
        advance(ms(1)).await;
        gate.open();
        advance(ms(1)).await;
    };
    let call = tower::ServiceExt::oneshot(service, post(body));
    let (response, ()) = tokio::join!(call, opening);
    let read = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(read.to_bytes(), "one two");
    let lingering = lingering.lock().unwrap().take().unwrap();
    let error = lingering.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LocalReset);
}

/// Bytes that say when they are gone.
struct Tracked(Arc<AtomicUsize>);

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        b"x"
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn once_answered_nothing_of_the_request_stays_in_memory() {
    let alive = Arc::new(AtomicUsize::new(3));
    let gate = Gate::new();
    let piece = || Bytes::from_owner(Tracked(Arc::clone(&alive)));
    let body = ScriptedBody::new()
        .data(piece())
        .data(piece())
        .wait(&gate)
        .data(piece())
        .stall();
    // Answers after two pieces and goes on reading.
    let upstream = tower::service_fn(|request: Request<ReplayBody<Body>>| async {
        let mut body = request.into_body();
        body.frame().await.unwrap()?;
        body.frame().await.unwrap()?;
        Ok::<_, Error>(Response::new(body.into_body()))
    });
    let service = RetryLayer::new(usual().build()).layer(upstream);
    let answer = tower::ServiceExt::oneshot(service, post(body))
        .await
        .unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    gate.open();
    let mut body = answer.into_body();
    drop(body.frame().await.unwrap().unwrap());
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}
