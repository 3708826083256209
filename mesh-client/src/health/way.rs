//! How requests of a check get to the endpoint.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use mesh_core::{Body, Error, Resources, Thresholds, stats::Scope};
use mesh_http::{
    h1::{
        HeadLimits,
        client::{Connection, Exchange, Return},
    },
    pool::{HttpVersion, Pool, PoolConfig, PoolStats, UpstreamProtocol},
};
use mesh_net::Stream;

use super::Target;

/// The way to one endpoint. Its connections are no part of the cluster's, in no count and under no limit.
pub(super) enum Way {
    /// HTTP/1.1: one connection, kept between checks.
    Http1 { target: Target, idle: Idle },
    /// HTTP/2: a pool for this one endpoint, replaced when a check fails.
    Http2 { target: Target, pool: Mutex<Pool> },
}

type Idle = Arc<Mutex<Option<Connection<Stream>>>>;

/// Keeps the connection for the next check, if it may carry one.
struct Keep {
    idle: Idle,
    reuse: bool,
}

impl Return<Stream> for Keep {
    fn give_back(self, connection: Option<Connection<Stream>>) {
        if let Some(connection) = connection.filter(|_| self.reuse) {
            *lock(&self.idle) = Some(connection);
        }
    }
}

/// An answer that has arrived to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Response<()>,
    /// The first so many bytes.
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Way {
    pub(super) fn http1(target: Target) -> Self {
        Self::Http1 {
            target,
            idle: Arc::default(),
        }
    }

    pub(super) fn http2(target: Target) -> Self {
        let pool = Mutex::new(pool(&target));
        Self::Http2 { target, pool }
    }

    pub(super) const fn target(&self) -> &Target {
        match self {
            Self::Http1 { target, .. } | Self::Http2 { target, .. } => target,
        }
    }

    /// Asks, and waits for the end of the answer; `most` bytes of its body are kept.
    pub(super) async fn ask(
        &self,
        request: Request<()>,
        body: Body,
        most: usize,
    ) -> Result<Answer, Error> {
        match self {
            Self::Http1 { target, idle } => {
                let connection = match kept(idle) {
                    Some(kept) => kept,
                    None => Connection::new(target.connect().await?, HeadLimits::default()),
                };
                let keep = Keep {
                    idle: Arc::clone(idle),
                    reuse: target.reuse,
                };
                let mut exchange = Exchange::new(connection, keep, &request, body);
                let head = poll_fn(|cx| exchange.poll_head(cx)).await?;
                read(head, exchange.into_body(), most).await
            }
            Self::Http2 { target, pool } => {
                // Dropped after the exchange: then nothing holds the connection.
                let mut fresh = Fresh {
                    target,
                    pool,
                    needed: true,
                };
                let sending = lock(pool).clone().send(request.map(|()| body));
                let (head, body) = sending.await?.into_parts();
                let answer = read(Response::from_parts(head, ()), body, most).await?;
                fresh.needed = !target.reuse;
                Ok(answer)
            }
        }
    }
}

/// Replaces the pool after a check that failed, timed out, or was to be the last on its connection.
struct Fresh<'a> {
    target: &'a Target,
    pool: &'a Mutex<Pool>,
    needed: bool,
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if self.needed {
            let old = std::mem::replace(&mut *lock(self.pool), pool(self.target));
            old.close_idle();
        }
    }
}

fn pool(target: &Target) -> Pool {
    let config = PoolConfig {
        protocol: UpstreamProtocol::Http2,
        ..PoolConfig::default()
    };
    Pool::new(
        HttpVersion::Http2,
        Arc::clone(&target.endpoint),
        Arc::clone(&target.connector),
        Arc::new(config),
        Resources::new(&Thresholds::default()),
        PoolStats::register(&Scope::detached()),
    )
}

fn kept(idle: &Idle) -> Option<Connection<Stream>> {
    let mut kept = lock(idle).take()?;
    (kept.is_idle() && kept.io().is_quiet()).then_some(kept)
}

async fn read(head: Response<()>, mut body: Body, most: usize) -> Result<Answer, Error> {
    let mut answer = Answer {
        head,
        body: Vec::new(),
        trailers: None,
    };
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) => {
                let room = most - answer.body.len();
                answer.body.extend_from_slice(&data[..data.len().min(room)]);
            }
            Err(frame) => answer.trailers = frame.into_trailers().ok(),
        }
    }
    Ok(answer)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
