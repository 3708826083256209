use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body as HttpBody;
use mesh_core::{BoxError, Error, Tunnel};
use pin_project::pin_project;

use super::{DeadlineBody, countdown::Countdown};

/// The future of [`Deadline`](crate::Deadline).
#[pin_project]
#[derive(Debug)]
pub struct DeadlineFuture<F> {
    /// `None` once the time was up.
    #[pin]
    inner: Option<F>,
    countdown: Option<Countdown>,
}

impl<F> DeadlineFuture<F> {
    pub(super) const fn new(inner: F, countdown: Option<Countdown>) -> Self {
        Self {
            inner: Some(inner),
            countdown,
        }
    }
}

impl<F, RB, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: HttpBody,
    E: Into<BoxError>,
{
    type Output = Result<Response<DeadlineBody<RB>>, Error>;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let inner = this.inner.as_mut().as_pin_mut();
        if let Poll::Ready(result) = inner.expect("polled after it was ready").poll(cx) {
            this.inner.set(None);
            let countdown = this.countdown.take();
            return Poll::Ready(match result {
                Ok(response) => {
                    // A tunnel lasts for as long as it is used.
                    let countdown = countdown.filter(|_| !Tunnel::is_granted(&response));
                    Ok(response.map(|body| DeadlineBody::new(body, countdown)))
                }
                Err(error) => Err(Error::from_boxed(error.into())),
            });
        }
        let Some(countdown) = this.countdown else {
            return Poll::Pending;
        };
        let Some(error) = ready!(countdown.poll(cx)) else {
            return Poll::Pending;
        };
        this.inner.set(None);
        Poll::Ready(Err(error))
    }
}
