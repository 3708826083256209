//! Sockets: xDS over plaintext or mutual TLS.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use mesh_core::stats::Scope;
use mesh_tls::{
    DownstreamTlsConfig, FileSecret, FilesSource, KeeperStats, SanMatcher, SecretKeeper,
    TlsAcceptor, TlsParams, TlsSession, TlsStats, TlsStream, Trust, TrustBundle, ValidationConfig,
    rotation::ChainPolicy,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::control::Control;

/// How many clients may be at their handshake at once; more wait in the kernel.
const HANDSHAKES_MAX: usize = 64;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing is accepted when that has failed, for want of descriptors above all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves xDS on `listener` until `shutdown`, with TLS if there is an acceptor.
///
/// # Errors
/// When the server cannot go on; errors of single connections only end those.
pub async fn serve(
    control: &Control,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (connections, incoming) = mpsc::channel(HANDSHAKES_MAX);
    let accepting = tokio::spawn(accept(control.clone(), listener, tls, connections));
    let incoming = ReceiverStream::new(incoming);
    let served = control.xds().serve(incoming, shutdown).await;
    accepting.abort();
    served.context("serving xDS")
}

async fn accept(
    control: Control,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: mpsc::Sender<io::Result<Io>>,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small messages must not wait for each other.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls.clone() else {
            if connections.send(Ok(Io::Plain(stream))).await.is_err() {
                return;
            }
            continue;
        };
        let (control, connections) = (control.clone(), connections.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await;
            drop(permit);
            let reason = match handshake {
                Ok(Ok(stream)) => {
                    let _ = connections.send(Ok(Io::Tls(Box::new(stream)))).await;
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the handshake takes too long".to_owned(),
            };
            control.inner().counters.connection_failure().inc();
            tracing::warn!(%peer, "{reason}");
        });
    }
}

/// A connection of a client.
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The URIs in the certificate that a client has proven to be its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proven(Arc<[Box<str>]>);

impl Proven {
    fn of(session: &TlsSession) -> Self {
        let peer = session.peer.iter().filter(|peer| peer.is_validated());
        let uris = peer.flat_map(|peer| peer.certificate().uris());
        Self(uris.map(Into::into).collect())
    }

    /// Whether one of them is this.
    pub(crate) fn has(&self, uri: &str) -> bool {
        self.0.iter().any(|own| **own == *uri)
    }
}

impl Connected for Io {
    type ConnectInfo = Proven;

    fn connect_info(&self) -> Proven {
        match self {
            Self::Plain(_) => Proven::default(),
            Self::Tls(stream) => Proven::of(stream.session()),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Files for TLS towards proxies. They are read again when something is moved into the folder of the
/// certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub certificate_chain: PathBuf,
    /// Its key.
    pub private_key: PathBuf,
    /// The CAs of clients, which then must have a certificate.
    pub client_ca: Option<PathBuf>,
    /// How a URI in the certificate of clients must begin, such as `spiffe://example.org/`.
    pub client_uri_prefix: Option<String>,
}

impl TlsFiles {
    /// Reads the files, and again whenever they are replaced, on the current runtime.
    ///
    /// # Errors
    /// When they cannot be used as they are now.
    pub async fn acceptor(&self, scope: &Scope) -> anyhow::Result<TlsAcceptor> {
        ensure!(
            self.client_ca.is_some() || self.client_uri_prefix.is_none(),
            "identities of clients cannot be asked for without the CA that vouches for them"
        );
        let trust = self
            .client_ca
            .as_ref()
            .map(|ca| self.trust(ca))
            .transpose()?;
        // What is wrong with the first files ends the start; later ones only leave the good ones in place.
        mesh_tls::Identity::from_files(&self.certificate_chain, &self.private_key)
            .with_context(|| format!("{}", self.certificate_chain.display()))?;
        let mut secrets = vec![FileSecret::Identity {
            chain: self.certificate_chain.clone(),
            key: self.private_key.clone(),
        }];
        if let (Some(ca), Some(trust)) = (&self.client_ca, &trust) {
            secrets.push(FileSecret::Validation {
                trusted_ca: ca.clone(),
                crl: None,
                base: Box::new(trust.clone()),
            });
        }
        let keeper = SecretKeeper::new("xds", ChainPolicy::Free, KeeperStats::register(scope));
        let (mut identity, validation) = (keeper.identity(), keeper.validation());
        let folder = match self.certificate_chain.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let source = FilesSource::new(secrets).watched_directory(folder);
        tokio::spawn(keeper.run(source.into_source()));
        identity.ready().await.context("no certificate")?;
        let config = DownstreamTlsConfig::default()
            .params(TlsParams::modern())
            .alpn_protocols(&["h2".to_owned()])?
            .require_client_certificate(trust.is_some());
        let validation = trust.is_some().then_some(validation);
        let stats = TlsStats::register(scope);
        Ok(TlsAcceptor::new(config, vec![identity], validation, stats)?)
    }

    fn trust(&self, ca: &Path) -> anyhow::Result<ValidationConfig> {
        let bundle = TrustBundle::from_file(ca).with_context(|| format!("{}", ca.display()))?;
        let config = ValidationConfig::new(Trust::Bundle(bundle));
        Ok(match &self.client_uri_prefix {
            Some(prefix) => config.with_sans(vec![SanMatcher::uri_prefix(prefix)?])?,
            None => config,
        })
    }
}
