//! What is written in one go leaves in one piece.
//!
//! h2 writes and flushes after each DATA frame, and a frame has 16 KiB at most: a body of 64 KiB would be four
//! system calls, and four times wake its reader. To copy it costs a fraction of that.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No more is held back: from here on a flush writes.
const HELD_MAX: usize = 64 * 1024;

/// What is larger than a frame with its head passes by: it needs no company.
const GATHERED_MAX: usize = 17 * 1024;

thread_local! {
    /// What a connection holds back goes out before another one has its turn, but for slow peers: one buffer
    /// does for nearly all.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A stream that holds back the frames that are written to it until it is flushed twice in a row, which h2 does
/// when it has no more of them.
pub(crate) struct Gather<IO> {
    io: IO,
    held: Vec<u8>,
    /// So much of `held` is written.
    written: usize,
    /// The next flush writes.
    due: bool,
    /// What is held waits for the peer.
    blocked: bool,
}

impl<IO> Gather<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self {
            io,
            held: Vec::new(),
            written: 0,
            due: false,
            blocked: false,
        }
    }

    /// Whether something waits for one more flush, and for nothing else.
    pub(crate) fn holds_back(&self) -> bool {
        !self.held.is_empty() && !self.blocked
    }

    fn hold(&mut self, bufs: &[IoSlice<'_>]) {
        if self.held.capacity() == 0 {
            self.held = SPARE.take();
            self.held.reserve(HELD_MAX + GATHERED_MAX);
        }
        bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
    }
}

impl<IO: AsyncWrite + Unpin> Gather<IO> {
    /// Writes all that is held back.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let rest = &self.held[self.written..];
            let polled = Pin::new(&mut self.io).poll_write(cx, rest);
            self.blocked = polled.is_pending();
            match ready!(polled)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        if !self.held.is_empty() {
            self.held.clear();
            self.written = 0;
            SPARE.set(std::mem::take(&mut self.held));
        }
        self.due = false;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// h2 writes the payload of a DATA frame behind its head, as two pieces. One piece are small frames, and all
    /// that it has of them.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let size = bufs.iter().map(|buf| buf.len()).sum();
        let large = size > GATHERED_MAX;
        if large || self.held.len() >= HELD_MAX {
            ready!(self.poll_release(cx))?;
        }
        let last = bufs.len() == 1;
        if large || (last && self.held.is_empty()) {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        self.due = last;
        self.hold(bufs);
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds_back() && !self.due && self.held.len() < HELD_MAX {
            self.due = true;
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, task::Waker};

    use proptest::prelude::*;

    use super::*;

    /// Keeps what each write brought; takes no more than `rooms` say, one after the other, then everything.
    #[derive(Default)]
    struct Peer {
        writes: Vec<Vec<u8>>,
        rooms: VecDeque<usize>,
    }

    impl AsyncWrite for Peer {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let n = match self.rooms.pop_front() {
                Some(0) => return Poll::Pending,
                Some(room) => room.min(buf.len()),
                None => buf.len(),
            };
            self.writes.push(buf[..n].to_vec());
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn frame(gather: &mut Gather<Peer>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut cx = Context::from_waker(Waker::noop());
        let (head, payload) = bytes.split_at(bytes.len().min(9));
        let bufs = [IoSlice::new(head), IoSlice::new(payload)];
        Pin::new(gather).poll_write_vectored(&mut cx, &bufs)
    }

    fn flush(gather: &mut Gather<Peer>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(gather).poll_flush(&mut cx).is_ready()
    }

    fn sizes(gather: &Gather<Peer>) -> Vec<usize> {
        gather.io.writes.iter().map(Vec::len).collect()
    }

    #[test]
    fn frames_that_follow_each_other_leave_in_one_write() {
        let mut gather = Gather::new(Peer::default());
        for _ in 0..3 {
            assert!(frame(&mut gather, &[7; 16_393]).is_ready());
            assert!(flush(&mut gather));
        }
        assert!(gather.holds_back() && sizes(&gather).is_empty());
        assert!(flush(&mut gather));
        assert!(!gather.holds_back());
        assert_eq!(sizes(&gather), [3 * 16_393]);
    }

    fn small(gather: &mut Gather<Peer>, bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        let bufs = [IoSlice::new(bytes)];
        assert!(
            Pin::new(gather)
                .poll_write_vectored(&mut cx, &bufs)
                .is_ready()
        );
    }

    #[test]
    fn small_frames_behind_them_end_the_wait() {
        let mut gather = Gather::new(Peer::default());
        assert!(frame(&mut gather, &[7; 1000]).is_ready());
        assert!(flush(&mut gather));
        small(&mut gather, b"end");
        assert!(flush(&mut gather));
        assert_eq!(sizes(&gather), [1003]);
    }

    #[test]
    fn small_frames_alone_go_out_at_once() {
        let mut gather = Gather::new(Peer::default());
        small(&mut gather, b"ping");
        assert_eq!(sizes(&gather), [4]);
        assert!(!gather.holds_back());
    }

    #[test]
    fn no_more_is_held_than_the_bound() {
        let mut gather = Gather::new(Peer::default());
        for _ in 0..40 {
            assert!(frame(&mut gather, &[7; 16_393]).is_ready());
            assert!(flush(&mut gather));
        }
        let largest = sizes(&gather).into_iter().max();
        assert_eq!(largest, Some(4 * 16_393), "the first beyond 64 KiB ends it");
        assert!(gather.held.capacity() <= HELD_MAX + GATHERED_MAX);
    }

    #[test]
    fn what_a_slow_peer_does_not_take_is_not_held_back() {
        let mut gather = Gather::new(Peer::default());
        gather.io.rooms.extend([5, 0]);
        assert!(frame(&mut gather, b"0123456789").is_ready());
        assert!(flush(&mut gather));
        assert!(!flush(&mut gather), "the peer takes five bytes");
        assert!(!gather.holds_back(), "the peer's turn will wake us");
        assert!(flush(&mut gather));
        assert_eq!(gather.io.writes.concat(), b"0123456789");
    }

    proptest! {
        /// Frames of any size, flushes at any time, peers of any speed: what comes out is what went in.
        #[test]
        fn nothing_is_lost_or_out_of_order(
            steps in proptest::collection::vec((0_usize..40_000, 0_usize..3), 1..30),
            rooms in proptest::collection::vec(0_usize..50_000, 0..30),
        ) {
            let mut gather = Gather::new(Peer::default());
            gather.io.rooms.extend(rooms);
            let mut given = Vec::new();
            for (number, (size, flushes)) in steps.into_iter().enumerate() {
                let bytes = vec![number as u8; size];
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    if let Poll::Ready(taken) = frame(&mut gather, rest) {
                        rest = &rest[taken?..];
                    }
                }
                given.extend_from_slice(&bytes);
                for _ in 0..flushes {
                    flush(&mut gather);
                }
            }
            while !(flush(&mut gather) && flush(&mut gather)) {}
            prop_assert!(!gather.holds_back());
            prop_assert_eq!(gather.io.writes.concat(), given);
        }
    }
}
