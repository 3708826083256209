//! Secrets that live: certificates and anchors that follow their files.

use std::{
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, header};
use mesh_config::model::{
    AutoNames, CertificateSource, Cluster, DownstreamTls, UpstreamTls, ValidationSource,
};
use mesh_core::{BoxError, BoxFuture, Endpoint, Error, ErrorKind, Sent, stats::Scope};
use mesh_net::{Connect, Stream};
use mesh_tls::{
    ContextError, FileSecret, FilesSource, Identity, KeeperStats, Secret, SecretKeeper,
    SecretSource, SecretUpdate, ServerNames, SniName, TlsAcceptor, TlsConnector, TlsStats,
    ValidationConfig, rotation::ChainPolicy,
};
use tokio::{runtime::Handle, task::AbortHandle};

use crate::Secrets;

/// What follows files for as long as somebody uses them.
#[derive(Debug, Default)]
struct Watches(Vec<AbortHandle>);

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// The secrets of one transport socket, as they are now.
#[derive(Debug, Clone, Default)]
pub struct SocketSecrets {
    /// What it shows.
    pub identities: Vec<Secret<Identity>>,
    /// Whom it trusts.
    pub validation: Option<Secret<ValidationConfig>>,
}

/// The TLS of a filter chain, with its secrets.
#[derive(Debug)]
pub struct DownstreamSocket {
    acceptor: TlsAcceptor,
    secrets: SocketSecrets,
    _watches: Watches,
}

impl DownstreamSocket {
    /// Reads and follows the secrets of `tls`; stats go under `scope`, tasks to `runtime`.
    ///
    /// # Errors
    /// When the config cannot be served.
    pub fn new(
        tls: &DownstreamTls,
        scope: &Scope,
        secrets: &Secrets,
        runtime: &Handle,
    ) -> Result<Self, ContextError> {
        let mut keeping = Keeping::new(scope, secrets, runtime);
        let certificates = tls.certificates.iter();
        let identities: Vec<_> = certificates
            .map(|source| keeping.identity(source))
            .collect();
        let validation = tls
            .validation
            .as_ref()
            .map(|source| keeping.validation(source));
        let stats = TlsStats::register(scope);
        let secrets = SocketSecrets {
            identities: identities.clone(),
            validation: validation.clone(),
        };
        Ok(Self {
            acceptor: TlsAcceptor::new(tls.config.clone(), identities, validation, stats)?,
            secrets,
            _watches: keeping.watches,
        })
    }

    /// What makes handshakes.
    #[must_use]
    pub const fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Its secrets.
    #[must_use]
    pub const fn secrets(&self) -> &SocketSecrets {
        &self.secrets
    }
}

/// The TLS of a cluster, with its secrets.
pub(crate) struct UpstreamSocket {
    config: Arc<UpstreamTls>,
    /// An error fails every connection: what cannot be encrypted is not sent.
    connector: Result<TlsConnector, ContextError>,
    secrets: SocketSecrets,
    _watches: Watches,
}

impl UpstreamSocket {
    pub(crate) fn new(
        tls: &Arc<UpstreamTls>,
        scope: &Scope,
        secrets: &Secrets,
        runtime: &Handle,
    ) -> Self {
        let mut keeping = Keeping::new(scope, secrets, runtime);
        let identity = tls
            .certificate
            .as_ref()
            .map(|source| keeping.identity(source));
        let validation = keeping.validation(&tls.validation);
        let stats = TlsStats::register(scope);
        Self {
            secrets: SocketSecrets {
                identities: identity.iter().cloned().collect(),
                validation: Some(validation.clone()),
            },
            connector: TlsConnector::new(tls.config.clone(), identity, validation, stats),
            config: Arc::clone(tls),
            _watches: keeping.watches,
        }
    }

    pub(crate) const fn config(&self) -> &Arc<UpstreamTls> {
        &self.config
    }
}

/// Starts what keeps secrets fresh.
struct Keeping<'a> {
    scope: &'a Scope,
    secrets: &'a Secrets,
    runtime: &'a Handle,
    watches: Watches,
    /// The kinds of secrets that were kept so far.
    named: Vec<String>,
}

impl<'a> Keeping<'a> {
    fn new(scope: &'a Scope, secrets: &'a Secrets, runtime: &'a Handle) -> Self {
        Self {
            scope,
            secrets,
            runtime,
            watches: Watches::default(),
            named: Vec::new(),
        }
    }

    fn identity(&mut self, source: &CertificateSource) -> Secret<Identity> {
        match source {
            CertificateSource::Fixed(identity) => Secret::fixed((**identity).clone()),
            CertificateSource::Watched {
                files,
                folder,
                first,
            } => {
                let keeper = self.keeper("certificate");
                let secret = keeper.identity();
                let first = SecretUpdate::Identity(Ok((*first.0).clone()));
                self.watch(keeper, first, files, folder);
                secret
            }
            CertificateSource::Sds(name) => {
                let keeper = self.keeper("certificate");
                let secret = keeper.identity();
                self.keep(keeper, self.secrets.certificate(name));
                secret
            }
        }
    }

