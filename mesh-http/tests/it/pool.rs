//! A pool against real sockets on the loopback.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use mesh_core::{
    Body, BoxFuture, Endpoint, Error, ErrorKind, Origin, Resource, Resources, Sent, Thresholds,
    stats::Scope,
};
use mesh_http::pool::{HttpVersion, Pool, PoolConfig, PoolStats, UpstreamStats};
use mesh_net::{Connect, Stream, TcpConnector};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Barrier, Notify},
};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(10);

struct Upstream {
    pool: Pool,
    stats: UpstreamStats,
    resources: Arc<Resources>,
    accepted: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

/// An upstream whose `n`th connection is served by `serve(n, stream)`.
async fn upstream<F>(
    thresholds: Thresholds,
    serve: impl Fn(usize, TcpStream) -> F + Send + 'static,
) -> Upstream
where
    F: Future<Output = ()> + Send + 'static,
{
    upstream_with(thresholds, PoolConfig::default(), serve).await
}

async fn upstream_with<F>(
    thresholds: Thresholds,
    config: PoolConfig,
    serve: impl Fn(usize, TcpStream) -> F + Send + 'static,
) -> Upstream
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Arc::new(Endpoint::standalone(listener.local_addr().unwrap()));
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(count.fetch_add(1, Ordering::SeqCst), stream));
        }
    });
    let resources = Resources::new(&thresholds);
    let stats = PoolStats::register(&Scope::detached());
    let pool = Pool::new(
        HttpVersion::Http1,
        endpoint,
        Arc::new(TcpConnector),
        Arc::new(config),
        Arc::clone(&resources),
        stats.clone(),
    );
    Upstream {
        pool,
        stats: stats.upstream,
        resources,
        accepted,
        requests: Arc::default(),
    }
}

/// Reads one request's head; `None` when the peer has closed.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return None;
        }
        seen.push(byte[0]);
    }
    Some(String::from_utf8(seen).unwrap())
}

fn request(method: Method) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri("/")
        .header("host", "a")
        .body(Body::empty())
        .unwrap()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn get(upstream: &Upstream) -> Result<String, Error> {
    let response = upstream.pool.clone().send(request(Method::GET)).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let upstream = upstream(Thresholds::default(), |_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    for _ in 0..3 {
        assert_eq!(get(&upstream).await.unwrap(), "ok");
    }
    assert_eq!(upstream.accepted.load(Ordering::SeqCst), 1);
    assert_eq!(upstream.stats.upstream_rq_total().value(), 3);
    assert_eq!(upstream.stats.upstream_cx_active().value(), 1);
    assert_eq!(upstream.resources.in_use(Resource::Requests), 0);
    assert_eq!(upstream.resources.in_use(Resource::Connections), 1);
}

/// Answers once, waits for the next request to arrive, and closes without a word.
async fn dies_on_the_second(n: usize, mut stream: TcpStream) {
    read_head(&mut stream).await;
    stream.write_all(OK).await.unwrap();
    let second = read_head(&mut stream).await;
    if n > 0 && second.is_some() {
        stream.write_all(OK).await.unwrap();
        read_head(&mut stream).await;
    }
}

#[tokio::test]
async fn a_get_on_a_connection_that_died_is_sent_again_and_a_post_is_not() {
    let up = upstream(Thresholds::default(), dies_on_the_second).await;
    assert_eq!(get(&up).await.unwrap(), "ok");
    assert_eq!(get(&up).await.unwrap(), "ok");
    assert_eq!(up.stats.upstream_rq_idle_replay().value(), 1);
    assert_eq!(up.accepted.load(Ordering::SeqCst), 2);

    let up = upstream(Thresholds::default(), dies_on_the_second).await;
    assert_eq!(get(&up).await.unwrap(), "ok");
    let error = up
        .pool
        .clone()
        .send(request(Method::POST))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionTermination);
    assert_eq!(
        up.accepted.load(Ordering::SeqCst),
        1,
        "a POST that was written is never repeated"
    );
}

#[tokio::test]
async fn a_post_does_not_meet_a_connection_that_the_peer_has_closed() {
    let (closed, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let up = upstream(Thresholds::default(), move |n, mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            if n > 0 {
                read_head(&mut stream).await;
            }
            drop(stream);
            let _ = closed.send(());
        }
    })
    .await;
    for _ in 0..20 {
        let response = up.pool.clone().send(request(Method::POST)).await.unwrap();
        assert_eq!(response.status(), 200);
        if up.accepted.load(Ordering::SeqCst) == 1 {
            wait.recv().await.unwrap();
        } else {
            break;
        }
    }
}

