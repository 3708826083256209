use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future as _,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

/// What one read takes at most: a head and a body of 64 KiB.
const READ_MAX: usize = 80 * 1024;
/// A read up to this size is copied into a buffer that is no larger; beyond, it stays where it was read, and no more
/// than half of that is empty.
const READ_COPIED_MAX: usize = READ_MAX / 2;
/// Pieces up to this size are copied behind the head, so that one flat write carries all.
const COPY_MAX: usize = 16 * 1024;
/// No more is taken from a body while so much waits to be written.
const WRITE_HIGH: usize = 64 * 1024;
/// Buffers in one vectored write.
const SLICES: usize = 8;

thread_local! {
    /// Where every connection reads into: one that waits owns no buffer.
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Bytes read and not yet understood.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    pub(crate) bytes: BytesMut,
    eof: bool,
}

impl ReadBuffer {
    /// What somebody else has read already.
    pub(crate) fn holding(bytes: BytesMut) -> Self {
        Self { bytes, eof: false }
    }

    /// Whether the peer has closed its side.
    pub(crate) fn is_eof(&self) -> bool {
        self.eof
    }

    /// Reads once; `Ok(0)` is the end.
    pub(crate) fn poll_fill<IO: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        let read = ready!(SCRATCH.with_borrow_mut(|scratch| {
            scratch.reserve(READ_MAX);
            let read = ready!(pin!(io.read_buf(scratch)).poll(cx));
            if self.bytes.is_empty() && scratch.len() > READ_COPIED_MAX {
                self.bytes = std::mem::take(scratch);
            } else {
                self.bytes.extend_from_slice(scratch);
                scratch.clear();
            }
            Poll::Ready(read)
        }))?;
        self.eof = read == 0;
        Poll::Ready(Ok(read))
    }

    /// The message is over: own nothing while nothing is buffered.
    pub(crate) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}

/// Bytes to be written: small pieces lie flat behind each other, large ones are passed on uncopied.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    /// Before `flat`; empty as long as everything was small.
    queue: VecDeque<Bytes>,
    pub(crate) flat: BytesMut,
    written: u64,
}

impl WriteBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.flat.is_empty()
    }

    /// Whether more may be put in.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.is_empty() && self.flat.len() < WRITE_HIGH
    }

    /// Bytes that went out since this buffer was made.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_MAX {
            self.flat.extend_from_slice(&bytes);
        } else {
            if !self.flat.is_empty() {
                self.queue.push_back(self.flat.split().freeze());
            }
            self.queue.push_back(bytes);
        }
    }

    /// Writes until nothing is left.
    pub(crate) fn poll_flush<IO: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let n = if self.queue.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.flat))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let pieces = self.queue.iter().map(AsRef::as_ref).chain([&self.flat[..]]);
                let filled = slices
                    .iter_mut()
                    .zip(pieces)
                    .map(|(s, p)| *s = IoSlice::new(p))
                    .count();
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..filled]))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        self.written += n as u64;
        while let Some(first) = self.queue.front_mut() {
            if n < first.len() {
                first.advance(n);
                return;
            }
            n -= first.len();
            self.queue.pop_front();
        }
        self.flat.advance(n);
        if self.flat.is_empty() {
            self.flat = BytesMut::new();
        }
    }
}
