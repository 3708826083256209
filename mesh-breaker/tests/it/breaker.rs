use std::{error::Error as _, sync::Arc, time::Duration};

use http::Request;
use http_body_util::BodyExt as _;
use mesh_breaker::{
    BreakerConfig, BreakerLayer, Circuit, Ratio, Refusal, SlowCalls, TripCause, state::Phase,
};
use mesh_core::{
    Body, Error, ErrorKind, HttpClassify, Mode, Outcome, Percent, Reason, RequestInfo, Resource,
    ResponseFlag, Sent, clock,
};
use mesh_testkit::{
    Gate, Laws, Polled, Reply, ScriptedBody, Upstream, advance, call, info, ready, request,
};
use tower::ServiceExt as _;
use tower_layer::Layer as _;
use tower_service::Service as _;

const SECOND: Duration = Duration::from_secs(1);

fn get() -> Request<Body> {
    request("http://a/")
}

/// Opens after two failures in a row for ten seconds exactly; one probe at once, two to close.
fn config() -> mesh_breaker::BreakerConfigBuilder {
    BreakerConfig::builder()
        .consecutive_failures(Some(2))
        .ratio(None)
        .open_duration(10 * SECOND, 40 * SECOND)
        .open_jitter(Percent::ZERO)
        .half_open(1, 2)
}

fn failing() -> [Reply; 2] {
    [Reply::status(503), Reply::error(ErrorKind::ConnectFailure)]
}

/// An upstream that just made a breaker open.
async fn opened(
    config: BreakerConfig,
) -> (
    Upstream,
    mesh_breaker::Breaker<mesh_testkit::UpstreamService, HttpClassify, mesh_core::Http>,
) {
    let upstream = Upstream::new();
    let mut breaker = BreakerLayer::http(config).layer(upstream.service());
    upstream.script(failing());
    for _ in failing() {
        let _ = call(&mut breaker, get()).await;
    }
    assert_eq!(breaker.circuit().phase(), Phase::Open);
    (upstream, breaker)
}

