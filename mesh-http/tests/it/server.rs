//! A connection, byte by byte, with a scripted handler.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use mesh_core::{Body, BoxFuture, Error, ErrorKind};
use mesh_http::{
    Abort, Exchange, Handler,
    server::{Connection, Ended, ServerConfig},
};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
    },
    sync::Notify,
};

struct TestBody(Body);

impl HttpBody for TestBody {
    type Data = Bytes;
    type Error = Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Abort for TestBody {
    fn abort(self: Pin<&mut Self>, _: &Error) {}
}

mod ends;
mod shared_body;

type Answer = Arc<dyn Fn(Request<Body>) -> BoxFuture<Response<Body>> + Send + Sync>;

#[derive(Clone)]
struct Script {
    answer: Answer,
    idle_timeout: Option<Duration>,
    log: Arc<Mutex<Vec<String>>>,
}

struct Answering {
    idle_timeout: Option<Duration>,
    future: BoxFuture<Response<Body>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Future for Answering {
    type Output = Response<TestBody>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.future
            .as_mut()
            .poll(cx)
            .map(|response| response.map(TestBody))
    }
}

fn reply(error: Error) -> Response<TestBody> {
    mesh_http::reply::response(error, None, Default::default()).map(TestBody)
}

impl Exchange for Answering {
    type Body = TestBody;
    fn cancel(self: Pin<&mut Self>, error: Error) -> Response<TestBody> {
        self.log
            .lock()
            .unwrap()
            .push(format!("cancelled: {}", error.kind().text()));
        reply(error)
    }
    fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }
}

impl Handler for Script {
    type Body = TestBody;
    type Exchange = Answering;
    fn call(&mut self, request: Request<Body>) -> Answering {
        self.log
            .lock()
            .unwrap()
            .push(format!("{} {}", request.method(), request.uri()));
        Answering {
            idle_timeout: self.idle_timeout,
            future: (self.answer)(request),
            log: Arc::clone(&self.log),
        }
    }
    fn reject(&mut self, error: Error) -> Response<TestBody> {
        self.log
            .lock()
            .unwrap()
            .push(format!("rejected: {}", error.kind().text()));
        reply(error)
    }
}

pub(crate) struct Client {
    io: DuplexStream,
    pub(crate) server: tokio::task::JoinHandle<Ended>,
    pub(crate) drain: Arc<Notify>,
    log: Arc<Mutex<Vec<String>>>,
}

/// What the handler was told, so far.
pub(crate) fn log(client: &Client) -> Vec<String> {
    client.log.lock().unwrap().clone()
}

impl Client {
    /// The client's end, for whoever speaks something else than text.
    pub(crate) fn take_io(&mut self) -> DuplexStream {
        std::mem::replace(&mut self.io, duplex(1).0)
    }

