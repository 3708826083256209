use std::{sync::Arc, time::Duration};

use http::Request;
use http_body_util::BodyExt as _;
use mesh_core::{
    Attempt, Body, EndpointState, Error, ErrorKind, Outcome, RequestInfo, Resource, ResponseFlag,
    clock,
};
use mesh_outlier::{Detector, Monitor, OutlierConfig, OutlierLayer};
use mesh_testkit::{
    Gate, Laws, Polled, Reply, ScriptedBody, Upstream, advance, call, info, request,
};
use tower::ServiceExt as _;
use tower_layer::Layer as _;

use crate::{endpoints, is_ejected};

/// One endpoint, ejected by two failures in a row; local ones apart if `split`.
fn endpoint(split: bool) -> (Arc<Detector>, Arc<EndpointState>, Monitor) {
    let config = OutlierConfig::builder()
        .max_ejection_percent(100)
        .consecutive_5xx(2)
        .consecutive_local_origin_failure(2)
        .split_external_local_origin_errors(split)
        .build()
        .unwrap();
    let detector = Detector::new("c", config);
    let endpoint = endpoints(1).remove(0);
    let monitor = detector.monitor(&endpoint);
    (detector, endpoint, monitor)
}

/// Sends one request per reply and tells whether the endpoint was ejected.
async fn ejects(split: bool, replies: impl IntoIterator<Item = Reply>) -> bool {
    let (_detector, endpoint, monitor) = endpoint(split);
    let upstream = Upstream::new();
    let mut service = OutlierLayer::http(monitor).layer(upstream.service());
    for reply in replies {
        upstream.reply(reply);
        let _ = call(&mut service, request("http://a/")).await;
    }
    is_ejected(&endpoint)
}

#[tokio::test(start_paused = true)]
async fn keeps_the_service_laws() {
    let (_detector, _endpoint, monitor) = endpoint(false);
    let layer = OutlierLayer::http(monitor.clone());
    Laws::new(move |upstream| layer.layer(upstream))
        .check()
        .await;
    let layer = OutlierLayer::new(monitor, mesh_core::HttpClassify);
    Laws::new(move |upstream| layer.layer(upstream))
        .check()
        .await;
}

#[tokio::test(start_paused = true)]
async fn heads_and_failures_are_heard() {
    assert!(
        ejects(
            false,
            [Reply::status(500), Reply::error(ErrorKind::RemoteReset)]
        )
        .await
    );
    assert!(!ejects(false, [500, 200, 500].map(Reply::status)).await);
    let refused = || Reply::error(ErrorKind::Overflow(Resource::Requests));
    assert!(!ejects(false, [refused(), refused()]).await);
    // For gRPC the status is in the headers.
    let unavailable = || {
        Reply::status(200)
            .header("content-type", "application/grpc")
            .header("grpc-status", "14")
    };
    assert!(ejects(false, [unavailable(), unavailable()]).await);
}

