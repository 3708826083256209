use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

use http::Request;
use mesh_core::{Body, BoxFuture, Endpoint, Error, Resource, Resources, Thresholds, stats::Scope};
use mesh_net::{Connect, Stream};

use super::{HttpVersion, Pool, PoolConfig, PoolStats};

/// Connects for ever.
struct Never;

impl Connect for Never {
    fn connect(&self, _: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn requests_that_were_given_up_neither_pile_up_nor_open_connections() {
    let resources = Resources::new(&Thresholds::default());
    let pool = Pool::new(
        HttpVersion::Http1,
        Arc::new(Endpoint::standalone(([127, 0, 0, 1], 1).into())),
        Arc::new(Never),
        Arc::new(PoolConfig::default()),
        Arc::clone(&resources),
        PoolStats::register(&Scope::detached()),
    );
    for _ in 0..100 {
        let request = Request::new(Body::empty());
        let mut sending = pool.clone().send(request);
        let polled = Pin::new(&mut sending).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        drop(sending);
        assert!(pool.0.lock().waiting.len() <= 2);
    }
    assert_eq!(pool.connections(), 1);
    assert_eq!(resources.in_use(Resource::Pending), 0);
}
