use std::{
    any::Any,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use http_body::Body as HttpBody;
use mesh_config::{
    LoadOptions,
    dynamic::Assembly,
    language::{Loaded, Source, load_bootstrap},
    model::{Config, Listener},
};
use mesh_core::{
    Body, BoxError, ConnectionInfo, Error, ErrorKind, RequestInfo, Rng, clock, stats::Registry,
};
use mesh_net::{Connect, TcpConnector};
use mesh_telemetry::LogWriterConfig;
use mesh_xds::transport::ClientStatusService;
use tokio::task::AbortHandle;
use tower_service::Service;

use crate::{
    Manager, ManagerExchange, Mesh, Worker, worker::SWEEP_INTERVAL, xds::CacheConfig,
    xds::Follower, xds::following,
};

/// An in-process client whose whole behaviour comes from Envoy configuration: routing, retries,
/// thresholds, outlier detection, rate limits, balancing, logs, stats.
///
/// It is what a sidecar puts behind its sockets: the connection manager of one listener, without a codec.
/// The same config gives the same decisions in both shapes.
///
/// Cloning shares everything. It runs on the caller's tokio runtime, a multi-threaded one too; its
/// background work ends with the last clone.
///
/// # Errors
/// Where a sidecar would send a local reply, the call fails with the [`Error`] that it stands for;
/// [`MeshClient::with_local_replies`] answers instead.
#[derive(Clone)]
pub struct MeshClient {
    manager: Manager,
    connection: Arc<ConnectionInfo>,
    local_replies: bool,
    _background: Arc<Background>,
}

/// Ends with the last clone of a client.
struct Background {
    sweep: AbortHandle,
    follower: Option<Follower>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.sweep.abort();
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The bootstrap is not valid.
    #[error("the bootstrap was refused")]
    Config(#[from] mesh_config::language::ConfigError),
    /// There is no listener of that name, nor did one come in time.
    #[error("there is no listener {0:?}")]
    NoListener(String),
    /// The listener has no HTTP connection manager.
    #[error("the listener {0:?} has no HTTP connection manager")]
    NoManager(Arc<str>),
    /// Something that protects this config is not enforced.
    #[error("refusing to run without what protects this config: {0}")]
    Unprotected(String),
    /// A log file or name server cannot be used.
    #[error("cannot start")]
    Io(#[from] io::Error),
}

/// Builds a [`MeshClient`].
#[derive(Debug, Clone)]
pub struct MeshClientBuilder {
    config: Arc<Config>,
    /// What the config was made of, if more comes to it.
    origin: Option<(Arc<Loaded>, LoadOptions)>,
    strict: bool,
    cache: Option<CacheConfig>,
    listener: Option<String>,
    registry: Registry,
    rng: Rng,
    logs: LogWriterConfig,
}

impl MeshClientBuilder {
    /// The listener whose connection manager it is; by default the first that has one.
    #[must_use]
    pub fn listener(mut self, name: impl Into<String>) -> Self {
        self.listener = Some(name.into());
        self
    }

    /// Where its stats are found; a registry of its own by default.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Fixes every random choice.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.rng = Rng::seeded(seed);
        self
    }

    /// How log lines are written.
    #[must_use]
    pub fn logs(mut self, logs: LogWriterConfig) -> Self {
        self.logs = logs;
        self
    }

    /// Keeps what the control plane sends, and starts from there when it cannot be reached.
    #[must_use]
    pub fn config_cache(mut self, cache: CacheConfig) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Refuses resources of a control plane that set a field which is not enforced, rather than only those that
    /// security depends on.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Starts the client on the current tokio runtime, once its names have been resolved and its endpoints
    /// checked, and once its listener has come, if that comes from a control plane.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn start(self) -> Result<MeshClient, ClientError> {
        let unprotected: Vec<String> = self
            .config
            .report
            .security()
            .map(ToString::to_string)
            .collect();
        if !unprotected.is_empty() {
            return Err(ClientError::Unprotected(unprotected.join("; ")));
        }
        let connector: Arc<dyn Connect> = Arc::new(TcpConnector);
        let mesh = Mesh::new(
            self.registry.clone(),
            self.rng.clone(),
            self.logs.clone(),
            Arc::clone(&connector),
        );
        mesh.apply(&self.config)?;
        mesh.warmed().await;
        match &self.origin {
            Some((loaded, options)) if self.config.is_dynamic() => {
                let assembly = Assembly::new(loaded, &self.config, options, self.strict);
                let (worker, manager, follower) = following::follow(
                    &mesh,
                    &self.config,
                    assembly,
                    (self.listener, self.cache),
                    connector,
                )
                .await?;
                Ok(MeshClient::around(&worker, manager, Some(follower)))
            }
            _ => {
                let listener = self.find_listener()?;
                MeshClient::of(&mesh, listener, &self.config.version, connector)
            }
        }
    }

    fn find_listener(&self) -> Result<&Listener, ClientError> {
        match &self.listener {
            None => self
                .config
                .listeners
                .iter()
                .map(|listener| &**listener)
                .find(|listener| listener.manager().is_some())
                .ok_or(ClientError::NoListener(String::new())),
            Some(name) => self
                .config
                .listeners
                .iter()
                .map(|listener| &**listener)
                .find(|listener| *listener.name == **name)
                .ok_or_else(|| ClientError::NoListener(name.clone())),
        }
    }
}

impl MeshClient {
    /// A client of `config`, to which nothing more comes.
    #[must_use]
    pub fn builder(config: Config) -> MeshClientBuilder {
        MeshClientBuilder {
            config: Arc::new(config),
            origin: None,
            strict: false,
            cache: None,
            listener: None,
            registry: Registry::new(),
            rng: Rng::from_entropy(),
            logs: LogWriterConfig::default(),
        }
    }

    /// A client of an Envoy bootstrap, YAML or JSON, and of what its control plane sends.
    ///
    /// # Errors
    /// When the bootstrap is refused.
    pub fn bootstrap(text: &str) -> Result<MeshClientBuilder, ClientError> {
        let source = Source::text("bootstrap", text.to_owned());
        let mut options = LoadOptions::default();
        options.api_listeners = true;
        let loaded = load_bootstrap(&source)?;
        let config = mesh_config::convert(&loaded, &options)?;
        Ok(MeshClientBuilder {
            origin: Some((Arc::new(loaded), options)),
            ..Self::builder(config)
        })
    }

    /// A client of the first listener of an Envoy bootstrap, YAML or JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn from_bootstrap(text: &str) -> Result<Self, ClientError> {
        Self::bootstrap(text)?.start().await
    }

    /// A client without a sidecar ("proxyless"): of the listener of that name, which comes from the control plane
    /// of an Envoy bootstrap, as do its routes, clusters and endpoints. It is ready once the first of all
    /// that has come, and follows every change from then on.
    ///
    /// The listener is an `api_listener`, or one that a sidecar would open; then its first connection manager
    /// counts. Clusters come by the names that routes have, or all of them where the bootstrap has a
    /// `cds_config`.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::NoListener`] when none came within `initial_fetch_timeout`.
    ///
    /// # Envoy
    /// gRPC's `xds:///listener`, for HTTP.
    pub async fn from_xds(text: &str, listener: &str) -> Result<Self, ClientError> {
        Self::bootstrap(text)?.listener(listener).start().await
    }

    /// Where the resources of a client [from a control plane](Self::from_xds) stand, for the gRPC server of the
    /// process: CSDS, as gRPC's own admin services have it. `None` where the config is a bootstrap alone.
    #[must_use]
    pub fn client_status(&self) -> Option<ClientStatusService> {
        let follower = self._background.follower.as_ref();
        follower.map(Follower::client_status)
    }

    /// A client of one listener in a process that has a [`Mesh`] already: of the first connection manager
    /// of its filter chains.
    ///
    /// # Errors
    /// When there is none, or a log file cannot be opened.
    pub fn of(
        mesh: &Mesh,
        listener: &Listener,
        version: &Arc<str>,
        connector: Arc<dyn Connect>,
    ) -> Result<Self, ClientError> {
        let worker = Worker::new(mesh.clone(), connector);
        let config = listener
            .manager()
            .ok_or_else(|| ClientError::NoManager(Arc::clone(&listener.name)))?;
        let manager = Manager::new(&worker, config, version)?;
        Ok(Self::around(&worker, manager, None))
    }

    fn around(worker: &Arc<Worker>, manager: Manager, follower: Option<Follower>) -> Self {
        let weak = Arc::downgrade(worker);
        let sweep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let Some(worker) = weak.upgrade() else { return };
                worker.sweep(clock::now()).await;
            }
        });
        Self {
            manager,
            connection: Arc::new(ConnectionInfo::in_process()),
            local_replies: false,
            _background: Arc::new(Background {
                sweep: sweep.abort_handle(),
                follower,
            }),
        }
    }

    /// Answers as a sidecar would, with a local reply, where it would otherwise fail.
    #[must_use]
    pub fn with_local_replies(mut self) -> Self {
        self.local_replies = true;
        self
    }

    /// The process's clusters, stats and logs.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.manager.shared.worker.mesh
    }

    /// Sends one request. The same as [`Service::call`], without `&mut`.
    pub fn send<B>(&self, request: Request<B>) -> ClientFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.clone().call(request)
    }
}

