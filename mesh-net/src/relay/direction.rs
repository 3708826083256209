use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read at once, and so the most that is kept for a slow receiver, per direction.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// How often one direction reads before others have their turn.
pub const ROUNDS_MAX: usize = 16;

thread_local! {
    /// What is read is written before anybody else on this thread reads.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES_MAX].into());
}

/// Where bytes go one way.
#[derive(Debug)]
pub(super) struct Direction {
    state: State,
    pub(super) read: u64,
    pub(super) written: u64,
}

#[derive(Debug)]
enum State {
    /// Nothing is kept: what is read is written at once.
    Reading,
    /// The receiver has not taken all of the last chunk.
    Writing {
        chunk: Vec<u8>,
        from: usize,
    },
    /// The sender is through; the receiver is to know.
    Ending,
    Ended,
}

/// Which end failed.
#[derive(Debug)]
pub(super) enum Fault {
    Reading(io::Error),
    Writing(io::Error),
}

impl Direction {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Reading,
            read: 0,
            written: 0,
        }
    }

    /// Ready when the sender is through and the receiver knows.
    pub(super) fn poll<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..ROUNDS_MAX {
            match &mut self.state {
                State::Reading => match self.poll_chunk(cx, from.as_mut(), to.as_mut()) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => {
                        // What the receiver has taken may still wait inside it, as in TLS.
                        if matches!(self.state, State::Reading) {
                            ready!(to.as_mut().poll_flush(cx)).map_err(Fault::Writing)?;
                        }
                        return Poll::Pending;
                    }
                },
                State::Writing { .. } => ready!(self.poll_rest(cx, to.as_mut()))?,
                State::Ending => {
                    ready!(to.as_mut().poll_shutdown(cx)).map_err(Fault::Writing)?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads a chunk and writes as much of it as goes at once.
    fn poll_chunk<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<Result<(), Fault>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(from.poll_read(cx, &mut buffer)).map_err(Fault::Reading)?;
            let mut chunk = buffer.filled();
            if chunk.is_empty() {
                self.state = State::Ending;
                return Poll::Ready(Ok(()));
            }
            self.read += chunk.len() as u64;
            while !chunk.is_empty() {
                match to.as_mut().poll_write(cx, chunk) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Fault::Writing(nothing_taken()))),
                    Poll::Ready(Ok(n)) => {
                        self.written += n as u64;
                        chunk = chunk.get(n..).unwrap_or_default();
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Writing(error))),
                    Poll::Pending => {
                        self.state = State::Writing {
                            chunk: chunk.to_vec(),
                            from: 0,
                        };
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_rest<W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut W>,
    ) -> Poll<Result<(), Fault>> {
        let State::Writing { chunk, from } = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        while let Some(rest) = chunk.get(*from..).filter(|rest| !rest.is_empty()) {
            let n = ready!(to.as_mut().poll_write(cx, rest)).map_err(Fault::Writing)?;
            if n == 0 {
                return Poll::Ready(Err(Fault::Writing(nothing_taken())));
            }
            *from += n;
            self.written += n as u64;
        }
        self.state = State::Reading;
        Poll::Ready(Ok(()))
    }
}

fn nothing_taken() -> io::Error {
    io::ErrorKind::WriteZero.into()
}
