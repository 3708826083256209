//! Carries bytes both ways between two streams.
//!
//! [`Relay`] knows nothing of clusters, timeouts or logs: whoever polls it looks at
//! [`Relay::carried`] to see what has moved, and decides how long to wait. It owns no buffer while nothing is
//! on its way: bytes are read into a buffer of the thread and written at once; only what the other side does
//! not take is kept, and nothing more is read until it has gone.
//!
//! The end of one direction is passed on by shutting the other side's writing down; the other direction
//! goes on.
//!
//! # Envoy
//! The data path of `envoy.filters.network.tcp_proxy`.

mod direction;
mod pipe;
#[cfg(test)]
mod tests;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

pub use direction::{CHUNK_BYTES_MAX, ROUNDS_MAX};
use direction::{Direction, Fault};
pub use pipe::PIPES_MAX;

/// What can be relayed.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// The socket, where its bytes are the stream's bytes and nothing was read from it that is still to be
    /// handed out.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// One of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Whoever connected to us.
    Downstream,
    /// Whoever we connected to.
    Upstream,
}

/// How it ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both sides said that they are through, and everything was delivered.
    Finished,
    /// One side failed, as by a reset. What the other has not received is lost.
    Failed(Side, io::Error),
}

/// How many bytes have moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Read from the downstream.
    pub from_downstream: u64,
    /// Written to the upstream.
    pub to_upstream: u64,
    /// Read from the upstream.
    pub from_upstream: u64,
    /// Written to the downstream.
    pub to_downstream: u64,
}

/// Two streams, and what is on its way between them.
#[derive(Debug)]
pub struct Relay<D, U> {
    downstream: D,
    upstream: U,
    /// From the downstream to the upstream.
    up: Direction,
    down: Direction,
    /// Who was through before the other.
    first: Option<Side>,
}

impl<D, U> Relay<D, U>
where
    D: Carrier,
    U: Carrier,
{
    /// A relay that has moved nothing yet. In each direction, at most `limit` bytes are kept for a slow
    /// receiver, and never more than [`CHUNK_BYTES_MAX`], or what a pipe holds.
    #[must_use]
    pub const fn new(downstream: D, upstream: U, limit: usize) -> Self {
        Self {
            downstream,
            upstream,
            up: Direction::new(limit),
            down: Direction::new(limit),
            first: None,
        }
    }

    /// Moves what can be moved. Ready when both directions have ended, or one side has failed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        use Side::{Downstream, Upstream};
        let up = self.up.poll(
            cx,
            Pin::new(&mut self.downstream),
            Pin::new(&mut self.upstream),
        );
        if let Poll::Ready(Err(fault)) = up {
            return Poll::Ready(failed(fault, Downstream, Upstream));
        }
        let down = self.down.poll(
            cx,
            Pin::new(&mut self.upstream),
            Pin::new(&mut self.downstream),
        );
        if let Poll::Ready(Err(fault)) = down {
            return Poll::Ready(failed(fault, Upstream, Downstream));
        }
        if self.first.is_none() {
            self.first = match (up.is_ready(), down.is_ready()) {
                (true, _) => Some(Downstream),
                (false, true) => Some(Upstream),
                (false, false) => None,
            };
        }
        let _ = (ready!(up), ready!(down));
        Poll::Ready(RelayEnd::Finished)
    }

    /// Which side was through first, once one is.
    #[must_use]
    pub const fn first_through(&self) -> Option<Side> {
        self.first
    }

    /// What has moved so far.
    #[must_use]
    pub const fn carried(&self) -> Carried {
        Carried {
            from_downstream: self.up.read,
            to_upstream: self.up.written,
            from_upstream: self.down.read,
            to_downstream: self.down.written,
        }
    }

    /// Both streams.
    pub const fn streams(&self) -> (&D, &U) {
        (&self.downstream, &self.upstream)
    }
}

fn failed(fault: Fault, from: Side, to: Side) -> RelayEnd {
    match fault {
        Fault::Reading(error) => RelayEnd::Failed(from, error),
        Fault::Writing(error) => RelayEnd::Failed(to, error),
    }
}
