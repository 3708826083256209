//! Secrets that live: certificates and anchors that follow their files.

use std::{path::PathBuf, sync::Arc};

use mesh_config::model::{CertificateSource, DownstreamTls, UpstreamTls, ValidationSource};
use mesh_core::{BoxError, BoxFuture, Endpoint, Error, ErrorKind, Sent, stats::Scope};
use mesh_net::{Connect, Stream};
use mesh_tls::{
    ContextError, FileSecret, FilesSource, Identity, KeeperStats, Secret, SecretKeeper, SniName,
    TlsAcceptor, TlsConnector, TlsStats, ValidationConfig, rotation::ChainPolicy,
};
use tokio::{runtime::Handle, task::AbortHandle};

/// What follows files for as long as somebody uses them.
#[derive(Debug, Default)]
struct Watches(Vec<AbortHandle>);

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// The TLS of a filter chain, with its secrets.
#[derive(Debug)]
pub struct DownstreamSocket {
    acceptor: TlsAcceptor,
    _watches: Watches,
}

impl DownstreamSocket {
    /// Reads and follows the secrets of `tls`; stats go under `scope`, tasks to `runtime`.
    ///
    /// # Errors
    /// When the config cannot be served.
    pub fn new(tls: &DownstreamTls, scope: &Scope, runtime: &Handle) -> Result<Self, ContextError> {
        let mut keeping = Keeping::new(scope, runtime);
        let certificates = tls.certificates.iter();
        let identities = certificates
            .map(|source| keeping.identity(source))
            .collect();
        let validation = tls
            .validation
            .as_ref()
            .map(|source| keeping.validation(source));
        let stats = TlsStats::register(scope);
        Ok(Self {
            acceptor: TlsAcceptor::new(tls.config.clone(), identities, validation, stats)?,
            _watches: keeping.watches,
        })
    }

    /// What makes handshakes.
    #[must_use]
    pub const fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// The TLS of a cluster, with its secrets.
pub(crate) struct UpstreamSocket {
    config: Arc<UpstreamTls>,
    /// An error fails every connection: what cannot be encrypted is not sent.
    connector: Result<TlsConnector, ContextError>,
    _watches: Watches,
}

impl UpstreamSocket {
    pub(crate) fn new(tls: &Arc<UpstreamTls>, scope: &Scope, runtime: &Handle) -> Self {
        let mut keeping = Keeping::new(scope, runtime);
        let identity = tls
            .certificate
            .as_ref()
            .map(|source| keeping.identity(source));
        let validation = keeping.validation(&tls.validation);
        let stats = TlsStats::register(scope);
        Self {
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
    runtime: &'a Handle,
    watches: Watches,
}

impl<'a> Keeping<'a> {
    fn new(scope: &'a Scope, runtime: &'a Handle) -> Self {
        Self {
            scope,
            runtime,
            watches: Watches::default(),
        }
    }

    fn identity(&mut self, source: &CertificateSource) -> Secret<Identity> {
        match source {
            CertificateSource::Fixed(identity) => Secret::fixed((**identity).clone()),
            CertificateSource::Watched { files, folder } => {
                let keeper = self.keeper();
                let secret = keeper.identity();
                self.watch(keeper, files, folder);
                secret
            }
        }
    }

    fn validation(&mut self, source: &ValidationSource) -> Secret<ValidationConfig> {
        match source {
            ValidationSource::Fixed(config) => Secret::fixed((**config).clone()),
            ValidationSource::Watched { files, folder } => {
                let keeper = self.keeper();
                let secret = keeper.validation();
                self.watch(keeper, files, folder);
                secret
            }
        }
    }

    /// A certificate need not be of those who are trusted: that is how Envoy reads these two.
    fn keeper(&self) -> SecretKeeper {
        let stats = KeeperStats::register(&self.scope.scope("ssl.secrets."));
        SecretKeeper::new(self.scope.prefix(), ChainPolicy::Free, stats)
    }

    fn watch(&mut self, keeper: SecretKeeper, files: &FileSecret, folder: &PathBuf) {
        let source = FilesSource::new(vec![files.clone()]).watched_directory(folder);
        let task = self.runtime.spawn(keeper.run(source.into_source()));
        self.watches.0.push(task.abort_handle());
    }
}

/// `connector`, with the handshake of a cluster behind it if it has any.
pub(crate) fn over(
    connector: &Arc<dyn Connect>,
    socket: Option<&Arc<UpstreamSocket>>,
) -> Arc<dyn Connect> {
    match socket {
        None => Arc::clone(connector),
        Some(socket) => Arc::new(ConnectTls {
            inner: Arc::clone(connector),
            socket: Arc::clone(socket),
        }),
    }
}

/// Connects, and then makes the handshake.
struct ConnectTls {
    inner: Arc<dyn Connect>,
    socket: Arc<UpstreamSocket>,
}

impl Connect for ConnectTls {
    fn connect(&self, endpoint: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>> {
        let auto = self.socket.config.auto_host_sni;
        let sni = auto
            .then(|| SniName::new(&endpoint.hostname).ok())
            .flatten();
        let connecting = self.inner.connect(endpoint);
        let socket = Arc::clone(&self.socket);
        Box::pin(async move {
            let failed = |reason: String, error: BoxError| {
                tracing::debug!(%error, "no TLS with an endpoint");
                Error::new(ErrorKind::ConnectFailure)
                    .with_sent(Sent::Nothing)
                    .with_message(reason)
                    .with_source(error)
            };
            let connector = socket.connector.as_ref();
            let connector =
                connector.map_err(|error| failed(error.to_string(), error.clone().into()))?;
            let stream = connecting.await?;
            match connector.connect_as(sni, stream).await {
                Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
                Err(error) => Err(failed(error.reason(), error.into())),
            }
        })
    }
}
