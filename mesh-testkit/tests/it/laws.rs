use mesh_core::{Resource, Resources, Thresholds};
use mesh_testkit::{Law, Laws};

use crate::broken::{Flaw, Limit};

async fn broken_by(flaw: Flaw) -> Vec<Law> {
    let resources = Resources::new(&Thresholds::default());
    let probe = resources.clone();
    Laws::new(move |upstream| Limit::new(upstream, flaw, &resources))
        .in_use(move || probe.in_use(Resource::Requests).into())
        .violations()
        .await
        .into_iter()
        .map(|violation| violation.law)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_good_layer_keeps_every_law() {
    assert_eq!(broken_by(Flaw::None).await, []);
}

#[tokio::test(start_paused = true)]
async fn calling_an_inner_service_that_was_not_asked_is_noticed() {
    let broken = broken_by(Flaw::NeverAsks).await;
    assert!(broken.contains(&Law::CallsOnlyAfterReady), "{broken:?}");
    assert!(broken.contains(&Law::PendingWakes), "{broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_copies_readiness_is_noticed() {
    assert_eq!(
        broken_by(Flaw::ClonesReadyBit).await,
        [Law::ClonesCarryNothing]
    );
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_shares_a_permit_is_noticed() {
    assert_eq!(
        broken_by(Flaw::ClonesPermit).await,
        [Law::ClonesCarryNothing]
    );
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_leaks_is_noticed() {
    let broken = broken_by(Flaw::LeaksReservation).await;
    assert!(broken.contains(&Law::DroppingLeaksNothing), "{broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_future_that_leaks_is_noticed() {
    let broken = broken_by(Flaw::LeaksFuture).await;
    assert!(broken.contains(&Law::DroppingLeaksNothing), "{broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_leaks_is_noticed() {
    assert_eq!(
        broken_by(Flaw::LeaksBody).await,
        [Law::DroppingLeaksNothing]
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_waker_is_noticed() {
    assert_eq!(broken_by(Flaw::LosesWaker).await, [Law::PendingWakes]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_error_is_noticed() {
    assert_eq!(broken_by(Flaw::ChangesErrors).await, [Law::ErrorsPass]);
}

#[tokio::test(start_paused = true)]
async fn a_body_without_hints_is_noticed() {
    assert_eq!(
        broken_by(Flaw::ForgetsHints).await,
        [Law::BodiesAreForwarded]
    );
}

#[tokio::test(start_paused = true)]
async fn lost_trailers_are_noticed() {
    assert_eq!(
        broken_by(Flaw::DropsTrailers).await,
        [Law::BodiesAreForwarded]
    );
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_buffers_is_noticed() {
    let broken = broken_by(Flaw::Buffers).await;
    assert!(broken.contains(&Law::BodiesAreForwarded), "{broken:?}");
    assert!(broken.contains(&Law::DroppingLeaksNothing), "{broken:?}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "PendingWakes")]
async fn check_panics_with_the_name_of_the_law() {
    let resources = Resources::new(&Thresholds::default());
    Laws::new(move |upstream| Limit::new(upstream, Flaw::LosesWaker, &resources))
        .check()
        .await;
}
