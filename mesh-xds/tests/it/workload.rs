//! The SPIFFE client against an agent that is a few lines of a tower service on a Unix socket.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use mesh_core::Rng;
use mesh_xds::workload::WorkloadClient;
use prost::Message;
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::wrappers::UnixListenerStream;

/// One identity, written by hand from the field numbers of `workload.proto`.
fn response(id: &str, key: &str) -> Vec<u8> {
    #[derive(Clone, PartialEq, Message)]
    struct Response {
        #[prost(message, repeated, tag = "1")]
        svids: Vec<Svid>,
        #[prost(map = "string, bytes", tag = "3")]
        federated_bundles: std::collections::HashMap<String, Vec<u8>>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Svid {
        #[prost(string, tag = "1")]
        spiffe_id: String,
        #[prost(bytes = "vec", tag = "2")]
        x509_svid: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        x509_svid_key: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        bundle: Vec<u8>,
    }
    let svid = Svid {
        spiffe_id: id.to_owned(),
        x509_svid: b"certificate".to_vec(),
        x509_svid_key: key.as_bytes().to_vec(),
        bundle: b"roots".to_vec(),
    };
    let federated = [("spiffe://other".to_owned(), b"their roots".to_vec())];
    let message = Response {
        svids: vec![svid],
        federated_bundles: federated.into_iter().collect(),
    };
    message.encode_to_vec()
}

#[derive(Clone)]
struct Agent;

impl tower_service::Service<http::Request<tonic::body::Body>> for Agent {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
        let marked = request
            .headers()
            .get("workload.spiffe.io")
            .is_some_and(|v| v == "true");
        let mut frames = Vec::new();
        for message in [
            response("spiffe://td/me", "first"),
            response("spiffe://td/me", "rotated"),
        ] {
            let mut frame = vec![0];
            frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            frame.extend_from_slice(&message);
            frames.push(Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::from(
                frame,
            ))));
        }
        let mut trailers = http::HeaderMap::new();
        let status = if marked { "14" } else { "3" };
        trailers.insert("grpc-status", status.parse().unwrap());
        frames.push(Ok(http_body::Frame::trailers(trailers)));
        let body = tonic::body::Body::new(Frames(frames.into_iter()));
        let response = http::Response::builder().header("content-type", "application/grpc");
        std::future::ready(Ok(response.body(body).unwrap()))
    }
}

type Frame = Result<http_body::Frame<Bytes>, tonic::Status>;

struct Frames(std::vec::IntoIter<Frame>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Frame>> {
        std::task::Poll::Ready(self.0.next())
    }
}

#[tokio::test]
async fn an_identity_arrives_and_is_rotated_and_the_stream_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tonic::transport::Server::builder()
        .serve_with_incoming(Agent, UnixListenerStream::new(listener));
    let agent = tokio::spawn(serving);
    let address = format!("unix://{}", path.display());
    let client = WorkloadClient::new(&address, Rng::seeded(1)).unwrap();
    let (contexts, mut received) = mpsc::unbounded_channel();
    let (failures, mut failed) = mpsc::unbounded_channel();
    let running = tokio::spawn(client.run(
        move |context| contexts.send(context).is_ok(),
        move |status| failures.send(status.code()).is_ok(),
    ));
    let all = async {
        for key in ["first", "rotated", "first", "rotated"] {
            let context = received.recv().await.unwrap();
            assert_eq!(context.svids[0].spiffe_id, "spiffe://td/me");
            assert_eq!(context.svids[0].key, key);
            assert_eq!(context.federated_bundles["spiffe://other"], "their roots");
            // A key is never shown.
            assert!(!format!("{context:?}").contains("first"), "{context:?}");
        }
        assert_eq!(failed.recv().await, Some(tonic::Code::Unavailable));
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .unwrap();
    running.abort();
    agent.abort();
}
