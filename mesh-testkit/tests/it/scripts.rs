use std::time::Duration;

use http::Method;
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use mesh_core::{Body, ErrorKind, Sent};
use mesh_testkit::{
    Gate, Polled, Reply, ScriptedBody, Stopwatch, Upstream, advance, call, request, request_with,
};

#[tokio::test(start_paused = true)]
async fn an_upstream_answers_by_its_script_and_then_with_200() {
    let upstream = Upstream::new();
    upstream.script([
        Reply::status(503).header("x-a", "1"),
        Reply::error(ErrorKind::ConnectFailure).sent(Sent::Nothing),
        Reply::ok("hello"),
    ]);
    let mut service = upstream.service();
    let response = call(&mut service, request("http://a/1")).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-a"]),
        (503, &"1".parse().unwrap())
    );
    let error = call(&mut service, request("http://a/2")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.sent()),
        (ErrorKind::ConnectFailure, Sent::Nothing)
    );
    let response = call(&mut service, request("http://a/3")).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
    assert_eq!(upstream.left(), 0);
    let response = call(&mut service, request("http://a/4")).await.unwrap();
    assert_eq!(response.status(), 200);
    let paths: Vec<_> = upstream
        .requests()
        .iter()
        .map(|seen| seen.uri.path().to_owned())
        .collect();
    assert_eq!(paths, ["/1", "/2", "/3", "/4"]);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_reads_the_request_and_remembers_it() {
    let upstream = Upstream::new();
    let body = ScriptedBody::new()
        .data("a")
        .data("b")
        .trailers([("t", "1")]);
    call(
        &mut upstream.service(),
        request_with(Method::POST, "http://a/", body),
    )
    .await
    .unwrap();
    let seen = &upstream.requests()[0];
    assert_eq!((seen.method.as_str(), &seen.body[..]), ("POST", &b"ab"[..]));
    assert_eq!(seen.trailers.as_ref().unwrap()["t"], "1");

    let body = ScriptedBody::new()
        .data("a")
        .fail(ErrorKind::DownstreamGone);
    let error = call(
        &mut upstream.service(),
        request_with(Method::POST, "http://a/", body),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DownstreamGone);
    assert!(upstream.requests()[1].body_failed);
}

#[tokio::test(start_paused = true)]
async fn a_reply_waits_for_its_time_and_its_gate() {
    let upstream = Upstream::new();
    upstream.reply(Reply::status(200).after(Duration::from_secs(3)));
    let watch = Stopwatch::start();
    call(&mut upstream.service(), request("http://a/"))
        .await
        .unwrap();
    assert_eq!(watch.ms(), 3_000);

    let gate = Gate::new();
    upstream.reply(Reply::status(200).held(&gate));
    let mut service = upstream.service();
    let mut running = Polled::new(call(&mut service, request("http://a/")));
    assert!(running.run().is_pending());
    advance(Duration::from_secs(60)).await;
    assert!(!running.is_woken());
    assert_eq!(upstream.in_flight(), 1);
    gate.open();
    assert!(running.is_woken());
    assert!(running.run().is_ready());
    assert_eq!(upstream.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "called without being polled ready")]
async fn an_upstream_insists_on_readiness() {
    use tower_service::Service as _;
    let mut service = Upstream::new().service();
    drop(service.call(request("http://a/")));
}

#[test]
fn a_body_tells_its_length_and_end_only_when_it_knows_them() {
    let known = ScriptedBody::new().data("abc").trailers([("t", "1")]);
    assert_eq!(known.size_hint().exact(), Some(3));
    assert!(ScriptedBody::new().is_end_stream());
    assert!(!ScriptedBody::new().silent().is_end_stream());
    let stalled = ScriptedBody::new().data("abc").stall();
    assert_eq!(stalled.size_hint().exact(), None);
}

#[tokio::test(start_paused = true)]
async fn an_open_body_is_counted_until_it_ends() {
    let upstream = Upstream::new();
    let gate = Gate::new();
    upstream.reply(Reply::status(200).body(ScriptedBody::new().data("a").wait(&gate).data("b")));
    let response = call(&mut upstream.service(), request("http://a/"))
        .await
        .unwrap();
    let mut body: Body = response.into_body();
    assert_eq!(upstream.open_bodies(), 1);
    body.frame().await.unwrap().unwrap();
    let mut next = Polled::new(body.frame());
    assert!(next.run().is_pending());
    gate.open();
    assert!(next.is_woken() && next.run().is_ready());
    drop(next);
    assert_eq!(upstream.open_bodies(), 0);
}
