//! Why a handshake failed, for people and for logs.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{AlertDescription, CertificateError, PeerIncompatible, pki_types::CertificateDer};

use crate::{Certificate, Rejection, Role, SecretError, validation::LastRejection};

/// Certificates of a failed handshake that are described; the rest is counted only.
const CHAIN_MAX: usize = 8;
/// Where BoringSSL's error codes of its TLS library begin.
const TLS_LIBRARY: u32 = 0x1000_0000;
/// Where BoringSSL numbers alerts from.
const ALERTS: u32 = 1000;

/// Which side of the handshake this process was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// It was the server: the failure is downstream.
    Server,
    /// It was the client: the failure is upstream.
    Client,
}

impl Side {
    const fn peer(self) -> &'static str {
        match self {
            Self::Server => "client",
            Self::Client => "server",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Before the first byte: there was no certificate or trust yet.
    Secrets,
    /// While both sides looked for a version, cipher, curve, name and protocol that both speak.
    Negotiation,
    /// While this side looked at the peer's certificate.
    PeerCertificate,
    /// The peer refused this side's certificate, or something else, with an alert.
    RefusedByPeer,
    /// The connection ended or broke.
    Connection,
    /// The peer broke the protocol; perhaps it does not speak TLS.
    Protocol,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secrets => "waiting for secrets",
            Self::Negotiation => "negotiation",
            Self::PeerCertificate => "verifying the peer's certificate",
            Self::RefusedByPeer => "refused by the peer",
            Self::Connection => "connection",
            Self::Protocol => "protocol",
        })
    }
}

/// Why a handshake failed: one error with everything that somebody needs who has to mend it.
///
/// Display prints it for people, over one line; [`reason`](Self::reason) is what Envoy's access log shows.
#[derive(Clone)]
pub struct HandshakeError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    side: Side,
    stage: Stage,
    rejection: Option<Rejection>,
    alert: Option<AlertDescription>,
    tls: Option<rustls::Error>,
    io: Option<Arc<io::Error>>,
    secret: Option<SecretError>,
    server_name: Option<String>,
    chain: Vec<Arc<Certificate>>,
    own: Option<Arc<Certificate>>,
}

impl HandshakeError {
    fn new(side: Side, stage: Stage) -> Self {
        Self(Box::new(Inner {
            side,
            stage,
            rejection: None,
            alert: None,
            tls: None,
            io: None,
            secret: None,
            server_name: None,
            chain: Vec::new(),
            own: None,
        }))
    }

    /// There is no certificate, or no trust, yet.
    pub(crate) fn no_secrets(side: Side, why: Option<SecretError>) -> Self {
        let mut error = Self::new(side, Stage::Secrets);
        error.0.secret = why;
        error
    }

    /// The peer's certificate was good once, and its time is over.
    pub(crate) fn ended(side: Side, leaf: Arc<Certificate>) -> Self {
        let mut error = Self::new(side, Stage::PeerCertificate);
        error.0.rejection = Some(Rejection::Expired {
            role: Role::Leaf,
            subject: leaf.subject().to_owned(),
            not_after: leaf.validity().not_after,
        });
        error.0.chain = vec![leaf];
        error
    }

