use std::mem::size_of;

use mesh_core::{Body, Fixed, Permit};
use mesh_retry::{
    Deadline, DeadlineConfig, DeadlineFuture, OwnBudget, ReplayBody, ResponseFuture, Retry,
    RetryBody, RetryConfig, RetryState,
};
use mesh_testkit::UpstreamService;

const fn is_send<T: Send>() {}
const fn is_sync<T: Sync>() {}
const fn is_clone<T: Clone>() {}

#[test]
fn futures_and_bodies_stay_small() {
    // A pointer for the inner future, another for the inner body.
    let future = size_of::<ResponseFuture<UpstreamService, Body, OwnBudget>>();
    assert!(future <= 900, "{future}");
    let state = size_of::<RetryState<Option<Permit>>>();
    assert!(state <= 80, "{state}");
    let deadline = size_of::<DeadlineFuture<Box<()>>>();
    assert!(deadline <= 128, "{deadline}");
    let request = size_of::<ReplayBody<Body>>();
    assert!(request <= 48, "{request}");
    let response = size_of::<RetryBody<Body>>();
    assert!(response <= 88, "{response}");
}

#[test]
fn services_can_be_shared_and_futures_can_move() {
    type Service = Retry<UpstreamService, Fixed<RetryConfig>, OwnBudget>;
    is_send::<Service>();
    is_sync::<Service>();
    is_clone::<Service>();
    is_send::<ResponseFuture<UpstreamService, Body, OwnBudget>>();
    is_send::<ReplayBody<Body>>();
    is_send::<RetryBody<Body>>();
    is_clone::<Deadline<UpstreamService, Fixed<DeadlineConfig>>>();
    is_sync::<Deadline<UpstreamService, Fixed<DeadlineConfig>>>();
    is_send::<DeadlineFuture<Box<()>>>();
}
