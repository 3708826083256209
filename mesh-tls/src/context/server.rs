use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::Ticketer,
    server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier},
};

use super::{
    Clock, ContextError, DownstreamTlsConfig, WallClock, expiry::Expiry, resolver::ByNameAndKey,
};
use crate::{
    Identity, Validator, context::tickets::Tickets, digest::sha256, validation::DangerVerifier,
};

/// So many sessions of TLS 1.2 clients without tickets are remembered; the oldest go first.
const SESSIONS_MAX: usize = 4096;
/// How long a session may be taken up when config does not say: 2 h, in seconds.
const LIFETIME_DEFAULT: u32 = 7200;
/// The longest that TLS 1.3 allows, in seconds.
const LIFETIME_MAX: u32 = 7 * 24 * 3600;

/// A server's context with its secrets: what one handshake sees from start to end.
#[derive(Debug)]
pub(crate) struct ServerContext {
    pub(crate) library: Arc<ServerConfig>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) validator: Option<Arc<Validator>>,
    pub(crate) clock: WallClockDebug,
}

/// A clock that prints as nothing.
#[derive(Clone)]
pub(crate) struct WallClockDebug(pub(crate) WallClock);

impl std::fmt::Debug for WallClockDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("clock")
    }
}

impl ServerContext {
    pub(crate) fn new(
        config: &DownstreamTlsConfig,
        identities: Vec<Identity>,
        validator: Option<Arc<Validator>>,
        clock: &WallClock,
    ) -> Result<Self, ContextError> {
        if identities.is_empty() {
            return Err(ContextError::NoCertificate);
        }
        config.params.check()?;
        let library = |error: rustls::Error| ContextError::Library(error.to_string());
        let builder = ServerConfig::builder_with_details(
            config.params.provider(),
            Arc::new(Clock(Arc::clone(clock))),
        );
        let builder = builder
            .with_protocol_versions(config.params.protocol_versions())
            .map_err(library)?;
        let builder = match client_validator(config, validator.as_ref()) {
            Some(validator) => builder.with_client_cert_verifier(Arc::new(DangerVerifier::new(
                validator,
                config.require_client_certificate,
            ))),
            None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
        };
        let resolver = ByNameAndKey::new(identities.clone(), config.require_sni);
        let mut server = builder.with_cert_resolver(Arc::new(resolver));
        server.alpn_protocols = config.alpn.clone();
        server.ignore_client_order = !config.prefer_client_ciphers;
        resumption(config, validator.as_ref(), clock, &mut server)?;
        Ok(Self {
            library: Arc::new(server),
            identities,
            validator,
            clock: WallClockDebug(Arc::clone(clock)),
        })
    }
}

/// A client is asked for its certificate when there is a validation, or when it must have one.
fn client_validator(
    config: &DownstreamTlsConfig,
    validator: Option<&Arc<Validator>>,
) -> Option<Arc<Validator>> {
    if let Some(validator) = validator {
        return Some(Arc::clone(validator));
    }
    let anyone = || Arc::new(Validator::new(crate::ValidationConfig::dangerous_anyone()));
    config.require_client_certificate.then(anyone)
}

/// Tickets and remembered sessions are of this context only: whoever was let in under another trust has to
/// show a certificate again.
fn resumption(
    config: &DownstreamTlsConfig,
    validator: Option<&Arc<Validator>>,
    clock: &WallClock,
    server: &mut ServerConfig,
) -> Result<(), ContextError> {
    let lifetime = config.session_timeout.map_or(LIFETIME_DEFAULT, |time| {
        u32::try_from(time.as_secs()).unwrap_or(LIFETIME_MAX)
    });
    let expiry = Expiry::new(lifetime.min(LIFETIME_MAX), clock);
    if config.tickets {
        // A ticket that was given without a certificate is worth nothing where one is asked for.
        let trust = validator.map(|one| one.config());
        let what = (trust, config.require_client_certificate);
        let context = sha256(format!("{what:?}").as_bytes());
        let keyed = Tickets::new(&config.ticket_keys, context.to_vec());
        server.ticketer = expiry.clone().tickets(match keyed {
            Some(tickets) => tickets,
            None => Ticketer::new().map_err(|error| ContextError::Library(error.to_string()))?,
        });
    } else {
        server.send_tls13_tickets = 0;
    }
    server.session_storage = if config.stateful {
        expiry.storage(ServerSessionMemoryCache::new(SESSIONS_MAX))
    } else {
        Arc::new(NoServerSessionStorage {})
    };
    Ok(())
}
