//! While the answer is being made or awaited: what may end it early.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use mesh_core::{Error, ErrorKind, clock};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, NEXT, State, StateProject, Step, end};
use crate::{
    handler::{Exchange as _, Handler},
    server::{Ended, idle_timeout, receive_timeout},
};

/// How long a client that has closed its side may still wait for the next byte of its answer. A client that
/// half-closes after its request gets it; work for one that is gone ends soon.
const HALF_CLOSE_GRACE: Duration = Duration::from_secs(1);

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    pub(super) fn poll_handling(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let this = self.as_mut().project();
        let StateProject::Handling(exchange) = this.state.project() else {
            return NEXT;
        };
        if let Poll::Ready(response) = Future::poll(exchange, cx) {
            return self.begin_answer(response);
        }
        let Some(error) = ready!(self.as_mut().poll_impatience(cx)) else {
            return NEXT;
        };
        let this = self.as_mut().project();
        let StateProject::Handling(exchange) = this.state.project() else {
            return NEXT;
        };
        let gone = error.kind() == ErrorKind::DownstreamGone;
        let response = exchange.cancel(error);
        if gone {
            return end(Ended::ClientGone);
        }
        self.begin_answer(response)
    }

    /// Waits for what may end an exchange early: the client leaves, or time runs out.
    pub(super) fn poll_impatience(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Error>> {
        let this = self.project();
        let handling = matches!(*this.state.as_ref(), State::Handling(_));
        let mut guard = this.shared.lock();
        if guard.poll_ahead(cx).is_err() {
            return Poll::Ready(Some(Error::new(ErrorKind::DownstreamGone)));
        }
        if guard.read.is_eof() {
            this.current.client_left.get_or_insert_with(clock::now);
        }
        let request_done = guard.request_done();
        let is_tunnel = guard.is_tunnel();
        let last_activity = guard.last_activity;
        drop(guard);
        let idle = this.current.idle_timeout;
        let idle = idle
            .or(this.config.stream_idle_timeout)
            .filter(|t| !t.is_zero())
            .map(|t| last_activity + t);
        // An answer that has begun is not ended for a request that goes on.
        let request = this.config.request_timeout;
        let request = request
            .filter(|_| handling && !request_done)
            .and_then(|t| Some(this.current.started? + t));
        let left = this.current.client_left.filter(|_| !is_tunnel);
        let left = left.map(|t| t.max(last_activity) + HALF_CLOSE_GRACE);
        this.timer
            .set([idle, request, left].into_iter().flatten().min());
        ready!(this.timer.poll(cx));
        let now = clock::now();
        Poll::Ready(if left.is_some_and(|t| now >= t) {
            Some(Error::new(ErrorKind::DownstreamGone))
        } else if request.is_some_and(|t| now >= t) {
            Some(receive_timeout())
        } else {
            idle.is_some_and(|t| now >= t)
                .then(|| idle_timeout(request_done))
        })
    }
}
