use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::Arc,
};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    ContextError, HandshakeError, Identity, Secret, Side, TlsSession, TlsStats, TlsStream,
    UpstreamTlsConfig, Usage, ValidationConfig, Validator, WallClock,
    accept::is_validated,
    context::{ClientContext, ContextCache, server_name},
    validation::LastRejection,
};

/// Opens connections as a client. Clones share everything, remembered sessions too.
#[derive(Debug, Clone)]
pub struct TlsConnector(Arc<Connector>);

struct Connector {
    config: UpstreamTlsConfig,
    /// A name that the server's certificate must have, whatever else is asked of it.
    expected: Option<Arc<str>>,
    secrets: ContextCache<ClientContext>,
    clock: WallClock,
    stats: TlsStats,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConnector")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The server's name for one connection, in place of the config's. Envoy: `auto_sni`, `auto_host_sni`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SniName(ServerName<'static>);

impl SniName {
    /// A host name.
    ///
    /// # Errors
    /// For anything else: an address cannot be an SNI.
    pub fn new(name: &str) -> Result<Self, ContextError> {
        server_name(name).map(Self)
    }

    /// The name in a `host` header, without its port; `None` for addresses and what is no host name.
    #[must_use]
    pub fn of_host_header(host: &str) -> Option<Self> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        Self::new(name).ok()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> std::borrow::Cow<'_, str> {
        self.0.to_str()
    }
}

/// What is asked of the server of one connection besides the config. Envoy: `auto_sni`, `auto_san_validation`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ServerNames {
    sni: Option<SniName>,
    san: Option<Arc<str>>,
}

impl ServerNames {
    /// The host of a `host` header, as the name to ask for (unless it is an address) and as a name that the certificate
    /// must have.
    #[must_use]
    pub fn of_host_header(host: &str, sni: bool, san: bool) -> Self {
        // A bracket at the end is that of an address without a port.
        let name = match host.rsplit_once(':') {
            Some((name, _)) if !host.ends_with(']') => name,
            _ => host,
        };
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let name = bare.unwrap_or(name);
        // As a certificate's address is written.
        let address = name
            .parse::<IpAddr>()
            .ok()
            .map(|address| address.to_string());
        Self {
            sni: Some(name)
                .filter(|_| sni && address.is_none())
                .and_then(|name| SniName::new(name).ok()),
            san: san.then(|| Arc::from(address.as_deref().unwrap_or(name))),
        }
    }
}

impl ServerNames {
    /// Whether a name is asked for.
    #[must_use]
    pub const fn has_sni(&self) -> bool {
        self.sni.is_some()
    }
}

impl TlsConnector {
    /// A connector with what is asked of servers, and with a certificate for those that want one.
    ///
    /// # Errors
    /// When secrets that are there already do not go with `config`.
    pub fn new(
        config: UpstreamTlsConfig,
        identity: Option<Secret<Identity>>,
        validation: Secret<ValidationConfig>,
        stats: TlsStats,
    ) -> Result<Self, ContextError> {
        let connector = Self(Arc::new(Connector {
            config,
            expected: None,
            secrets: ContextCache::new(identity.into_iter().collect(), Some(validation)),
            clock: Arc::new(mesh_core::clock::wall),
            stats,
        }));
        connector.0.context()?;
        Ok(connector)
    }

    /// The same with another clock than the system's.
    #[must_use]
    pub fn with_clock(self, clock: WallClock) -> Self {
        Self(Arc::new(Connector {
            config: self.0.config.clone(),
            expected: self.0.expected.clone(),
            secrets: self.0.secrets.fresh(),
            clock,
            stats: self.0.stats.clone(),
        }))
    }

    /// A connector for servers of these names, with the same secrets and stats. It has sessions of its own: one that
    /// was verified for another name is not taken up.
    #[must_use]
    pub fn named(&self, names: &ServerNames) -> Self {
        let config = self.0.config.clone();
        Self(Arc::new(Connector {
            config: match &names.sni {
                Some(SniName(sni)) => config.server(sni.clone()),
                None => config,
            },
            expected: names.san.clone().or_else(|| self.0.expected.clone()),
            secrets: self.0.secrets.fresh(),
            clock: Arc::clone(&self.0.clock),
            stats: self.0.stats.clone(),
        }))
    }

    /// Whether all secrets have arrived. Without them, handshakes fail at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.0.context(), Ok(Some(_)))
    }

    /// Its stats.
    #[must_use]
    pub fn stats(&self) -> &TlsStats {
        &self.0.stats
    }

    /// Makes the handshake with the server's name of the config. Bound its time.
    ///
    /// # Errors
    /// Why it failed; the connection is dropped.
    ///
    /// # Cancel safety
    /// The connection is lost.
    pub async fn connect<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_as(None, io).await
    }

    /// The same with another server's name, if one is given.
    ///
    /// # Errors
    /// As above.
    ///
    /// # Cancel safety
    /// The connection is lost.
    pub async fn connect_as<IO>(
        &self,
        sni: Option<SniName>,
        io: IO,
    ) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let result = self.handshake(sni, io).await;
        match &result {
            Ok(stream) => self.0.stats.on_success(stream.session()),
            Err(error) => self.0.stats.on_failure(error),
        }
        result
    }

    async fn handshake<IO>(
        &self,
        sni: Option<SniName>,
        io: IO,
    ) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let context = self.0.context().ok().flatten();
        let context = context.ok_or_else(|| HandshakeError::no_secrets(Side::Client, None))?;
        let name = sni.map(|sni| sni.0).or_else(|| context.sni.clone());
        let sent = name.as_ref().map(|name| name.to_str().into_owned());
        // The library wants a name; it sends none that is an address.
        let name = name.unwrap_or_else(|| ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let library = tokio_rustls::TlsConnector::from(Arc::clone(&context.library));
        let mut handshake = pin!(library.connect(name, io));
        let (result, last) = poll_fn(|cx| {
            let polled = handshake.as_mut().poll(cx);
            polled.map(|result| (result, LastRejection::take()))
        })
        .await;
        let own = context.identity.as_ref().map(|one| Arc::clone(one.leaf()));
        let stream = result.map_err(|error| {
            HandshakeError::from_io(Side::Client, error, last)
                .with_server_name(sent.clone())
                .with_own(own.clone())
        })?;
        let (_, state) = stream.get_ref();
        let validator = Some(&*context.validator);
        let validated = is_validated(validator, state, Usage::Server, &context.clock.0);
        let session = TlsSession::new(state, sent, own, validated);
        Ok(TlsStream::new(stream.into(), session))
    }
}

impl Connector {
    /// The context of the newest secrets; `None` while some have not arrived.
    fn context(&self) -> Result<Option<Arc<ClientContext>>, ContextError> {
        self.secrets.get(|secrets| {
            let identity = secrets.identities.first().map(|one| Identity::clone(one));
            let validation = secrets.validation.as_deref().cloned();
            let mut validation = validation.unwrap_or_else(ValidationConfig::dangerous_anyone);
            if let Some(name) = &self.expected {
                validation = validation.expect_name(name);
            }
            let validator = Arc::new(Validator::new(validation));
            ClientContext::new(&self.config, identity, validator, &self.clock)
        })
    }
}
