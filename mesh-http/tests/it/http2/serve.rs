//! The downstream side.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt as _;
use mesh_core::{Body, Error, ErrorKind};
use mesh_http::server::{CodecType, Ended, ServerConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, Semaphore},
};

use super::{Counted, soon};
use crate::server::{Client, log};

/// An h2 client on the other end; its connection is driven by a task.
async fn connect(client: &mut Client) -> SendRequest<Bytes> {
    let (streams, connection) = h2::client::handshake(client.take_io()).await.unwrap();
    tokio::spawn(connection);
    streams
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.example{path}"))
        .body(())
        .unwrap()
}

async fn text(response: Response<h2::RecvStream>) -> String {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn streams_of_one_connection_are_answered_side_by_side() {
    let gate = Arc::new(Semaphore::new(0));
    let handler_gate = Arc::clone(&gate);
    let mut client = Client::new(ServerConfig::default(), move |request| {
        let gate = Arc::clone(&handler_gate);
        async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.headers()["host"], "a.example");
            // Nobody passes before all three are here.
            gate.acquire().await.unwrap().forget();
            Response::new(Body::from(request.uri().path().to_owned()))
        }
    });
    let mut streams = connect(&mut client).await;
    let answers: Vec<_> = ["/1", "/2", "/3"]
        .map(|path| streams.send_request(get(path), true).unwrap().0)
        .into();
    client.wait_for_log(3).await;
    gate.add_permits(3);
    for (answer, path) in answers.into_iter().zip(["/1", "/2", "/3"]) {
        assert_eq!(text(soon(answer).await.unwrap()).await, path);
    }
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    let mut client = Client::new(ServerConfig::default(), |request| async move {
        let collected = request.into_body().collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap();
        let frames = [
            Ok(Frame::data(collected.to_bytes())),
            Ok(Frame::trailers(trailers)),
        ];
        let stream = futures_util::stream::iter(frames);
        Response::new(Body::new(http_body_util::StreamBody::new(stream)))
    });
    let mut streams = connect(&mut client).await;
    let (answer, mut body) = streams.send_request(get("/"), false).unwrap();
    body.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    let mut answer = soon(answer).await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "hello");
    assert_eq!(
        answer.trailers().await.unwrap().unwrap()["grpc-status"],
        "0"
    );
}

/// What a peer of large frames does not read waits; whoever polls for it in vain would hold up everybody.
#[tokio::test]
async fn a_reader_of_large_frames_that_stops_does_not_keep_us_busy() {
    const SIZE: usize = 4 << 20;
    let mut client = Client::new(ServerConfig::default(), |_| async {
        let pieces = (0..SIZE / 100_000).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 100_000]))));
        let pieces = futures_util::stream::iter(pieces);
        Response::new(Body::new(http_body_util::StreamBody::new(pieces)))
    });
    let (mut streams, connection) = h2::client::Builder::new()
        .max_frame_size(1 << 20)
        .initial_window_size(u32::MAX >> 1)
        .initial_connection_window_size(u32::MAX >> 1)
        .handshake::<_, Bytes>(client.take_io())
        .await
        .unwrap();
    let (answer, _) = streams.send_request(get("/"), true).unwrap();
    let mut connection = std::pin::pin!(connection);
    // The request goes out, and the answer is not read.
    while log(&client).is_empty() {
        let waiting = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(connection.as_mut().poll(cx).is_pending())
        });
        assert!(waiting.await);
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let read = async { text(answer.await.unwrap()).await };
    let text = tokio::select! {
        text = soon(read) => text,
        ended = connection => panic!("the connection ended: {ended:?}"),
    };
    assert_eq!(text.len(), SIZE / 100_000 * 100_000);
}

#[tokio::test]
async fn a_stream_that_is_reset_costs_only_itself() {
    let gate = Arc::new(Semaphore::new(0));
    let handler_gate = Arc::clone(&gate);
    let mut client = Client::new(ServerConfig::default(), move |_| {
        let gate = Arc::clone(&handler_gate);
        async move {
            gate.acquire().await.unwrap().forget();
            Response::new(Body::from("late"))
        }
    });
    let mut streams = connect(&mut client).await;
    let (given_up, mut body) = streams.send_request(get("/gone"), false).unwrap();
    let (kept, _) = streams.send_request(get("/kept"), true).unwrap();
    client.wait_for_log(2).await;
    body.send_reset(h2::Reason::CANCEL);
    client.wait_for_log(3).await;
    gate.add_permits(1);
    assert_eq!(text(soon(kept).await.unwrap()).await, "late");
    drop(given_up);
    assert_eq!(log(&client)[2], "cancelled: downstream reset");
}

