use std::{
    any::Any,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use http_body::Body as HttpBody;
use mesh_core::{Body, BoxError, Error, Fixed, PolicySource, RequestInfo};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    DeadlineBody, DeadlineConfig, DeadlineFuture, EXPECTED_TIMEOUT, WatchedBody,
    countdown::Countdown,
};
use crate::headers::{TIMEOUT, TIMEOUT_ALT_RESPONSE, has_envoy_header, take_number};

/// Puts [`Deadline`] in front of a service.
#[derive(Debug, Clone)]
pub struct DeadlineLayer<P = Fixed<DeadlineConfig>> {
    policy: P,
    respect_expected: bool,
}

impl DeadlineLayer {
    /// One config for every request.
    #[must_use]
    pub fn new(config: DeadlineConfig) -> Self {
        Self::from_source(Fixed(Arc::new(config)))
    }
}

/// 15 seconds.
impl Default for DeadlineLayer {
    fn default() -> Self {
        Self::new(DeadlineConfig::default())
    }
}

impl<P> DeadlineLayer<P> {
    /// A config of its own for each request.
    pub const fn from_source(policy: P) -> Self {
        Self {
            policy,
            respect_expected: false,
        }
    }

    /// Whether `x-envoy-expected-rq-timeout-ms`, set by a proxy in front of this one, wins over the config and over
    /// `x-envoy-upstream-rq-timeout-ms`; default false.
    ///
    /// Envoy: `Router.respect_expected_rq_timeout`.
    #[must_use]
    pub const fn respect_expected_rq_timeout(mut self, respect: bool) -> Self {
        self.respect_expected = respect;
        self
    }
}

impl<S, P: Clone> Layer<S> for DeadlineLayer<P> {
    type Service = Deadline<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline {
            inner,
            policy: self.policy.clone(),
            respect_expected: self.respect_expected,
        }
    }
}

/// Ends requests that take too long.
///
/// The time starts when the last byte of the request was received and ends with the last byte of the
/// response; put it above [`Retry`](crate::Retry), and it covers all attempts and back-offs. When it is
/// up, everything below is dropped, and the caller gets
/// [`ErrorKind::RequestTimeout`](mesh_core::ErrorKind::RequestTimeout): from the future, or from the
/// response body when that had begun. `Facts::deadline` says when that will be.
///
/// Readiness is the inner service's.
///
/// # Envoy
/// `RouteAction.timeout`. `x-envoy-upstream-rq-timeout-ms` replaces it, and
/// `x-envoy-upstream-rq-timeout-alt-response` makes the answer a 204.
#[derive(Debug, Clone)]
pub struct Deadline<S, P> {
    inner: S,
    policy: P,
    respect_expected: bool,
}

impl<S, P, B, RB> Service<Request<B>> for Deadline<S, P>
where
    S: Service<Request<WatchedBody<B>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    P: PolicySource<Request<B>, DeadlineConfig>,
    B: HttpBody + 'static,
    RB: HttpBody,
{
    type Response = Response<DeadlineBody<RB>>;
    type Error = Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::from_boxed(error.into()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let countdown = self
            .policy
            .policy(&request)
            .and_then(|config| countdown(&config, self.respect_expected, &mut request));
        let Some(mut countdown) = countdown else {
            let request = request.map(|body| WatchedBody::new(body, None));
            return DeadlineFuture::new(self.inner.call(request), None);
        };
        let end = if is_here(request.body()) {
            countdown.start();
            None
        } else {
            Some(countdown.await_end())
        };
        let request = request.map(|body| WatchedBody::new(body, end));
        DeadlineFuture::new(self.inner.call(request), Some(countdown))
    }
}

/// The countdown of a request, unless it has none; takes the headers that control it.
fn countdown<B>(
    config: &DeadlineConfig,
    respect_expected: bool,
    request: &mut Request<B>,
) -> Option<Countdown> {
    let mut timeout = config.timeout;
    let mut alt_response = false;
    let headers = request.headers_mut();
    if has_envoy_header(headers) {
        timeout = asked(respect_expected, headers).unwrap_or(timeout);
        alt_response = headers.remove(TIMEOUT_ALT_RESPONSE).is_some();
    }
    let info = RequestInfo::of(request).cloned();
    (!timeout.is_zero()).then(|| Countdown::new(timeout, config.mode, alt_response, info))
}

fn asked(respect_expected: bool, headers: &mut HeaderMap) -> Option<Duration> {
    let asked = take_number(headers, TIMEOUT);
    let expected = headers
        .get(EXPECTED_TIMEOUT)
        .filter(|_| respect_expected)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    expected.or(asked).map(Duration::from_millis)
}

/// Whether the whole body is in memory.
fn is_here<B: HttpBody + 'static>(body: &B) -> bool {
    let full = || (body as &dyn Any).downcast_ref::<Body>()?.as_full();
    body.is_end_stream() || full().is_some()
}
