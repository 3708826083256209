use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use mesh_core::{BoxError, Error, clock};
use pin_project::pin_project;

use crate::{Quota, error::add_quota};

/// The future of a [`RateLimit`](crate::RateLimit).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F>(#[pin] State<F>);

#[pin_project(project = Project)]
#[derive(Debug)]
enum State<F> {
    /// The service inside is at work; its answer gets headers if there is a quota to show.
    Passed {
        #[pin]
        future: F,
        quota: Option<Quota>,
    },
    /// The refusal, until it was given.
    Refused(Option<Error>),
}

impl<F> ResponseFuture<F> {
    pub(crate) const fn pass(future: F, quota: Option<Quota>) -> Self {
        Self(State::Passed { future, quota })
    }

    pub(crate) const fn refuse(error: Error) -> Self {
        Self(State::Refused(Some(error)))
    }
}

impl<F, C, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<C>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<C>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            Project::Passed { future, quota } => {
                let mut result =
                    ready!(future.poll(cx)).map_err(|error| Error::from_boxed(error.into()));
                if let (Ok(response), Some(quota)) = (&mut result, quota) {
                    add_quota(response.headers_mut(), quota, clock::now());
                }
                Poll::Ready(result)
            }
            Project::Refused(error) => {
                let error = error.take().expect("polled after it was ready");
                Poll::Ready(Err(error))
            }
        }
    }
}
