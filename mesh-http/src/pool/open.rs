use std::sync::{Arc, atomic::Ordering};

use mesh_core::{Error, ErrorKind, Permit, Sent, clock};
use mesh_net::Stream;

use super::{HttpVersion, Inner, State, Tracked, millis};
use crate::h1::client::Connection;

/// A connection on its way. However that ends, and be it that the connector panics or the runtime drops
/// the task, the pool's counts are put right and whoever waits hears of it.
pub(super) struct Opening {
    pool: Arc<Inner>,
    stage: Stage,
}

enum Stage {
    Connecting(Permit),
    /// Connected, and not yet able to carry a request.
    Greeting,
    Over,
}

impl Opening {
    /// The pool has counted the connection as open and as opening.
    pub(super) fn new(pool: &Arc<Inner>, permit: Permit) -> Self {
        Self {
            pool: Arc::clone(pool),
            stage: Stage::Connecting(permit),
        }
    }

    pub(super) async fn run(self) {
        let pool = &self.pool;
        let started = clock::now();
        pool.stats.upstream_cx_total().inc();
        let connecting = pool.connector.connect(Arc::clone(&pool.endpoint));
        match tokio::time::timeout(pool.config.connect_timeout, connecting).await {
            Ok(Ok(stream)) => {
                pool.stats
                    .upstream_cx_connect_ms()
                    .record(millis(clock::now() - started));
                self.succeed(stream);
            }
            Ok(Err(error)) => self.fail(&error),
            Err(_) => {
                pool.stats.upstream_cx_connect_timeout().inc();
                self.fail(&Error::new(ErrorKind::ConnectTimeout));
            }
        }
    }

    fn succeed(mut self, stream: Stream) {
        let Stage::Connecting(permit) = std::mem::replace(&mut self.stage, Stage::Greeting) else {
            return;
        };
        let pool = Arc::clone(&self.pool);
        let tracked = Tracked::new(stream, &pool, permit);
        match pool.version {
            HttpVersion::Http1 => {
                pool.stats.upstream_cx_http1_total().inc();
                self.done(|_| ());
                pool.deliver(Connection::new(tracked, pool.config.limits));
            }
            HttpVersion::Raw => {
                self.done(|_| ());
                pool.deliver(Connection::new(tracked, pool.config.limits));
            }
            HttpVersion::Http2 => {
                pool.stats.upstream_cx_http2_total().inc();
                tokio::spawn(pool.run_multiplexed(tracked, self));
            }
        }
    }

    /// The connection carries requests from now on.
    pub(super) fn done(mut self, add: impl FnOnce(&mut State)) {
        self.stage = Stage::Over;
        let mut state = self.pool.lock();
        state.connecting -= 1;
        add(&mut state);
    }

    /// It did not get that far: whoever waits hears so, rather than that one connection after the other is
    /// tried without a pause.
    pub(super) fn fail(mut self, error: &Error) {
        self.end(error);
    }

    fn end(&mut self, error: &Error) {
        let pool = &self.pool;
        let closed = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => return,
            // Closing it has been counted already.
            Stage::Greeting => 0,
            Stage::Connecting(permit) => {
                // First the permit, so that whoever waits can have it.
                drop(permit);
                pool.stats.upstream_cx_connect_fail().inc();
                let stats = &pool.endpoint.state.stats;
                stats.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
                1
            }
        };
        let waiting = {
            let mut state = pool.lock();
            state.connections -= closed;
            state.connecting -= 1;
            std::mem::take(&mut state.waiting)
        };
        for waiter in waiting {
            let mut copy = Error::new(error.kind()).with_sent(Sent::Nothing);
            if let Some(message) = error.message() {
                copy = copy.with_message(message.to_owned());
            }
            if waiter.send(Err(copy)).is_ok() {
                pool.stats.upstream_rq_pending_failure_eject().inc();
            }
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Over) {
            let error = Error::new(ErrorKind::ConnectFailure)
                .with_message("the connection attempt was given up");
            self.end(&error);
        }
    }
}
