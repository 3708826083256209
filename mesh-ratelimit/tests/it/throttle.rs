use std::time::Duration;

use mesh_core::{Body, clock};
use mesh_ratelimit::{ThrottleLayer, TokenBucketConfig};
use mesh_testkit::{Polled, Stopwatch, Upstream, advance, call, ready, request};
use tower_layer::Layer;
use tower_service::Service;

type Request = http::Request<Body>;

fn two_a_second() -> ThrottleLayer {
    ThrottleLayer::new(TokenBucketConfig::per_second(2).unwrap())
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_token_instead_of_refusing() {
    let upstream = Upstream::new();
    let mut service = two_a_second().layer(upstream.service());
    let watch = Stopwatch::start();
    for expected_ms in [0, 0, 500, 1_000, 1_500] {
        call(&mut service, request("http://a/")).await.unwrap();
        assert_eq!(watch.ms(), expected_ms);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_reservation_goes_back() {
    let upstream = Upstream::new();
    let layer = two_a_second();
    let mut held = layer.layer(upstream.service());
    ready::<_, Request>(&mut held).await.unwrap();
    // Polled again, it still holds one token, not two.
    ready::<_, Request>(&mut held).await.unwrap();
    let mut other = layer.layer(upstream.service());
    call(&mut other, request("http://a/")).await.unwrap();
    let mut third = layer.layer(upstream.service());
    assert!(
        Polled::new(ready::<_, Request>(&mut third))
            .run()
            .is_pending()
    );
    drop(held);
    let start = clock::now();
    ready::<_, Request>(&mut third).await.unwrap();
    assert!(clock::now() - start < Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_ready_throttle_reserves_for_itself() {
    let upstream = Upstream::new();
    let mut service = two_a_second().layer(upstream.service());
    ready::<_, Request>(&mut service).await.unwrap();
    let mut clone = service.clone();
    ready::<_, Request>(&mut clone).await.unwrap();
    let mut third = service.clone();
    let mut waiting = Polled::new(ready::<_, Request>(&mut third));
    assert!(waiting.run().is_pending());
    advance(Duration::from_millis(499)).await;
    assert!(!waiting.is_woken());
    advance(Duration::from_millis(1)).await;
    assert!(waiting.is_woken() && waiting.run().is_ready());
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "called without being polled ready")]
async fn a_clone_of_a_ready_throttle_cannot_be_called_at_once() {
    let upstream = Upstream::new();
    let mut service = two_a_second().layer(upstream.service());
    ready::<_, Request>(&mut service).await.unwrap();
    drop(service.clone().call(request("http://a/")));
}
