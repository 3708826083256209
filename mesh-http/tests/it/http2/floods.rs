//! Peers that keep us busy for nothing. Each case is a known attack, sent byte by byte.

use http::Response;
use mesh_core::Body;
use mesh_http::server::{Ended, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::soon;
use crate::server::Client;

const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET http://a/`, from the static table and one literal.
const HEAD: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

/// Sends `frames` behind a preface, and reads the code of the GOAWAY that must come.
async fn cut_off_by(frames: Vec<u8>) -> u32 {
    let mut client = Client::new(ServerConfig::default(), |_| async {
        std::future::pending::<()>().await;
        Response::new(Body::empty())
    });
    let (mut read, mut write) = tokio::io::split(client.take_io());
    let sending = tokio::spawn(async move {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes.extend(frames);
        // It may be cut off in the middle.
        let _ = write.write_all(&bytes).await;
        write
    });
    let code = soon(async {
        loop {
            let mut head = [0; 9];
            read.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            read.read_exact(&mut payload).await.unwrap();
            if head[3] == 7 {
                break u32::from_be_bytes(payload[4..8].try_into().unwrap());
            }
        }
    })
    .await;
    drop(read);
    drop(sending.await);
    assert!(matches!(
        soon(client.server).await.unwrap(),
        Ended::Closed | Ended::ClientGone
    ));
    code
}

#[tokio::test]
async fn pings() {
    let flood = frame(6, 0, 0, &[0; 8]).repeat(3000);
    assert_eq!(cut_off_by(flood).await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn settings() {
    let flood = frame(4, 0, 0, &[]).repeat(3000);
    assert_eq!(cut_off_by(flood).await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn empty_data() {
    let mut flood = frame(1, 4, 1, HEAD);
    flood.extend(frame(0, 0, 1, &[]).repeat(50));
    assert_eq!(cut_off_by(flood).await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn priorities() {
    let flood = frame(2, 0, 1, &[0, 0, 0, 0, 16]).repeat(3000);
    assert_eq!(cut_off_by(flood).await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn window_updates() {
    let mut flood = frame(1, 5, 1, HEAD);
    flood.extend(frame(8, 0, 0, &[0, 0, 0, 1]).repeat(3000));
    assert_eq!(cut_off_by(flood).await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn rapid_reset() {
    let flood = (0..1000).flat_map(|n| {
        let stream = 2 * n + 1;
        let mut pair = frame(1, 5, stream, HEAD);
        pair.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
        pair
    });
    assert_eq!(cut_off_by(flood.collect()).await, ENHANCE_YOUR_CALM);
}

/// Streams that the server itself must reset, because of what the client does to them.
#[tokio::test]
async fn made_you_reset() {
    let flood = (0..3000).flat_map(|n| {
        let stream = 2 * n + 1;
        let mut pair = frame(1, 5, stream, HEAD);
        // A window that overflows.
        pair.extend(frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff]));
        pair
    });
    assert_eq!(cut_off_by(flood.collect()).await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn continuations_without_end() {
    let mut flood = frame(1, 0, 1, HEAD);
    // Each adds a field, and none ends the head.
    let mut field = vec![0x40, 1, b'x', 100];
    field.extend([b'y'; 100]);
    flood.extend(frame(9, 0, 1, &field).repeat(100_000));
    assert_eq!(cut_off_by(flood).await, ENHANCE_YOUR_CALM);
}
