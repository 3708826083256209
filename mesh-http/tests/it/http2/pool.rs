//! The upstream side: a pool of connections that carry several requests.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mesh_core::{
    Body, BoxFuture, Endpoint, Error, ErrorKind, Resource, Resources, Sent, Thresholds, clock,
    stats::Scope,
};
use mesh_http::{
    h2::Http2Config,
    pool::{HttpVersion, Pool, PoolConfig, PoolStats},
};
use mesh_net::{Connect, Stream, TcpConnector};
use tokio::net::{TcpListener, TcpStream};

use super::{Counted, soon};

pub(super) struct Upstream {
    pub(super) pool: Pool,
    resources: Arc<Resources>,
    stats: PoolStats,
    accepted: Arc<AtomicUsize>,
}

/// An upstream whose `n`th connection is served by `serve(n, stream)`.
pub(super) async fn upstream<F>(
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
    let resources = Resources::new(&Thresholds::default());
    let stats = PoolStats::register(&Scope::detached());
    let pool = Pool::new(
        HttpVersion::Http2,
        endpoint,
        Arc::new(TcpConnector),
        Arc::new(config),
        Arc::clone(&resources),
        stats.clone(),
    );
    Upstream {
        pool,
        resources,
        stats,
        accepted,
    }
}

/// Answers each request of a connection with `answer`, side by side.
async fn serve_each<F>(
    stream: TcpStream,
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

async fn ok(_: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(b"ok"), true).unwrap();
}

pub(super) fn request(method: Method, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri("/p");
    request.header("host", "a.example").body(body).unwrap()
}

async fn get(upstream: &Upstream) -> Result<String, Error> {
    let sending = upstream
        .pool
        .clone()
        .send(request(Method::GET, Body::empty()));
    let body = soon(sending).await?.into_body().collect().await?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn requests_share_a_connection_until_it_is_full() {
    let config = PoolConfig {
        http2: Http2Config {
            max_concurrent_streams: 2,
            ..Http2Config::default()
        },
        ..PoolConfig::default()
    };
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let serve_gate = Arc::clone(&gate);
    let up = upstream(config, move |_, stream| {
        let gate = Arc::clone(&serve_gate);
        serve_each(stream, move |request, respond| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                ok(request, respond).await;
            }
        })
    })
    .await;
    let tasks: Vec<_> = (0..5)
        .map(|_| tokio::spawn(up.pool.clone().send(request(Method::GET, Body::empty()))))
        .collect();
    soon(async {
        while up.resources.in_use(Resource::Requests) < 5 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(up.accepted.load(Ordering::SeqCst), 3);
    assert_eq!(up.stats.http2.streams_active().value(), 5);
    gate.add_permits(5);
    for task in tasks {
        let response = soon(task).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(up.stats.upstream.upstream_cx_http2_total().value(), 3);
    assert_eq!(up.stats.http2.streams_active().value(), 0);
    assert_eq!(up.resources.in_use(Resource::Requests), 0);
    assert_eq!(up.resources.in_use(Resource::Pending), 0);
}

#[tokio::test]
async fn what_a_goaway_left_unprocessed_is_sent_again_even_a_post() {
    let refused = raw_goaway().await;
    let sending = refused
        .pool
        .clone()
        .send(request(Method::POST, Body::from("once")));
    assert_eq!(soon(sending).await.unwrap().status(), 200);
    assert_eq!(refused.stats.upstream.upstream_rq_idle_replay().value(), 1);
    assert_eq!(refused.accepted.load(Ordering::SeqCst), 2);
}

/// Its first connection says GOAWAY with a last stream of 0 to whatever comes.
async fn raw_goaway() -> Upstream {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    upstream(PoolConfig::default(), |n, mut stream| async move {
        if n > 0 {
            return serve_each(stream, ok).await;
        }
        // Settings; then, once something of a request is here, GOAWAY.
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let mut seen = [0; 4096];
        let mut total = 0;
        while total < 24 + 9 + 10 {
            total += stream.read(&mut seen).await.unwrap();
        }
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        stream.write_all(&goaway).await.unwrap();
        while stream.read(&mut seen).await.is_ok_and(|n| n > 0) {}
    })
    .await
}

#[tokio::test]
async fn a_refused_stream_proves_that_nothing_was_done_and_is_left_to_the_retry() {
    let up = upstream(PoolConfig::default(), |_, stream| {
        serve_each(stream, |_, mut respond| async move {
            respond.send_reset(Reason::REFUSED_STREAM);
        })
    })
    .await;
    let error = get(&up).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.sent()),
        (ErrorKind::RemoteRefused, Sent::Nothing)
    );
    assert_eq!(up.accepted.load(Ordering::SeqCst), 1);
    assert_eq!(up.stats.upstream.upstream_rq_idle_replay().value(), 0);
}

