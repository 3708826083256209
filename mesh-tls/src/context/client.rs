use std::sync::Arc;

use rustls::{ClientConfig, client::Resumption, pki_types::ServerName};

use super::{
    Clock, ContextError, UpstreamTlsConfig, WallClock, resolver::Always, server::WallClockDebug,
};
use crate::{Identity, Validator, validation::DangerVerifier};

/// A client's context with its secrets.
#[derive(Debug)]
pub(crate) struct ClientContext {
    pub(crate) library: Arc<ClientConfig>,
    pub(crate) identity: Option<Identity>,
    pub(crate) validator: Arc<Validator>,
    pub(crate) sni: Option<ServerName<'static>>,
    pub(crate) clock: WallClockDebug,
}

impl ClientContext {
    pub(crate) fn new(
        config: &UpstreamTlsConfig,
        identity: Option<Identity>,
        validator: Arc<Validator>,
        clock: &WallClock,
    ) -> Result<Self, ContextError> {
        config.params.check()?;
        let library = |error: rustls::Error| ContextError::Library(error.to_string());
        let verifier = DangerVerifier::new(Arc::clone(&validator), true);
        let mut client = ClientConfig::builder_with_details(
            config.params.provider(),
            Arc::new(Clock(Arc::clone(clock))),
        )
        .with_protocol_versions(config.params.protocol_versions())
        .map_err(library)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(Always(identity.clone())));
        client.alpn_protocols = config.alpn.clone();
        // Envoy goes on when the server picks none of what was offered.
        client.check_selected_alpn = false;
        client.resumption = match config.sessions_max {
            0 => Resumption::disabled(),
            sessions => Resumption::in_memory_sessions(sessions),
        };
        Ok(Self {
            library: Arc::new(client),
            identity,
            validator,
            sni: config.sni.clone(),
            clock: WallClockDebug(Arc::clone(clock)),
        })
    }
}
