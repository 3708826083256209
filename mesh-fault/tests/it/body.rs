//! Answers that trickle.

use std::time::Duration;

use http_body::Body as _;
use http_body_util::BodyExt as _;
use mesh_core::{ErrorKind, FractionalPercent, Rng};
use mesh_fault::{FaultConfig, FaultLayer, FaultRateLimit, RateLimit};
use mesh_testkit::{Reply, ScriptedBody, Stopwatch, Upstream, call, request, request_with};
use tower_layer::Layer;

/// One KiB per second: 64 bytes in each sixteenth.
fn one_kbps() -> FaultLayer<mesh_core::Fixed<FaultConfig>> {
    let limit = FaultRateLimit {
        limit: RateLimit::Fixed(1.try_into().unwrap()),
        percentage: FractionalPercent::HUNDRED,
    };
    FaultLayer::fixed(FaultConfig {
        response_rate_limit: Some(limit),
        ..FaultConfig::default()
    })
    .with_rng(Rng::seeded(1))
}

#[tokio::test(start_paused = true)]
async fn a_kibibyte_takes_a_second_and_trailers_come_last() {
    let upstream = Upstream::new();
    let body = ScriptedBody::new().data(vec![7; 1000]).data(vec![8; 24]);
    upstream.reply(Reply::status(200).body(body.trailers([("x-end", "1")])));
    let layer = one_kbps();
    let mut service = layer.layer(upstream.service());
    let watch = Stopwatch::start();
    let response = call(&mut service, request("http://a/")).await.unwrap();
    assert_eq!(watch.ms(), 0);
    let mut body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(1024));
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((first.len(), watch.ms()), (64, 0));
    assert_eq!(body.size_hint().exact(), Some(960));
    assert_eq!(layer.stats().active_faults().value(), 1);
    let rest = body.collect().await.unwrap();
    assert_eq!(rest.trailers().unwrap()["x-end"], "1");
    assert_eq!(rest.to_bytes().len(), 960);
    // 1000 bytes are 16 slices, the last of them not full, and 24 are one more.
    assert!((1000..1100).contains(&watch.ms()), "{}", watch.ms());
    assert_eq!(layer.stats().active_faults().value(), 0);
    assert_eq!(layer.stats().response_rl_injected().value(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_breaks_when_what_was_before_has_gone() {
    let upstream = Upstream::new();
    let body = ScriptedBody::new()
        .data(vec![7; 100])
        .fail(ErrorKind::RemoteReset);
    upstream.reply(Reply::status(200).body(body));
    let layer = one_kbps();
    let response = call(&mut layer.layer(upstream.service()), request("http://a/")).await;
    let mut body = response.unwrap().into_body();
    let lengths = [
        body.frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len(),
        body.frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len(),
    ];
    assert_eq!(lengths, [64, 36]);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RemoteReset);
    assert_eq!(layer.stats().active_faults().value(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_no_body() {
    let upstream = Upstream::new();
    upstream.script([
        Reply::status(101).body(ScriptedBody::new().data(vec![7; 1000])),
        Reply::status(200).body(ScriptedBody::new().data(vec![7; 1000])),
        Reply::status(403).body(ScriptedBody::new().data(vec![7; 1000])),
    ]);
    let mut service = one_kbps().layer(upstream.service());
    let connect = || request_with(http::Method::CONNECT, "a:80", mesh_core::Body::empty());
    for (request, slow) in [
        (request("http://a/"), false),
        (connect(), false),
        (connect(), true),
    ] {
        let watch = Stopwatch::start();
        let response = call(&mut service, request).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(watch.elapsed() > Duration::from_millis(500), slow);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_reading_gives_the_place_back() {
    let upstream = Upstream::new();
    upstream.reply(Reply::status(200).body(ScriptedBody::new().data(vec![7; 1000])));
    let layer = one_kbps();
    let response = call(&mut layer.layer(upstream.service()), request("http://a/")).await;
    let mut body = response.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    let stats = layer.stats();
    // The upstream has said all; the answer has not ended.
    assert_eq!(
        (stats.active_faults().value(), upstream.open_bodies()),
        (1, 0)
    );
    drop(body);
    assert_eq!(
        (stats.active_faults().value(), upstream.open_bodies()),
        (0, 0)
    );
}
