//! CSDS of a client: the process itself tells where its resources stand.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use envoy_types::pb::envoy::service::status::v3::{
    ClientConfig, ClientStatusRequest, ClientStatusResponse,
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Request, Response, header};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use mesh_core::{Body, BoxError, BoxFuture, Error, ErrorKind};
use prost::Message as _;
use tonic::{Status, Streaming, codec::Codec as _};
use tower_service::Service;

use crate::server::Payload;

use super::{ProtoCodec, body::GrpcBody, server};

/// The longest request that is read.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Who knows.
pub trait TellStatus: Send + Sync + 'static {
    /// Where each resource stands; with `contents`, the resources too.
    fn status(&self, contents: bool) -> BoxFuture<ClientConfig>;
}

/// `envoy.service.status.v3.ClientStatusDiscoveryService` of a client of control planes, as a tower service for
/// any gRPC server. Requests that ask for other nodes are refused: there is only this one.
#[derive(Clone)]
pub struct ClientStatusService(Arc<dyn TellStatus>);

impl fmt::Debug for ClientStatusService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientStatusService")
    }
}

impl ClientStatusService {
    /// Tells what `source` knows.
    pub fn new(source: impl TellStatus) -> Self {
        Self(Arc::new(source))
    }

    /// Whether `path` is one of its methods.
    #[must_use]
    pub fn has(path: &str) -> bool {
        [server::STREAM_STATUS, server::FETCH_STATUS].contains(&path)
    }
}

async fn reply(
    source: Arc<dyn TellStatus>,
    request: Result<ClientStatusRequest, Status>,
) -> Result<Payload, Status> {
    let request = request?;
    if !request.node_matchers.is_empty() {
        return Err(Status::invalid_argument(
            "there are no nodes to choose from: this client tells of itself",
        ));
    }
    let config = source.status(!request.exclude_resource_contents).await;
    let response = ClientStatusResponse {
        config: vec![config],
    };
    Ok(Payload {
        own: response.encode_to_vec().into(),
        shared: bytes::Bytes::new(),
    })
}

impl<B> Service<Request<B>> for ClientStatusService
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let payloads = if Self::has(head.uri.path()) {
            let decoder =
                ProtoCodec::<ClientStatusResponse, ClientStatusRequest>::default().decoder();
            let requests: Streaming<ClientStatusRequest> =
                Streaming::new_request(decoder, body, None, Some(REQUEST_BYTES_MAX));
            let source = Arc::clone(&self.0);
            requests
                .then(move |request| reply(Arc::clone(&source), request))
                .boxed()
        } else {
            stream::iter([Err(Status::unimplemented("no such method"))]).boxed()
        };
        let failed = |status| Error::new(ErrorKind::DownstreamGone).with_source(status);
        let body = Body::new(GrpcBody::new(payloads).map_err(failed));
        let mut response = Response::new(body);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
        std::future::ready(Ok(response))
    }
}