impl<B> Service<Request<B>> for MeshClient
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ClientFuture;

    /// Always ready: where a request goes is known only in `call`.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ClientFuture {
        let request = request.map(into_body);
        match canonical(request) {
            Ok(request) => {
                let connection = Arc::clone(&self.connection);
                ClientFuture {
                    exchange: Ok(self.manager.begin(request, &connection)),
                    local_replies: self.local_replies,
                }
            }
            Err(error) => ClientFuture {
                exchange: Err(Some(error)),
                local_replies: self.local_replies,
            },
        }
    }
}

/// A body whose size is known is read at once when it is no larger, so that it can be sent twice.
const BODY_AT_ONCE_MAX: u64 = 64 * 1024;

/// To the type of the seam; what is in memory already stays in memory, as behind a socket.
fn into_body<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut body = Some(body);
    if let Some(ours) = (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>() {
        return ours.take().unwrap_or_default();
    }
    let Some(body) = body.filter(|body| !body.is_end_stream()) else {
        return Body::empty();
    };
    let size = body.size_hint().exact();
    let mut body = Foreign {
        body: Box::pin(body),
        first: None,
    };
    if size.is_some_and(|size| size <= BODY_AT_ONCE_MAX) {
        // Whoever reads on polls again, with a waker of his own.
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(None) => return Body::empty(),
            Poll::Ready(Some(first)) => match first.map(http_body::Frame::into_data) {
                Ok(Ok(data)) if body.body.is_end_stream() => return Body::from(data),
                Ok(Ok(data)) => body.first = Some(Ok(http_body::Frame::data(data))),
                Ok(Err(frame)) => body.first = Some(Ok(frame)),
                Err(error) => body.first = Some(Err(error)),
            },
        }
    }
    Body::new(body)
}