#[tokio::test]
async fn a_reset_and_a_lost_connection_are_told_apart() {
    let up = upstream(PoolConfig::default(), |n, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond): (_, SendResponse<Bytes>) =
            connection.accept().await.unwrap().unwrap();
        if n == 0 {
            respond.send_reset(Reason::INTERNAL_ERROR);
            // Sends the reset, and waits for the next request.
            drop(connection.accept().await);
        }
    })
    .await;
    let error = get(&up).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RemoteReset);
    let error = up
        .pool
        .send(request(Method::POST, Body::empty()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionTermination);
}

#[tokio::test]
async fn an_upload_goes_on_where_nobody_reads_the_answer() {
    let received = Arc::new(AtomicU64::new(0));
    let serve_received = Arc::clone(&received);
    let up = upstream(PoolConfig::default(), move |_, stream| {
        let received = Arc::clone(&serve_received);
        serve_each(stream, move |request, mut respond| {
            let received = Arc::clone(&received);
            async move {
                let _answer = respond.send_response(Response::new(()), false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    received.fetch_add(data.len() as u64, Ordering::SeqCst);
                }
                std::future::pending::<()>().await;
            }
        })
    })
    .await;
    let body = Counted {
        left: 3 << 20,
        taken: Arc::default(),
    };
    let answer = soon(up.pool.clone().send(request(Method::POST, Body::new(body))))
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    soon(async {
        while received.load(Ordering::SeqCst) < 3 << 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(answer);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let up = upstream(PoolConfig::default(), |_, stream| serve_each(stream, ok)).await;
    assert_eq!(get(&up).await.unwrap(), "ok");
    assert_eq!(up.pool.connections(), 1);
    up.pool.sweep(clock::now());
    assert_eq!(up.pool.connections(), 1);
    up.pool
        .sweep(clock::now() + std::time::Duration::from_secs(3601));
    soon(async {
        while up.pool.connections() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(up.stats.upstream.upstream_cx_idle_timeout().value(), 1);
    assert_eq!(up.resources.in_use(Resource::Connections), 0);
}

#[tokio::test]
async fn after_its_last_request_a_connection_is_replaced() {
    let config = PoolConfig {
        max_requests_per_connection: Some(2),
        ..PoolConfig::default()
    };
    let up = upstream(config, |_, stream| serve_each(stream, ok)).await;
    for _ in 0..5 {
        assert_eq!(get(&up).await.unwrap(), "ok");
    }
    assert_eq!(up.accepted.load(Ordering::SeqCst), 3);
    assert_eq!(up.stats.upstream.upstream_cx_max_requests().value(), 2);
}

#[tokio::test]
async fn more_requests_than_a_new_peer_surely_takes_get_another_connection() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let serve_gate = Arc::clone(&gate);
    let up = upstream(PoolConfig::default(), move |_, stream| {
        let gate = Arc::clone(&serve_gate);
        async move {
            let mut connection = h2::server::Builder::new()
                .max_concurrent_streams(100)
                .handshake::<_, Bytes>(stream)
                .await
                .unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move {
                    gate.acquire().await.unwrap().forget();
                    ok(request, respond).await;
                });
            }
        }
    })
    .await;
    let tasks: Vec<_> = (0..150)
        .map(|_| tokio::spawn(up.pool.clone().send(request(Method::GET, Body::empty()))))
        .collect();
    soon(async {
        while up.resources.in_use(Resource::Requests) < 150 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(up.accepted.load(Ordering::SeqCst), 2);
    gate.add_permits(150);
    for task in tasks {
        assert_eq!(soon(task).await.unwrap().unwrap().status(), 200);
    }
}

/// Every other write of its connections fails, from the first.
struct Unwritable(AtomicUsize);

impl Connect for Unwritable {
    fn connect(&self, _: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
            // Nobody will ever read there.
            drop(theirs);
            Ok(Stream::Unix(ours))
        })
    }
}

#[tokio::test]
async fn a_peer_that_takes_no_preface_is_not_tried_without_end() {
    let connector = Arc::new(Unwritable(AtomicUsize::new(0)));
    let resources = Resources::new(&Thresholds::default());
    let pool = Pool::new(
        HttpVersion::Http2,
        Arc::new(Endpoint::standalone(([127, 0, 0, 1], 1).into())),
        Arc::clone(&connector) as Arc<dyn Connect>,
        Arc::new(PoolConfig::default()),
        Arc::clone(&resources),
        PoolStats::register(&Scope::detached()),
    );
    for tried in 1..3 {
        let error = soon(pool.clone().send(request(Method::GET, Body::empty())))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.sent()),
            (ErrorKind::ConnectFailure, Sent::Nothing)
        );
        assert_eq!(connector.0.load(Ordering::SeqCst), tried);
        assert_eq!(pool.connections(), 0);
        assert_eq!(resources.in_use(Resource::Connections), 0);
    }
}