    /// What the library says, and what our verifier left behind.
    pub(crate) fn from_io(side: Side, error: io::Error, last: Option<LastRejection>) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .cloned();
        let Some(tls) = tls else {
            let mut failed = Self::new(side, Stage::Connection);
            failed.0.io = Some(Arc::new(error));
            return failed;
        };
        let (stage, alert) = stage_of(&tls);
        let mut failed = Self::new(side, stage);
        failed.0.alert = alert;
        if let Some(last) = last.filter(|_| stage == Stage::PeerCertificate) {
            failed.0.chain = describe(&last.chain);
            failed.0.rejection = Some(last.why);
        } else if tls == rustls::Error::NoCertificatesPresented {
            failed.0.rejection = Some(Rejection::NoCertificate);
        }
        failed.0.tls = Some(tls);
        failed
    }

    /// In TLS 1.3 a client learns only when it reads that the server refuses its certificate: this tells
    /// that such an error of a read or write is one.
    #[must_use]
    pub fn late(error: &io::Error, own: Option<Arc<Certificate>>) -> Option<Self> {
        let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let rustls::Error::AlertReceived(alert) = inner else {
            return None;
        };
        let mut late = Self::new(Side::Client, Stage::RefusedByPeer);
        late.0.alert = Some(*alert);
        late.0.tls = Some(inner.clone());
        late.0.own = own;
        Some(late)
    }

    pub(crate) fn with_server_name(mut self, name: Option<String>) -> Self {
        self.0.server_name = name;
        self
    }

    pub(crate) fn with_own(mut self, own: Option<Arc<Certificate>>) -> Self {
        self.0.own = own;
        self
    }

    /// Which side this process was.
    #[must_use]
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// How far it came.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// Why the peer's certificate was refused, if it was.
    #[must_use]
    pub fn rejection(&self) -> Option<&Rejection> {
        self.0.rejection.as_ref()
    }

    /// What the peer presented, leaf first, if it was refused for that.
    #[must_use]
    pub fn chain(&self) -> &[Arc<Certificate>] {
        &self.0.chain
    }

    /// What this side presented, or would have.
    #[must_use]
    pub fn own(&self) -> Option<&Arc<Certificate>> {
        self.0.own.as_ref()
    }

    /// The server's name that the client asked for.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    /// What would have been accepted.
    #[must_use]
    pub fn expected(&self) -> Vec<String> {
        match self.rejection() {
            Some(Rejection::San { expected, .. }) => expected.clone(),
            Some(Rejection::UnknownIssuer { trusted, .. }) => trusted
                .iter()
                .map(|name| format!("issuer {name}"))
                .collect(),
            Some(Rejection::TrustDomain { known, .. }) => known
                .iter()
                .map(|name| format!("trust domain {name}"))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Who the peer says it is: its alternative names, or its subject.
    #[must_use]
    pub fn presented(&self) -> Vec<String> {
        let Some(leaf) = self.0.chain.first() else {
            return Vec::new();
        };
        if leaf.sans().is_empty() {
            return vec![format!("subject {}", leaf.subject())];
        }
        leaf.sans().iter().map(ToString::to_string).collect()
    }

    /// What somebody should look at.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        if let Some(rejection) = self.rejection() {
            return rejection.advice();
        }
        match (self.0.stage, self.0.alert) {
            (Stage::Secrets, _) => "see why the secret does not arrive: its source logs it",
            (Stage::Negotiation, _) => {
                "compare versions, ciphers, curves, ALPN and server names of both sides"
            }
            (_, Some(AlertDescription::UnknownCA)) => {
                "the peer does not trust the issuer of our certificate: look at its trusted CAs"
            }
            (_, Some(AlertDescription::CertificateExpired)) => {
                "our certificate has expired for the peer: see whether it is rotated, and both clocks"
            }
            (_, Some(AlertDescription::CertificateRequired)) => {
                "the peer asks for a certificate: configure one"
            }
            (_, Some(AlertDescription::NoApplicationProtocol)) => {
                "compare the ALPN protocols of both sides"
            }
            (_, Some(AlertDescription::UnrecognisedName)) => {
                "compare the SNI with the names of the server"
            }
            (_, Some(AlertDescription::ProtocolVersion)) => {
                "compare the TLS versions of both sides"
            }
            (Stage::RefusedByPeer, _) => "the peer's log says what it refused",
            (Stage::Connection, _) => {
                "the peer may have refused, crashed, or not speak TLS: see its log"
            }
            _ => "see whether the peer speaks TLS on this port",
        }
    }

    /// One line for `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%` and `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    ///
    /// What Envoy's TLS library has a number for is written as Envoy writes it.
    #[must_use]
    pub fn reason(&self) -> String {
        if self.0.stage == Stage::Secrets {
            return "TLS error: Secret is not supplied by SDS".to_owned();
        }
        let (code, name) = self.boring();
        let code = code.map_or_else(String::new, |code| (TLS_LIBRARY + code).to_string());
        let detail = match self.rejection() {
            Some(Rejection::NoCertificate) | None => String::new(),
            Some(why) => format!(":verify cert failed: {}", self.verify_failed(why)),
        };
        if name.is_empty() {
            return format!("TLS error: {}", self.why());
        }
        format!("TLS_error:|{code}:SSL routines:OPENSSL_internal:{name}{detail}:TLS_error_end")
    }

    /// Why a certificate is refused, as Envoy says it where it says that.
    fn verify_failed(&self, why: &Rejection) -> String {
        let at = |role: Role, what: &str| {
            let depth = match role {
                Role::Leaf => 0,
                Role::Issuer => 1,
                Role::Anchor => self.0.chain.len(),
            };
            format!("X509_verify_cert: certificate verification error at depth {depth}: {what}")
        };
        match why {
            Rejection::San {
                by_name, expected, ..
            } => {
                let sans = self.0.chain.first().map_or(&[][..], |leaf| leaf.sans());
                let sans: Vec<_> = sans.iter().map(crate::San::text).collect();
                let sans = sans.join(", ");
                if *by_name {
                    let expected = expected.join(", ");
                    format!(
                        "verify SAN list, expected SANs: [{expected}], certificate SANs: [{sans}]"
                    )
                } else {
                    format!("SAN matcher, certificate SANs are [{sans}]")
                }
            }
            Rejection::UnknownIssuer { .. } => {
                let depth = self.0.chain.len().saturating_sub(1);
                format!(
                    "X509_verify_cert: certificate verification error at depth {depth}: \
                     unable to get local issuer certificate"
                )
            }
            Rejection::Expired { role, .. } => at(*role, "certificate has expired"),
            Rejection::NotYetValid { role, .. } => at(*role, "certificate is not yet valid"),
            Rejection::TrustDomain { .. } => "no trust bundle store".to_owned(),
            other => other.to_string().replace([':', '|', '\n'], " "),
        }
    }

    /// The number within the library, and the name.
    fn boring(&self) -> (Option<u32>, &'static str) {
        match (&self.0.rejection, self.0.alert, &self.0.tls) {
            (Some(Rejection::NoCertificate), _, _) => {
                (Some(192), "PEER_DID_NOT_RETURN_A_CERTIFICATE")
            }
            (Some(_), _, _) => (Some(125), "CERTIFICATE_VERIFY_FAILED"),
            (_, Some(alert), _) => alert_name(alert),
            (_, _, Some(rustls::Error::PeerIncompatible(why))) => match why {
                PeerIncompatible::NoCipherSuitesInCommon => (Some(184), "NO_SHARED_CIPHER"),
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
                    (Some(240), "UNSUPPORTED_PROTOCOL")
                }
                _ => (None, "HANDSHAKE_FAILURE"),
            },
            (_, _, Some(rustls::Error::InvalidMessage(_))) => (Some(247), "WRONG_VERSION_NUMBER"),
            (_, _, Some(rustls::Error::NoApplicationProtocol)) => (None, "NO_APPLICATION_PROTOCOL"),
            _ => (None, ""),
        }
    }

    /// What went wrong, by itself.
    #[must_use]
    pub fn why(&self) -> String {
        let Inner {
            rejection,
            alert,
            tls,
            io,
            secret,
            ..
        } = &*self.0;
        if let Some(why) = rejection {
            return why.to_string();
        }
        if let Some(alert) = alert {
            return format!("the peer sent the alert {}", alert_text(*alert));
        }
        if let Some(tls) = tls {
            return tls.to_string();
        }
        if let Some(error) = io {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => "the peer closed the connection".to_owned(),
                _ => error.to_string(),
            };
        }
        secret.as_ref().map_or_else(
            || "no secret has arrived yet".to_owned(),
            ToString::to_string,
        )
    }
}

