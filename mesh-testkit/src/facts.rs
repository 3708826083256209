use std::sync::Arc;

use http::{Method, Request};
use mesh_core::{Body, ConnectionInfo, RequestInfo, clock};

/// The info of a request that starts now on a connection within the process.
#[must_use]
pub fn info() -> Arc<RequestInfo> {
    Arc::new(RequestInfo::new(
        clock::now(),
        0,
        Arc::new(ConnectionInfo::in_process()),
        Arc::from("test"),
    ))
}

/// A `GET` for `uri`, without a body and without an info.
///
/// # Panics
/// When `uri` is not valid.
#[must_use]
pub fn request(uri: &str) -> Request<Body> {
    request_with(Method::GET, uri, Body::empty())
}

/// A request without an info.
///
/// # Panics
/// When `uri` is not valid.
#[must_use]
pub fn request_with(method: Method, uri: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(body.into())
        .expect("a valid request")
}