#[tokio::test]
async fn answers_that_nobody_reads_stay_where_they_are() {
    const STREAMS: u64 = 100;
    let taken = Arc::new(AtomicU64::new(0));
    let all = Arc::clone(&taken);
    let mut client = Client::new(ServerConfig::default(), move |_| {
        let body = Counted {
            left: 8 << 20,
            taken: Arc::clone(&all),
        };
        async move { Response::new(Body::new(body)) }
    });
    let mut streams = connect(&mut client).await;
    let mut answers = Vec::new();
    for _ in 0..STREAMS {
        let (answer, _) = streams.send_request(get("/big"), true).unwrap();
        answers.push(soon(answer).await.unwrap());
    }
    // Another request shows that the connection has nothing left to do for the others.
    let (probe, _) = streams.send_request(get("/big"), true).unwrap();
    soon(probe).await.unwrap();
    let bound = (STREAMS + 1) * (64 + 16 + 16) * 1024;
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken <= bound, "{taken} bytes of answers, {bound} allowed");
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_streams_finish() {
    let gate = Arc::new(Semaphore::new(0));
    let handler_gate = Arc::clone(&gate);
    let mut client = Client::new(ServerConfig::default(), move |_| {
        let gate = Arc::clone(&handler_gate);
        async move {
            gate.acquire().await.unwrap().forget();
            Response::new(Body::from("done"))
        }
    });
    let mut streams = connect(&mut client).await;
    let (answer, _) = streams.send_request(get("/"), true).unwrap();
    client.wait_for_log(1).await;
    client.drain.notify_one();
    // New streams are refused as soon as the client has heard.
    let refused = soon(async {
        loop {
            match streams.clone().ready().await {
                Err(error) => break error,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert!(refused.is_go_away() && refused.reason() == Some(h2::Reason::NO_ERROR));
    gate.add_permits(1);
    assert_eq!(text(soon(answer).await.unwrap()).await, "done");
    assert_eq!(soon(client.server).await.unwrap(), Ended::Closed);
}

#[tokio::test]
async fn a_preface_may_come_byte_by_byte_and_http1_is_told_apart() {
    let answer = |request: Request<Body>| async move {
        let version = format!("{:?}", request.version());
        Response::new(Body::from(version))
    };
    let mut client = Client::new(ServerConfig::default(), answer);
    let mut io = client.take_io();
    io.write_all(b"P").await.unwrap();
    io.write_all(b"OST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    soon(io.read_to_string(&mut text)).await.unwrap();
    assert!(text.ends_with("HTTP/1.1"), "{text}");

    let mut client = Client::new(ServerConfig::default(), answer);
    let mut io = client.take_io();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        io.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    // Our settings come as an answer to the preface.
    let mut head = [0; 9];
    soon(io.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4);
}

#[tokio::test]
async fn who_must_speak_http2_and_does_not_is_told_so() {
    let config = ServerConfig {
        codec: CodecType::Http2,
        ..ServerConfig::default()
    };
    let mut client = Client::new(config, |_| async { Response::new(Body::empty()) });
    let mut io = client.take_io();
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut goaway = [0; 17];
    soon(io.read_exact(&mut goaway)).await.unwrap();
    assert_eq!((goaway[3], goaway[16]), (7, 1));
    assert_eq!(soon(io.read(&mut [0])).await.unwrap(), 0);
    drop(io);
    assert_eq!(soon(client.server).await.unwrap(), Ended::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_streams_is_closed_after_its_idle_timeout() {
    let notify = Arc::new(Notify::new());
    let config = ServerConfig {
        idle_timeout: Some(std::time::Duration::from_secs(7)),
        ..ServerConfig::default()
    };
    let handler_notify = Arc::clone(&notify);
    let mut client = Client::new(config, move |_| {
        let notify = Arc::clone(&handler_notify);
        async move {
            // Longer than the idle timeout: a stream that runs is not idle.
            tokio::time::sleep(std::time::Duration::from_secs(20)).await;
            notify.notify_one();
            Response::new(Body::empty())
        }
    });
    let mut streams = connect(&mut client).await;
    let start = mesh_core::clock::now();
    let (answer, _) = streams.send_request(get("/"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    assert_eq!(client.server.await.unwrap(), Ended::Idle);
    let lived = (mesh_core::clock::now() - start).as_secs();
    assert!((27..29).contains(&lived), "{lived} s");
}

#[tokio::test]
async fn what_has_no_host_is_refused_and_the_connection_lives_on() {
    let mut client = Client::new(ServerConfig::default(), |_| async {
        Response::new(Body::from("ok"))
    });
    let mut streams = connect(&mut client).await;
    let mut bad = Request::get("/").body(()).unwrap();
    *bad.version_mut() = Version::HTTP_11;
    let (answer, _) = streams.send_request(bad, true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 400);
    let (answer, _) = streams.send_request(get("/"), true).unwrap();
    assert_eq!(text(soon(answer).await.unwrap()).await, "ok");
    assert_eq!(log(&client)[0], "rejected: downstream protocol error");
}

#[tokio::test]
async fn what_there_was_of_an_answer_that_breaks_off_goes_out_before_the_reset() {
    let mut client = Client::new(ServerConfig::default(), |_| async {
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"half"))),
            Err(Error::new(ErrorKind::RemoteReset)),
        ];
        let stream = futures_util::stream::iter(frames);
        Response::new(Body::new(http_body_util::StreamBody::new(stream)))
    });
    let mut streams = connect(&mut client).await;
    let (answer, _) = streams.send_request(get("/"), true).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "half");
    let error = soon(body.data()).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
}
