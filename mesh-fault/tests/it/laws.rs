use std::time::Duration;

use mesh_core::{Body, Fixed, FractionalPercent, Rng};
use mesh_fault::{
    Fault, FaultBody, FaultConfig, FaultDelay, FaultLayer, FaultRateLimit, RateLimit,
};
use mesh_testkit::{Law, Laws, UpstreamService};
use tower_layer::Layer;

fn laws(
    config: FaultConfig,
) -> Laws<impl Fn(UpstreamService) -> Fault<UpstreamService, Fixed<FaultConfig>>> {
    let layer = FaultLayer::fixed(config).with_rng(Rng::seeded(1));
    let stats = layer.stats().clone();
    Laws::new(move |upstream| layer.layer(upstream)).in_use(move || stats.active_faults().value())
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_a_good_service_while_it_does_nothing() {
    laws(FaultConfig::default()).check().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_still_a_good_body() {
    let limit = FaultRateLimit {
        limit: RateLimit::Fixed(u64::MAX.try_into().unwrap()),
        percentage: FractionalPercent::HUNDRED,
    };
    let laws = laws(FaultConfig {
        response_rate_limit: Some(limit),
        ..FaultConfig::default()
    });
    // It holds frames back: that is what it is for. That it leaks nothing is checked elsewhere.
    laws.without(Law::DroppingLeaksNothing).check().await;
}

#[test]
fn layers_and_services_go_where_tower_users_put_them() {
    fn sendable<T: Send + Sync + Clone + 'static>(_: &T) {}
    let config = FaultConfig {
        delay: Some(FaultDelay::fixed(
            Duration::from_secs(1),
            FractionalPercent::HUNDRED,
        )),
        ..FaultConfig::default()
    };
    let layer = FaultLayer::fixed(config);
    sendable(&layer);
    sendable(&layer.layer(mesh_testkit::Upstream::new().service()));
    assert!(size_of::<FaultBody<Body>>() <= 64);
}
