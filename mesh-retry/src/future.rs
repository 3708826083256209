use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_core::{Attempt, BoxError, Error, ErrorKind, Permit, clock};
use pin_project::pin_project;
use tower_service::Service;

use crate::{
    ReplayBody, RetryBody, RetryContext,
    body::Held,
    call::{Call, Expiry, Fate, Next, Try},
};

/// At most so many attempts of one request run at once when hedging. When it is hit, a further timeout
/// starts nothing, and those that run go on.
pub const HEDGES_MAX: usize = 16;

/// The future of [`Retry`](crate::Retry).
#[pin_project]
pub struct ResponseFuture<S, B, C>
where
    S: Service<Request<ReplayBody<B>>>,
{
    #[pin]
    state: State<S, B, C>,
}

#[pin_project(project = StateProject)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost more than the room"
)]
enum State<S, B, C>
where
    S: Service<Request<ReplayBody<B>>>,
{
    /// Polling the only attempt; its result is passed on.
    Through {
        #[pin]
        attempt: S::Future,
        request: Option<Permit>,
    },
    /// Polling attempts, or waiting for the next one.
    Managed {
        /// The attempt in place: called, or retrying. Empty while the back-off lasts, and while only
        /// hedged attempts run.
        #[pin]
        place: Option<S::Future>,
        rest: Rest<S, B, C>,
    },
    /// Polled to its end.
    Done,
}

/// What does not need to be pinned.
struct Rest<S, B, C>
where
    S: Service<Request<ReplayBody<B>>>,
{
    service: S,
    call: Call<B, C>,
    /// The attempt in place.
    placed: Option<Try>,
    /// Attempts beside it.
    hedges: Vec<(Pin<Box<S::Future>>, Try)>,
}

type Answer<RB> = Result<Response<RetryBody<RB>>, Error>;

impl<S, B, C> ResponseFuture<S, B, C>
where
    S: Service<Request<ReplayBody<B>>>,
{
    pub(crate) const fn through(attempt: S::Future, request: Option<Permit>) -> Self {
        Self {
            state: State::Through { attempt, request },
        }
    }

    pub(crate) fn managed(
        attempt: S::Future,
        service: S,
        call: Call<B, C>,
        (marker, reader): (Option<Attempt>, u32),
    ) -> Self {
        Self {
            state: State::Managed {
                place: Some(attempt),
                rest: Rest {
                    service,
                    call,
                    placed: Some(Try::new(marker, reader)),
                    hedges: Vec::new(),
                },
            },
        }
    }
}

impl<S, B, C> fmt::Debug for ResponseFuture<S, B, C>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Through { .. } => "ResponseFuture::Through",
            State::Managed { .. } => "ResponseFuture::Managed",
            State::Done => "ResponseFuture::Done",
        })
    }
}

impl<S, B, C, RB> Future for ResponseFuture<S, B, C>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    B: HttpBody + 'static,
    C: RetryContext,
    RB: HttpBody,
{
    type Output = Answer<RB>;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let answer = match state.as_mut().project() {
            StateProject::Through { attempt, request } => match ready!(attempt.poll(cx)) {
                Ok(response) => {
                    let held = Held {
                        slot: None,
                        request: request.take(),
                    };
                    Ok(response.map(|body| RetryBody::new(body, held, None)))
                }
                Err(error) => Err(Error::from_boxed(error.into())),
            },
            StateProject::Managed { place, rest } => ready!(rest.poll(place, cx)),
            StateProject::Done => panic!("polled after it was ready"),
        };
        // Attempts that lost end here.
        state.set(State::Done);
        Poll::Ready(answer)
    }
}

