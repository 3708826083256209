use std::sync::Arc;

use mesh_core::{BoxHttpService, Rng};
use mesh_ratelimit::{
    LocalRateLimit, LocalRateLimitConfig, RateLimit, RateLimitLayer, ThrottleLayer,
    TokenBucketConfig, XRateLimitHeaders,
};
use mesh_testkit::Laws;
use tower_layer::Layer;

#[tokio::test(start_paused = true)]
async fn the_rate_limit_is_a_good_service() {
    let config = LocalRateLimitConfig {
        enable_x_ratelimit_headers: XRateLimitHeaders::DraftVersion03,
        ..LocalRateLimitConfig::per_second(1_000).unwrap()
    };
    let layer = RateLimitLayer::fixed(config).with_rng(Rng::seeded(1));
    Laws::new(move |upstream| layer.layer(upstream))
        .check()
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_throttle_is_a_good_service_and_its_clones_carry_no_token() {
    const TOKENS: u32 = 1_000;
    // Time stands still: what is missing is reserved or spent, and what is spent stays missing.
    let layer = ThrottleLayer::new(TokenBucketConfig::per_second(TOKENS).unwrap());
    Laws::new(move |upstream| layer.layer(upstream))
        .check()
        .await;
}

#[test]
fn layers_and_services_go_where_tower_users_put_them() {
    fn sendable<T: Send + Sync + Clone + 'static>(_: &T) {}
    let layer = RateLimitLayer::fixed(LocalRateLimitConfig::per_second(1).unwrap());
    sendable(&layer);
    let service = layer.layer(mesh_testkit::Upstream::new().service());
    sendable(&service);
    let _boxed = BoxHttpService::new(service);
    fn shared<T: Send + Sync>() {}
    shared::<Arc<LocalRateLimit>>();
    assert!(size_of::<RateLimit<(), mesh_core::Fixed<LocalRateLimit>>>() <= 16);
}
