//! What the compiler can tell: sizes, and what may move between threads.

use std::{future::Ready, mem::size_of};

use http::{Request, Response};
use mesh_breaker::{Breaker, BreakerFuture, Circuit, ThresholdsFuture, ThresholdsService};
use mesh_core::{Body, Error, Fixed, Http, HttpClassify, Resources};
use mesh_testkit::UpstreamService;

type Call = Ready<Result<Response<Body>, Error>>;

#[test]
fn futures_stay_small() {
    let breaker = size_of::<BreakerFuture<Call, HttpClassify, Http>>() - size_of::<Call>();
    assert!(breaker <= 64, "{breaker} bytes");
    let kept = size_of::<UpstreamService>() + size_of::<Request<Body>>();
    let thresholds = size_of::<ThresholdsFuture<UpstreamService, Request<Body>, Http>>() - kept;
    assert!(thresholds <= 64, "{thresholds} bytes");
}

#[test]
fn services_and_futures_move_between_threads() {
    fn check<T: Send + Sync>() {}
    fn check_send<T: Send>() {}
    check::<Breaker<UpstreamService, HttpClassify, Http>>();
    check::<ThresholdsService<UpstreamService, Fixed<Resources>, Http>>();
    check::<Circuit>();
    check_send::<BreakerFuture<Call, HttpClassify, Http>>();
    check_send::<ThresholdsFuture<UpstreamService, Request<Body>, Http>>();
}