#[tokio::test]
async fn without_room_to_wait_a_request_is_refused() {
    let thresholds = Thresholds {
        max_pending_requests: 0,
        ..Thresholds::default()
    };
    let up = upstream(thresholds, |_, _| std::future::ready(())).await;
    let error = get(&up).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overflow(Resource::Pending));
    assert_eq!(up.stats.upstream_rq_pending_overflow().value(), 1);
    assert_eq!(up.accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn with_one_connection_requests_queue_and_none_is_lost() {
    let thresholds = Thresholds {
        max_connections: 1,
        ..Thresholds::default()
    };
    let up = Arc::new(
        upstream(thresholds, |_, mut stream| async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(OK).await.unwrap();
            }
        })
        .await,
    );
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let up = Arc::clone(&up);
            tokio::spawn(async move { get(&up).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "ok");
    }
    assert_eq!(up.accepted.load(Ordering::SeqCst), 1);
    assert!(up.stats.upstream_cx_overflow().value() > 0);
    assert_eq!(up.resources.in_use(Resource::Pending), 0);
}

#[tokio::test]
async fn a_closed_port_fails_everybody_who_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Arc::new(Endpoint::standalone(listener.local_addr().unwrap()));
    drop(listener);
    let resources = Resources::new(&Thresholds::default());
    let stats = PoolStats::register(&Scope::detached());
    let config = Arc::new(PoolConfig::default());
    let pool = Pool::new(
        HttpVersion::Http1,
        endpoint,
        Arc::new(TcpConnector),
        config,
        Arc::clone(&resources),
        stats.clone(),
    );
    let (one, two) = tokio::join!(
        pool.clone().send(request(Method::GET)),
        pool.clone().send(request(Method::POST))
    );
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ConnectFailure);
        assert_eq!(
            error.message(),
            Some("delayed connect error: Connection refused")
        );
    }
    assert_eq!(stats.upstream.upstream_rq_total().value(), 0);
    assert_eq!(resources.in_use(Resource::Connections), 0);
    assert_eq!(resources.in_use(Resource::Pending), 0);
    assert_eq!(pool.connections(), 0);
}

