use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
    },
    net::{TcpListener, TcpStream},
};

use super::{CHUNK_BYTES_MAX, Carrier, Relay, RelayEnd, Side};
use crate::Stream;

impl Carrier for DuplexStream {}

impl Carrier for Broken {}

type Both = Relay<DuplexStream, DuplexStream>;

/// A relay, the client and the server; each stream takes `room` bytes before its reader reads.
fn relay(room: usize) -> (Both, DuplexStream, DuplexStream) {
    let (client, downstream) = duplex(room);
    let (server, upstream) = duplex(room);
    (
        Relay::new(downstream, upstream, CHUNK_BYTES_MAX),
        client,
        server,
    )
}

fn poll(relay: &mut Both) -> Poll<RelayEnd> {
    relay.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let (mut relay, mut client, mut server) = relay(64);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert!(poll(&mut relay).is_pending());
    let mut question = Vec::new();
    server.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    server.write_all(b"answer").await.unwrap();
    assert!(poll(&mut relay).is_pending());
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
    server.shutdown().await.unwrap();
    assert!(matches!(poll(&mut relay), Poll::Ready(RelayEnd::Finished)));
    assert_eq!(client.read(&mut answer).await.unwrap(), 0);
    let carried = relay.carried();
    assert_eq!((carried.from_downstream, carried.to_upstream), (8, 8));
    assert_eq!((carried.from_upstream, carried.to_downstream), (6, 6));
}

#[tokio::test]
async fn a_receiver_that_does_not_read_stops_the_sender() {
    let (mut relay, mut client, server) = relay(64);
    client.write_all(&[1; 64]).await.unwrap();
    assert!(poll(&mut relay).is_pending());
    client.write_all(&[2; 64]).await.unwrap();
    assert!(poll(&mut relay).is_pending());
    // 64 are with the server and 64 with the relay; the client's stream takes 64 more and no byte beyond.
    client.write_all(&[3; 64]).await.unwrap();
    assert!(poll(&mut relay).is_pending());
    let one = poll_fn(|cx| Poll::Ready(Pin::new(&mut client).poll_write(cx, &[4]).is_pending()));
    assert!(one.await);
    assert_eq!(relay.carried().from_downstream, 128);
    drop(server);
}

/// Two ends of a TCP connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[tokio::test]
async fn a_long_transfer_stays_in_the_kernel_and_arrives_whole() {
    let (client, downstream) = pair().await;
    let (mut server, upstream) = pair().await;
    let mut relay = Relay::new(Stream::Tcp(downstream), Stream::Tcp(upstream), usize::MAX);
    let sent: Vec<u8> = (0..16_000_000u32).map(|n| (n / 7) as u8).collect();
    let answer = sent.clone();
    let server = tokio::spawn(async move {
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        question
    });
    // Nobody reads: the relay has what the client's socket does not take, and waits.
    poll_fn(|cx| {
        assert!(relay.poll(cx).is_pending());
        if relay.down.is_spliced() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let (mut read, mut write) = client.into_split();
    let client = tokio::spawn(async move {
        write.write_all(b"question").await.unwrap();
        write.shutdown().await.unwrap();
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        got
    });
    let end = poll_fn(|cx| relay.poll(cx)).await;
    assert!(matches!(end, RelayEnd::Finished), "{end:?}");
    assert!(client.await.unwrap() == sent);
    assert_eq!(server.await.unwrap(), b"question");
    let carried = relay.carried();
    assert_eq!(
        (carried.from_upstream, carried.to_downstream),
        (16_000_000, 16_000_000)
    );
    assert_eq!((carried.from_downstream, carried.to_upstream), (8, 8));
}

#[tokio::test]
async fn no_more_is_kept_than_the_limit() {
    let (mut client, downstream) = duplex(64);
    let (_server, upstream) = duplex(8);
    let mut relay = Relay::new(downstream, upstream, 16);
    client.write_all(&[1; 64]).await.unwrap();
    assert!(poll(&mut relay).is_pending());
    let carried = relay.carried();
    assert_eq!((carried.from_downstream, carried.to_upstream), (16, 8));
}

/// A stream whose peer has reset it.
struct Broken(io::ErrorKind);

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.0.into()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const RESET: Broken = Broken(io::ErrorKind::ConnectionReset);

#[tokio::test]
async fn tls_that_ends_without_saying_so_is_an_end() {
    let (mut client, downstream) = duplex(8);
    let cut = Broken(io::ErrorKind::UnexpectedEof);
    let mut relay = Relay::new(downstream, cut, CHUNK_BYTES_MAX);
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(relay.poll(cx).is_pending());
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_failure_says_which_side() {
    let cx = &mut Context::from_waker(Waker::noop());
    let side = |end| match end {
        Poll::Ready(RelayEnd::Failed(side, error)) => (side, error.kind()),
        other => panic!("{other:?}"),
    };
    let (_client, downstream) = duplex(8);
    let read = side(Relay::new(downstream, RESET, CHUNK_BYTES_MAX).poll(cx));
    assert_eq!(read, (Side::Upstream, io::ErrorKind::ConnectionReset));
    let (mut client, downstream) = duplex(8);
    client.write_all(b"x").await.unwrap();
    let written = side(Relay::new(downstream, RESET, CHUNK_BYTES_MAX).poll(cx));
    assert_eq!(written, (Side::Upstream, io::ErrorKind::BrokenPipe));
    let (_server, upstream) = duplex(8);
    let read = side(Relay::new(RESET, upstream, CHUNK_BYTES_MAX).poll(cx));
    assert_eq!(read, (Side::Downstream, io::ErrorKind::ConnectionReset));
}

proptest! {
    /// Whatever the sizes and whoever is slow, each byte arrives once and in order.
    #[test]
    fn model_bytes_arrive_once_and_in_order(
        room in 1usize..200,
        up in proptest::collection::vec(any::<u8>(), 0..3000),
        down in proptest::collection::vec(any::<u8>(), 0..3000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut relay, client, server) = relay(room);
            let talk = |stream: DuplexStream, send: Vec<u8>| async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let sent = async {
                    write.write_all(&send).await?;
                    write.shutdown().await
                };
                let mut got = Vec::new();
                let (sent, _) = tokio::join!(sent, read.read_to_end(&mut got));
                sent.map(|()| got)
            };
            let (end, at_client, at_server) = tokio::join!(
                poll_fn(|cx| relay.poll(cx)),
                talk(client, up.clone()),
                talk(server, down.clone())
            );
            prop_assert!(matches!(end, RelayEnd::Finished), "{end:?}");
            prop_assert_eq!(at_client.unwrap(), down);
            prop_assert_eq!(at_server.unwrap(), up);
            Ok(())
        })?;
    }
}
