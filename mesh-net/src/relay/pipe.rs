//! Bytes that go from one socket to another without coming out of the kernel.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// How many pipes one thread has at most, two file descriptors each; who gets none copies.
pub const PIPES_MAX: usize = 256;

/// How many of them are kept for later while nobody uses them.
const IDLE_MAX: usize = 16;

/// What a pipe holds at most.
pub(super) const PIPE_BYTES_MAX: usize = 512 * 1024;

thread_local! {
    static IDLE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// A pipe between two sockets.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Gone once it was put back.
    ends: Option<Ends>,
    /// What is in it.
    pub(super) filled: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    /// An empty one; `None` when there are too many, or the system gives none.
    pub(super) fn take() -> Option<Self> {
        let idle = IDLE.with_borrow_mut(Vec::pop);
        let ends = match idle {
            Some(ends) => ends,
            None if COUNT.get() >= PIPES_MAX => return None,
            None => Ends::new().ok()?,
        };
        COUNT.set(COUNT.get() + 1);
        Some(Self {
            ends: Some(ends),
            filled: 0,
        })
    }

    /// Takes what the socket has, up to `limit` bytes, into the pipe, which is empty. 0 is the end.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Ok(0));
        };
        loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || {
                carry(from, &ends.write, limit.min(ends.size))
            });
            match moved {
                Ok(moved) => {
                    self.filled = moved;
                    return Poll::Ready(Ok(moved));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives the socket some of what is in the pipe.
    pub(super) fn poll_empty(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Ok(0));
        };
        loop {
            ready!(to.poll_write_ready(cx))?;
            let moved = to.try_io(Interest::WRITABLE, || carry(&ends.read, to, self.filled));
            match moved {
                Ok(moved) => {
                    self.filled -= moved;
                    return Poll::Ready(Ok(moved));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for Pipe {
    /// An empty one is for whoever comes next.
    fn drop(&mut self) {
        COUNT.set(COUNT.get().saturating_sub(1));
        if let Some(ends) = self.ends.take()
            && self.filled == 0
        {
            // The thread may be ending.
            let _ = IDLE.try_with(|idle| {
                let mut idle = idle.borrow_mut();
                if idle.len() < IDLE_MAX {
                    idle.push(ends);
                }
            });
        }
    }
}

impl Ends {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Where the system allows less, it is as good as it can be.
        let size = fcntl_setpipe_size(&write, PIPE_BYTES_MAX)
            .or_else(|_| rustix::pipe::fcntl_getpipe_size(&write))?;
        Ok(Self { read, write, size })
    }
}

fn carry(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(splice(from, None, to, None, length, flags)?)
}
