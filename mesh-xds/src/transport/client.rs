use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, Response, uri::PathAndQuery};
use mesh_core::{Body, BoxError, BoxFuture, Error, ErrorKind, Rng, clock, with_causes};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, body::Body as TonicBody, client::Grpc, codec::Codec, transport::Endpoint};
use tower_service::Service;

use crate::{Accept, Event, Reconnect, Resource, ResourceType, Subscriber, Variant, wire};

use super::{
    Interest, MESSAGE_BYTES_MAX,
    codec::DiscoveryCodec,
    commands::{Command, Commands, Inbox, inbox},
};

/// How many requests wait for the connection; while they do, nothing is read from it.
const REQUESTS_MAX: usize = 8;

/// How often a silent connection is probed, and how long it has to answer. A control plane that was
/// unplugged is noticed after both.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Applies what arrives, on the driver's task.
pub trait Handler: Accept + Send {
    /// Applies `events`, all of one response, and says in `interest` what shall be subscribed to from now
    /// on. It comes before the acknowledgement, which is then sent along with that.
    fn on_events(&mut self, now: Instant, events: Vec<Event>, interest: &mut Interest);

    /// A response was looked at, whatever came of it: `version` is that of the whole, if it has one, and
    /// `refused` why something in it was not taken.
    fn on_response(
        &mut self,
        now: Instant,
        ty: ResourceType,
        version: &str,
        refused: Option<&str>,
    ) {
        let _ = (now, ty, version, refused);
    }

    /// The control plane answers (true), or the stream to it broke (false, with the reason).
    fn on_connection(&mut self, connected: bool, reason: &str) {
        let _ = (connected, reason);
    }
}

/// Makes a gRPC call over a connection of its own: who connects otherwise than this crate does, say through a
/// mesh, is one.
pub trait Call: Send + Sync {
    /// Sends `request`, whose URI is the method's path.
    fn call(&self, request: Request<Body>) -> BoxFuture<Result<Response<Body>, BoxError>>;
}

/// A control plane.
#[derive(Clone)]
pub enum Server {
    /// At an address.
    Endpoint(Box<Endpoint>),
    /// Wherever this gets to.
    Call(Arc<dyn Call>),
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// Where to connect, and for what.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The servers, in order of preference.
    pub servers: Vec<Server>,
    /// How updates are told.
    pub variant: Variant,
    /// A type of its own stream; `None` is the aggregated one.
    pub only: Option<ResourceType>,
}

impl Stream {
    /// An aggregated stream to servers at these URIs: `http://host:port`, or `unix:///path`.
    ///
    /// # Errors
    /// When a URI is none.
    pub fn aggregated<'a>(
        variant: Variant,
        servers: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = |uri: &str| {
            let endpoint = Endpoint::from_shared(uri.to_owned())?
                .connect_timeout(Duration::from_secs(5))
                .http2_keep_alive_interval(KEEP_ALIVE.0)
                .keep_alive_timeout(KEEP_ALIVE.1)
                .keep_alive_while_idle(true);
            Ok(Server::Endpoint(Box::new(endpoint)))
        };
        Ok(Self {
            servers: servers
                .into_iter()
                .map(endpoint)
                .collect::<Result<_, _>>()?,
            variant,
            only: None,
        })
    }

    fn path(&self) -> PathAndQuery {
        let path = match self.only {
            Some(ty) => ty.path(self.variant),
            None => self.variant.aggregated_path().to_owned(),
        };
        // All paths are our own constants; the root is a method that no server has.
        path.parse()
            .unwrap_or_else(|_| PathAndQuery::from_static("/"))
    }
}

/// Why a driver's stream ended.
enum End {
    Broken(String),
    /// Nobody holds [`Commands`] any more.
    Abandoned,
}

/// Keeps one stream to a control plane, for ever. Its owner runs it on a task of its own.
pub struct Driver<H> {
    subscriber: Subscriber,
    handler: H,
    inbox: Inbox,
    stream: Stream,
    reconnect: Reconnect,
    rng: Rng,
}

