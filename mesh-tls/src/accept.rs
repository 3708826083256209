use std::{future::poll_fn, pin::pin, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    ContextError, DownstreamTlsConfig, HandshakeError, Identity, Secret, Side, TlsSession,
    TlsStats, TlsStream, Trust, Usage, ValidationConfig, Validator, WallClock,
    context::{ContextCache, ServerContext, take_chosen},
    validation::LastRejection,
};

/// Takes connections as a server. Clones share everything.
///
/// It is built from secrets that change: each handshake uses the newest good ones, and a connection keeps those
/// it began with.
#[derive(Debug, Clone)]
pub struct TlsAcceptor(Arc<Acceptor>);

struct Acceptor {
    config: DownstreamTlsConfig,
    secrets: ContextCache<ServerContext>,
    clock: WallClock,
    stats: TlsStats,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl TlsAcceptor {
    /// An acceptor with one or more certificates, of which each client gets the one that fits its server name
    /// and key kinds, and with what is asked of clients, if anything is.
    ///
    /// # Errors
    /// When there is no certificate, or secrets that are there already do not go with `config`.
    pub fn new(
        config: DownstreamTlsConfig,
        identities: Vec<Secret<Identity>>,
        validation: Option<Secret<ValidationConfig>>,
        stats: TlsStats,
    ) -> Result<Self, ContextError> {
        if identities.is_empty() {
            return Err(ContextError::NoCertificate);
        }
        let acceptor = Self(Arc::new(Acceptor {
            config,
            secrets: ContextCache::new(identities, validation),
            clock: Arc::new(mesh_core::clock::wall),
            stats,
        }));
        acceptor.0.context()?;
        Ok(acceptor)
    }

    /// The same with another clock than the system's.
    #[must_use]
    pub fn with_clock(self, clock: WallClock) -> Self {
        Self(Arc::new(Acceptor {
            config: self.0.config.clone(),
            secrets: self.0.secrets.fresh(),
            clock,
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

    /// Makes the handshake. Bound its time: a client may be silent for ever.
    ///
    /// # Errors
    /// Why it failed; the connection is dropped, after an alert if that could be sent.
    ///
    /// # Cancel safety
    /// The connection is lost.
    pub async fn accept<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let result = self.handshake(io).await;
        match &result {
            Ok(stream) => self.0.stats.on_success(stream.session()),
            Err(error) => self.0.stats.on_failure(error),
        }
        result
    }

    async fn handshake<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let context = self.0.context().ok().flatten();
        let context = context.ok_or_else(|| HandshakeError::no_secrets(Side::Server, None))?;
        let library = tokio_rustls::TlsAcceptor::from(Arc::clone(&context.library));
        let mut handshake = pin!(library.accept(io));
        let mut chosen = None;
        let (result, last) = poll_fn(|cx| {
            let polled = handshake.as_mut().poll(cx);
            chosen = take_chosen().or(chosen);
            polled.map(|result| (result, LastRejection::take()))
        })
        .await;
        let own = chosen.and_then(|at| context.identities.get(at));
        let own = own.map(|one| Arc::clone(one.leaf()));
        let stream = result.map_err(|error| {
            HandshakeError::from_io(Side::Server, error, last).with_own(own.clone())
        })?;
        let (_, state) = stream.get_ref();
        let sni = state.server_name().map(str::to_owned);
        let validator = context.validator.as_deref();
        let validated = is_validated(validator, state, Usage::Client, &context.clock.0);
        let session = TlsSession::new(state, sni, own, validated);
        if let Some(error) = resumed_too_late(&session, (context.clock.0)(), validator) {
            return Err(error);
        }
        Ok(TlsStream::new(stream.into(), session))
    }
}

impl Acceptor {
    /// The context of the newest secrets; `None` while some have not arrived.
    fn context(&self) -> Result<Option<Arc<ServerContext>>, ContextError> {
        self.secrets.get(|secrets| {
            let identities = secrets.identities.iter();
            let identities = identities.map(|one| Identity::clone(one)).collect();
            let validation = secrets.validation.as_deref().cloned();
            let validator = validation.map(Validator::new).map(Arc::new);
            ServerContext::new(&self.config, identities, validator, &self.clock)
        })
    }
}

/// A handshake that ended well was verified, unless there was nothing to verify or the untrusted are taken.
pub(crate) fn is_validated(
    validator: Option<&Validator>,
    state: &rustls::CommonState,
    usage: Usage,
    clock: &WallClock,
) -> bool {
    let Some(validator) = validator else {
        return false;
    };
    if *validator.config().trust() == Trust::DangerousAnyone {
        return false;
    }
    if !validator.config().is_dangerous() {
        return true;
    }
    let chain = state.peer_certificates().unwrap_or_default();
    validator.verify(chain, usage, None, clock()).is_ok()
}

/// A session that is taken up again brings the certificate of its first handshake, which may have ended since.
fn resumed_too_late(
    session: &TlsSession,
    now: std::time::SystemTime,
    validator: Option<&Validator>,
) -> Option<HandshakeError> {
    let peer = session.peer.as_ref().filter(|_| session.resumed)?;
    let leaf = peer.certificate();
    let config = validator?.config();
    if config.takes_expired() || leaf.validity().contains(now) {
        return None;
    }
    Some(HandshakeError::ended(Side::Server, Arc::clone(leaf)))
}
