use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::{BoxError, Error, Permit, Requests, Responses};
use pin_project::pin_project;
use tower_service::Service;

use super::service::{Gate, Waiting};

/// The answer of a service behind [thresholds](crate::ThresholdsService).
#[pin_project]
pub struct ThresholdsFuture<S: Service<R>, R, K> {
    #[pin]
    state: State<S, R, S::Future>,
    protocol: PhantomData<fn() -> K>,
}

#[pin_project(project = StateProjected)]
enum State<S, R, F> {
    /// The inner service is polled until it is ready.
    Starting {
        inner: S,
        request: Option<R>,
        gate: Option<Gate>,
        waiting: Option<Waiting>,
    },
    /// The inner call is polled.
    Running {
        #[pin]
        future: F,
        permit: Option<Permit>,
    },
}

impl<S: Service<R>, R, K> ThresholdsFuture<S, R, K> {
    pub(super) fn new(inner: S, request: R, gate: Option<Gate>) -> Self {
        Self {
            state: State::Starting {
                inner,
                request: Some(request),
                gate,
                waiting: None,
            },
            protocol: PhantomData,
        }
    }
}

impl<S, R, K> Future for ThresholdsFuture<S, R, K>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    K: Requests<R> + Responses<S::Response, Option<Permit>>,
{
    type Output = Result<K::Held, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjected::Starting {
                    inner,
                    request,
                    gate,
                    waiting,
                } => {
                    let ready = inner.poll_ready(cx).map_err(foreign)?;
                    let request_ref = request.as_ref().expect("polled after completion");
                    if ready.is_pending() {
                        if let (Some(gate), None) = (&gate, &waiting) {
                            *waiting = Some(gate.wait::<R, K>(request_ref)?);
                        }
                        return Poll::Pending;
                    }
                    let permit = match gate {
                        Some(gate) => Some(gate.run::<R, K>(request_ref)?),
                        None => None,
                    };
                    let request = request.take().expect("taken once");
                    let future = inner.call(request);
                    // The place among the waiting goes with the state that is replaced.
                    this.state.set(State::Running { future, permit });
                }
                StateProjected::Running { future, permit } => {
                    let result = ready!(future.poll(cx));
                    // Taken first: a failure gives it back now, whenever this future is dropped.
                    let permit = permit.take();
                    return Poll::Ready(match result {
                        Ok(response) => Ok(K::hold(response, permit)),
                        Err(error) => Err(foreign(error)),
                    });
                }
            }
        }
    }
}

fn foreign(error: impl Into<BoxError>) -> Error {
    Error::from_boxed(error.into())
}

impl<S: Service<R>, R, K> fmt::Debug for ThresholdsFuture<S, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Starting { .. } => "ThresholdsFuture::Starting",
            State::Running { .. } => "ThresholdsFuture::Running",
        })
    }
}