    /// Waits until the handler was told so many things.
    pub(crate) async fn wait_for_log(&self, entries: usize) {
        while self.log.lock().unwrap().len() < entries {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn new<F>(
        config: ServerConfig,
        answer: impl Fn(Request<Body>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (io, server) = duplex(1 << 20);
        Self::on(io, server, config, None, answer)
    }

    fn on<F>(
        io: DuplexStream,
        server: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: ServerConfig,
        idle_timeout: Option<Duration>,
        answer: impl Fn(Request<Body>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let log = Arc::default();
        let handler = Script {
            answer: Arc::new(move |r| Box::pin(answer(r))),
            idle_timeout,
            log: Arc::clone(&log),
        };
        let drain = Arc::new(Notify::new());
        let told = Arc::clone(&drain);
        let server = tokio::spawn(async move {
            let mut connection = pin!(Connection::new(server, handler, Arc::new(config)));
            tokio::select! {
                biased;
                () = told.notified() => connection.as_mut().drain(),
                ended = connection.as_mut() => return ended,
            }
            connection.await
        });
        Self {
            io,
            server,
            drain,
            log,
        }
    }

    fn hello() -> Self {
        Self::new(ServerConfig::default(), |_| async {
            Response::new(Body::from("hello"))
        })
    }

    fn echo(config: ServerConfig) -> Self {
        Self::new(config, |request| async {
            match request.into_body().collect().await {
                Ok(body) => Response::new(Body::from(body.to_bytes())),
                Err(error) => mesh_http::reply::response(error, None, Default::default()),
            }
        })
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until the head and `body` bytes have come; dates are cut out.
    async fn expect(&mut self, body: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&seen).into_owned();
            if let Some(at) = text.find("\r\n\r\n")
                && text.len() >= at + 4 + body.len()
                && text.ends_with(body)
            {
                return strip_date(&text);
            }
            let mut byte = [0; 1];
            assert_eq!(
                self.io.read(&mut byte).await.unwrap(),
                1,
                "closed after {text:?}"
            );
            seen.push(byte[0]);
        }
    }

    async fn rest(mut self) -> (String, Ended, Vec<String>) {
        let mut seen = Vec::new();
        self.io.read_to_end(&mut seen).await.unwrap();
        drop(self.io);
        let log = self.log.lock().unwrap().clone();
        (
            strip_date(&String::from_utf8_lossy(&seen)),
            self.server.await.unwrap(),
            log,
        )
    }
}

fn strip_date(text: &str) -> String {
    let lines: Vec<&str> = text
        .split("\r\n")
        .filter(|l| !l.starts_with("date: "))
        .collect();
    lines.join("\r\n")
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test(start_paused = true)]
async fn keeps_the_connection_and_answers_pipelined_requests_in_order() {
    let mut client = Client::hello();
    client
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.expect("hello").await, HELLO);
    assert_eq!(client.expect("hello").await, HELLO);
    client
        .send("GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let (text, ended, log) = client.rest().await;
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
    );
    assert_eq!(ended, Ended::Closed);
    assert_eq!(log, ["GET /1", "GET /2", "GET /3"]);
}

#[tokio::test(start_paused = true)]
async fn bodies_arrive_whatever_their_framing() {
    let mut client = Client::echo(ServerConfig::default());
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd")
        .await;
    client.expect("abcd").await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        .await;
    tokio::task::yield_now().await;
    client.send("cd").await;
    client.expect("abcd").await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    client.send("1\r\nd\r\n0\r\nX: y\r\n\r\n").await;
    client.expect("abcd").await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(client.rest().await.2.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn says_100_continue_only_when_the_body_is_asked_for() {
    let mut client = Client::echo(ServerConfig::default());
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(client.expect("").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ok").await;
    client.expect("ok").await;

    let mut client = Client::new(ServerConfig::default(), |_| async {
        Response::builder().status(413).body(Body::empty()).unwrap()
    });
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    let (text, ..) = client.rest().await;
    assert_eq!(
        text,
        "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_malformed_head_is_refused_and_nothing_after_it_is_read() {
    let mut client = Client::hello();
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let (text, _, log) = client.rest().await;
    assert!(
        text.starts_with("HTTP/1.1 400 Bad Request\r\n") && text.contains("connection: close"),
        "{text}"
    );
    assert_eq!(log, ["rejected: downstream protocol error"]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_chunk_is_refused_and_nothing_after_it_is_read() {
    let mut client = Client::echo(ServerConfig::default());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (text, _, log) = client.rest().await;
    assert!(
        text.starts_with("HTTP/1.1 400 Bad Request\r\n") && text.contains("connection: close"),
        "{text}"
    );
    assert_eq!(log, ["POST /"]);
}

#[tokio::test(start_paused = true)]
async fn http_10_is_refused_unless_accepted() {
    let mut client = Client::hello();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(
        client
            .rest()
            .await
            .0
            .starts_with("HTTP/1.1 426 Upgrade Required\r\n")
    );
    let config = ServerConfig {
        accept_http_10: true,
        ..ServerConfig::default()
    };
    let mut client = Client::echo(config);
    client
        .send("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert!(
        client
            .rest()
            .await
            .0
            .ends_with("connection: close\r\n\r\nok")
    );
}

#[tokio::test(start_paused = true)]
async fn a_trickled_head_ends_with_408_and_an_idle_connection_without_a_word() {
    let mut client = Client::hello();
    client.send("GET / HT").await;
    let (text, _, log) = client.rest().await;
    assert!(
        text.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{text}"
    );
    assert_eq!(log, ["rejected: request receive timeout"]);
    let config = ServerConfig {
        idle_timeout: Some(Duration::from_secs(5)),
        ..ServerConfig::default()
    };
    let client = Client::echo(config);
    let (text, ended, _) = client.rest().await;
    assert_eq!((text.as_str(), ended), ("", Ended::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_cancelled_with_408_or_504() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 504 "),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
            "HTTP/1.1 408 ",
        ),
    ] {
        let mut client = Client::new(ServerConfig::default(), |request| async move {
            let _kept = request;
            std::future::pending().await
        });
        client.send(request).await;
        let (text, _, log) = client.rest().await;
        assert!(
            text.starts_with(status) && text.ends_with("stream timeout"),
            "{text}"
        );
        assert_eq!(log[1], "cancelled: stream idle timeout");
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_client_gets_its_answer_and_one_that_waits_too_long_is_given_up() {
    for (delay, expected) in [(500, HELLO.len()), (5000, 0)] {
        let mut client = Client::new(ServerConfig::default(), move |_| async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            Response::new(Body::from("hello"))
        });
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.io.shutdown().await.unwrap();
        let (text, _, log) = client.rest().await;
        assert_eq!(
            text.replace("connection: close\r\n", "").len(),
            expected,
            "{text}"
        );
        assert_eq!(log.len(), if expected == 0 { 2 } else { 1 }, "{log:?}");
    }
}

struct Stream(Vec<Result<&'static str, ErrorKind>>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match self.0.remove(0) {
            Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
            Err(kind) => Err(Error::new(kind)),
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_out_in_chunks_and_a_failed_one_never_looks_complete() {
    let mut client = Client::new(ServerConfig::default(), |_| async {
        Response::new(Body::new(Stream(vec![Ok("abc"), Ok("de")])))
    });
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let text = client.expect("0\r\n\r\n").await;
    assert!(
        text.ends_with("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        "{text}"
    );

    let mut client = Client::new(ServerConfig::default(), |_| async {
        Response::new(Body::new(Stream(vec![
            Ok("abc"),
            Err(ErrorKind::RemoteReset),
        ])))
    });
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (text, ..) = client.rest().await;
    assert!(text.ends_with("3\r\nabc\r\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn head_and_304_have_no_body_but_keep_its_length() {
    let mut client = Client::new(ServerConfig::default(), |request| async move {
        let status = if request.uri().path() == "/304" {
            304
        } else {
            200
        };
        Response::builder()
            .status(status)
            .header("content-length", "5")
            .body(Body::from("hello"))
            .unwrap()
    });
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        client.expect("").await,
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    );
    client.send("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        client.expect("").await,
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_whole_request_closes_the_connection() {
    let mut client = Client::hello();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        .await;
    let (text, ..) = client.rest().await;
    assert!(
        text.contains("connection: close") && text.ends_with("hello"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn max_requests_end_the_connection() {
    let config = ServerConfig {
        max_requests: Some(2),
        ..ServerConfig::default()
    };
    let mut client = Client::echo(config);
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (text, _, log) = client.rest().await;
    assert_eq!(log, ["GET /1", "GET /2"]);
    assert_eq!(text.matches("connection: close").count(), 1);
    assert_eq!(StatusCode::OK, 200);
}
