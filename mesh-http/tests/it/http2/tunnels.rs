//! Tunnels, in every pairing of protocols.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mesh_core::{Body, ErrorKind, Sent, Tunnel, TunnelRequest, clock};
use mesh_http::{h2::Http2Config, pool::PoolConfig, server::ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{pool::upstream, soon};
use crate::server::Client;

fn config() -> ServerConfig {
    ServerConfig {
        http2: Http2Config {
            allow_connect: true,
            ..Http2Config::default()
        },
        ..ServerConfig::default()
    }
}

/// Grants what is asked for, and sends back what comes, in capitals.
async fn shout(request: Request<Body>) -> Response<Body> {
    let asked = TunnelRequest::of(&request).cloned().unwrap();
    let body = request
        .into_body()
        .map_frame(|frame| frame.map_data(|data| Bytes::from(data.to_ascii_uppercase())));
    let mut response = Response::new(Body::new(body));
    if let TunnelRequest::Upgrade(name) = asked {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert("connection", "upgrade".parse().unwrap());
        headers.insert("upgrade", name);
    }
    response.extensions_mut().insert(Tunnel);
    response
}

#[tokio::test]
async fn an_upgrade_over_http1_is_a_tunnel_with_two_ends() {
    let mut client = Client::new(config(), shout);
    let mut io = client.take_io();
    // What comes too early waits for the answer.
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nearly ")
        .await
        .unwrap();
    let mut status = [0; 12];
    soon(io.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    io.write_all(b"late").await.unwrap();
    io.shutdown().await.unwrap();
    let mut rest = String::new();
    soon(io.read_to_string(&mut rest)).await.unwrap();
    assert!(rest.contains("upgrade: x"), "{rest}");
    assert!(rest.ends_with("\r\n\r\nEARLY LATE"), "{rest}");
}

#[tokio::test]
async fn early_bytes_of_a_refused_upgrade_are_never_a_request() {
    let mut client = Client::new(config(), |_| async {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    });
    let mut io = client.take_io();
    io.write_all(
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    )
    .await
    .unwrap();
    let mut text = String::new();
    soon(io.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    assert_eq!(crate::server::log(&client).len(), 1);
}

#[tokio::test]
async fn extended_connect_stands_for_an_upgrade() {
    let mut client = Client::new(config(), |request: Request<Body>| async move {
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert_eq!(request.headers()["sec-websocket-key"].len(), 24);
        shout(request).await
    });
    let (mut streams, connection) = h2::client::handshake(client.take_io()).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://a/chat")
        .body(())
        .unwrap();
    let websocket = h2::ext::Protocol::from_static("websocket");
    request.extensions_mut().insert(websocket);
    let (answer, mut send) = streams.send_request(request, false).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("upgrade"));
    send.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let mut body = answer.into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "HELLO");
    assert!(soon(body.data()).await.is_none());
}

#[tokio::test]
async fn an_upgrade_to_an_http2_upstream_is_an_extended_connect() {
    let up = upstream(PoolConfig::default(), |_, stream| async move {
        let mut connection = h2::server::Builder::new()
            .enable_connect_protocol()
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.method(), Method::CONNECT);
            let protocol = request.extensions().get::<h2::ext::Protocol>();
            assert_eq!(protocol.unwrap().as_str(), "x");
            tokio::spawn(async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                let mut body = request.into_body();
                let data = body.data().await.unwrap().unwrap();
                send.send_data(data, true).unwrap();
            });
        }
    })
    .await;
    let answer = soon(up.pool.clone().send(upgrade())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert!(Tunnel::is_granted(&answer));
    assert_eq!(answer.headers()["upgrade"], "x");
    let body = soon(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "there and back");
}

/// A request for the upgrade `x`.
fn upgrade() -> Request<Body> {
    let mut request = super::pool::request(Method::GET, Body::from("there and back"));
    let headers = request.headers_mut();
    headers.insert("connection", "upgrade".parse().unwrap());
    headers.insert("upgrade", "x".parse().unwrap());
    let asked = TunnelRequest::read(&request).unwrap();
    request.extensions_mut().insert(asked);
    request
}

#[tokio::test]
async fn an_upgrade_is_not_asked_of_an_http2_upstream_that_knows_none() {
    let up = upstream(PoolConfig::default(), |_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let request: Option<Result<(_, h2::server::SendResponse<Bytes>), _>> =
            connection.accept().await;
        assert!(request.is_none(), "it was asked");
    })
    .await;
    let error = soon(up.pool.clone().send(upgrade())).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.sent()),
        (ErrorKind::RemoteRefused, Sent::Nothing)
    );
}

#[tokio::test]
async fn an_upgrade_does_not_wait_for_settings_on_a_connection_that_has_ended() {
    let up = upstream(PoolConfig::default(), |n, stream| async move {
        if n == 0 {
            // Without a word.
            return;
        }
        let mut connection = h2::server::Builder::new()
            .enable_connect_protocol()
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let answer = soon(up.pool.clone().send(upgrade())).await;
    assert_eq!(answer.unwrap().status(), StatusCode::SWITCHING_PROTOCOLS);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_whose_upstream_has_closed_ends_when_its_client_is_idle() {
    // What the client says goes on being read after the answer has ended.
    let (said, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let mut client = Client::new(config(), move |request| {
        let said = said.clone();
        async move {
            let mut body = request.into_body();
            tokio::spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    said.send(Some(frame.into_data().unwrap())).unwrap();
                }
                said.send(None).unwrap();
            });
            let mut response = Response::new(Body::new(Body::from("bye")));
            response.extensions_mut().insert(Tunnel);
            response
        }
    });
    let (mut streams, connection) = h2::client::handshake(client.take_io()).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(Method::CONNECT).uri("a:1");
    let (answer, mut send) = streams
        .send_request(request.body(()).unwrap(), false)
        .unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "bye");
    assert!(body.data().await.is_none());
    let began = clock::now();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(200)).await;
        send.send_data(Bytes::from_static(b"more"), false).unwrap();
        assert_eq!(hears.recv().await.unwrap().unwrap(), "more");
    }
    assert_eq!(hears.recv().await, Some(None));
    let lasted = (clock::now() - began).as_secs();
    assert_eq!(lasted, 600 + 300, "the stream idle timeout is five minutes");
}
