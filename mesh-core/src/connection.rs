use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::TlsFacts;

static ACCEPTED: AtomicU64 = AtomicU64::new(1);

/// What is known about the client's connection, shared by its requests.
///
/// It starts with what the socket says ([`ConnectionInfo::accepted`]); listener filters correct and add to
/// it before a filter chain is chosen.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Counts connections of this process.
    pub id: u64,
    /// Where the client meant to go: our end of the socket, unless the original destination or a PROXY
    /// protocol header says otherwise. `%DOWNSTREAM_LOCAL_ADDRESS%`.
    pub local: Option<SocketAddr>,
    /// Who connected: the other end of the socket, unless a PROXY protocol header names somebody else.
    pub peer: Option<SocketAddr>,
    /// Our end of the socket, whatever anybody says. `%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%`.
    pub direct_local: Option<SocketAddr>,
    /// The other end of the socket, whatever anybody says. `%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%`.
    pub direct_peer: Option<SocketAddr>,
    /// Somebody said where the client meant to go; only then is `local` an original destination.
    pub local_restored: bool,
    /// What carries the bytes: `raw_buffer`, `tls`; `None` until somebody has looked. Envoy:
    /// `transport_protocol` of a filter chain match.
    pub transport_protocol: Option<&'static str>,
    /// The name that the client asked for before anything was encrypted, in lower case. Envoy:
    /// `%REQUESTED_SERVER_NAME%`.
    pub server_name: Option<Box<str>>,
    /// The protocols that the client offered, best first. Envoy: `application_protocols` of a filter chain
    /// match.
    pub application_protocols: Vec<Box<str>>,
    /// Names for the way in which the client began TLS, where somebody looked. Envoy: `%TLS_JA3_FINGERPRINT%`
    /// and `%TLS_JA4_FINGERPRINT%`.
    pub ja3: Option<Box<str>>,
    /// See [`ConnectionInfo::ja3`].
    pub ja4: Option<Box<str>>,
    /// What a PROXY protocol header said beyond the addresses, by type, as far as the listener keeps it. Envoy:
    /// `pass_through_tlvs`.
    pub proxy_tlvs: Vec<(u8, Box<[u8]>)>,
    /// What the handshake brought, when the connection is encrypted.
    pub tls: Option<Arc<dyn TlsFacts>>,
    /// Why it is not: the handshake failed, or what came was no TLS where somebody looked for it. Envoy:
    /// `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub transport_failure: Option<Cow<'static, str>>,
}

impl ConnectionInfo {
    /// A connection between two sockets.
    #[must_use]
    pub const fn new(id: u64, local: Option<SocketAddr>, peer: Option<SocketAddr>) -> Self {
        Self {
            id,
            local,
            peer,
            direct_local: local,
            direct_peer: peer,
            local_restored: false,
            transport_protocol: None,
            server_name: None,
            application_protocols: Vec::new(),
            ja3: None,
            ja4: None,
            proxy_tlvs: Vec::new(),
            tls: None,
            transport_failure: None,
        }
    }

    /// A connection that was accepted just now: with the next number.
    #[must_use]
    pub fn accepted(local: Option<SocketAddr>, peer: Option<SocketAddr>) -> Self {
        Self::new(ACCEPTED.fetch_add(1, Ordering::Relaxed), local, peer)
    }

    /// No socket at all: a request made in process.
    #[must_use]
    pub const fn in_process() -> Self {
        Self::new(0, None, None)
    }

    /// `https` when it is encrypted, else `http`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The client meant to go to `destination`.
    pub fn restore_local(&mut self, destination: SocketAddr) {
        self.local = Some(destination);
        self.local_restored = true;
    }
}
