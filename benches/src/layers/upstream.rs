//! The trivial service below every layer, and one request through it.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::Body as HttpBody;
use mesh_core::{Body, ConnectionInfo, RequestInfo, clock};
use tower_service::Service;

/// What comes with every request: as many headers as a simple client behind a proxy sends.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::HOST, "bench.test"),
    (header::USER_AGENT, "bench"),
    (header::ACCEPT, "*/*"),
    (
        HeaderName::from_static("x-request-id"),
        "8a2f7c9e-1d3b-4c5a-9f60-7b8e2d1c4a53",
    ),
];

/// Makes requests as the head of a stack would.
pub(crate) struct Requests {
    connection: Arc<ConnectionInfo>,
    config_version: Arc<str>,
    draws: u64,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            connection: Arc::new(ConnectionInfo::in_process()),
            config_version: Arc::from("bench"),
            draws: 0,
        }
    }

    pub(crate) fn next(&mut self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static("/small");
        *request.headers_mut() = headers();
        self.draws += 1;
        let info = RequestInfo::new(
            clock::now(),
            self.draws,
            Arc::clone(&self.connection),
            Arc::clone(&self.config_version),
        );
        RequestInfo::attach(&Arc::new(info), &mut request);
        request
    }
}

pub(crate) fn headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS.len());
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

/// Answers 200 with 100 bytes, at the second poll: an answer that is there at once would spare a layer its
/// timers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upstream;

impl<B> Service<Request<B>> for Upstream {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Answer {
        Answer { polled: false }
    }
}

/// The answer of [`Upstream`].
#[derive(Debug)]
pub(crate) struct Answer {
    polled: bool,
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.polled, true) {
            return Poll::Pending;
        }
        static BODY: [u8; 100] = [b'x'; 100];
        Poll::Ready(Ok(Response::new(Body::from(Bytes::from_static(&BODY)))))
    }
}

/// Sends one request through `service`, and reads the answer to its end.
///
/// # Panics
/// When the request does not go through: then something else than a layer's cost is measured.
pub(crate) fn exchange<S, B>(service: &mut S, request: Request<Body>)
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug>,
    B: HttpBody<Error: Debug>,
{
    /// More polls than any layer needs.
    const POLLS_MAX: usize = 4;
    let mut context = Context::from_waker(Waker::noop());
    match service.poll_ready(&mut context) {
        Poll::Ready(Ok(())) => {}
        other => panic!("not ready: {other:?}"),
    }
    let mut future = pin!(service.call(request));
    let polls = (0..POLLS_MAX).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    });
    let response = match polls {
        Some(Ok(response)) => response,
        Some(Err(error)) => panic!("refused: {error:?}"),
        None => panic!("no answer after {POLLS_MAX} polls"),
    };
    assert_eq!(response.status(), 200);
    let mut body = pin!(response.into_body());
    while !body.is_end_stream() {
        match body.as_mut().poll_frame(&mut context) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(None) => break,
            Poll::Ready(Some(Err(error))) => panic!("the body broke: {error:?}"),
            Poll::Pending => panic!("the body waits"),
        }
    }
}
