use std::{
    convert::Infallible,
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::{
        load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
        status::v3::{ClientStatusRequest, ClientStatusResponse},
    },
    r#type::matcher::v3::{NodeMatcher, string_matcher::MatchPattern},
};
use futures_core::Stream;
use futures_util::StreamExt as _;
use http::{Extensions, HeaderValue, Request, Response, header};
use http_body::Body as HttpBody;
use mesh_core::clock;
use prost::Message;
use tokio::sync::watch;
use tonic::{Code, Status, Streaming, body::Body, codec::Codec as _};
use tower_service::Service;

use crate::{
    ResourceType, Variant,
    server::{LoadSink, LrsSettings, Payload, SnapshotCache, client_configs, deliver},
};

use super::{
    MESSAGE_BYTES_MAX,
    body::GrpcBody,
    codec::{Decode, ProtoCodec},
    session::Session,
};

pub(super) const STREAM_STATUS: &str =
    "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus";
pub(super) const FETCH_STATUS: &str =
    "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";
const STREAM_LOAD: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Discovery(Variant, Option<ResourceType>),
    ClientStatus,
    LoadStats,
}

impl Method {
    fn of(path: &str) -> Option<Self> {
        for variant in [Variant::StateOfTheWorld, Variant::Delta] {
            if path == variant.aggregated_path() {
                return Some(Self::Discovery(variant, None));
            }
            let own = ResourceType::ALL
                .into_iter()
                .find(|ty| ty.path(variant) == path);
            if own.is_some() {
                return Some(Self::Discovery(variant, own));
            }
        }
        match path {
            STREAM_STATUS | FETCH_STATUS => Some(Self::ClientStatus),
            STREAM_LOAD => Some(Self::LoadStats),
            _ => None,
        }
    }
}

/// All services of a control plane as one tower service: ADS and the single discovery services, each
/// state-of-the-world and delta, CSDS, and LRS when there is somebody to take the reports.
///
/// Give it to [`serve`](Self::serve), or to any HTTP/2 server.
#[derive(Clone)]
pub struct XdsService(Arc<Settings>);

struct Settings {
    cache: SnapshotCache,
    lrs: Option<(Arc<dyn LoadSink>, LrsSettings)>,
    /// Who gets anything; everybody without one.
    admit: Option<Arc<Admit>>,
    /// Becomes true when all streams shall end: none of them would by itself.
    closing: watch::Sender<bool>,
}

/// Whether a node is who it says it is, by what is known of its connection: why not.
type Admit = dyn Fn(&Node, &Extensions) -> Result<(), String> + Send + Sync;

/// Ends all streams when the server is shut down, or its future dropped.
struct CloseOnDrop(Arc<Settings>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.closing.send_replace(true);
    }
}

/// Collects what an [`XdsService`] needs.
pub struct XdsServiceBuilder(Settings);

impl fmt::Debug for XdsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("XdsService").field(&self.0.cache).finish()
    }
}

impl fmt::Debug for XdsServiceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("XdsServiceBuilder")
            .field(&self.0.cache)
            .finish()
    }
}

impl XdsServiceBuilder {
    /// Takes load reports. Without this, LRS is unimplemented.
    #[must_use]
    pub fn load_reports(mut self, sink: Arc<dyn LoadSink>, settings: LrsSettings) -> Self {
        self.0.lrs = Some((sink, settings));
        self
    }

    /// Gives config only to nodes that `admit` says yes to; others are told why not. It sees the extensions of
    /// the stream's request, in which tonic has the connection's `ConnectInfo`.
    #[must_use]
    pub fn admit(
        mut self,
        admit: impl Fn(&Node, &Extensions) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.0.admit = Some(Arc::new(admit));
        self
    }

    /// The service.
    #[must_use]
    pub fn build(self) -> XdsService {
        XdsService(Arc::new(self.0))
    }
}

impl XdsService {
    /// Starts a service that gives out what is in `cache`.
    #[must_use]
    pub fn builder(cache: SnapshotCache) -> XdsServiceBuilder {
        XdsServiceBuilder(Settings {
            cache,
            lrs: None,
            admit: None,
            closing: watch::Sender::new(false),
        })
    }

