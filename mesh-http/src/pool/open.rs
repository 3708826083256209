use std::sync::{Arc, atomic::Ordering};

use mesh_core::{Error, ErrorKind, Permit, Sent, clock};
use mesh_net::Stream;

use super::{HttpVersion, Inner, Tracked, millis};
use crate::h1::client::Connection;

/// A connection on its way. However that ends, and be it that the connector panics or the runtime drops
/// the task, the pool's counts are put right and whoever waits hears of it.
pub(super) struct Opening {
    pool: Arc<Inner>,
    /// Taken at the end.
    permit: Option<Permit>,
}

impl Opening {
    /// The pool has counted the connection as open and as opening.
    pub(super) fn new(pool: &Arc<Inner>, permit: Permit) -> Self {
        Self {
            pool: Arc::clone(pool),
            permit: Some(permit),
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
        let Some(permit) = self.permit.take() else {
            return;
        };
        let pool = &self.pool;
        pool.lock().connecting -= 1;
        let tracked = Tracked::new(stream, pool, permit);
        match pool.version {
            HttpVersion::Http1 => {
                pool.stats.upstream_cx_http1_total().inc();
                pool.deliver(Connection::new(tracked, pool.config.limits));
            }
            HttpVersion::Raw => pool.deliver(Connection::new(tracked, pool.config.limits)),
            HttpVersion::Http2 => {
                pool.stats.upstream_cx_http2_total().inc();
                tokio::spawn(Arc::clone(pool).run_multiplexed(tracked));
            }
        }
    }

    fn fail(mut self, error: &Error) {
        self.end(error);
    }

    fn end(&mut self, error: &Error) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        // First the permit, so that whoever waits can have it.
        drop(permit);
        let pool = &self.pool;
        pool.stats.upstream_cx_connect_fail().inc();
        pool.endpoint
            .state
            .stats
            .cx_connect_fail
            .fetch_add(1, Ordering::Relaxed);
        let waiting = {
            let mut state = pool.lock();
            state.connections -= 1;
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
        if self.permit.is_some() {
            let error = Error::new(ErrorKind::ConnectFailure)
                .with_message("the connection attempt was given up");
            self.end(&error);
        }
    }
}
