use std::{any::Any, borrow::Cow, fmt, time::SystemTime};

/// What is known about the encryption of a connection once its handshake is done.
///
/// Whoever makes handshakes implements it; logs, headers and access control read it.
pub trait TlsFacts: fmt::Debug + Send + Sync + 'static {
    /// One fact as text; `None` when there is none.
    fn text(&self, field: TlsField) -> Option<Cow<'_, str>>;

    /// From when to when the peer's certificate may be used, if it presented one.
    fn peer_validity(&self) -> Option<(SystemTime, SystemTime)>;

    /// Whether the peer presented a certificate. Envoy calls such a connection mTLS.
    fn has_peer_certificate(&self) -> bool;

    /// This connection's element of an `x-forwarded-client-cert` header.
    fn client_cert_element(&self, details: ClientCertDetails) -> String;

    /// The implementation, for those that know it.
    fn as_any(&self) -> &dyn Any;
}

/// Facts that logs and headers ask for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsField {
    /// `%DOWNSTREAM_TLS_VERSION%`: `TLSv1.3`.
    Version,
    /// `%DOWNSTREAM_TLS_CIPHER%`, by OpenSSL's name.
    Cipher,
    /// `%DOWNSTREAM_TLS_GROUP%`: the key exchange.
    Group,
    /// `%DOWNSTREAM_PEER_SUBJECT%`.
    PeerSubject,
    /// `%DOWNSTREAM_PEER_ISSUER%`.
    PeerIssuer,
    /// `%DOWNSTREAM_PEER_SERIAL%`.
    PeerSerial,
    /// `%DOWNSTREAM_PEER_FINGERPRINT_256%`.
    PeerFingerprint,
    /// `%DOWNSTREAM_PEER_FINGERPRINT_1%`: by SHA-1.
    PeerFingerprint1,
    /// `%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%`, joined by commas, as all lists are.
    PeerChainFingerprints,
    /// `%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1%`.
    PeerChainFingerprints1,
    /// `%DOWNSTREAM_PEER_CHAIN_SERIALS%`.
    PeerChainSerials,
    /// `%DOWNSTREAM_PEER_URI_SAN%`, joined by commas.
    PeerUris,
    /// `%DOWNSTREAM_PEER_DNS_SAN%`.
    PeerDnsNames,
    /// `%DOWNSTREAM_PEER_IP_SAN%`.
    PeerAddresses,
    /// `%DOWNSTREAM_PEER_EMAIL_SAN%`.
    PeerEmails,
    /// `%DOWNSTREAM_PEER_CERT%`, with percent signs.
    PeerCertificate,
    /// `%DOWNSTREAM_LOCAL_SUBJECT%`.
    LocalSubject,
    /// `%DOWNSTREAM_LOCAL_URI_SAN%`.
    LocalUris,
    /// `%DOWNSTREAM_LOCAL_DNS_SAN%`.
    LocalDnsNames,
    /// `%DOWNSTREAM_LOCAL_IP_SAN%`.
    LocalAddresses,
    /// `%DOWNSTREAM_LOCAL_EMAIL_SAN%`.
    LocalEmails,
}

/// What becomes of an `x-forwarded-client-cert` header that came in. Envoy: `forward_client_cert_details`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardClientCert {
    /// It goes.
    #[default]
    Sanitize,
    /// It stays if the client presented a certificate on this connection.
    ForwardOnly,
    /// Likewise, with this connection's element behind it.
    AppendForward,
    /// It is replaced by this connection's element, if the client presented a certificate.
    SanitizeSet,
    /// It stays, whoever sent it. Only behind a proxy that is trusted.
    AlwaysForwardOnly,
}

/// What an element says besides `By` and `Hash`. Envoy: `set_current_client_cert_details`; all off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientCertDetails {
    /// The certificate, as PEM with percent signs.
    pub cert: bool,
    /// The whole chain, likewise.
    pub chain: bool,
    /// The subject.
    pub subject: bool,
    /// The URIs.
    pub uri: bool,
    /// The host names.
    pub dns: bool,
}

/// What is to be done with an `x-forwarded-client-cert` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Xfcc {
    /// Leave it as it is.
    Keep,
    /// Take it away.
    Remove,
    /// Put this in its place.
    Set(String),
    /// Put this behind it, with a comma between; alone, if there is none.
    Append(String),
}

impl ForwardClientCert {
    /// Decides over the header of one request; `tls` is that of the client's connection, if it has any.
    #[must_use]
    pub fn decide(self, details: ClientCertDetails, tls: Option<&dyn TlsFacts>) -> Xfcc {
        if self == Self::AlwaysForwardOnly {
            return Xfcc::Keep;
        }
        let mtls = tls.filter(|tls| tls.has_peer_certificate() && self != Self::Sanitize);
        let Some(tls) = mtls else {
            return Xfcc::Remove;
        };
        match self {
            Self::AppendForward => Xfcc::Append(tls.client_cert_element(details)),
            Self::SanitizeSet => Xfcc::Set(tls.client_cert_element(details)),
            _ => Xfcc::Keep,
        }
    }
}
