use std::time::Duration;

use super::{ContextError, TICKET_KEYS_MAX, TicketKey, TlsParams, params::check_alpn};

/// What a server offers to its clients, its certificates and its trust aside.
///
/// # Envoy
/// `DownstreamTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTlsConfig {
    pub(super) params: TlsParams,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) require_client_certificate: bool,
    pub(super) require_sni: bool,
    pub(super) ticket_keys: Vec<TicketKey>,
    pub(super) tickets: bool,
    pub(super) stateful: bool,
    pub(super) prefer_client_ciphers: bool,
    pub(super) session_timeout: Option<Duration>,
}

impl Default for DownstreamTlsConfig {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            params: TlsParams::downstream(),
            alpn: Vec::new(),
            require_client_certificate: false,
            require_sni: false,
            ticket_keys: Vec::new(),
            tickets: true,
            stateful: true,
            prefer_client_ciphers: false,
            session_timeout: None,
        }
    }
}

impl DownstreamTlsConfig {
    /// Versions, ciphers and curves. Envoy: `tls_params`.
    #[must_use]
    pub fn params(mut self, params: TlsParams) -> Self {
        self.params = params;
        self
    }

    /// Application protocols, best first; none means that ALPN is not looked at. Envoy: `alpn_protocols`.
    ///
    /// # Errors
    /// When one cannot be sent.
    pub fn alpn_protocols(mut self, names: &[String]) -> Result<Self, ContextError> {
        self.alpn = check_alpn(names)?;
        Ok(self)
    }

    /// Refuses clients without a certificate; off by default. With it off, a certificate is asked for when
    /// there is a validation, and has to pass if it is given. Envoy: `require_client_certificate`.
    #[must_use]
    pub const fn require_client_certificate(mut self, on: bool) -> Self {
        self.require_client_certificate = on;
        self
    }

    /// Refuses clients that name no server; off by default. Envoy: `require_sni`.
    #[must_use]
    pub const fn require_sni(mut self, on: bool) -> Self {
        self.require_sni = on;
        self
    }

    /// The first key encrypts session tickets, all decrypt; none means a random key that is renewed, so that
    /// sessions do not outlive the process. Envoy: `session_ticket_keys`.
    ///
    /// # Errors
    /// For more than [`TICKET_KEYS_MAX`].
    pub fn session_ticket_keys(mut self, keys: Vec<TicketKey>) -> Result<Self, ContextError> {
        if keys.len() > TICKET_KEYS_MAX {
            return Err(ContextError::TicketKeys(keys.len()));
        }
        self.ticket_keys = keys;
        Ok(self)
    }

    /// No session tickets; off by default. Envoy: `disable_stateless_session_resumption`.
    #[must_use]
    pub const fn disable_stateless_session_resumption(mut self, off: bool) -> Self {
        self.tickets = !off;
        self
    }

    /// No memory of TLS 1.2 sessions; off by default. Envoy: `disable_stateful_session_resumption`.
    #[must_use]
    pub const fn disable_stateful_session_resumption(mut self, off: bool) -> Self {
        self.stateful = !off;
        self
    }

    /// The client's order of ciphers counts, not ours; off by default. Envoy: `prefer_client_ciphers`.
    #[must_use]
    pub const fn prefer_client_ciphers(mut self, on: bool) -> Self {
        self.prefer_client_ciphers = on;
        self
    }

    /// How long after its handshake a session may be taken up again; a session that is taken up begins anew. Envoy:
    /// `session_timeout`, 0 s to `u32::MAX` s. 2 h by default, and never more than 7 days; 0 s: not at all.
    #[must_use]
    pub const fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = Some(timeout);
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
