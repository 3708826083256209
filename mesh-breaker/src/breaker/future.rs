use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::{BoxError, Classify, Error, Responses, clock};
use pin_project::pin_project;

use super::{Probe, Ticket};

/// The answer of a service behind a [breaker](crate::Breaker).
#[pin_project]
pub struct BreakerFuture<F, C, K> {
    #[pin]
    state: State<F, C>,
    protocol: PhantomData<fn() -> K>,
}

#[pin_project(project = StateProjected)]
enum State<F, C> {
    /// The inner call is polled; the ticket is there until it is done.
    Calling {
        #[pin]
        future: F,
        ticket: Option<Ticket>,
        classify: C,
    },
    /// Nothing was called.
    Refused { error: Option<Error> },
}

impl<F, C, K> BreakerFuture<F, C, K> {
    pub(super) const fn calling(future: F, ticket: Ticket, classify: C) -> Self {
        Self {
            state: State::Calling {
                future,
                ticket: Some(ticket),
                classify,
            },
            protocol: PhantomData,
        }
    }

    pub(super) const fn refused(error: Error) -> Self {
        Self {
            state: State::Refused { error: Some(error) },
            protocol: PhantomData,
        }
    }
}

impl<F, T, E, C, K> Future for BreakerFuture<F, C, K>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    C: Classify<T>,
    K: Responses<T, Option<Probe>>,
{
    type Output = Result<K::Held, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjected::Calling {
                future,
                ticket,
                classify,
            } => {
                let result =
                    ready!(future.poll(cx)).map_err(|error| Error::from_boxed(error.into()));
                let ticket = ticket.take().expect("polled after completion");
                // Without an outcome the ticket is dropped: the call says nothing about the upstream.
                let probe = classify
                    .classify(result.as_ref())
                    .and_then(|outcome| ticket.settle(clock::now(), !outcome.is_success()));
                Poll::Ready(result.map(|response| K::hold(response, probe)))
            }
            StateProjected::Refused { error } => {
                Poll::Ready(Err(error.take().expect("polled after completion")))
            }
        }
    }
}

impl<F, C, K> fmt::Debug for BreakerFuture<F, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Calling { .. } => "BreakerFuture::Calling",
            State::Refused { .. } => "BreakerFuture::Refused",
        })
    }
}