impl<H> fmt::Debug for Driver<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl<H: Handler> Driver<H> {
    /// A driver of `subscriber`, whose variant must be that of `stream`, and whose [`Reconnect`] counts
    /// as many servers as `stream` has.
    pub fn new(
        subscriber: Subscriber,
        handler: H,
        stream: Stream,
        reconnect: Reconnect,
        rng: Rng,
    ) -> (Self, Commands) {
        let (inbox, commands) = inbox();
        let driver = Self {
            subscriber,
            handler,
            inbox,
            stream,
            reconnect,
            rng,
        };
        (driver, commands)
    }

    /// Connects, and again whenever the stream breaks, until all [`Commands`] are dropped. Gives the
    /// handler back.
    ///
    /// # Cancel safety
    /// What was applied stays applied; a stream that was open is closed.
    pub async fn run(mut self) -> H {
        loop {
            match self.connected().await {
                End::Abandoned => return self.handler,
                End::Broken(reason) => {
                    tracing::debug!(%reason, "the xDS stream ended");
                    self.subscriber.on_disconnected();
                    self.handler.on_connection(false, &reason);
                }
            }
            let wait = self.reconnect.on_failure(self.rng.next_u64());
            if let Some(End::Abandoned) = self.idle_until(clock::now() + wait).await {
                return self.handler;
            }
        }
    }

    /// One stream, from its opening to its end.
    async fn connected(&mut self) -> End {
        let Some(server) = self.stream.servers.get(self.reconnect.server()).cloned() else {
            return End::Broken("there is no such server".to_owned());
        };
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let (path, variant) = (self.stream.path(), self.stream.variant);
        let call = open_on(server, path, DiscoveryCodec(variant), receiver);
        let mut responses = std::pin::pin!(stream::once(call).try_flatten());
        let mut answered = false;
        self.subscriber.on_connected();
        loop {
            let now = clock::now();
            let (due, may_send) = (
                self.subscriber.next_deadline(),
                self.subscriber.may_send(now),
            );
            tokio::select! {
                permit = requests.reserve(), if may_send => {
                    let Ok(permit) = permit else {
                        // The call has let go of its requests: it is about to say why.
                        return End::Broken(last_words(responses.next().await));
                    };
                    if let Some(request) = self.subscriber.poll_request(now) {
                        permit.send(request);
                    }
                }
                response = responses.next(), if requests.capacity() > 0 => match response {
                    Some(Ok(response)) => {
                        if !std::mem::replace(&mut answered, true) {
                            self.reconnect.on_response();
                            self.handler.on_connection(true, "");
                        }
                        self.on_response(response);
                    }
                    end => return End::Broken(last_words(end)),
                },
                command = self.inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return End::Abandoned,
                },
                () = sleep_until(due) => self.on_timer(),
            }
        }
    }

    /// Waits for the next attempt; commands and timers go on.
    async fn idle_until(&mut self, at: Instant) -> Option<End> {
        loop {
            let due = self.subscriber.next_deadline();
            tokio::select! {
                () = sleep_until(Some(at)) => return None,
                command = self.inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return Some(End::Abandoned),
                },
                () = sleep_until(due) => self.on_timer(),
            }
        }
    }

    fn on_response(&mut self, response: wire::Response) {
        let now = clock::now();
        take(now, &mut self.subscriber, &mut self.handler, response);
    }

    /// Takes what a cache had kept, before the first connection.
    pub fn restore(&mut self, ty: ResourceType, resources: Vec<Resource>) {
        self.on_command(Command::Restore(ty, resources));
    }

    fn on_timer(&mut self) {
        let now = clock::now();
        let events = self.subscriber.on_timer(now);
        self.apply(now, events);
    }

    fn on_command(&mut self, command: Command) {
        self.inbox
            .obey(command, &mut self.subscriber, &mut self.handler);
    }

    fn apply(&mut self, now: Instant, events: Vec<Event>) {
        settle(now, &mut self.subscriber, &mut self.handler, events);
    }
}

