use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode};
use mesh_core::{
    Body, ErrorKind, Fixed, FractionalPercent, FromRequest, Mode, RequestInfo, ResponseFlag, Rng,
    Sent, stats::Registry,
};
use mesh_fault::{Abort, FaultAbort, FaultConfig, FaultDelay, FaultLayer, Matches};
use mesh_testkit::{
    Gate, Polled, Reply, Stopwatch, Upstream, advance, call, info, request, settle,
};
use tower_layer::Layer;

const ALWAYS: FractionalPercent = FractionalPercent::HUNDRED;
const SECOND: Duration = Duration::from_secs(1);

fn delay() -> FaultConfig {
    FaultConfig {
        delay: Some(FaultDelay::fixed(SECOND, ALWAYS)),
        ..FaultConfig::default()
    }
}

fn abort(abort: Abort) -> FaultConfig {
    FaultConfig {
        abort: Some(FaultAbort::new(abort, ALWAYS)),
        ..FaultConfig::default()
    }
}

fn both() -> FaultConfig {
    FaultConfig {
        delay: delay().delay,
        ..abort(Abort::Http(StatusCode::SERVICE_UNAVAILABLE))
    }
}

fn layer(config: FaultConfig) -> FaultLayer<Fixed<FaultConfig>> {
    FaultLayer::fixed(config).with_rng(Rng::seeded(1))
}

fn with_info() -> (Request<Body>, Arc<RequestInfo>) {
    let (mut request, info) = (request("http://a/"), info());
    RequestInfo::attach(&info, &mut request);
    (request, info)
}