/// A caller's body, with errors as this house knows them.
struct Foreign<B> {
    body: Pin<Box<B>>,
    /// What was read in advance.
    first: Option<Result<http_body::Frame<Bytes>, Error>>,
}

impl<B> HttpBody for Foreign<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        self.body
            .as_mut()
            .poll_frame(cx)
            .map_err(|error| Error::new(ErrorKind::DownstreamGone).with_source(error))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let read = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            _ => 0,
        };
        let rest = self.body.size_hint();
        let mut hint = http_body::SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}

/// Brings a request into the form that a codec delivers: an origin-form target and a `host`.
fn canonical(mut request: Request<Body>) -> Result<Request<Body>, Error> {
    let bad = |reason: &'static str| Error::new(ErrorKind::DownstreamProtocol).with_message(reason);
    if let Some(authority) = request.uri().authority() {
        if authority.as_str().contains('@') {
            return Err(bad("the host contains user information"));
        }
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| bad("the host is malformed"))?;
        request.headers_mut().insert(header::HOST, host);
    } else if !request.headers().contains_key(header::HOST) {
        return Err(bad("the request names no host"));
    }
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Ok(request)
}

/// An answer in the making.
///
/// # Cancel safety
/// Dropping it gives the request up, and the log says so.
pub struct ClientFuture {
    exchange: Result<ManagerExchange, Option<Error>>,
    local_replies: bool,
}

impl ClientFuture {
    /// What is known about the request; decisions can be read from it while it runs and afterwards.
    #[must_use]
    pub fn info(&self) -> Option<&Arc<RequestInfo>> {
        self.exchange.as_ref().ok().map(ManagerExchange::info)
    }
}

impl Future for ClientFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let local_replies = self.local_replies;
        let exchange = match &mut self.exchange {
            Ok(exchange) => exchange,
            Err(error) => {
                return Poll::Ready(Err(error
                    .take()
                    .unwrap_or_else(|| ErrorKind::LocalReset.into())));
            }
        };
        match ready!(exchange.poll_result(cx)) {
            Ok(response) => Poll::Ready(Ok(response.map(crate::AnswerBody::into_body))),
            Err(error) if local_replies => {
                Poll::Ready(Ok(exchange.reply(error).map(crate::AnswerBody::into_body)))
            }
            Err(error) => Poll::Ready(Err(exchange.fail(error))),
        }
    }
}