/// Tells `events`, and what follows from the changes they cause.
pub(super) fn settle<H: Handler>(
    now: Instant,
    subscriber: &mut Subscriber,
    handler: &mut H,
    mut events: Vec<Event>,
) {
    while !events.is_empty() {
        let mut interest = Interest::default();
        handler.on_events(now, events, &mut interest);
        events = interest.apply(now, subscriber);
    }
}

/// Looks at a response, and does what follows from it.
pub(super) fn take<H: Handler>(
    now: Instant,
    subscriber: &mut Subscriber,
    handler: &mut H,
    response: wire::Response,
) {
    let (type_url, version) = match &response {
        wire::Response::Sotw(response) => (&response.type_url, &response.version_info),
        wire::Response::Delta(response) => (&response.type_url, &response.system_version_info),
    };
    let ty = ResourceType::from_type_url(type_url);
    let version = version.clone();
    let events = subscriber.on_response(now, response, handler);
    if let Some(ty) = ty {
        let refused = events.iter().find_map(|event| match event {
            Event::Rejected {
                name, rejection, ..
            } => Some(format!("{name}: {rejection}")),
            _ => None,
        });
        handler.on_response(now, ty, &version, refused.as_deref());
    }
    settle(now, subscriber, handler, events);
}

/// [`Call`] as tonic wants it.
struct Calling(Arc<dyn Call>);

impl Service<Request<TonicBody>> for Calling {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<TonicBody>) -> Self::Future {
        self.0.call(request.map(|body| Body::new(Requests(body))))
    }
}

/// The requests of a stream, with errors as this house knows them.
struct Requests(TonicBody);

impl http_body::Body for Requests {
    type Data = bytes::Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Error>>> {
        let failed = |status| Error::new(ErrorKind::DownstreamGone).with_source(status);
        Pin::new(&mut self.0).poll_frame(cx).map_err(failed)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Opens a stream over a connection of its own.
pub(super) async fn open_on<C>(
    server: Server,
    path: PathAndQuery,
    codec: C,
    requests: mpsc::Receiver<C::Encode>,
) -> Result<tonic::Streaming<C::Decode>, Status>
where
    C: Codec,
    C::Encode: Send + Sync + 'static,
    C::Decode: Send + Sync + 'static,
{
    match server {
        Server::Endpoint(endpoint) => open(endpoint.connect_lazy(), path, codec, requests).await,
        Server::Call(call) => open(Calling(call), path, codec, requests).await,
    }
}

async fn open<C, S, B>(
    service: S,
    path: PathAndQuery,
    codec: C,
    requests: mpsc::Receiver<C::Encode>,
) -> Result<tonic::Streaming<C::Decode>, Status>
where
    C: Codec,
    C::Encode: Send + Sync + 'static,
    C::Decode: Send + Sync + 'static,
    S: Service<Request<TonicBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let mut grpc = Grpc::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let unavailable = |error: S::Error| Status::unavailable(with_causes(&*error.into()));
    grpc.ready().await.map_err(unavailable)?;
    let requests = tonic::Request::new(ReceiverStream::new(requests));
    let response = grpc.streaming(requests, path, codec).await?;
    Ok(response.into_inner())
}

/// Why a stream has ended.
pub(super) fn last_words<R>(end: Option<Result<R, Status>>) -> String {
    match end {
        None | Some(Ok(_)) => "the server closed the stream".to_owned(),
        Some(Err(status)) => {
            let cause =
                std::error::Error::source(&status).map(|s| format!(" ({})", with_causes(s)));
            format!(
                "{}: {}{}",
                status.code(),
                status.message(),
                cause.unwrap_or_default()
            )
        }
    }
}

pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