/// What the library's error says about how far it came.
fn stage_of(error: &rustls::Error) -> (Stage, Option<AlertDescription>) {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(CertificateError::BadSignature) => (Stage::Protocol, None),
        E::InvalidCertificate(_) | E::NoCertificatesPresented => (Stage::PeerCertificate, None),
        E::AlertReceived(alert) => (Stage::RefusedByPeer, Some(*alert)),
        E::PeerIncompatible(_) | E::NoApplicationProtocol => (Stage::Negotiation, None),
        // The server found no certificate for the name.
        E::General(_) => (Stage::Negotiation, None),
        _ => (Stage::Protocol, None),
    }
}

fn describe(chain: &[CertificateDer<'static>]) -> Vec<Arc<Certificate>> {
    let readable = chain.iter().take(CHAIN_MAX);
    let readable = readable.filter_map(|der| Certificate::from_der(der).ok());
    readable.map(Arc::new).collect()
}

/// BoringSSL numbers an alert as a thousand plus its number on the wire.
fn alert_name(alert: AlertDescription) -> (Option<u32>, &'static str) {
    use AlertDescription as A;
    let name = match alert {
        A::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        A::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        A::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        A::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        A::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        A::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        A::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        A::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        A::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        A::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        A::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        A::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        A::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        A::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        A::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        A::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        A::UnrecognisedName => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        A::CertificateRequired => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        A::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => return (None, ""),
    };
    (Some(ALERTS + u32::from(u8::from(alert))), name)
}

/// `CertificateExpired` as people write it.
fn alert_text(alert: AlertDescription) -> String {
    let mut out = String::new();
    let name = format!("{alert:?}");
    let mut previous = None;
    for c in name.chars() {
        if c.is_uppercase() && previous.is_some_and(char::is_lowercase) {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
        previous = Some(c);
    }
    out
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.0.side.peer();
        write!(
            f,
            "TLS handshake with a {peer} failed ({}): {}",
            self.0.stage,
            self.why()
        )?;
        let list = |names: Vec<String>| names.join(", ");
        let expected = self.expected();
        if !expected.is_empty() {
            write!(f, "; expected {}", list(expected))?;
        }
        let presented = self.presented();
        if !presented.is_empty() {
            write!(f, "; presented {}", list(presented))?;
        }
        for (index, one) in self.0.chain.iter().enumerate() {
            let at = if index == 0 { "; chain" } else { " <-" };
            write!(f, "{at} {:?} ({})", one.subject(), one.validity())?;
        }
        if let Some(name) = self.server_name() {
            write!(f, "; server name {name}")?;
        }
        if let Some(own) = self.own().filter(|_| self.0.stage == Stage::RefusedByPeer) {
            write!(
                f,
                "; our certificate {:?} of {:?}, valid to {}",
                own.subject(),
                own.issuer(),
                date(own.validity().not_after)
            )?;
        }
        write!(f, "; {}", self.advice())
    }
}

impl fmt::Debug for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeError")
            .field("side", &self.0.side.name())
            .field("stage", &self.0.stage)
            .field("rejection", &self.0.rejection)
            .field("alert", &self.0.alert)
            .field("tls", &self.0.tls)
            .field("io", &self.0.io)
            .field("secret", &self.0.secret)
            .field("server_name", &self.0.server_name)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Some(error) = &self.0.io {
            return Some(&**error);
        }
        let tls = self.0.tls.as_ref().map(|error| error as _);
        tls.or_else(|| self.0.secret.as_ref().map(|error| error as _))
    }
}

/// A moment as HTTP writes dates.
pub(crate) fn date(time: SystemTime) -> String {
    // The last second of the year 9999, which certificates use for "never".
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    httpdate::fmt_http_date(time.clamp(UNIX_EPOCH, last))
}