/// Reads from the start of a connection until something of a request is here.
fn read_request(stream: &mut std::net::TcpStream) {
    use std::io::Read as _;
    const HEADERS: u8 = 1;
    stream.read_exact(&mut [0; 24]).unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).unwrap();
        if head[3] == HEADERS {
            return;
        }
    }
}

#[tokio::test]
async fn a_post_does_not_meet_a_goaway_that_the_reactor_has_not_seen() {
    use std::io::Write as _;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// 200 without a body, on the first stream.
    const OK: [u8; 10] = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Arc::new(Endpoint::standalone(listener.local_addr().unwrap()));
    let (go, going) = std::sync::mpsc::channel::<()>();
    let (gone, is_gone) = std::sync::mpsc::channel::<()>();
    let upstream = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&SETTINGS).unwrap();
            read_request(&mut stream);
            stream.write_all(&OK).unwrap();
            going.recv().unwrap();
            // Its reader goes on, so that nothing is lost by a reset.
            let _ = stream.write_all(&GOAWAY);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            gone.send(()).unwrap();
            going.recv().unwrap();
        }
    });
    let stats = PoolStats::register(&Scope::detached());
    let pool = Pool::new(
        HttpVersion::Http2,
        endpoint,
        Arc::new(TcpConnector),
        Arc::new(PoolConfig::default()),
        Resources::new(&Thresholds::default()),
        stats.clone(),
    );
    let answer = soon(pool.clone().send(request(Method::GET, Body::empty()))).await;
    assert_eq!(answer.unwrap().status(), 200);
    // This thread blocks, so its reactor learns nothing before the next request is sent.
    go.send(()).unwrap();
    is_gone.recv().unwrap();
    // The first connection stays as it is: the GOAWAY alone must do.
    let posted = tokio::spawn(pool.clone().send(request(Method::POST, Body::from("once"))));
    go.send(()).unwrap();
    assert_eq!(soon(posted).await.unwrap().unwrap().status(), 200);
    assert_eq!(stats.upstream.upstream_cx_total().value(), 2);
    assert_eq!(stats.upstream.upstream_rq_total().value(), 2);
    go.send(()).unwrap();
    go.send(()).unwrap();
    upstream.join().unwrap();
}
