//! Between requests: waits for a head and hands it to the handler.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, StatusCode, Version, header};
use mesh_core::{Error, ErrorKind, LocalReply, clock};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, Current, NEXT, State, Step, body, end};
use crate::{
    h1::head::{self, Malformed, RequestHead},
    handler::{CodecEvent, Exchange as _, Handler},
    server::{Closing, Ended, FIRST_REQUEST_GRACE, ServerConfig, receive_timeout, refusal},
};

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    pub(super) fn poll_reading(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        loop {
            let this = self.as_mut().project();
            let mut guard = this.shared.lock();
            if !guard.read.bytes.is_empty() {
                this.head_started.get_or_insert_with(clock::now);
                if this.scan.ripe(&guard.read.bytes) {
                    let parsed = head::parse_request(&mut guard.read.bytes, this.config.limits);
                    drop(guard);
                    match parsed {
                        Ok(Some(head)) => return self.begin(head),
                        Err(malformed) => return self.refuse(&malformed),
                        Ok(None) => guard = this.shared.lock(),
                    }
                }
            }
            let guard = &mut *guard;
            match guard.read.poll_fill(cx, &mut guard.io) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return end(Ended::ClientGone),
                Poll::Pending => break,
            }
        }
        // Only now is it known that nothing has arrived.
        if self.head_started.is_some() {
            self.poll_head_timeout(cx)
        } else {
            self.poll_idle(cx)
        }
    }

    /// Nothing of a request is here: how long may that last?
    fn poll_idle(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let this = self.as_ref().get_ref();
        let draining = this.closing == Closing::Now;
        let patience = match this.requests {
            0 if draining => Some(FIRST_REQUEST_GRACE),
            _ if draining => return self.linger(),
            _ => this.config.idle_timeout,
        };
        let deadline = patience.map(|t| this.idle_since + t);
        let this = self.as_mut().project();
        this.timer.set(deadline);
        ready!(this.timer.poll(cx));
        if draining {
            return self.linger();
        }
        end(Ended::Idle)
    }

    /// The first bytes of a head are here: the rest must follow.
    fn poll_head_timeout(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let this = self.as_mut().project();
        let Some(started) = *this.head_started else {
            return NEXT;
        };
        let head = this.config.headers_timeout.map(|t| started + t);
        let request = this.config.request_timeout.map(|t| started + t);
        this.timer.set([head, request].into_iter().flatten().min());
        ready!(this.timer.poll(cx));
        let error = if head.is_some_and(|t| clock::now() >= t) {
            Error::new(ErrorKind::RequestReceiveTimeout).with_reply(LocalReply::new(
                StatusCode::REQUEST_TIMEOUT,
                "request header timeout",
                "request_header_timeout",
            ))
        } else {
            receive_timeout()
        };
        self.reject(error)
    }

    /// Hands a complete head to the handler.
    fn begin(mut self: Pin<&mut Self>, mut head: RequestHead) -> Step {
        let mut this = self.as_mut().project();
        this.scan.reset();
        *this.requests += 1;
        let started = this.head_started.take();
        let last = this
            .config
            .max_requests
            .is_some_and(|max| *this.requests >= max);
        if last {
            this.handler.observe(CodecEvent::MaxRequests);
        }
        if head.http10
            && let Err(malformed) = allow_http10(&mut head, this.config)
        {
            return self.refuse(&malformed);
        }
        let body = body::lend(this.shared, &head, this.config.limits);
        *this.current = Current {
            method: head.request.method().clone(),
            http10: head.http10,
            // Behind a tunnel that was refused, nobody knows what the client has sent.
            keep_alive: head.keep_alive && !last && head.tunnel.is_none(),
            started,
            idle_timeout: None,
            client_left: None,
        };
        let (mut parts, ()) = head.request.into_parts();
        parts.version = if head.http10 {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        };
        parts.headers.remove(header::EXPECT);
        parts.headers.remove(header::TRANSFER_ENCODING);
        if let Some(tunnel) = head.tunnel {
            parts.extensions.insert(tunnel);
        }
        let exchange = this.handler.call(Request::from_parts(parts, body));
        this.current.idle_timeout = exchange.idle_timeout();
        this.state.set(State::Handling(exchange));
        NEXT
    }

    fn refuse(self: Pin<&mut Self>, malformed: &Malformed) -> Step {
        self.reject(refusal(malformed))
    }

    /// Answers what never became a request. The connection closes behind it, as there is nothing to keep
    /// it alive in an empty [`Current`].
    fn reject(mut self: Pin<&mut Self>, error: Error) -> Step {
        let this = self.as_mut().project();
        *this.current = Current::default();
        let response = this.handler.reject(error);
        self.begin_answer(response)
    }
}

/// Whether an HTTP/1.0 request is served; sees to its `host`.
fn allow_http10(head: &mut RequestHead, config: &ServerConfig) -> Result<(), Malformed> {
    if !config.accept_http_10 {
        return Err(Malformed {
            status: StatusCode::UPGRADE_REQUIRED,
            details: "low_version",
            reason: "HTTP/1.0 is not accepted".into(),
        });
    }
    let headers = head.request.headers_mut();
    if !headers.contains_key(header::HOST) {
        let host = config
            .default_host_for_http_10
            .clone()
            .ok_or(Malformed::bad("missing_host_header", "no host header"))?;
        headers.insert(header::HOST, host);
    }
    Ok(())
}
