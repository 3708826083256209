//! One connection from its first byte to its log line.

use std::{future::Future, pin::pin, task::Poll, time::Instant};

use mesh_core::{
    RequestInfo, ResponseFlag, Timer, clock,
    format::{AccessLogType, FormatContext},
};
use mesh_net::{
    Stream,
    relay::{Carried, Relay, RelayEnd, Side},
};

use super::{Shared, connect, upstream::Upstream};

/// Why a proxied connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpEnd {
    /// There was no endpoint to connect to; the log says why.
    NotConnected,
    /// Both sides were through.
    Finished,
    /// One side failed, as by a reset, and the other was reset too.
    Failed(Side),
    /// Nothing moved for too long.
    Idle,
    /// It lasted for too long.
    TooLong,
    /// It had to make way.
    Over,
    /// The client left before there was an endpoint.
    ClientGone,
}

pub(super) async fn run(
    shared: &Shared,
    stream: Stream,
    info: &RequestInfo,
    over: impl Future<Output = ()>,
) -> TcpEnd {
    shared.stats.downstream_cx_total().inc();
    let logged = Logged { shared, info };
    let end = async {
        let mut over = pin!(over);
        let connected = tokio::select! {
            biased;
            connected = connect::connect(shared, info) => connected,
            () = stream.gone() => return TcpEnd::ClientGone,
            () = over.as_mut() => return TcpEnd::Over,
        };
        let Some((upstream_stream, upstream)) = connected else {
            return TcpEnd::NotConnected;
        };
        let mut session = Session::new(shared, stream, upstream_stream, upstream, info);
        let ended = std::future::poll_fn(|cx| {
            if let Poll::Ready(end) = session.poll(cx) {
                return Poll::Ready(end);
            }
            over.as_mut().poll(cx).map(|()| TcpEnd::Over)
        });
        let end = ended.await;
        session.close(end);
        end
    }
    .await;
    drop(logged);
    end
}

/// Writes the log line, also when the task is dropped.
struct Logged<'a> {
    shared: &'a Shared,
    info: &'a RequestInfo,
}

impl Drop for Logged<'_> {
    fn drop(&mut self) {
        let mut context = FormatContext::new(self.info).with_end(clock::now());
        context.log_type = AccessLogType::TcpConnectionEnd;
        self.shared.log.log(&context);
    }
}

/// Two connected streams, their clocks and their counts.
struct Session<'a> {
    shared: &'a Shared,
    info: &'a RequestInfo,
    relay: Relay<Stream, Stream>,
    upstream: Upstream,
    /// What was counted of `relay`.
    counted: Carried,
    idle: Timer,
    /// When the connection has lasted for too long.
    longest: Option<Timer>,
}

impl<'a> Session<'a> {
    fn new(
        shared: &'a Shared,
        downstream: Stream,
        upstream_stream: Stream,
        upstream: Upstream,
        info: &'a RequestInfo,
    ) -> Self {
        let config = &shared.config;
        let limit = config.buffer_limit.min(upstream.buffer_limit);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut session = Self {
            shared,
            info,
            relay: Relay::new(downstream, upstream_stream, limit),
            upstream,
            counted: Carried::default(),
            idle: Timer::new(),
            longest: config
                .max_downstream_connection_duration
                .map(|longest| Timer::at(info.start + longest)),
        };
        session.moved(clock::now());
        session
    }

    fn moved(&mut self, now: Instant) {
        let timeout = self.shared.config.idle_timeout;
        self.idle.set(timeout.map(|timeout| now + timeout));
    }

    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<TcpEnd> {
        let polled = self.relay.poll(cx);
        let carried = self.relay.carried();
        if carried != self.counted {
            self.moved(clock::now());
            self.count(carried);
        }
        if let Poll::Ready(end) = polled {
            return Poll::Ready(match end {
                RelayEnd::Finished => {
                    // Whoever is through last ends it.
                    if self.relay.first_through() == Some(Side::Downstream) {
                        self.upstream.ended_by_peer();
                    }
                    TcpEnd::Finished
                }
                RelayEnd::Failed(side, error) => {
                    if side == Side::Upstream {
                        self.upstream.ended_by_peer();
                        if error.kind() == std::io::ErrorKind::ConnectionReset {
                            self.info.flag(ResponseFlag::UpstreamRemoteReset);
                        }
                    }
                    tracing::debug!(connection = self.info.connection.id, ?side, "{error}");
                    TcpEnd::Failed(side)
                }
            });
        }
        if self.idle.poll(cx).is_ready() {
            self.shared.stats.idle_timeout().inc();
            return Poll::Ready(TcpEnd::Idle);
        }
        if self
            .longest
            .as_mut()
            .is_some_and(|longest| longest.poll(cx).is_ready())
        {
            self.shared.stats.max_downstream_connection_duration().inc();
            self.info.flag(ResponseFlag::DurationTimeout);
            return Poll::Ready(TcpEnd::TooLong);
        }
        Poll::Pending
    }

    fn count(&mut self, carried: Carried) {
        let before = std::mem::replace(&mut self.counted, carried);
        let received = carried.from_downstream - before.from_downstream;
        let sent = carried.to_downstream - before.to_downstream;
        self.info.add_received(received);
        self.info.add_sent(sent);
        let stats = &self.shared.stats;
        stats.downstream_cx_rx_bytes_total().add(received);
        stats.downstream_cx_tx_bytes_total().add(sent);
        self.upstream.count_bytes(
            carried.from_upstream - before.from_upstream,
            carried.to_upstream - before.to_upstream,
        );
    }

    /// A failure of one side is passed on as one, so that the other takes nothing for an orderly end.
    fn close(&self, end: TcpEnd) {
        let (downstream, upstream) = self.relay.streams();
        match end {
            TcpEnd::Failed(Side::Downstream) => upstream.reset_on_close(),
            TcpEnd::Failed(Side::Upstream) => downstream.reset_on_close(),
            _ => {}
        }
    }
}