#[tokio::test(start_paused = true)]
async fn split_connections_that_broke_had_been_made_and_refused_ones_had_not() {
    let failures = |kind| [Reply::error(kind), Reply::error(kind)];
    assert!(ejects(true, failures(ErrorKind::ConnectFailure)).await);
    assert!(!ejects(true, failures(ErrorKind::RemoteReset)).await);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_a_failure_and_one_that_is_dropped_is_not() {
    let (_detector, endpoint, monitor) = endpoint(false);
    let upstream = Upstream::new();
    let mut service = OutlierLayer::http(monitor).layer(upstream.service());
    let breaking = || {
        let body = ScriptedBody::new().data("a").fail(ErrorKind::RemoteReset);
        Reply::status(500).body(body)
    };
    upstream.reply(breaking());
    drop(call(&mut service, request("http://a/")).await.unwrap());
    assert!(!is_ejected(&endpoint));
    upstream.reply(Reply::status(200));
    call(&mut service, request("http://a/")).await.unwrap();

    upstream.reply(breaking());
    let response = call(&mut service, request("http://a/")).await.unwrap();
    assert!(!is_ejected(&endpoint));
    assert!(response.into_body().collect().await.is_err());
    assert!(is_ejected(&endpoint));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_request_says_nothing_unless_a_timer_gave_it_up() {
    let (_detector, endpoint, monitor) = endpoint(false);
    let upstream = Upstream::new();
    let service = OutlierLayer::http(monitor).layer(upstream.service());
    let abandon = |attempt: &Attempt| {
        upstream.reply(Reply::never());
        let mut request: Request<Body> = request("http://a/");
        request.extensions_mut().insert(attempt.clone());
        let mut call = Polled::new(service.clone().oneshot(request));
        assert!(call.run().is_pending());
        call
    };
    let attempt = Attempt::new();
    for _ in 0..4 {
        drop(abandon(&attempt));
    }
    assert!(!is_ejected(&endpoint));
    for _ in 0..2 {
        let attempt = Attempt::new();
        let call = abandon(&attempt);
        attempt.time_out();
        drop(call);
    }
    assert!(is_ejected(&endpoint));
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_at_its_deadline_was_too_slow() {
    for (passed, flagged, expected) in [
        (true, true, true),
        (false, true, false),
        (true, false, false),
    ] {
        let (_detector, endpoint, monitor) = endpoint(false);
        let upstream = Upstream::new();
        let service = OutlierLayer::http(monitor).layer(upstream.service());
        for _ in 0..2 {
            upstream.reply(Reply::never());
            let (mut request, info) = (request("http://a/"), info());
            let left = Duration::from_secs(if passed { 1 } else { 2 });
            info.with(|facts| facts.deadline = Some(clock::now() + left));
            RequestInfo::attach(&info, &mut request);
            let mut call = Polled::new(service.clone().oneshot(request));
            assert!(call.run().is_pending());
            advance(Duration::from_secs(1)).await;
            if flagged {
                info.flag(ResponseFlag::UpstreamRequestTimeout);
            }
            drop(call);
        }
        assert_eq!(is_ejected(&endpoint), expected, "{passed} {flagged}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_given_up_beside_another_counts_as_timed_out_though_it_answers() {
    let (detector, _endpoint, monitor) = endpoint(false);
    let upstream = Upstream::new();
    let service = OutlierLayer::http(monitor).layer(upstream.service());
    let gate = Gate::new();
    upstream.reply(Reply::status(500).held(&gate));
    let (mut request, attempt) = (request("http://a/"), Attempt::new());
    request.extensions_mut().insert(attempt.clone());
    let mut call = Polled::new(service.oneshot(request));
    assert!(call.run().is_pending());
    attempt.time_out();
    gate.open();
    assert!(call.run().is_ready());
    assert_eq!(
        detector
            .stats()
            .ejections_enforced_consecutive_5xx()
            .value(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_heard_with_the_head_is_not_heard_again_with_the_body() {
    let (_detector, endpoint, monitor) = endpoint(false);
    let upstream = Upstream::new();
    let service = OutlierLayer::http(monitor).layer(upstream.service());
    let (mut request, attempt) = (request("http://a/"), Attempt::new());
    request.extensions_mut().insert(attempt.clone());
    attempt.time_out();
    upstream.reply(Reply::status(200).body(ScriptedBody::new().data("a").stall()));
    drop(service.clone().oneshot(request).await.unwrap());
    upstream.reply(Reply::status(500));
    let failing = service.oneshot(mesh_testkit::request("http://a/"));
    failing.await.unwrap();
    assert!(!is_ejected(&endpoint));
}

#[tokio::test(start_paused = true)]
async fn a_body_given_up_by_a_timer_was_too_slow() {
    let (_detector, endpoint, monitor) = endpoint(false);
    let upstream = Upstream::new();
    let service = OutlierLayer::http(monitor).layer(upstream.service());
    for times_out in [false, true] {
        // Starts the row over.
        upstream.reply(Reply::status(200));
        let good = service.clone().oneshot(request("http://a/"));
        good.await.unwrap();
        assert!(!is_ejected(&endpoint));

        upstream.reply(Reply::status(500).body(ScriptedBody::new().data("a").stall()));
        let (mut request, attempt) = (request("http://a/"), Attempt::new());
        request.extensions_mut().insert(attempt.clone());
        let response = service.clone().oneshot(request).await.unwrap();
        if times_out {
            attempt.time_out();
        }
        drop(response);
    }
    assert!(is_ejected(&endpoint));
}

#[tokio::test(start_paused = true)]
async fn works_around_a_service_that_is_not_http() {
    let (_detector, endpoint, monitor) = endpoint(false);
    let classify = |result: Result<&u32, &Error>| match result {
        Ok(_) => Some(Outcome::Status(200)),
        Err(error) => Some(Outcome::Failure(error.kind())),
    };
    let mut service =
        OutlierLayer::new(monitor, classify).layer(tower::service_fn(|n: u32| async move {
            (n > 0)
                .then_some(n)
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset))
        }));
    for n in [0, 1, 0] {
        let _ = call(&mut service, n).await;
        assert!(!is_ejected(&endpoint));
    }
    assert_eq!(
        call(&mut service, 0).await.unwrap_err().kind(),
        ErrorKind::ConnectionTermination
    );
    assert!(is_ejected(&endpoint));
}
