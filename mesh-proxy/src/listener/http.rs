//! What an HTTP connection manager does with a connection.

use std::{
    future::{Future as _, pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use http::Version;
use mesh_client::{Manager, ManagerStats};
use mesh_core::{ConnectionInfo, Timer, clock};
use mesh_http::server::{Connection, Ended};
use mesh_net::Stream;
use tokio::sync::watch;

use crate::drain::Phase;

/// Serves the connection until it ends, or its filter chain has to; says what the client spoke, if that was
/// found out.
pub(super) async fn serve(
    stream: Stream,
    info: Arc<ConnectionInfo>,
    manager: Manager,
    mut phase: watch::Receiver<Phase>,
) -> Option<Version> {
    let stats = manager.stats();
    let _counted = Counted::new(stats);
    let handler = manager.connection(info);
    let server = Arc::clone(&manager.config().server);
    let mut connection = pin!(Connection::new(stream, handler, server));
    let config = manager.config();
    let longest = config.max_connection_duration;
    let mut age = longest.map(|longest| Age::new(longest, config.drain_timeout));
    let ended = loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Running => {}
            Phase::Announcing => connection.as_mut().announce_close(),
            Phase::Finishing => {
                // The runtime looks at its sockets first: a request that is here is no idle time.
                tokio::task::yield_now().await;
                connection.as_mut().drain();
            }
            Phase::Over => break Ended::Closed,
        }
        let mut next = pin!(next_phase(phase.clone()));
        // Who is told of the next phase. As long as that is us, a look at the flag is enough: but only before the
        // first change. Whoever begins to listen while the others are still being told of one is woken for it
        // once more, and is no longer told of the next unless it listens again.
        let mut told: Option<Waker> = None;
        let turn = poll_fn(|cx| {
            let told_us = |told: &Waker| told.will_wake(cx.waker());
            let known = now == Phase::Running && told.as_ref().is_some_and(told_us);
            // First, so that no request is answered as if nothing had been said.
            // Without a sender there may be a last phase that was not seen.
            if !known || phase.has_changed().unwrap_or(true) {
                if next.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                told = Some(cx.waker().clone());
            }
            if let Some(age) = &mut age
                && age.timer.poll(cx).is_ready()
            {
                match age.next() {
                    Old::Told => {
                        stats.downstream_cx_max_duration_reached().inc();
                        connection.as_mut().announce_close();
                    }
                    Old::Due => connection.as_mut().drain(),
                }
                // The next time is not known to anybody yet.
                cx.waker().wake_by_ref();
            }
            connection.as_mut().poll(cx).map(Some)
        });
        if let Some(ended) = turn.await {
            break ended;
        }
    };
    match ended {
        Ended::ClientGone => stats.downstream_cx_destroy_remote().inc(),
        Ended::Idle => {
            stats.downstream_cx_idle_timeout().inc();
            stats.downstream_cx_destroy_local().inc();
        }
        Ended::Truncated => {
            connection.with_io(Stream::reset_on_close);
            stats.downstream_cx_destroy_local().inc();
        }
        Ended::Closed => stats.downstream_cx_destroy_local().inc(),
    }
    connection.protocol()
}

/// Whose connection is too old, in two steps.
struct Age {
    timer: Timer,
    /// How long the client may stay once it is told.
    stay: Duration,
    told: bool,
}

enum Old {
    /// The client is told to go.
    Told,
    /// It has had its time.
    Due,
}

impl Age {
    fn new(longest: Duration, stay: Duration) -> Self {
        Self {
            timer: Timer::at(clock::now() + longest),
            stay,
            told: false,
        }
    }

    /// What is due now that the time is over.
    fn next(&mut self) -> Old {
        if std::mem::replace(&mut self.told, true) {
            self.timer.set(None);
            return Old::Due;
        }
        self.timer.set(Some(clock::now() + self.stay));
        Old::Told
    }
}

/// Ready when the phase is not the one that was seen.
async fn next_phase(mut phase: watch::Receiver<Phase>) {
    if phase.changed().await.is_err() {
        // Without a sender there is no further phase.
        pending::<()>().await;
    }
}

/// Counts a connection for as long as it lives.
struct Counted<'a> {
    stats: &'a ManagerStats,
    opened: std::time::Instant,
}

impl<'a> Counted<'a> {
    fn new(stats: &'a ManagerStats) -> Self {
        stats.downstream_cx_total().inc();
        stats.downstream_cx_active().inc();
        Self {
            stats,
            opened: clock::now(),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let lived = u64::try_from((clock::now() - self.opened).as_millis()).unwrap_or(u64::MAX);
        self.stats.downstream_cx_active().dec();
        self.stats.downstream_cx_destroy().inc();
        self.stats.downstream_cx_length_ms().record(lived);
    }
}
