use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    Carrier,
    pipe::{PIPE_BYTES_MAX, Pipe},
};

/// How much is read at once, and so the most that is kept for a slow receiver, per direction.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// How often one direction reads before others have their turn.
pub const ROUNDS_MAX: usize = 16;

/// So many chunks in a row that came in full make a transfer a long one: from then on its bytes stay in the
/// kernel.
const LONG_AFTER: u8 = 4;

/// What comes in pieces smaller than this is no long transfer any more: two system calls that move little cost
/// more than a copy.
const LONG_BYTES_MIN: usize = 16 * 1024;

thread_local! {
    /// What is read is written before anybody else on this thread reads.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES_MAX].into());
}

/// Where bytes go one way.
#[derive(Debug)]
pub(super) struct Direction {
    state: State,
    /// The most that is read at once, and kept for the receiver.
    limit: usize,
    /// Chunks in a row that came in full.
    full: u8,
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
    /// What was read is in the kernel.
    Splicing(Pipe),
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
    /// At most `limit` bytes are kept; at least 1.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            state: State::Reading,
            limit: if limit == 0 { 1 } else { limit },
            full: 0,
            read: 0,
            written: 0,
        }
    }

    /// Whether bytes of it wait in the kernel.
    #[cfg(test)]
    pub(super) fn is_spliced(&self) -> bool {
        matches!(&self.state, State::Splicing(pipe) if pipe.filled > 0)
    }

    /// Ready when the sender is through and the receiver knows.
    pub(super) fn poll<R: Carrier, W: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..ROUNDS_MAX {
            if let Some((from, to)) = self.long(&from, &to) {
                match self.poll_splice(cx, from, to) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
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
                // Both ends are sockets: see above.
                State::Splicing(_) => self.state = State::Reading,
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

    /// Both sockets, when bytes are to stay in the kernel.
    fn long<'a, R: Carrier, W: Carrier>(
        &self,
        from: &'a Pin<&mut R>,
        to: &'a Pin<&mut W>,
    ) -> Option<(&'a TcpStream, &'a TcpStream)> {
        let long = match &self.state {
            State::Splicing(_) => true,
            State::Reading => self.full >= LONG_AFTER,
            State::Writing { .. } | State::Ending | State::Ended => false,
        };
        if !long {
            return None;
        }
        from.socket().zip(to.socket())
    }

    /// Moves what is there from socket to socket.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
    ) -> Poll<Result<(), Fault>> {
        if !matches!(self.state, State::Splicing(_)) {
            match Pipe::take() {
                Some(pipe) => self.state = State::Splicing(pipe),
                None => {
                    // Somebody else's turn.
                    self.full = 0;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let State::Splicing(pipe) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        if pipe.filled == 0 {
            let limit = self.limit.min(PIPE_BYTES_MAX);
            match pipe.poll_fill(cx, from, limit) {
                Poll::Ready(Ok(0)) => {
                    self.state = State::Ending;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(moved)) => {
                    self.read += moved as u64;
                    if moved < LONG_BYTES_MIN {
                        self.full = 0;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Reading(error))),
                Poll::Pending => {
                    self.state = State::Reading;
                    return Poll::Pending;
                }
            }
        }
        while pipe.filled > 0 {
            match ready!(pipe.poll_empty(cx, to)).map_err(Fault::Writing)? {
                0 => return Poll::Ready(Err(Fault::Writing(nothing_taken()))),
                moved => self.written += moved as u64,
            }
        }
        if self.full == 0 {
            self.state = State::Reading;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a chunk and writes as much of it as goes at once.
    fn poll_chunk<R: Carrier, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<Result<(), Fault>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let limit = self.limit.min(scratch.len());
            let mut buffer = ReadBuf::new(scratch.get_mut(..limit).unwrap_or_default());
            match ready!(from.poll_read(cx, &mut buffer)) {
                // TLS that ends without saying so: the socket has closed in an orderly way, and Envoy passes that on
                // as an end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                read => read.map_err(Fault::Reading)?,
            }
            let mut chunk = buffer.filled();
            if chunk.is_empty() {
                self.state = State::Ending;
                return Poll::Ready(Ok(()));
            }
            self.read += chunk.len() as u64;
            self.full = if chunk.len() == limit && limit >= LONG_BYTES_MIN {
                self.full.saturating_add(1)
            } else {
                0
            };
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