#[tokio::test(start_paused = true)]
async fn keeps_the_service_laws() {
    let http = BreakerLayer::http(BreakerConfig::default());
    Laws::new(move |upstream| http.layer(upstream))
        .check()
        .await;
    let generic = BreakerLayer::new(BreakerConfig::default(), HttpClassify);
    Laws::new(move |upstream| generic.layer(upstream))
        .check()
        .await;
    // Half open, where every call is a probe that must come back.
    let circuit = Arc::new(Circuit::new(
        config().half_open(64, u32::MAX).build().unwrap(),
    ));
    for _ in 0..2 {
        circuit
            .admit(clock::now)
            .unwrap()
            .settle(clock::now(), true);
    }
    advance(10 * SECOND).await;
    drop(circuit.admit(clock::now));
    assert_eq!(circuit.phase(), Phase::HalfOpen);
    let probing = BreakerLayer::<_, mesh_core::Http>::with(circuit, HttpClassify);
    let shared = probing.clone();
    Laws::new(move |upstream| shared.layer(upstream))
        // A failed probe opens: what passes afterwards is not the inner service's doing.
        .without(mesh_testkit::Law::ErrorsPass)
        .without(mesh_testkit::Law::BodiesAreForwarded)
        .check()
        .await;
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_it_refuses_without_calling() {
    let (upstream, mut breaker) = opened(config().build().unwrap()).await;
    let (mut request, info) = (get(), info());
    RequestInfo::attach(&info, &mut request);
    let error = call(&mut breaker, request).await.unwrap_err();

    assert_eq!(upstream.count(), 2);
    assert_eq!(error.kind(), ErrorKind::BreakerOpen);
    assert_eq!(error.kind().flag(), Some(ResponseFlag::UpstreamOverflow));
    assert_eq!(error.sent(), Sent::Nothing);
    let refusal: &Refusal = error.source().unwrap().downcast_ref().unwrap();
    assert_eq!(refusal.reason, Reason::BreakerOpen);
    assert_eq!(refusal.trip.cause, TripCause::ConsecutiveFailures);
    assert_eq!(
        refusal.to_string(),
        "2 failures in a row, limit 2; probes in 10000 ms"
    );
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "breaker:breaker_open 2/2"
    );
    let stats = breaker.circuit().stats();
    assert_eq!((stats.opened().value(), stats.refused().value()), (1, 1));
    assert_eq!((stats.open().value(), stats.failures().value()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_success_in_between_starts_the_row_over() {
    let upstream = Upstream::new();
    let mut breaker = BreakerLayer::http(config().build().unwrap()).layer(upstream.service());
    for status in [503, 200, 503, 404, 500] {
        upstream.reply(Reply::status(status));
        call(&mut breaker, get()).await.unwrap();
    }
    assert_eq!(breaker.circuit().phase(), Phase::Closed);
    assert_eq!(breaker.circuit().stats().successes().value(), 2);
}

#[tokio::test(start_paused = true)]
async fn half_of_enough_calls_open_it_and_too_few_do_not() {
    let upstream = Upstream::new();
    let config = BreakerConfig::builder()
        .consecutive_failures(None)
        .ratio(Some(Ratio {
            minimum_calls: 4,
            ..Ratio::default()
        }))
        .build()
        .unwrap();
    let mut breaker = BreakerLayer::http(config).layer(upstream.service());
    for status in [503, 503, 200] {
        upstream.reply(Reply::status(status));
        call(&mut breaker, get()).await.unwrap();
        assert_eq!(breaker.circuit().phase(), Phase::Closed);
    }
    // Those are forgotten when the window has passed.
    advance(10 * SECOND).await;
    for status in [200, 200, 503, 503] {
        assert_eq!(breaker.circuit().phase(), Phase::Closed);
        upstream.reply(Reply::status(status));
        call(&mut breaker, get()).await.unwrap();
    }
    assert_eq!(breaker.circuit().phase(), Phase::Open);
    let error = call(&mut breaker, get()).await.unwrap_err();
    let refusal: &Refusal = error.source().unwrap().downcast_ref().unwrap();
    assert_eq!(refusal.trip.to_string(), "50 % failed, limit 50 %");
}

#[tokio::test(start_paused = true)]
async fn slow_answers_open_it_though_they_are_good() {
    let upstream = Upstream::new();
    let config = BreakerConfig::builder()
        .ratio(Some(Ratio {
            minimum_calls: 2,
            slow: Some(SlowCalls {
                duration: SECOND,
                share: Percent::HUNDRED,
            }),
            ..Ratio::default()
        }))
        .build()
        .unwrap();
    let mut breaker = BreakerLayer::http(config).layer(upstream.service());
    for _ in 0..2 {
        upstream.reply(Reply::status(200).after(SECOND));
        call(&mut breaker, get()).await.unwrap();
    }
    assert_eq!(breaker.circuit().phase(), Phase::Open);
    assert_eq!(breaker.circuit().stats().slow().value(), 2);
    let error = call(&mut breaker, get()).await.unwrap_err();
    let refusal: &Refusal = error.source().unwrap().downcast_ref().unwrap();
    assert_eq!(refusal.trip.cause, TripCause::SlowRatio);
}

#[tokio::test(start_paused = true)]
async fn after_its_time_it_probes_and_closes_when_enough_succeed() {
    let (upstream, mut breaker) = opened(config().build().unwrap()).await;
    advance(10 * SECOND - Duration::from_millis(1)).await;
    assert!(call(&mut breaker, get()).await.is_err());
    advance(Duration::from_millis(1)).await;
    for expected in [Phase::HalfOpen, Phase::Closed] {
        upstream.reply(Reply::status(200));
        call(&mut breaker, get()).await.unwrap();
        assert_eq!(breaker.circuit().phase(), expected);
    }
    let stats = breaker.circuit().stats();
    assert_eq!((stats.probes().value(), stats.closed().value()), (2, 1));
    assert_eq!((stats.open().value(), stats.half_open().value()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_it_for_longer_up_to_the_cap() {
    let (upstream, mut breaker) = opened(config().build().unwrap()).await;
    for open_for in [10, 20, 40, 40] {
        advance(open_for * SECOND - Duration::from_millis(1)).await;
        assert!(call(&mut breaker, get()).await.is_err());
        advance(Duration::from_millis(1)).await;
        upstream.reply(Reply::status(500));
        call(&mut breaker, get()).await.unwrap();
        assert_eq!(breaker.circuit().phase(), Phase::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_keeps_its_place_until_its_response_body_ends() {
    let (upstream, mut breaker) = opened(config().build().unwrap()).await;
    advance(10 * SECOND).await;
    upstream.reply(Reply::status(200).body(ScriptedBody::new().data("a").data("b")));
    let response = call(&mut breaker, get()).await.unwrap();

    let error = call(&mut breaker, get()).await.unwrap_err();
    let refusal: &Refusal = error.source().unwrap().downcast_ref().unwrap();
    assert_eq!(refusal.reason, Reason::BreakerProbing);
    assert_eq!(refusal.to_string(), "1 of 1 probes are out");

    response.into_body().collect().await.unwrap();
    upstream.reply(Reply::status(200));
    call(&mut breaker, get()).await.unwrap();
    assert_eq!(breaker.circuit().phase(), Phase::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_probe_gives_its_place_to_another_and_counts_for_nothing() {
    let (upstream, mut breaker) = opened(config().build().unwrap()).await;
    advance(10 * SECOND).await;
    upstream.reply(Reply::never());
    let mut probe = Polled::new(breaker.clone().oneshot(get()));
    assert!(probe.run().is_pending());
    assert!(call(&mut breaker, get()).await.is_err());
    drop(probe);
    assert_eq!(breaker.circuit().phase(), Phase::HalfOpen);
    upstream.reply(Reply::status(200));
    call(&mut breaker, get()).await.unwrap();
    assert_eq!(breaker.circuit().stats().successes().value(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_before_it_opened_counts_for_nothing() {
    let upstream = Upstream::new();
    let breaker = BreakerLayer::http(config().build().unwrap()).layer(upstream.service());
    let gate = Gate::new();
    let late = |status| Reply::status(status).held(&gate);
    upstream.script([late(200), late(500)]);
    let mut late: Vec<_> = (0..2)
        .map(|_| Polled::new(breaker.clone().oneshot(get())))
        .collect();
    assert!(late.iter_mut().all(|call| call.run().is_pending()));
    upstream.script(failing());
    for _ in failing() {
        let _ = breaker.clone().oneshot(get()).await;
    }
    advance(10 * SECOND).await;
    upstream.reply(Reply::never());
    let mut probe = Polled::new(breaker.clone().oneshot(get()));
    assert!(probe.run().is_pending());
    assert_eq!(breaker.circuit().phase(), Phase::HalfOpen);
    gate.open();
    assert!(late.iter_mut().all(|call| call.run().is_ready()));
    // Neither did the success help nor the failure hurt.
    assert_eq!(breaker.circuit().phase(), Phase::HalfOpen);
    let stats = breaker.circuit().stats();
    assert_eq!(
        (stats.successes().value(), stats.failures().value()),
        (0, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_ready_though_its_inner_service_is_not() {
    let (upstream, mut breaker) = opened(config().build().unwrap()).await;
    upstream.set_ready(false);
    let mut readiness = Polled::new(ready::<_, Request<Body>>(&mut breaker));
    assert!(readiness.run().is_ready());
    drop(readiness);

    // Its time comes between readiness and call: nobody asked the inner service, so it refuses.
    advance(10 * SECOND).await;
    assert_eq!(
        breaker.call(get()).await.unwrap_err().kind(),
        ErrorKind::BreakerOpen
    );
    // From then on readiness is the inner service's.
    let mut readiness = Polled::new(ready::<_, Request<Body>>(&mut breaker));
    assert!(readiness.run().is_pending());
    upstream.set_ready(true);
    assert!(readiness.is_woken() && readiness.run().is_ready());
    drop(readiness);
    upstream.reply(Reply::status(200));
    assert!(breaker.call(get()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn refusals_of_this_process_are_not_the_upstreams_failures() {
    let upstream = Upstream::new();
    let mut breaker = BreakerLayer::http(config().build().unwrap()).layer(upstream.service());
    for _ in 0..5 {
        upstream.reply(Reply::error(ErrorKind::Overflow(Resource::Requests)));
        assert!(call(&mut breaker, get()).await.is_err());
    }
    assert_eq!(breaker.circuit().phase(), Phase::Closed);
    assert_eq!(breaker.circuit().stats().failures().value(), 0);
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_moves_through_all_phases_and_refuses_nobody() {
    let (upstream, mut breaker) = opened(config().mode(Mode::Shadow).build().unwrap()).await;
    upstream.reply(Reply::status(200));
    call(&mut breaker, get()).await.unwrap();
    let stats = breaker.circuit().stats().clone();
    assert_eq!(
        (stats.shadow_refused().value(), stats.refused().value()),
        (1, 0)
    );
    // What would have been refused says nothing.
    assert_eq!(stats.successes().value(), 0);
    advance(10 * SECOND).await;
    upstream.script([Reply::status(200), Reply::status(200)]);
    call(&mut breaker, get()).await.unwrap();
    call(&mut breaker, get()).await.unwrap();
    assert_eq!(breaker.circuit().phase(), Phase::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_new_config_keeps_the_phase() {
    let (_upstream, mut breaker) = opened(config().build().unwrap()).await;
    let circuit = Arc::clone(breaker.circuit());
    circuit.update(clock::now(), config().half_open(3, 3).build().unwrap());
    assert_eq!(circuit.phase(), Phase::Open);
    assert!(call(&mut breaker, get()).await.is_err());
    // Slow calls matter from now on: the closed path must learn to read the clock.
    let fresh = Arc::new(Circuit::new(config().build().unwrap()));
    let timed = BreakerConfig::builder()
        .ratio(Some(Ratio {
            minimum_calls: 1,
            slow: Some(SlowCalls {
                duration: SECOND,
                share: Percent::HUNDRED,
            }),
            ..Ratio::default()
        }))
        .build()
        .unwrap();
    fresh.update(clock::now(), timed);
    let ticket = fresh.admit(clock::now).unwrap();
    advance(SECOND).await;
    ticket.settle(clock::now(), false);
    assert_eq!(fresh.phase(), Phase::Open);
}

#[tokio::test(start_paused = true)]
async fn works_around_a_service_that_is_not_http() {
    let odd_fails = |result: Result<&u32, &Error>| match result {
        Ok(n) if n % 2 == 1 => Some(Outcome::Failure(ErrorKind::Unknown)),
        Ok(_) => Some(Outcome::Status(200)),
        Err(error) => Some(Outcome::Failure(error.kind())),
    };
    let same = tower::service_fn(|n: u32| async move { Ok::<_, std::io::Error>(n) });
    let mut service = BreakerLayer::new(config().build().unwrap(), odd_fails).layer(same);
    for n in [1, 2, 3, 5] {
        assert_eq!(call(&mut service, n).await.unwrap(), n);
    }
    assert_eq!(
        call(&mut service, 2).await.unwrap_err().kind(),
        ErrorKind::BreakerOpen
    );
}

#[tokio::test]
async fn clones_on_many_threads_share_one_breaker() {
    let circuit = Arc::new(Circuit::new(
        config().consecutive_failures(Some(100)).build().unwrap(),
    ));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..25 {
                    circuit
                        .admit(clock::now)
                        .unwrap()
                        .settle(clock::now(), true);
                }
            });
        }
    });
    assert_eq!(circuit.phase(), Phase::Open);
    assert_eq!(circuit.stats().failures().value(), 100);
}
