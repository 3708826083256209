//! From the head of an answer to the next request, or to the end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::Frame;
use mesh_core::{Error, ErrorKind, Tunnel, clock};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, NEXT, State, StateProject, Step, body::Shared, end};
use crate::{
    h1::{
        buffer::WriteBuffer,
        encode::{self, BodyEncoder, ConnectionHeader},
    },
    handler::{Abort as _, CloseConnection, Handler},
    server::{Closing, Ended},
};

/// Bodies up to this size are likely to be copied behind the head.
const COPIED_MAX: u64 = 16 * 1024;

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    /// Writes the head of an answer.
    pub(super) fn begin_answer(self: Pin<&mut Self>, response: Response<H::Body>) -> Step {
        let mut this = self.project();
        // The exchange ends here, and with it what it had of the request.
        this.state.set(State::Reading);
        let (parts, body) = response.into_parts();
        let head = Response::from_parts(parts, ());
        let status = head.status();
        let bodiless = this.current.method == Method::HEAD
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        // The body may be the request's, which takes the lock to answer this.
        let hint = http_body::Body::size_hint(&body).exact();
        let ended = bodiless || http_body::Body::is_end_stream(&body);
        let tunnel = Tunnel::is_granted(&head) && this.shared.lock().grant_tunnel();
        let encoder = match hint {
            _ if tunnel => BodyEncoder::UntilClose,
            _ if bodiless => BodyEncoder::None,
            Some(0) => BodyEncoder::None,
            Some(n) => BodyEncoder::Length(n),
            None if this.current.http10 => BodyEncoder::UntilClose,
            None => BodyEncoder::Chunked {
                trailers: this.config.trailers,
            },
        };
        let copied = hint.filter(|n| *n < COPIED_MAX).unwrap_or_default() as usize;
        let abandoned = this.shared.is_alone();
        let mut guard = this.shared.lock();
        let close = !guard.settle_request(abandoned)
            || head.extensions().get::<CloseConnection>().is_some()
            || *this.closing != Closing::No
            || !this.current.keep_alive
            || this.current.client_left.is_some()
            || encoder == BodyEncoder::UntilClose;
        let connection = match (tunnel, close) {
            (true, _) => ConnectionHeader::Kept,
            (false, true) => ConnectionHeader::Close,
            (false, false) => ConnectionHeader::None,
        };
        let out = &mut guard.write.flat;
        encode::response_head(&head, encoder, bodiless, connection, copied, out);
        guard.last_activity = clock::now();
        drop(guard);
        this.state.set(State::Answering {
            body,
            encoder,
            ended,
            close,
        });
        NEXT
    }

    pub(super) fn poll_answering(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        loop {
            let this = self.as_mut().project();
            let StateProject::Answering {
                mut body,
                encoder,
                ended,
                close,
            } = this.state.project()
            else {
                return NEXT;
            };
            let close = *close;
            let mut progress = false;
            while !*ended && this.shared.lock().write.has_room() {
                let Poll::Ready(frame) = http_body::Body::poll_frame(body.as_mut(), cx) else {
                    break;
                };
                progress = true;
                let last = http_body::Body::is_end_stream(&*body);
                let mut guard = this.shared.lock();
                guard.last_activity = clock::now();
                match write_frame(frame, last, encoder, &mut guard.write) {
                    Ok(last) => *ended = last,
                    Err(()) => {
                        // The answer cannot be completed. What was read of it goes out, and the client
                        // sees the connection end before the message does.
                        let Shared { io, write, .. } = &mut *guard;
                        let _ = write.poll_flush(cx, io);
                        return end(cut_short(*encoder));
                    }
                }
            }
            let mut guard = this.shared.lock();
            let tunnel = guard.is_tunnel();
            let Shared { io, write, .. } = &mut *guard;
            let before = write.written();
            let flushed = write.poll_flush(cx, io);
            if write.written() != before {
                guard.last_activity = clock::now();
            }
            drop(guard);
            match flushed {
                Poll::Ready(Ok(())) if *ended && tunnel => return self.half_close(),
                Poll::Ready(Ok(())) if *ended && close => return self.linger(),
                Poll::Ready(Ok(())) if *ended => return self.next_request(),
                Poll::Ready(Ok(())) if progress => {}
                Poll::Ready(Err(_)) => {
                    body.abort(&Error::new(ErrorKind::DownstreamGone));
                    return end(Ended::ClientGone);
                }
                _ => return self.poll_slow_answer(cx),
            }
        }
    }

    /// While an answer waits for its next bytes: the client may leave, or nothing may move for too long.
    fn poll_slow_answer(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let Some(error) = ready!(self.as_mut().poll_impatience(cx)) else {
            return NEXT;
        };
        let this = self.project();
        let StateProject::Answering { body, encoder, .. } = this.state.project() else {
            return NEXT;
        };
        body.abort(&error);
        end(if error.kind() == ErrorKind::DownstreamGone {
            Ended::ClientGone
        } else {
            cut_short(*encoder)
        })
    }

    fn next_request(mut self: Pin<&mut Self>) -> Step {
        let mut this = self.as_mut().project();
        let complete = this.shared.take_back();
        if !complete {
            return self.linger();
        }
        *this.idle_since = clock::now();
        this.timer.disarm();
        this.state.set(State::Reading);
        NEXT
    }

    fn half_close(self: Pin<&mut Self>) -> Step {
        let mut this = self.project();
        // From now on only the body reads from the socket: its waker must be there.
        this.shared.lock().wake_reader();
        this.state.set(State::HalfClosed);
        NEXT
    }

    /// Closes our side of a tunnel, and waits until the client has closed its own, as long as there is
    /// somebody who takes what it sends.
    pub(super) fn poll_half_closed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let this = self.project();
        let wanted = !this.shared.is_alone();
        let mut guard = this.shared.lock();
        if let Poll::Ready(Err(_)) = Pin::new(&mut guard.io).poll_shutdown(cx) {
            guard.abandon();
            return end(Ended::ClientGone);
        }
        if !wanted || guard.poll_tunnel_end(cx).is_ready() {
            return end(Ended::Closed);
        }
        let idle = this
            .current
            .idle_timeout
            .or(this.config.stream_idle_timeout);
        let idle = idle.filter(|t| !t.is_zero());
        this.timer.set(idle.map(|t| guard.last_activity + t));
        ready!(this.timer.poll(cx));
        guard.abandon();
        end(Ended::Closed)
    }

    pub(super) fn linger(self: Pin<&mut Self>) -> Step {
        let mut this = self.project();
        let until = clock::now() + this.config.delayed_close;
        this.timer.arm(until);
        this.state.set(State::Lingering(until));
        NEXT
    }

    /// Closes our side, then reads and forgets until the client has closed its own: closing with unread
    /// bytes would make the kernel reset the connection and take the answer with it.
    pub(super) fn poll_lingering(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        until: Instant,
    ) -> Step {
        let this = self.project();
        let mut guard = this.shared.lock();
        let Shared { io, read, .. } = &mut *guard;
        if let Poll::Ready(Err(_)) = Pin::new(&mut *io).poll_shutdown(cx) {
            return end(Ended::Closed);
        }
        // A client that sends without pause would never let the timer be asked.
        while clock::read() < until {
            read.bytes.clear();
            match read.poll_fill(cx, io) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(this.timer.poll(cx));
                    break;
                }
            }
        }
        end(Ended::Closed)
    }
}

/// How a connection ends whose answer is not complete.
fn cut_short(encoder: BodyEncoder) -> Ended {
    if encoder == BodyEncoder::UntilClose {
        Ended::Truncated
    } else {
        Ended::Closed
    }
}

/// Puts one frame of the answer into the buffer; `last` says that nothing follows it. `true` when that was
/// the end.
fn write_frame(
    frame: Option<Result<Frame<Bytes>, Error>>,
    last: bool,
    encoder: &mut BodyEncoder,
    write: &mut WriteBuffer,
) -> Result<bool, ()> {
    let ended = match frame {
        Some(Err(_)) => return Err(()),
        None => encoder.end(None, write),
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => {
                encoder.data(data, write).map_err(|_| ())?;
                if !last {
                    return Ok(false);
                }
                encoder.end(None, write)
            }
            Err(frame) => encoder.end(frame.trailers_ref(), write),
        },
    };
    ended.map(|()| true).map_err(|_| ())
}
