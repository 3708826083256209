//! What the compiler can tell: sizes, and what may move between threads.

use std::{future::Ready, mem::size_of};

use http::Response;
use mesh_core::{Body, Error, Http, HttpClassify};
use mesh_outlier::{Detector, Monitor, Outlier, OutlierFuture};
use mesh_testkit::UpstreamService;

type Call = Ready<Result<Response<Body>, Error>>;

#[test]
fn futures_stay_small() {
    let more = size_of::<OutlierFuture<Call, HttpClassify, Http>>() - size_of::<Call>();
    assert!(more <= 32, "{more} bytes");
    assert!(size_of::<Monitor>() <= size_of::<usize>());
}

#[test]
fn services_and_futures_move_between_threads() {
    fn check<T: Send + Sync>() {}
    fn check_send<T: Send>() {}
    check::<Outlier<UpstreamService, HttpClassify, Http>>();
    check::<Detector>();
    check::<Monitor>();
    check_send::<OutlierFuture<Call, HttpClassify, Http>>();
}