    fn validation(&mut self, source: &ValidationSource) -> Secret<ValidationConfig> {
        match source {
            ValidationSource::Fixed(config) => Secret::fixed((**config).clone()),
            ValidationSource::Watched {
                files,
                folder,
                first,
            } => {
                let keeper = self.keeper("validation");
                let secret = keeper.validation();
                let first = SecretUpdate::Validation(Ok((*first.0).clone()));
                self.watch(keeper, first, files, folder);
                secret
            }
            ValidationSource::Sds { name, defaults } => {
                let keeper = self.keeper("validation");
                let secret = keeper.validation();
                self.keep(keeper, self.secrets.validation(name, (**defaults).clone()));
                secret
            }
        }
    }

    /// A certificate need not be of those who are trusted: that is how Envoy reads these two.
    /// Each has numbers of its own; of several certificates, the second is `certificate_1`.
    fn keeper(&mut self, kind: &str) -> SecretKeeper {
        let before = self.named.iter().filter(|known| **known == kind).count();
        self.named.push(kind.to_owned());
        let name = match before {
            0 => kind.to_owned(),
            number => format!("{kind}_{number}"),
        };
        let scope = self.scope.scope(&format!("ssl.secrets.{name}."));
        let stats = KeeperStats::register(&scope);
        SecretKeeper::new(scope.prefix(), ChainPolicy::Free, stats)
    }

    /// What the files held when the config was read counts at once; whether they have changed since is seen a
    /// moment later.
    fn watch(
        &mut self,
        mut keeper: SecretKeeper,
        first: SecretUpdate,
        files: &FileSecret,
        folder: &PathBuf,
    ) {
        keeper.on_update(first);
        let source = FilesSource::new(vec![files.clone()])
            .watched_directory(folder)
            .watcher(self.secrets.folders());
        let task = self.runtime.spawn(keeper.run(source.into_source()));
        self.watches.0.push(task.abort_handle());
    }

    /// What the source has at this moment is there when this returns: a listener that has just warmed must not
    /// refuse its first clients.
    fn keep(&mut self, mut keeper: SecretKeeper, mut source: SecretSource) {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(update)) = source.as_mut().poll_next(&mut cx) {
            keeper.on_update(update);
        }
        let task = self.runtime.spawn(keeper.run(source));
        self.watches.0.push(task.abort_handle());
    }
}

/// The ways to connect to a cluster's endpoints, each with its secrets; the same as before where their config is.
pub(crate) struct Sockets {
    /// The cluster's own way, then those of its matches: an endpoint says which by its number.
    list: Vec<Option<Arc<UpstreamSocket>>>,
    /// The names of both, and what is counted of them.
    matches: Vec<(String, MatchStats)>,
}

mesh_core::stats! {
    /// What is counted of one of `transport_socket_matches`, as `cluster.<name>.<match>.<stat>`; `default` stands for
    /// the cluster's own.
    struct MatchStats {
        /// Endpoints that fit when they were new.
        counter total_match_count,
    }
}

impl Sockets {
    pub(crate) fn new(
        cluster: &Cluster,
        before: Option<&Arc<Self>>,
        scope: &Scope,
        secrets: &Secrets,
        runtime: &Handle,
    ) -> Arc<Self> {
        let own = cluster.tls.as_ref();
        let matches = cluster.socket_matches.iter().map(|one| one.tls.as_ref());
        let wanted: Vec<_> = [own].into_iter().chain(matches).collect();
        let is = |socket: &Option<Arc<UpstreamSocket>>, tls: &Option<&Arc<UpstreamTls>>| {
            socket.as_ref().map(|socket| socket.config()) == *tls
        };
        let names = cluster.socket_matches.iter().map(|one| one.name.as_str());
        let names: Vec<_> = ["default"].into_iter().chain(names).collect();
        if let Some(before) = before.filter(|before| {
            before.list.len() == wanted.len()
                && before.list.iter().zip(&wanted).all(|(a, b)| is(a, b))
                && before.matches.iter().map(|(name, _)| name).eq(&names)
        }) {
            return Arc::clone(before);
        }
        let known = before.map_or(&[][..], |before| &before.list);
        let socket = |tls: &Arc<UpstreamTls>| {
            let same = known.iter().find(|known| is(known, &Some(tls)));
            let same = same.cloned().flatten();
            same.unwrap_or_else(|| Arc::new(UpstreamSocket::new(tls, scope, secrets, runtime)))
        };
        Arc::new(Self {
            list: wanted.into_iter().map(|tls| tls.map(socket)).collect(),
            matches: names
                .into_iter()
                .map(|name| {
                    let stats = MatchStats::register(&scope.scope(&format!("{name}.")));
                    (name.to_owned(), stats)
                })
                .collect(),
        })
    }

