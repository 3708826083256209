//! How connections end: drains, clients that leave, time that runs out.

use mesh_core::clock;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const QUEUED: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";

/// A body that says something, and then nothing more.
fn silent_after(text: &'static str) -> Body {
    Body::new(Silent(Some(text)))
}

struct Silent(Option<&'static str>);

impl HttpBody for Silent {
    type Data = Bytes;
    type Error = Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.0.take() {
            Some(text) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))),
            None => Poll::Pending,
        }
    }
}

fn silent() -> Client {
    silent_for(ServerConfig::default(), None)
}

fn silent_for(config: ServerConfig, idle_timeout: Option<Duration>) -> Client {
    let (io, server) = duplex(1 << 20);
    Client::on(io, server, config, idle_timeout, |_| async {
        Response::new(silent_after("abc"))
    })
}

fn elapsed(start: std::time::Instant) -> Duration {
    clock::now() - start
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_arrived_is_answered_although_the_process_drains() {
    for kept in [false, true] {
        let mut client = Client::hello();
        if kept {
            client.send(GET).await;
            client.expect("hello").await;
        }
        // Both are there before the connection is polled again.
        client.drain.notify_one();
        client.send(GET).await;
        let (text, ended, _) = client.rest().await;
        assert!(
            text.contains("connection: close") && text.ends_with("hello"),
            "kept {kept}: {text:?}"
        );
        assert_eq!(ended, Ended::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_shortly_for_a_first_request_and_not_for_a_further_one() {
    let start = clock::now();
    let mut client = Client::hello();
    client.drain.notify_one();
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.send(GET).await;
    assert!(client.rest().await.0.ends_with("hello"));

    let client = Client::hello();
    let start_of_second = clock::now();
    client.drain.notify_one();
    assert_eq!(client.rest().await.0, "");
    assert_eq!(elapsed(start_of_second).as_secs(), 1);

    let mut client = Client::hello();
    client.send(GET).await;
    client.expect("hello").await;
    let start_of_third = clock::now();
    client.drain.notify_one();
    assert_eq!(client.rest().await.0, "");
    assert!(elapsed(start_of_third).as_millis() < 2);
    assert!(elapsed(start) < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_connection_idle_for_long_before_its_first_request_closes_at_once_on_a_drain() {
    let client = Client::hello();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let start = clock::now();
    client.drain.notify_one();
    assert_eq!(client.rest().await.0, "");
    assert!(elapsed(start).as_millis() < 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_while_idle_is_gone() {
    let mut client = Client::hello();
    client.send(GET).await;
    client.expect("hello").await;
    let Client { io, server, .. } = client;
    drop(io);
    assert_eq!(server.await.unwrap(), Ended::ClientGone);
}

#[tokio::test(start_paused = true)]
async fn the_idle_timeout_of_the_route_holds_while_the_answer_flows() {
    let start = clock::now();
    let mut client = silent_for(ServerConfig::default(), Some(Duration::from_secs(7)));
    client.send(GET).await;
    let (text, ended, _) = client.rest().await;
    assert!(text.ends_with("3\r\nabc\r\n"), "{text}");
    assert_eq!(elapsed(start).as_secs(), 7);
    assert_eq!(ended, Ended::Closed, "this side gave up");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_is_noticed_while_the_answer_is_silent() {
    let start = clock::now();
    let mut client = silent();
    client.send(GET).await;
    client.expect("3\r\nabc\r\n").await;
    client.io.shutdown().await.unwrap();
    let (_, ended, _) = client.rest().await;
    assert_eq!(ended, Ended::ClientGone);
    assert_eq!(elapsed(start).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_is_noticed_while_nobody_asks_for_its_body() {
    let start = clock::now();
    let mut client = Client::new(ServerConfig::default(), |request| async move {
        let _kept = request;
        std::future::pending().await
    });
    client.send(QUEUED).await;
    client.io.shutdown().await.unwrap();
    let (text, ended, log) = client.rest().await;
    assert_eq!((text.as_str(), ended), ("", Ended::ClientGone));
    assert_eq!(log.len(), 2, "{log:?}");
    assert_eq!(elapsed(start).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_request_timeout_ends_heads_and_uploads_but_no_answer_that_flows() {
    let config = ServerConfig {
        request_timeout: Some(Duration::from_secs(3)),
        ..ServerConfig::default()
    };
    for part in ["GET / HT", QUEUED] {
        let mut client = Client::echo(config.clone());
        client.send(part).await;
        let (text, ..) = client.rest().await;
        assert!(
            text.starts_with("HTTP/1.1 408 ") && text.ends_with("\r\n\r\nrequest timeout"),
            "{text}"
        );
    }
    let start = clock::now();
    let mut client = silent_for(config, Some(Duration::from_secs(20)));
    client.send(QUEUED).await;
    client.rest().await;
    assert_eq!(elapsed(start).as_secs(), 20);
}

/// A client that sends without pause once it is told to.
struct Flood(DuplexStream);

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if Pin::new(&mut self.0).poll_read(cx, buf).is_pending() || buf.filled().is_empty() {
            // A byte takes a moment of real and of pretended time.
            buf.put_slice(b"x");
            let mut tick = std::pin::pin!(tokio::time::advance(Duration::from_millis(100)));
            let _ = tick.as_mut().poll(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_stops_sending_cannot_hold_a_closing_connection() {
    let (io, server) = duplex(1 << 20);
    let mut client = Client::on(
        io,
        Flood(server),
        ServerConfig::default(),
        None,
        |_| async { Response::new(Body::from("hello")) },
    );
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let (text, ended, _) = client.rest().await;
    assert!(text.ends_with("hello"), "{text}");
    assert_eq!(ended, Ended::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_length_that_breaks_off_says_so_to_the_transport() {
    let config = ServerConfig {
        accept_http_10: true,
        ..ServerConfig::default()
    };
    let mut client = Client::new(config.clone(), |_| async {
        Response::new(Body::new(Stream(vec![
            Ok("abc"),
            Err(ErrorKind::RemoteReset),
        ])))
    });
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.server.await.unwrap(), Ended::Truncated);
    let mut client = silent_for(config, Some(Duration::from_secs(1)));
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.server.await.unwrap(), Ended::Truncated);
}

#[tokio::test(start_paused = true)]
async fn http_10_without_a_host_is_refused_unless_there_is_a_default() {
    for default in [None, Some(http::HeaderValue::from_static("old"))] {
        let expected = if default.is_some() {
            "old"
        } else {
            "Bad Request"
        };
        let config = ServerConfig {
            accept_http_10: true,
            default_host_for_http_10: default,
            ..ServerConfig::default()
        };
        let mut client = Client::new(config, |request| async move {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            Response::new(Body::from(host))
        });
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        let (text, ..) = client.rest().await;
        assert!(
            text.ends_with(&format!("connection: close\r\n\r\n{expected}")),
            "{text}"
        );
    }
}