#[tokio::test]
async fn a_request_that_is_given_up_frees_what_it_held() {
    let up = upstream(Thresholds::default(), |_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let given_up = tokio::time::timeout(Duration::from_millis(50), get(&up)).await;
    assert!(given_up.is_err());
    assert_eq!(up.resources.in_use(Resource::Requests), 0);
    assert_eq!(up.resources.in_use(Resource::Connections), 0);
    assert_eq!(up.stats.upstream_rq_active().value(), 0);
    assert_eq!(up.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn answers_that_break_the_protocol_are_errors_and_end_the_connection() {
    for answer in [
        &b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02garbage\r\n\r\n",
    ] {
        let up = upstream(Thresholds::default(), move |_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            read_head(&mut stream).await;
        })
        .await;
        let error = get(&up).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::UpstreamProtocol,
            "{}",
            String::from_utf8_lossy(answer)
        );
        assert_eq!(up.stats.upstream_cx_active().value(), 0);
    }
}

#[tokio::test]
async fn bytes_beyond_an_answer_are_nobodys() {
    let up = upstream(Thresholds::default(), |_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    assert_eq!(get(&up).await.unwrap(), "ok");
    assert_eq!(get(&up).await.unwrap(), "ok");
    assert_eq!(up.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_short_answer_is_an_error_and_never_looks_complete() {
    let up = upstream(Thresholds::default(), |_, mut stream| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort")
            .await
            .unwrap();
    })
    .await;
    assert_eq!(
        get(&up).await.unwrap_err().kind(),
        ErrorKind::UpstreamProtocol
    );
}

/// Answers everything.
async fn answers(_: usize, mut stream: TcpStream) {
    while read_head(&mut stream).await.is_some() {
        stream.write_all(OK).await.unwrap();
    }
}

#[tokio::test]
async fn connections_that_die_with_their_pool_are_no_longer_counted_as_open() {
    let up = upstream(Thresholds::default(), answers).await;
    assert_eq!(get(&up).await.unwrap(), "ok");
    let Upstream {
        pool,
        stats,
        resources,
        ..
    } = up;
    let endpoint = Arc::clone(pool.endpoint());
    let open = || endpoint.state.stats.cx_active.load(Ordering::SeqCst);
    assert_eq!((stats.upstream_cx_active().value(), open()), (1, 1));
    assert!(stats.upstream_cx_rx_bytes_total().value() > 0);
    assert!(stats.upstream_cx_tx_bytes_total().value() > 0);
    drop(pool);
    assert_eq!((stats.upstream_cx_active().value(), open()), (0, 0));
    assert_eq!(stats.upstream_cx_destroy().value(), 1);
    assert_eq!(resources.in_use(Resource::Connections), 0);
}

#[tokio::test]
async fn a_connection_in_use_while_the_idle_ones_are_closed_ends_with_its_request() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (seen, wait) = (Arc::clone(&arrived), Arc::clone(&go));
    let up = upstream(Thresholds::default(), move |_, mut stream| {
        let (seen, wait) = (Arc::clone(&seen), Arc::clone(&wait));
        async move {
            while read_head(&mut stream).await.is_some() {
                seen.notify_one();
                wait.notified().await;
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let close = async {
        arrived.notified().await;
        up.pool.close_idle();
        go.notify_one();
    };
    let (answer, ()) = tokio::join!(get(&up), close);
    assert_eq!(answer.unwrap(), "ok");
    assert_eq!(up.pool.connections(), 0);
    assert_eq!(up.stats.upstream_cx_destroy_with_active_rq().value(), 0);
    // The pool goes on if somebody goes on using it.
    go.notify_one();
    assert_eq!(get(&up).await.unwrap(), "ok");
    assert_eq!(up.pool.connections(), 1);
}

/// One connection, taken by a GET, and a POST that waits for it.
async fn get_then_post(up: &Upstream) -> (Result<String, Error>, Result<u16, Error>) {
    tokio::time::timeout(PATIENCE, async {
        tokio::join!(get(up), async {
            let response = up.pool.clone().send(request(Method::POST)).await?;
            Ok(response.status().as_u16())
        })
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_post_from_the_queue_does_not_meet_a_connection_that_the_peer_has_closed() {
    let thresholds = Thresholds {
        max_connections: 1,
        ..Thresholds::default()
    };
    let up = upstream(thresholds, |_, mut stream| async move {
        read_head(&mut stream).await;
        // Answer and end are there together when the client looks.
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let (got, posted) = get_then_post(&up).await;
    assert_eq!(got.unwrap(), "ok");
    assert_eq!(posted.unwrap(), 200);
    assert_eq!(up.accepted.load(Ordering::SeqCst), 2);
    assert_eq!(up.resources.in_use(Resource::Pending), 0);
    assert_eq!(up.stats.upstream_rq_pending_active().value(), 0);
    assert_eq!(up.stats.upstream_rq_cancelled().value(), 0);
}

#[tokio::test]
async fn a_connection_that_was_open_for_too_long_serves_nobody_from_the_queue() {
    let thresholds = Thresholds {
        max_connections: 1,
        ..Thresholds::default()
    };
    let config = PoolConfig {
        max_connection_duration: Some(Duration::ZERO),
        ..PoolConfig::default()
    };
    let up = upstream_with(thresholds, config, answers).await;
    let (got, posted) = get_then_post(&up).await;
    assert_eq!(got.unwrap(), "ok");
    assert_eq!(posted.unwrap(), 200);
    assert_eq!(up.accepted.load(Ordering::SeqCst), 2);
    assert_eq!(up.pool.connections(), 0);
}

/// Fails in the worst way.
struct Panics;

impl Connect for Panics {
    fn connect(&self, _: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>> {
        Box::pin(async { panic!("a connector that panics") })
    }
}

fn panicking_pool() -> (Pool, Arc<Resources>) {
    let resources = Resources::new(&Thresholds::default());
    let pool = Pool::new(
        HttpVersion::Http1,
        Arc::new(Endpoint::standalone(([127, 0, 0, 1], 1).into())),
        Arc::new(Panics),
        Arc::new(PoolConfig::default()),
        Arc::clone(&resources),
        PoolStats::register(&Scope::detached()),
    );
    (pool, resources)
}

#[tokio::test]
async fn a_connector_that_panics_leaves_nobody_waiting() {
    let (pool, resources) = panicking_pool();
    for _ in 0..2 {
        let sending = pool.clone().send(request(Method::POST));
        let answer = tokio::time::timeout(PATIENCE, sending).await.unwrap();
        let error = answer.unwrap_err();
        assert_eq!(
            (error.kind(), error.sent()),
            (ErrorKind::ConnectFailure, Sent::Nothing)
        );
        assert_eq!(pool.connections(), 0);
        assert_eq!(resources.in_use(Resource::Connections), 0);
    }
}

#[test]
fn a_runtime_that_is_going_down_leaves_nobody_waiting() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _inside = handle.enter();
    let (pool, resources) = panicking_pool();
    let mut sending = pool.clone().send(request(Method::GET));
    let polled = Pin::new(&mut sending).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(error)) = polled else {
        panic!("still waiting");
    };
    assert_eq!(error.kind(), ErrorKind::ConnectFailure);
    assert_eq!(pool.connections(), 0);
    assert_eq!(resources.in_use(Resource::Connections), 0);
}

/// Two connections, of which the one that is used next dies under its request while the bounds shrink
/// to one connection and `max_pending_requests`.
async fn replay_beside_an_idle_connection(max_pending_requests: u32) {
    let thresholds = Thresholds {
        max_connections: 2,
        ..Thresholds::default()
    };
    let both = Arc::new(Barrier::new(2));
    let died = Arc::new(AtomicBool::new(false));
    let up = upstream(thresholds, move |_, mut stream| {
        let (both, died) = (Arc::clone(&both), Arc::clone(&died));
        async move {
            read_head(&mut stream).await;
            both.wait().await;
            stream.write_all(OK).await.unwrap();
            while read_head(&mut stream).await.is_some() && died.swap(true, Ordering::SeqCst) {
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let (one, two) = tokio::join!(get(&up), get(&up));
    assert_eq!((one.unwrap(), two.unwrap()), ("ok".into(), "ok".into()));
    up.resources.update(&Thresholds {
        max_connections: 1,
        max_pending_requests,
        ..Thresholds::default()
    });
    let answer = tokio::time::timeout(PATIENCE, get(&up)).await.unwrap();
    assert_eq!(answer.unwrap(), "ok");
    assert_eq!(up.stats.upstream_rq_idle_replay().value(), 1);
    assert_eq!(up.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_replay_takes_an_idle_connection_when_no_other_may_be_opened() {
    replay_beside_an_idle_connection(1).await;
}

#[tokio::test]
async fn a_replay_takes_an_idle_connection_when_it_may_not_wait() {
    replay_beside_an_idle_connection(0).await;
}

#[tokio::test]
async fn a_post_does_not_meet_a_connection_whose_end_the_reactor_has_not_seen() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Arc::new(Endpoint::standalone(listener.local_addr().unwrap()));
    let (close, closing) = std::sync::mpsc::channel::<()>();
    let (closed, is_closed) = std::sync::mpsc::channel::<()>();
    let upstream = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            stream.write_all(OK).unwrap();
            closing.recv().unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    let pool = Pool::new(
        HttpVersion::Http1,
        endpoint,
        Arc::new(TcpConnector),
        Arc::new(PoolConfig::default()),
        Resources::new(&Thresholds::default()),
        PoolStats::register(&Scope::detached()),
    );
    assert_eq!(
        pool.clone()
            .send(request(Method::GET))
            .await
            .unwrap()
            .status(),
        200
    );
    // This thread blocks, so its reactor learns nothing before the next request is sent.
    close.send(()).unwrap();
    is_closed.recv().unwrap();
    let answer = pool.clone().send(request(Method::POST)).await;
    assert_eq!(answer.unwrap().status(), 200);
    close.send(()).unwrap();
    upstream.join().unwrap();
}

#[tokio::test]
async fn a_connection_handed_to_a_request_that_is_given_up_is_kept() {
    let up = upstream(Thresholds::default(), answers).await;
    let mut sending = up.pool.clone().send(request(Method::GET));
    let polled = Pin::new(&mut sending).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    let open = async {
        while up.stats.upstream_cx_active().value() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, open).await.unwrap();
    drop(sending);
    assert_eq!(up.stats.upstream_rq_cancelled().value(), 1);
    assert_eq!(up.pool.connections(), 1);
    assert_eq!(get(&up).await.unwrap(), "ok");
    assert_eq!(up.stats.upstream_cx_total().value(), 1);
}

#[tokio::test]
async fn an_answer_that_announces_the_end_of_its_connection_is_no_destroyed_request() {
    let up = upstream(Thresholds::default(), |_, mut stream| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        read_head(&mut stream).await;
    })
    .await;
    assert_eq!(get(&up).await.unwrap(), "ok");
    assert_eq!(up.pool.connections(), 0);
    assert_eq!(up.stats.upstream_cx_destroy().value(), 1);
    assert_eq!(up.stats.upstream_cx_destroy_with_active_rq().value(), 0);
    assert_eq!(up.stats.upstream_rq_active().value(), 0);
}

#[tokio::test]
async fn an_answer_cut_short_is_a_destroyed_request() {
    let up = upstream(Thresholds::default(), |_, mut stream| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok")
            .await
            .unwrap();
    })
    .await;
    assert!(get(&up).await.is_err());
    assert_eq!(up.stats.upstream_cx_destroy_with_active_rq().value(), 1);
    assert_eq!(up.stats.upstream_rq_active().value(), 0);
}

/// Announces more than it has, or less.
struct Liar(Option<Bytes>, u64);

impl http_body::Body for Liar {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn a_request_body_of_the_wrong_length_is_not_the_endpoints_fault() {
    for announced in [1, 9] {
        let up = upstream(Thresholds::default(), answers).await;
        let body = Liar(Some(Bytes::from_static(b"body")), announced);
        let request = request(Method::POST).map(|_| Body::new(body));
        let error = up.pool.clone().send(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DownstreamProtocol);
        assert_eq!(error.origin(), Origin::Downstream);
    }
}