    /// The secrets of all of them.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SocketSecrets> {
        self.list.iter().flatten().map(|socket| &socket.secrets)
    }

    /// An endpoint is new, and connected to by the one of that number.
    pub(crate) fn count_match(&self, number: usize) {
        if let Some((_, stats)) = self.matches.get(number) {
            stats.total_match_count().inc();
        }
    }

    /// How `endpoint` is connected to, if that is encrypted.
    fn of(&self, endpoint: &Endpoint) -> Option<&Arc<UpstreamSocket>> {
        self.list.get(endpoint.transport_socket)?.as_ref()
    }

    /// Whether all endpoints are connected to in the clear.
    fn are_plain(&self) -> bool {
        self.list.iter().all(Option::is_none)
    }

    /// What a request of these headers says about the name of its server; `None` when that is not asked.
    pub(crate) fn names(&self, auto: &AutoNames, headers: &HeaderMap) -> Option<ServerNames> {
        if !(auto.sni || auto.san) || self.are_plain() {
            return None;
        }
        let other = auto.header.as_ref().and_then(|name| headers.get(name));
        let other = other.filter(|value| !value.is_empty());
        let host = other.or_else(|| headers.get(header::HOST));
        // Without a host that is text, the server's certificate cannot have it: it is refused.
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        Some(ServerNames::of_host_header(host, auto.sni, auto.san))
    }
}

/// `connector`, with the handshakes of a cluster behind it if it has any.
pub(crate) fn over(connector: &Arc<dyn Connect>, sockets: &Arc<Sockets>) -> Arc<dyn Connect> {
    if sockets.are_plain() {
        return Arc::clone(connector);
    }
    Arc::new(ConnectTls {
        inner: Arc::clone(connector),
        sockets: Arc::clone(sockets),
    })
}

/// The same for one endpoint as a server of these names.
pub(crate) fn over_as(
    connector: &Arc<dyn Connect>,
    sockets: &Sockets,
    endpoint: &Endpoint,
    names: &ServerNames,
) -> Arc<dyn Connect> {
    match sockets.of(endpoint) {
        None => Arc::clone(connector),
        Some(socket) => Arc::new(ConnectNamed {
            inner: Arc::clone(connector),
            connector: match &socket.connector {
                Ok(connector) => Ok(connector.named(names)),
                Err(error) => Err(error.clone()),
            },
            auto_host_sni: socket.config.auto_host_sni && !names.has_sni(),
            _socket: Arc::clone(socket),
        }),
    }
}

/// Connects, and then makes the handshake that the endpoint asks for, if any.
struct ConnectTls {
    inner: Arc<dyn Connect>,
    sockets: Arc<Sockets>,
}

impl Connect for ConnectTls {
    fn connect(&self, endpoint: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>> {
        let Some(socket) = self.sockets.of(&endpoint) else {
            return self.inner.connect(endpoint);
        };
        let sni = host_sni(socket.config.auto_host_sni, &endpoint);
        handshake(self.inner.connect(endpoint), socket.connector.clone(), sni)
    }
}

/// Connects to a server of certain names.
struct ConnectNamed {
    inner: Arc<dyn Connect>,
    connector: Result<TlsConnector, ContextError>,
    auto_host_sni: bool,
    /// Whose secrets these are.
    _socket: Arc<UpstreamSocket>,
}

impl Connect for ConnectNamed {
    fn connect(&self, endpoint: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>> {
        let sni = host_sni(self.auto_host_sni, &endpoint);
        handshake(self.inner.connect(endpoint), self.connector.clone(), sni)
    }
}

/// The endpoint's own name, where the config asks for it.
fn host_sni(auto: bool, endpoint: &Endpoint) -> Option<SniName> {
    auto.then(|| SniName::new(&endpoint.hostname).ok())
        .flatten()
}

fn handshake(
    connecting: BoxFuture<Result<Stream, Error>>,
    connector: Result<TlsConnector, ContextError>,
    sni: Option<SniName>,
) -> BoxFuture<Result<Stream, Error>> {
    let failed = |reason: String, error: BoxError| {
        tracing::debug!(%error, "no TLS with an endpoint");
        Error::new(ErrorKind::ConnectFailure)
            .with_sent(Sent::Nothing)
            .with_message(reason)
            .with_source(error)
    };
    Box::pin(async move {
        let connector = connector.map_err(|error| failed(error.to_string(), error.into()))?;
        let stream = connecting.await?;
        match connector.connect_as(sni, stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(failed(error.reason(), error.into())),
        }
    })
}
