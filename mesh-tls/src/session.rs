use std::{any::Any, borrow::Cow, fmt, sync::Arc, time::SystemTime};

use mesh_core::{ClientCertDetails, TlsFacts, TlsField};
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use crate::{
    Certificate, San, SpiffeId, TlsVersion,
    context::{group_name, suite_name},
    digest::{hex, sha1},
};

/// Who the peer is, by the certificate that it presented and owns.
///
/// # Envoy
/// `%DOWNSTREAM_PEER_*%`, `%UPSTREAM_PEER_*%`; the source principal of RBAC.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    chain: Vec<Arc<Certificate>>,
    spiffe_id: Option<SpiffeId>,
    validated: bool,
}

impl PeerIdentity {
    /// What a peer presented, leaf first; `None` when there is nothing. `validated` says whether somebody who
    /// is trusted vouches for it.
    #[must_use]
    pub fn new(chain: Vec<Arc<Certificate>>, validated: bool) -> Option<Self> {
        Some(Self {
            spiffe_id: chain.first()?.spiffe_id(),
            chain,
            validated,
        })
    }

    /// Its own certificate: names, subject, issuer, serial, validity.
    #[must_use]
    pub fn certificate(&self) -> &Arc<Certificate> {
        &self.chain[0]
    }

    /// Everything it sent, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[Arc<Certificate>] {
        &self.chain
    }

    /// Its SPIFFE ID, if it has one.
    #[must_use]
    pub const fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.spiffe_id.as_ref()
    }

    /// Its alternative names, in order.
    #[must_use]
    pub fn sans(&self) -> &[San] {
        self.certificate().sans()
    }

    /// `false` when nobody vouches for it: without a trusted CA, or where the untrusted are accepted.
    #[must_use]
    pub const fn is_validated(&self) -> bool {
        self.validated
    }

    /// SHA-256 of the certificate in lower-case digits. `%DOWNSTREAM_PEER_FINGERPRINT_256%`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(self.certificate().sha256())
    }

    /// The name that RBAC knows it by: the first URI, else the first host name, else the subject.
    #[must_use]
    pub fn principal(&self) -> &str {
        let leaf = self.certificate();
        let name = leaf.uris().next().or_else(|| leaf.dns_names().next());
        name.unwrap_or_else(|| leaf.subject())
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("principal", &self.principal())
            .field("serial", &self.certificate().serial())
            .field("validated", &self.validated)
            .finish_non_exhaustive()
    }
}

/// What is known about a connection once its handshake is done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsSession {
    /// `%DOWNSTREAM_TLS_VERSION%`.
    pub version: TlsVersion,
    /// `%DOWNSTREAM_TLS_CIPHER%`, by OpenSSL's name.
    pub cipher: &'static str,
    /// `%DOWNSTREAM_TLS_GROUP%`; empty when a session was taken up without a key exchange.
    pub group: &'static str,
    /// The application protocol that both agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The server's name that the client asked for. `%REQUESTED_SERVER_NAME%`.
    pub sni: Option<String>,
    /// Whether an earlier session was taken up.
    pub resumed: bool,
    /// Who the peer is, if it presented a certificate.
    pub peer: Option<Arc<PeerIdentity>>,
    /// What this side presented, if it did. `%DOWNSTREAM_LOCAL_*%`.
    pub local: Option<Arc<Certificate>>,
}

impl TlsSession {
    pub(crate) fn new(
        state: &CommonState,
        sni: Option<String>,
        local: Option<Arc<Certificate>>,
        validated: bool,
    ) -> Self {
        let chain: Vec<_> = state
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .filter_map(|der| Certificate::from_der(der).ok())
            .map(Arc::new)
            .collect();
        let suite = state.negotiated_cipher_suite();
        let group = state.negotiated_key_exchange_group();
        Self {
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
                _ => TlsVersion::Tls12,
            },
            cipher: suite.map_or("", |suite| suite_name(suite.suite())),
            group: group.map_or("", |group| group_name(group.name())),
            alpn: state.alpn_protocol().map(<[u8]>::to_vec),
            sni,
            resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
            peer: PeerIdentity::new(chain, validated).map(Arc::new),
            local,
        }
    }
}

impl TlsFacts for TlsSession {
    fn text(&self, field: TlsField) -> Option<Cow<'_, str>> {
        let peer = self.peer.as_deref();
        let leaf = peer.map(|peer| &**peer.certificate());
        let local = self.local.as_deref();
        Some(match field {
            TlsField::Version => self.version.as_str().into(),
            TlsField::Cipher => nonempty(self.cipher)?.into(),
            TlsField::Group => nonempty(self.group)?.into(),
            TlsField::PeerSubject => nonempty(leaf?.subject())?.into(),
            TlsField::PeerIssuer => nonempty(leaf?.issuer())?.into(),
            TlsField::PeerSerial => leaf?.serial().into(),
            TlsField::PeerFingerprint => peer?.fingerprint().into(),
            TlsField::PeerCertificate => crate::xfcc::percent(&leaf?.to_pem()).into(),
            TlsField::PeerUris => joined(leaf?.uris())?,
            TlsField::PeerDnsNames => joined(leaf?.dns_names())?,
            TlsField::PeerAddresses => joined(addresses(leaf?))?,
            TlsField::PeerEmails => joined(emails(leaf?))?,
            TlsField::PeerFingerprint1 => hex(&sha1(leaf?.der())).into(),
            TlsField::PeerChainFingerprints => {
                joined(peer?.chain().iter().map(|one| hex(one.sha256())))?
            }
            TlsField::PeerChainFingerprints1 => {
                joined(peer?.chain().iter().map(|one| hex(&sha1(one.der()))))?
            }
            TlsField::PeerChainSerials => joined(peer?.chain().iter().map(|one| one.serial()))?,
            TlsField::LocalSubject => nonempty(local?.subject())?.into(),
            TlsField::LocalUris => joined(local?.uris())?,
            TlsField::LocalDnsNames => joined(local?.dns_names())?,
            TlsField::LocalAddresses => joined(addresses(local?))?,
            TlsField::LocalEmails => joined(emails(local?))?,
            _ => return None,
        })
    }

    fn peer_validity(&self) -> Option<(SystemTime, SystemTime)> {
        let validity = self.peer.as_ref()?.certificate().validity();
        Some((validity.not_before, validity.not_after))
    }

    fn has_peer_certificate(&self) -> bool {
        self.peer.is_some()
    }

    fn client_cert_element(&self, details: ClientCertDetails) -> String {
        let chain = self.peer.as_ref().map_or(&[][..], |peer| peer.chain());
        crate::xfcc::element(details, self.local.as_deref(), chain)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn addresses(one: &Certificate) -> impl Iterator<Item = String> {
    one.sans().iter().filter_map(|san| match san {
        San::Ip(address) => Some(address.to_string()),
        _ => None,
    })
}

fn emails(one: &Certificate) -> impl Iterator<Item = &String> {
    one.sans().iter().filter_map(|san| match san {
        San::Email(address) => Some(address),
        _ => None,
    })
}

fn nonempty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Joined by commas; nothing for none.
fn joined<'a>(names: impl Iterator<Item = impl AsRef<str>>) -> Option<Cow<'a, str>> {
    let names: Vec<_> = names.collect();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    (!names.is_empty()).then(|| names.join(",").into())
}
