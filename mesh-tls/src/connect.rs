use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    ContextError, HandshakeError, Identity, Secret, Side, TlsSession, TlsStats, TlsStream,
    UpstreamTlsConfig, Usage, ValidationConfig, Validator, WallClock,
    accept::{is_validated, same},
    context::{ClientContext, server_name},
    validation::LastRejection,
};

/// Opens connections as a client. Clones share everything, remembered sessions too.
#[derive(Debug, Clone)]
pub struct TlsConnector(Arc<Connector>);

struct Connector {
    config: UpstreamTlsConfig,
    identity: Option<Secret<Identity>>,
    validation: Secret<ValidationConfig>,
    clock: WallClock,
    stats: TlsStats,
    built: Mutex<Option<Built>>,
}

struct Built {
    identity: Option<Arc<Identity>>,
    validation: Arc<ValidationConfig>,
    context: Arc<ClientContext>,
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
            identity,
            validation,
            clock: Arc::new(mesh_core::clock::wall),
            stats,
            built: Mutex::new(None),
        }));
        connector.0.context()?;
        Ok(connector)
    }

    /// The same with another clock than the system's.
    #[must_use]
    pub fn with_clock(self, clock: WallClock) -> Self {
        Self(Arc::new(Connector {
            config: self.0.config.clone(),
            identity: self.0.identity.clone(),
            validation: self.0.validation.clone(),
            clock,
            stats: self.0.stats.clone(),
            built: Mutex::new(None),
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
        let Some(validation) = self.validation.current() else {
            return Ok(None);
        };
        let identity = match &self.identity {
            None => None,
            Some(secret) => match secret.current() {
                None => return Ok(None),
                some => some,
            },
        };
        // A panic while it was held leaves a whole context behind.
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = &*built
            && Arc::ptr_eq(&built.validation, &validation)
            && same(built.identity.as_slice(), identity.as_slice())
        {
            return Ok(Some(Arc::clone(&built.context)));
        }
        let context = Arc::new(ClientContext::new(
            &self.config,
            identity.as_deref().cloned(),
            Arc::new(Validator::new((*validation).clone())),
            &self.clock,
        )?);
        *built = Some(Built {
            identity,
            validation,
            context: Arc::clone(&context),
        });
        Ok(Some(context))
    }
}
