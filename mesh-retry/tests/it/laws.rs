use mesh_core::{Resource, Rng};
use mesh_retry::{DeadlineLayer, OwnBudget, RetryConfig, RetryContext as _, RetryLayer, RetryOn};
use mesh_testkit::Laws;
use tower::Layer;

#[tokio::test(start_paused = true)]
async fn retry_keeps_the_service_laws() {
    for on in [RetryOn::NONE, RetryOn::PROVEN_SAFE, RetryOn::GATEWAY_ERROR] {
        let budget = OwnBudget::default();
        let config = RetryConfig::builder()
            .retry_on(on)
            .num_retries(0)
            .per_try_timeout(std::time::Duration::from_secs(60))
            .build();
        let layer = RetryLayer::new(config)
            .with_budget(budget.clone())
            .with_rng(Rng::seeded(0));
        Laws::new(move |upstream| layer.layer(upstream))
            .in_use(move || {
                let resources = budget.resources();
                let in_use =
                    resources.in_use(Resource::Requests) + resources.in_use(Resource::Retries);
                in_use.into()
            })
            .check()
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn deadline_keeps_the_service_laws() {
    let layer = DeadlineLayer::default();
    Laws::new(move |upstream| layer.layer(upstream))
        .check()
        .await;
}