impl<S, B, C, RB> Rest<S, B, C>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    B: HttpBody + 'static,
    C: RetryContext,
    RB: HttpBody,
{
    fn poll(
        &mut self,
        mut place: Pin<&mut Option<S::Future>>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<RB>> {
        loop {
            if let Some(answer) = self.poll_attempts(place.as_mut(), cx) {
                return Poll::Ready(answer);
            }
            if self.call.next == Next::Now {
                match self.service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        if self.launch(place.as_mut()) {
                            continue;
                        }
                        // The request is gone. Nobody reads it between attempts, so this cannot be;
                        // an error beats waiting for ever if it ever is.
                        if place.is_none() && self.hedges.is_empty() {
                            return Poll::Ready(Err(ErrorKind::RetryBufferExceeded.into()));
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        // The service is lost; attempts that it made may still be answered.
                        self.call.next = Next::Never;
                        if place.is_none() && self.hedges.is_empty() {
                            return Poll::Ready(Err(Error::from_boxed(error.into())));
                        }
                    }
                    Poll::Pending => {}
                }
            }
            self.arm(cx);
            ready!(self.call.timer.poll(cx));
            if let Some(answer) = self.on_time(place.as_mut(), clock::now()) {
                return Poll::Ready(answer);
            }
        }
    }

    fn poll_attempts(
        &mut self,
        mut place: Pin<&mut Option<S::Future>>,
        cx: &mut Context<'_>,
    ) -> Option<Answer<RB>> {
        if let Some(attempt) = place.as_mut().as_pin_mut()
            && let Poll::Ready(result) = attempt.poll(cx)
        {
            place.set(None);
            let attempt = self.placed.take()?;
            let result = result.map_err(|error| Error::from_boxed(error.into()));
            let answer = self.on_result(attempt, result, false);
            if answer.is_some() {
                return answer;
            }
        }
        let mut i = 0;
        while let Some((attempt, _)) = self.hedges.get_mut(i) {
            let Poll::Ready(result) = attempt.as_mut().poll(cx) else {
                i += 1;
                continue;
            };
            let (_, attempt) = self.hedges.remove(i);
            let result = result.map_err(|error| Error::from_boxed(error.into()));
            let answer = self.on_result(attempt, result, place.is_some());
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    /// An attempt ended; its future is gone already.
    fn on_result(
        &mut self,
        attempt: Try,
        result: Result<Response<RB>, Error>,
        placed: bool,
    ) -> Option<Answer<RB>> {
        let others = placed || !self.hedges.is_empty() || self.call.next != Next::Never;
        match result {
            Ok(response) => match self.call.on_response(&attempt, &response, others) {
                Fate::Answer => Some(Ok(self.call.answer(attempt, response))),
                Fate::Discard => None,
            },
            Err(error) => match self.call.on_failure(&attempt, &error, others) {
                Fate::Answer => Some(Err(error)),
                Fate::Discard => None,
            },
        }
    }

    /// Makes the attempt that is due, in place if that is free, unless its request cannot be had.
    fn launch(&mut self, mut place: Pin<&mut Option<S::Future>>) -> bool {
        let Some((request, attempt)) = self.call.next_request() else {
            return false;
        };
        let future = self.service.call(request);
        if place.is_none() {
            place.set(Some(future));
            self.placed = Some(attempt);
        } else {
            self.hedges.push((Box::pin(future), attempt));
        }
        true
    }

    /// Sets the timer to whatever comes first.
    fn arm(&mut self, cx: &Context<'_>) {
        let tries = self.placed.iter_mut();
        let tries = tries.chain(self.hedges.iter_mut().map(|(_, attempt)| attempt));
        let mut first = match self.call.next {
            Next::At(at) => Some(at),
            Next::Now | Next::Never => None,
        };
        for attempt in tries {
            self.call.start_timers(attempt, cx);
            first = first.into_iter().chain(attempt.deadline()).min();
        }
        self.call.timer.set(first);
    }

    fn on_time(
        &mut self,
        mut place: Pin<&mut Option<S::Future>>,
        now: Instant,
    ) -> Option<Answer<RB>> {
        if matches!(self.call.next, Next::At(at) if at <= now) {
            self.call.next = Next::Now;
        }
        if let Some(mut attempt) = self.placed.take() {
            match self.expire(&mut attempt, now, self.hedges.len() + 1) {
                Some(error) => {
                    place.set(None);
                    let answer = self.on_result(attempt, Err(error), false);
                    if answer.is_some() {
                        return answer;
                    }
                }
                None => self.placed = Some(attempt),
            }
        }
        let mut i = 0;
        while i < self.hedges.len() {
            let (future, mut attempt) = self.hedges.remove(i);
            let in_flight = self.hedges.len() + 1 + usize::from(place.is_some());
            match self.expire(&mut attempt, now, in_flight) {
                Some(error) => {
                    drop(future);
                    let answer = self.on_result(attempt, Err(error), place.is_some());
                    if answer.is_some() {
                        return answer;
                    }
                }
                None => {
                    self.hedges.insert(i, (future, attempt));
                    i += 1;
                }
            }
        }
        None
    }

    fn expire(&mut self, attempt: &mut Try, now: Instant, in_flight: usize) -> Option<Error> {
        match self.call.expire(attempt, now, in_flight < HEDGES_MAX)? {
            Expiry::Stays => None,
            Expiry::Ends(error) => Some(error),
        }
    }
}
