use std::{
    future::Future,
    num::NonZeroU64,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use mesh_core::{BoxError, Error, RequestInfo, ResponseFlag, Timer, clock};
use pin_project::pin_project;
use tower_service::Service;

use crate::{FaultBody, FaultStats, Pace, active::ActiveFault};

/// The future of a [`Fault`](crate::Fault).
#[pin_project]
pub struct ResponseFuture<S, B, F> {
    #[pin]
    state: State<S, B, F>,
    disturbance: Disturbance,
}

#[pin_project(project = Project)]
enum State<S, B, F> {
    /// The request waits, then for the service inside to be ready.
    Delayed(Box<Delayed<S, B>>),
    /// The service inside is at work.
    Passed(#[pin] F),
    /// The failure, until it was given.
    Aborted(Option<Error>),
}

struct Delayed<S, B> {
    timer: Timer,
    inner: S,
    /// `None` once it was passed on.
    request: Option<Request<B>>,
    abort: Option<AbortLater>,
}

/// A failure that is counted when it happens: the client may leave before.
pub(crate) struct AbortLater {
    pub(crate) error: Error,
    pub(crate) stats: FaultStats,
    pub(crate) info: Option<Arc<RequestInfo>>,
}

impl AbortLater {
    pub(crate) fn now(self) -> Error {
        self.stats.aborts_injected().inc();
        if let Some(info) = self.info {
            info.flag(ResponseFlag::FaultInjected);
        }
        self.error
    }
}

/// What an answer is to meet.
#[derive(Debug)]
pub(crate) struct Disturbance {
    pub(crate) active: Option<ActiveFault>,
    pub(crate) limit_kbps: Option<NonZeroU64>,
    pub(crate) connect: bool,
}

impl Disturbance {
    pub(crate) const fn none() -> Self {
        Self {
            active: None,
            limit_kbps: None,
            connect: false,
        }
    }
}

impl<S, B, F> ResponseFuture<S, B, F> {
    pub(crate) const fn pass(future: F, disturbance: Disturbance) -> Self {
        Self {
            state: State::Passed(future),
            disturbance,
        }
    }

    pub(crate) const fn abort(error: Error) -> Self {
        Self {
            state: State::Aborted(Some(error)),
            disturbance: Disturbance::none(),
        }
    }

    pub(crate) fn delay(
        delay: Duration,
        inner: S,
        request: Request<B>,
        abort: Option<AbortLater>,
        disturbance: Disturbance,
    ) -> Self {
        // A delay beyond the clock's end never ends.
        let timer = clock::now()
            .checked_add(delay)
            .map_or_else(Timer::new, Timer::at);
        Self {
            state: State::Delayed(Box::new(Delayed {
                timer,
                inner,
                request: Some(request),
                abort,
            })),
            disturbance,
        }
    }
}

impl<S, B> Delayed<S, B>
where
    S: Service<Request<B>, Error: Into<BoxError>>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Future, Error>> {
        if self.timer.deadline().is_some() {
            ready!(self.timer.poll(cx));
        }
        if let Some(abort) = self.abort.take() {
            return Poll::Ready(Err(abort.now()));
        }
        ready!(self.inner.poll_ready(cx)).map_err(|error| Error::from_boxed(error.into()))?;
        let request = self.request.take().expect("polled after it was ready");
        Poll::Ready(Ok(self.inner.call(request)))
    }
}

impl<S, B, C> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<C>, Error: Into<BoxError>>,
    C: HttpBody<Data = Bytes>,
{
    type Output = Result<Response<FaultBody<C>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                Project::Delayed(delayed) => {
                    let future = ready!(delayed.poll(cx))?;
                    this.state.set(State::Passed(future));
                }
                Project::Passed(future) => {
                    let response = ready!(future.poll(cx));
                    let response = response.map_err(|error| Error::from_boxed(error.into()))?;
                    return Poll::Ready(Ok(disturb(response, this.disturbance)));
                }
                Project::Aborted(error) => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
            }
        }
    }
}

fn disturb<C: HttpBody<Data = Bytes>>(
    response: Response<C>,
    disturbance: &mut Disturbance,
) -> Response<FaultBody<C>> {
    let status = response.status();
    let tunnel =
        status == StatusCode::SWITCHING_PROTOCOLS || (disturbance.connect && status.is_success());
    let limit = disturbance.limit_kbps.filter(|_| !tunnel);
    let pace = limit.map(|kbps| Pace::new(kbps, clock::now()));
    let active = disturbance.active.take();
    response.map(|body| FaultBody::new(body, pace, active))
}