/// Delays, aborts, overflows, active, shadow.
fn counts(layer: &FaultLayer<Fixed<FaultConfig>>) -> [u64; 5] {
    let stats = layer.stats();
    [
        stats.delays_injected().value(),
        stats.aborts_injected().value(),
        stats.faults_overflow().value(),
        stats.active_faults().value(),
        stats.shadow_mode().value(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_arrives_later_and_the_log_says_why() {
    let upstream = Upstream::new();
    let layer = layer(delay());
    let mut service = layer.layer(upstream.service());
    let (request, info) = with_info();
    let watch = Stopwatch::start();
    let mut answer = Polled::new(call(&mut service, request));
    assert!(answer.poll().is_pending());
    assert_eq!((upstream.count(), counts(&layer)), (0, [1, 0, 0, 1, 0]));
    advance(SECOND).await;
    assert!(answer.poll().is_ready());
    assert_eq!((watch.ms(), upstream.count()), (1000, 1));
    assert_eq!(info.flags.to_string(), "DI");
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "fault:delay_injected 1000/0"
    );
    assert_eq!(counts(&layer), [1, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_abort_is_an_error_with_envoys_answer() {
    let upstream = Upstream::new();
    let layer = layer(abort(Abort::Http(StatusCode::IM_A_TEAPOT)));
    let (request, info) = with_info();
    let mut error = call(&mut layer.layer(upstream.service()), request)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.sent()),
        (ErrorKind::FaultInjected, Sent::Nothing)
    );
    let reply = error.take_reply().unwrap();
    assert_eq!(
        (reply.status.as_u16(), &reply.body[..], &*reply.details),
        (418, &b"fault filter abort"[..], "fault_filter_abort")
    );
    assert!(info.flags.has(ResponseFlag::FaultInjected));
    assert_eq!((upstream.count(), counts(&layer)), (0, [0, 1, 0, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_grpc_abort_tells_a_grpc_client_its_status() {
    let layer = layer(abort(Abort::Grpc(8)));
    for (content_type, status) in [("application/grpc+proto", Some("8")), ("text/plain", None)] {
        let mut request = request("http://a/");
        let content_type = content_type.parse().unwrap();
        request.headers_mut().insert("content-type", content_type);
        let mut service = layer.layer(Upstream::new().service());
        let reply = call(&mut service, request)
            .await
            .unwrap_err()
            .take_reply()
            .unwrap();
        let found = reply
            .headers
            .get("grpc-status")
            .map(|value| value.to_str().unwrap());
        assert_eq!((reply.status.as_u16(), found), (200, status));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_comes_before_the_abort() {
    let layer = layer(both());
    let (request, info) = with_info();
    let watch = Stopwatch::start();
    let mut service = layer.layer(Upstream::new().service());
    let error = call(&mut service, request).await.unwrap_err();
    assert_eq!((error.kind(), watch.ms()), (ErrorKind::FaultInjected, 1000));
    assert_eq!(info.flags.to_string(), "DI,FI");
    assert_eq!(counts(&layer), [1, 1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_the_delay_was_not_aborted() {
    let layer = layer(both());
    let mut service = layer.layer(Upstream::new().service());
    let mut answer = Polled::new(call(&mut service, request("http://a/")));
    assert!(answer.poll().is_pending());
    drop(answer);
    assert_eq!(counts(&layer), [1, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_waits_for_readiness_when_its_time_has_come() {
    let upstream = Upstream::new();
    let mut service = layer(delay()).layer(upstream.service());
    let mut answer = Polled::new(call(&mut service, request("http://a/")));
    assert!(answer.poll().is_pending());
    upstream.set_ready(false);
    advance(SECOND).await;
    assert!(answer.poll().is_pending());
    assert_eq!(upstream.count(), 0);
    upstream.set_ready(true);
    settle().await;
    assert!(answer.is_woken() && answer.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_requests_are_left_alone() {
    let upstream = Upstream::new();
    let layer = layer(FaultConfig {
        max_active_faults: Some(2),
        ..delay()
    });
    let service = layer.layer(upstream.service());
    let mut waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut service = service.clone();
            Polled::new(async move { call(&mut service, request("http://a/")).await })
        })
        .collect();
    assert!(waiting.iter_mut().all(|answer| answer.poll().is_pending()));
    let watch = Stopwatch::start();
    call(&mut service.clone(), request("http://a/"))
        .await
        .unwrap();
    assert_eq!((watch.ms(), counts(&layer)), (0, [2, 0, 1, 2, 0]));
    waiting.clear();
    assert_eq!(counts(&layer), [2, 0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_active_until_the_answer_has_ended() {
    let upstream = Upstream::new();
    let gate = Gate::new();
    upstream.reply(Reply::status(200).held(&gate));
    let layer = layer(delay());
    let mut service = layer.layer(upstream.service());
    let mut answer = Polled::new(call(&mut service, request("http://a/")));
    assert!(answer.poll().is_pending());
    advance(SECOND).await;
    assert!(answer.poll().is_pending());
    assert_eq!((upstream.count(), counts(&layer)[3]), (1, 1));
    gate.open();
    assert!(answer.run().is_ready());
    assert_eq!(counts(&layer)[3], 0);
}

#[tokio::test(start_paused = true)]
async fn none_of_the_faults_means_no_place_among_them() {
    let layer = layer(FaultConfig {
        max_active_faults: Some(0),
        ..both()
    });
    let watch = Stopwatch::start();
    call(
        &mut layer.layer(Upstream::new().service()),
        request("http://a/"),
    )
    .await
    .unwrap();
    // Each of the two looked for a place.
    assert_eq!((watch.ms(), counts(&layer)), (0, [0, 0, 2, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_counts_and_changes_nothing() {
    let layer = layer(FaultConfig {
        mode: Mode::Shadow,
        ..both()
    });
    let (request, info) = with_info();
    let watch = Stopwatch::start();
    call(&mut layer.layer(Upstream::new().service()), request)
        .await
        .unwrap();
    assert_eq!((watch.ms(), counts(&layer)), (0, [0, 0, 0, 0, 1]));
    assert!(info.flags.is_empty());
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "~fault:delay_injected 1000/0;~fault:abort_injected 503/0"
    );
}

#[tokio::test(start_paused = true)]
async fn only_those_who_are_meant_are_disturbed() {
    let teapot = || abort(Abort::Http(StatusCode::IM_A_TEAPOT));
    let configs = [
        FaultConfig {
            upstream_cluster: Some("users".into()),
            ..teapot()
        },
        FaultConfig {
            downstream_nodes: ["node-7".into()].into(),
            ..teapot()
        },
        FaultConfig {
            headers: Some(Matches::new(|request| {
                request.headers.contains_key("x-chaos")
            })),
            ..teapot()
        },
    ];
    for config in configs {
        let mut service = layer(config).layer(Upstream::new().service());
        call(&mut service, request("http://a/")).await.unwrap();
        let (mut meant, info) = with_info();
        info.with(|facts| facts.cluster = Some("users".into()));
        let headers = meant.headers_mut();
        headers.insert("x-envoy-downstream-service-node", "node-7".parse().unwrap());
        headers.insert("x-chaos", "1".parse().unwrap());
        assert!(call(&mut service, meant).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn stats_have_envoys_names_and_a_source_may_say_no() {
    let registry = Registry::new();
    let config = Arc::new(delay());
    let source = FromRequest(move |request: &Request<Body>| {
        (request.uri().path() == "/slow").then(|| Arc::clone(&config))
    });
    let layer = FaultLayer::new(source).with_stats(&registry.scope("http.ingress."));
    let mut service = layer.layer(Upstream::new().service());
    for (path, millis) in [("/", 0), ("/slow", 1000)] {
        let watch = Stopwatch::start();
        let uri = format!("http://a{path}");
        call(&mut service, request(&uri)).await.unwrap();
        assert_eq!(watch.ms(), millis);
    }
    let names: Vec<String> = registry
        .snapshot()
        .into_iter()
        .map(|stat| stat.name)
        .collect();
    assert!(
        names.contains(&"http.ingress.fault.delays_injected".to_owned()),
        "{names:?}"
    );
}
