use std::{
    future::{Ready, ready},
    net::SocketAddr,
    sync::Arc,
};

use http::{HeaderValue, Request, Response, header};
use mesh_core::{Body, Error};
use mesh_http::{Handler, reply};

use super::{Page, answer};
use crate::process::Process;

/// Answers the admin requests of one connection.
#[derive(Clone)]
pub(crate) struct AdminHandler {
    process: Arc<Process>,
    local: Option<SocketAddr>,
}

impl AdminHandler {
    pub(crate) fn new(process: &Arc<Process>, local: Option<SocketAddr>) -> Self {
        Self {
            process: Arc::clone(process),
            local,
        }
    }
}

fn response(page: Page) -> Response<Body> {
    let mut response = Response::new(Body::from(page.body));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(page.content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::SERVER, HeaderValue::from_static("mesh"));
    response
}

impl Handler for AdminHandler {
    type Body = Body;
    type Exchange = Ready<Response<Body>>;

    fn call(&mut self, request: Request<Body>) -> Self::Exchange {
        ready(response(answer(&self.process, &request, self.local)))
    }

    fn reject(&mut self, error: Error) -> Response<Body> {
        reply::response(error, None, reply::ReplyContext::default())
    }
}
