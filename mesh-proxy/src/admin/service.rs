use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use mesh_core::{Body, BoxFuture, Error};
use mesh_http::{Exchange, Handler, reply};

use mesh_xds::transport::ClientStatusService;
use tower_service::Service as _;

use super::{Page, answer, is_for_us};
use crate::process::Process;

/// Bytes of a request's body at most; a longer one gets 413.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

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

/// Only that page shows them, and there may be many.
fn wants_statuses(request: &http::request::Parts) -> bool {
    request.uri.path() == "/config_dump"
}

/// CSDS, where a control plane is followed; over HTTP/2, as gRPC is.
fn client_status(
    process: &Process,
    parts: &http::request::Parts,
    local: Option<SocketAddr>,
) -> Option<ClientStatusService> {
    let asked = ClientStatusService::has(parts.uri.path()) && is_for_us(parts, local);
    let follower = process.following.get().filter(|_| asked)?;
    Some(follower.client_status())
}

fn ask(
    mut service: ClientStatusService,
    parts: http::request::Parts,
    body: Body,
) -> Response<Body> {
    let Ok(response) = service.call(Request::from_parts(parts, body)).into_inner();
    response
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
    type Exchange = Answering;

    fn call(&mut self, request: Request<Body>) -> Answering {
        let Self { process, local } = self.clone();
        Answering(Box::pin(async move {
            let (parts, body) = request.into_parts();
            if let Some(service) = client_status(&process, &parts, local) {
                return ask(service, parts, body);
            }
            let page = match Limited::new(body, BODY_BYTES_MAX).collect().await {
                Ok(body) => {
                    let following = process.following.get();
                    let statuses = match following.filter(|_| wants_statuses(&parts)) {
                        Some(follower) => follower.statuses().await,
                        None => Vec::new(),
                    };
                    answer(&process, &parts, &body.to_bytes(), local, &statuses)
                }
                Err(_) => Page::error(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is longer than {BODY_BYTES_MAX} bytes, or broke off\n"),
                ),
            };
            response(page)
        }))
    }

    fn reject(&mut self, error: Error) -> Response<Body> {
        reply::response(error, None, reply::ReplyContext::default())
    }
}

/// One answer: it waits for the request's body.
pub(crate) struct Answering(BoxFuture<Response<Body>>);

impl Future for Answering {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response<Body>> {
        self.0.as_mut().poll(context)
    }
}

impl Exchange for Answering {
    type Body = Body;

    fn cancel(self: Pin<&mut Self>, error: Error) -> Response<Body> {
        reply::response(error, None, reply::ReplyContext::default())
    }

    fn idle_timeout(&self) -> Option<Duration> {
        None
    }
}
