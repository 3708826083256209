use std::{
    future::{Future, Ready, ready},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, Error};
use mesh_http::{Abort, Exchange, Handler, reply};

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
        Self { process: Arc::clone(process), local }
    }
}

/// A page on its way out.
pub(crate) struct PageBody(Body);

/// A page that is ready.
pub(crate) struct Answer(Ready<Response<PageBody>>);

fn response(page: Page) -> Response<PageBody> {
    let mut response = Response::new(PageBody(Body::from(page.body)));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::SERVER, HeaderValue::from_static("mesh"));
    response
}

impl Handler for AdminHandler {
    type Body = PageBody;
    type Exchange = Answer;

    fn call(&mut self, request: Request<Body>) -> Answer {
        Answer(ready(response(answer(&self.process, &request, self.local))))
    }

    fn reject(&mut self, error: Error) -> Response<PageBody> {
        reply::response(error, None, reply::ReplyContext::default()).map(PageBody)
    }
}

impl Future for Answer {
    type Output = Response<PageBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Exchange for Answer {
    type Body = PageBody;

    fn cancel(self: Pin<&mut Self>, error: Error) -> Response<PageBody> {
        reply::response(error, None, reply::ReplyContext::default()).map(PageBody)
    }

    fn idle_timeout(&self) -> Option<Duration> {
        None
    }
}

impl HttpBody for PageBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Abort for PageBody {
    fn abort(self: Pin<&mut Self>, _: &Error) {}
}
