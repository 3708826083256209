use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::{BoxError, Error, Responses};
use pin_project::pin_project;
use tower_service::Service;

use crate::ActiveRequest;

/// The future of a [`Balance`](crate::Balance).
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R, K> {
    #[pin]
    state: State<S, R, S::Future>,
    /// Counts the request until the response takes it over.
    active: Option<ActiveRequest>,
    protocol: PhantomData<fn() -> K>,
}

#[pin_project(project = Project, project_replace = Replaced)]
enum State<S, R, F> {
    /// The chosen service is being made ready.
    Preparing(S, R),
    /// It is at work.
    Called(#[pin] F),
    /// No service was chosen; the error, until it was given.
    Refused(Option<Error>),
    /// It is over.
    Done,
}

impl<S: Service<R>, R, K> ResponseFuture<S, R, K> {
    pub(crate) fn new(service: S, request: R, active: ActiveRequest) -> Self {
        Self {
            state: State::Preparing(service, request),
            active: Some(active),
            protocol: PhantomData,
        }
    }

    pub(crate) fn refuse(error: Error) -> Self {
        Self {
            state: State::Refused(Some(error)),
            active: None,
            protocol: PhantomData,
        }
    }
}

impl<S, R, K> Future for ResponseFuture<S, R, K>
where
    S: Service<R, Error: Into<BoxError>>,
    K: Responses<S::Response, ActiveRequest>,
{
    type Output = Result<K::Held, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let result = match this.state.as_mut().project() {
                Project::Preparing(service, _) => match ready!(service.poll_ready(cx)) {
                    Ok(()) => {
                        if let Replaced::Preparing(mut service, request) =
                            this.state.as_mut().project_replace(State::Done)
                        {
                            let called = State::Called(service.call(request));
                            this.state.as_mut().project_replace(called);
                        }
                        continue;
                    }
                    Err(error) => Err(Error::from_boxed(error.into())),
                },
                Project::Called(future) => {
                    ready!(future.poll(cx)).map_err(|error| Error::from_boxed(error.into()))
                }
                Project::Refused(error) => Err(error.take().expect("polled after it was ready")),
                Project::Done => panic!("polled after it was ready"),
            };
            this.state.project_replace(State::Done);
            let active = this.active.take();
            return Poll::Ready(result.map(|response| {
                K::hold(
                    response,
                    active.expect("a request that was sent is counted"),
                )
            }));
        }
    }
}

impl<S: Service<R>, R, K> fmt::Debug for ResponseFuture<S, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}
