//! What a certificate says.

mod name;

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use crate::{SecretError, SpiffeId, digest::sha256, error::date};

/// The most certificates that are read from one PEM text; more are refused.
pub const CERTIFICATES_MAX: usize = 4096;

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum San {
    /// A URI, such as a SPIFFE ID.
    Uri(String),
    /// A host name, which may begin with `*.`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mail address.
    Email(String),
}

impl San {
    /// The name by itself.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Uri(text) | Self::Dns(text) | Self::Email(text) => text.clone(),
            Self::Ip(address) => address.to_string(),
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => write!(f, "URI {uri}"),
            Self::Dns(name) => write!(f, "DNS {name}"),
            Self::Ip(address) => write!(f, "IP {address}"),
            Self::Email(address) => write!(f, "email {address}"),
        }
    }
}

/// From when to when a certificate may be used, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`.
    pub not_before: SystemTime,
    /// `notAfter`.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// How long from `now` to its end; zero when that has passed.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (date(self.not_before), date(self.not_after));
        write!(f, "{from} to {to}")
    }
}

/// The bits of the key usage extension that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyUsage {
    /// It may sign handshakes.
    pub digital_signature: bool,
    /// It may sign certificates.
    pub key_cert_sign: bool,
    /// It may sign revocation lists.
    pub crl_sign: bool,
}

/// A certificate, read once: everything that logs, headers and access control ask for.
#[derive(Clone)]
pub struct Certificate {
    der: CertificateDer<'static>,
    subject: String,
    issuer: String,
    raw_subject: Box<[u8]>,
    serial: String,
    sans: Vec<San>,
    validity: Validity,
    ca: bool,
    key_usage: Option<KeyUsage>,
    rsa: bool,
    sha256: [u8; 32],
    spki_sha256: [u8; 32],
}

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, SecretError> {
        let bad = |what: String| SecretError::Certificate(what);
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|error| bad(format!("not X.509: {error}")))?;
        if !rest.is_empty() {
            return Err(bad("it has bytes after its end".to_owned()));
        }
        let sans = match parsed.subject_alternative_name() {
            Ok(found) => found.map_or_else(Vec::new, |san| {
                san.value
                    .general_names
                    .iter()
                    .filter_map(read_san)
                    .collect()
            }),
            Err(error) => return Err(bad(format!("its alternative names: {error}"))),
        };
        let key_usage = parsed.key_usage().ok().flatten().map(|usage| KeyUsage {
            digital_signature: usage.value.digital_signature(),
            key_cert_sign: usage.value.key_cert_sign(),
            crl_sign: usage.value.crl_sign(),
        });
        let spki = parsed.public_key();
        Ok(Self {
            subject: name::rfc2253(parsed.subject()),
            issuer: name::rfc2253(parsed.issuer()),
            raw_subject: parsed.subject().as_raw().into(),
            serial: serial(parsed.raw_serial()),
            sans,
            validity: Validity {
                not_before: time(parsed.validity().not_before),
                not_after: time(parsed.validity().not_after),
            },
            ca: parsed.is_ca(),
            key_usage,
            rsa: spki.algorithm.algorithm == x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION,
            sha256: sha256(der),
            spki_sha256: sha256(spki.raw),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// Reads all certificates of a PEM text, in order; other sections are skipped.
    ///
    /// # Errors
    /// When there is none, one is broken, or there are more than [`CERTIFICATES_MAX`].
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Arc<Self>>, SecretError> {
        let mut all = Vec::new();
        for section in CertificateDer::pem_slice_iter(pem) {
            let der = section.map_err(|error| SecretError::Pem(error.to_string()))?;
            if all.len() == CERTIFICATES_MAX {
                return Err(SecretError::TooMany);
            }
            all.push(Arc::new(Self::from_der(&der)?));
        }
        if all.is_empty() {
            return Err(SecretError::NoCertificate);
        }
        Ok(all)
    }

    /// As it is on the wire.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) const fn shared_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its subject as RFC 2253 writes names, as Envoy does.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Who signed it, likewise.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn raw_subject(&self) -> &[u8] {
        &self.raw_subject
    }

    /// Its serial number in lower-case hexadecimal digits.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Its alternative names, in order.
    #[must_use]
    pub fn sans(&self) -> &[San] {
        &self.sans
    }

    /// Its URIs, in order.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.sans.iter().filter_map(|san| match san {
            San::Uri(uri) => Some(uri.as_str()),
            _ => None,
        })
    }

    /// Its host names, in order.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.sans.iter().filter_map(|san| match san {
            San::Dns(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The first SPIFFE ID among its URIs. [`check_svid`](crate::check_svid) is stricter.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        self.uris().find_map(|uri| SpiffeId::new(uri).ok())
    }

    /// When it may be used.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether it may sign others.
    #[must_use]
    pub const fn is_ca(&self) -> bool {
        self.ca
    }

    /// What its key may be used for, if it says so.
    #[must_use]
    pub const fn key_usage(&self) -> Option<KeyUsage> {
        self.key_usage
    }

    pub(crate) const fn has_rsa_key(&self) -> bool {
        self.rsa
    }

    /// SHA-256 of its DER: its fingerprint.
    #[must_use]
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// SHA-256 of its public key.
    #[must_use]
    pub const fn spki_sha256(&self) -> &[u8; 32] {
        &self.spki_sha256
    }

    /// The certificate as PEM, with a line end at its end.
    #[must_use]
    pub fn to_pem(&self) -> String {
        crate::digest::pem("CERTIFICATE", &self.der)
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject)
            .field("issuer", &self.issuer)
            .field("serial", &self.serial)
            .field("sans", &self.sans)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// Names that cannot be read, and kinds that nobody asks for, are left out.
fn read_san(name: &GeneralName<'_>) -> Option<San> {
    Some(match name {
        GeneralName::URI(uri) => San::Uri((*uri).to_owned()),
        GeneralName::DNSName(name) => San::Dns((*name).to_owned()),
        GeneralName::RFC822Name(address) => San::Email((*address).to_owned()),
        GeneralName::IPAddress(bytes) => San::Ip(match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
        }),
        _ => return None,
    })
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn serial(raw: &[u8]) -> String {
    let start = raw.iter().position(|byte| *byte != 0).unwrap_or(raw.len());
    if start == raw.len() {
        return "0".to_owned();
    }
    crate::digest::hex(&raw[start..])
}
