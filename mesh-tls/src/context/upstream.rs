use rustls::pki_types::ServerName;

use super::{ContextError, TlsParams, params::check_alpn};

/// What a client asks of its servers, its certificate and its trust aside.
///
/// # Envoy
/// `UpstreamTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTlsConfig {
    pub(super) params: TlsParams,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) sni: Option<ServerName<'static>>,
    pub(super) sessions_max: usize,
}

impl Default for UpstreamTlsConfig {
    /// Envoy's defaults: TLS 1.2, no SNI, one session remembered.
    fn default() -> Self {
        Self {
            params: TlsParams::upstream(),
            alpn: Vec::new(),
            sni: None,
            sessions_max: 1,
        }
    }
}

impl UpstreamTlsConfig {
    /// Versions, ciphers and curves. Envoy: `tls_params`.
    #[must_use]
    pub fn params(mut self, params: TlsParams) -> Self {
        self.params = params;
        self
    }

    /// Application protocols, best first; none means that none is offered. Envoy: `alpn_protocols`.
    ///
    /// # Errors
    /// When one cannot be sent.
    pub fn alpn_protocols(mut self, names: &[String]) -> Result<Self, ContextError> {
        self.alpn = check_alpn(names)?;
        Ok(self)
    }

    /// The server's name, sent to it in the clear; none is sent by default. Envoy: `sni`, 1 to 255 bytes.
    ///
    /// # Errors
    /// When it is no host name.
    pub fn sni(mut self, name: &str) -> Result<Self, ContextError> {
        self.sni = Some(server_name(name)?);
        Ok(self)
    }

    pub(crate) fn server(mut self, name: ServerName<'static>) -> Self {
        self.sni = Some(name);
        self
    }

    /// How many sessions are remembered; 0 turns resumption off, 1 is the default. Envoy: `max_session_keys`.
    #[must_use]
    pub const fn max_session_keys(mut self, sessions: usize) -> Self {
        self.sessions_max = sessions;
        self
    }

    /// Whether its parts go together.
    ///
    /// # Errors
    /// When no curve goes with the versions.
    pub fn check(&self) -> Result<(), ContextError> {
        self.params.check()
    }
}

pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, ContextError> {
    let bad = || ContextError::Sni {
        name: name.to_owned(),
    };
    match ServerName::try_from(name.to_owned()) {
        Ok(found @ ServerName::DnsName(_)) => Ok(found),
        _ => Err(bad()),
    }
}