    /// Serves connections of `incoming` until `shutdown`; then all streams end, as they do when this
    /// future is dropped.
    ///
    /// # Errors
    /// When the server cannot go on; errors of single connections only end those.
    pub async fn serve<I, IO, E>(
        self,
        incoming: I,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error>
    where
        I: Stream<Item = Result<IO, E>>,
        IO: tokio::io::AsyncRead
            + tokio::io::AsyncWrite
            + tonic::transport::server::Connected
            + Unpin
            + Send
            + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let close = CloseOnDrop(self.0.clone());
        let shutdown = async move {
            shutdown.await;
            drop(close);
        };
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)))
            .serve_with_incoming_shutdown(self, incoming, shutdown)
            .await
    }

    /// The answer of a stream, which ends with the server.
    fn body(
        &self,
        payloads: impl Stream<Item = Result<Payload, Status>> + Send + Unpin + 'static,
    ) -> Body {
        let mut closing = self.0.closing.subscribe();
        let closed = Box::pin(async move {
            // It cannot be dropped before it is true: the service holds it.
            let _ = closing.wait_for(|closing| *closing).await;
        });
        Body::new(GrpcBody::new(payloads.take_until(closed)))
    }

    fn answer<B>(&self, method: Option<Method>, extensions: Extensions, body: B) -> Body
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match method {
            Some(Method::Discovery(variant, only)) => {
                let requests: Streaming<crate::wire::Request> = Streaming::new_request(
                    Decode::<crate::wire::Request>::new(variant),
                    body,
                    None,
                    Some(MESSAGE_BYTES_MAX),
                );
                let cache = self.0.cache.clone();
                let admit = self.0.admit.clone();
                let admit = Box::new(move |node: &Node| match admit {
                    Some(admit) => admit(node, &extensions).map_err(Status::permission_denied),
                    None => Ok(()),
                });
                self.body(Session::new(requests, cache, (variant, only), admit))
            }
            Some(Method::ClientStatus) => {
                let cache = self.0.cache.clone();
                self.body(replies(body, move |request| {
                    client_status(&cache, &request).map(Some)
                }))
            }
            Some(Method::LoadStats) => match self.0.lrs.clone() {
                Some((sink, settings)) => self.body(replies(body, load_stats(sink, settings))),
                None => end(Status::unimplemented("load reports are not collected here")),
            },
            None => end(Status::unimplemented("no such method")),
        }
    }
}

impl<B> Service<Request<B>> for XdsService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let mut response =
            Response::new(self.answer(Method::of(head.uri.path()), head.extensions, body));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
        std::future::ready(Ok(response))
    }
}

/// An answer that is only a status.
fn end(status: Status) -> Body {
    let failed = futures_util::stream::iter([Err::<Payload, _>(status)]);
    Body::new(GrpcBody::new(failed))
}

/// Answers each request of a stream, or some, by what `answer` says.
fn replies<B, Q, R>(
    body: B,
    mut answer: impl FnMut(Q) -> Result<Option<R>, Status> + Send + 'static,
) -> impl Stream<Item = Result<Payload, Status>> + Send + Unpin + 'static
where
    B: HttpBody + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Q: Message + Default + 'static,
    R: Message + 'static,
{
    let decoder = ProtoCodec::<R, Q>::default().decoder();
    let requests: Streaming<Q> =
        Streaming::new_request(decoder, body, None, Some(MESSAGE_BYTES_MAX));
    requests.filter_map(move |request| {
        let answer = request.and_then(&mut answer).transpose();
        std::future::ready(answer.map(|answer| answer.map(payload)))
    })
}

fn payload(message: impl Message) -> Payload {
    Payload {
        own: message.encode_to_vec().into(),
        shared: bytes::Bytes::new(),
    }
}

fn client_status(
    cache: &SnapshotCache,
    request: &ClientStatusRequest,
) -> Result<ClientStatusResponse, Status> {
    let id = match request.node_matchers.as_slice() {
        [] => None,
        [matcher] => Some(exact_id(matcher)?),
        _ => {
            return Err(Status::new(
                Code::InvalidArgument,
                "more than one node matcher",
            ));
        }
    };
    let now = (clock::now(), clock::wall());
    let contents = !request.exclude_resource_contents;
    Ok(ClientStatusResponse {
        config: client_configs(cache, id, contents, now),
    })
}

/// The node id that a matcher asks for; other ways to match nodes are refused.
fn exact_id(matcher: &NodeMatcher) -> Result<&str, Status> {
    let id = matcher
        .node_id
        .as_ref()
        .and_then(|id| id.match_pattern.as_ref());
    match id {
        Some(MatchPattern::Exact(id)) if matcher.node_metadatas.is_empty() => Ok(id),
        _ => Err(Status::invalid_argument(
            "nodes are matched by an exact node_id only",
        )),
    }
}

/// Each message is delivered, and answered with what to report: Envoy reports those clusters that it had when
/// it was asked last.
fn load_stats(
    sink: Arc<dyn LoadSink>,
    settings: LrsSettings,
) -> impl FnMut(LoadStatsRequest) -> Result<Option<LoadStatsResponse>, Status> + Send {
    let mut node = Node::default();
    move |request| {
        deliver(&*sink, &mut node, request);
        Ok(Some(settings.response()))
    }
}
