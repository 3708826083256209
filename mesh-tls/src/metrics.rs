use mesh_core::stats::{Group, Kind, Scope, StatDef};
use std::sync::Arc;

use crate::{HandshakeError, Rejection, Stage, TlsSession, TlsVersion};

mesh_core::stats! {
    /// What becomes of handshakes. Envoy: `listener.<address>.ssl.`, `cluster.<name>.ssl.`.
    pub struct SslStats {
        /// Connections that failed for a reason of TLS that has no counter of its own.
        counter connection_error,
        /// Handshakes that succeeded.
        counter handshake,
        /// Those among them that took up an earlier session.
        counter session_reused,
        /// Those among them whose peer presented no certificate.
        counter no_certificate,
        /// Failed, for the peer presented none where it must.
        counter fail_verify_no_cert,
        /// Failed, for the peer's chain does not verify.
        counter fail_verify_error,
        /// Failed, for none of the peer's names is expected.
        counter fail_verify_san,
        /// Failed, for the peer's certificate is not pinned.
        counter fail_verify_cert_hash,
        /// Failed, for the peer's key usage does not allow it.
        counter was_key_usage_invalid,
    }
}

macro_rules! names {
    ($list:ident: $($name:literal),* $(,)?) => {
        static $list: &[StatDef] = &[$(StatDef { name: $name, kind: Kind::Counter },)*];
    };
}

names!(VERSIONS: "TLSv1.2", "TLSv1.3");
names!(
    CIPHERS: "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305",
);
names!(CURVES: "X25519", "P-256", "P-384", "X25519MLKEM768");

/// All stats of one transport socket.
#[derive(Debug, Clone)]
pub struct TlsStats {
    ssl: SslStats,
    versions: Arc<Group>,
    ciphers: Arc<Group>,
    curves: Arc<Group>,
}

impl TlsStats {
    /// Registers them under `scope`, which ends where `ssl.` begins.
    #[must_use]
    pub fn register(scope: &Scope) -> Self {
        let ssl = scope.scope("ssl.");
        Self {
            versions: ssl.scope("versions.").group(VERSIONS),
            ciphers: ssl.scope("ciphers.").group(CIPHERS),
            curves: ssl.scope("curves.").group(CURVES),
            ssl: SslStats::register(&ssl),
        }
    }

    /// Counts without being exported.
    #[must_use]
    pub fn detached() -> Self {
        Self::register(&Scope::detached())
    }

    /// The counters without a name of their own.
    #[must_use]
    pub const fn ssl(&self) -> &SslStats {
        &self.ssl
    }

    /// A handshake succeeded.
    pub(crate) fn on_success(&self, session: &TlsSession) {
        self.ssl.handshake().inc();
        if session.resumed {
            self.ssl.session_reused().inc();
        }
        if session.peer.is_none() {
            self.ssl.no_certificate().inc();
        }
        self.versions
            .counter(usize::from(session.version == TlsVersion::Tls13))
            .inc();
        count(&self.ciphers, CIPHERS, session.cipher);
        count(&self.curves, CURVES, session.group);
    }

    /// A handshake failed.
    pub(crate) fn on_failure(&self, error: &HandshakeError) {
        match error.rejection() {
            Some(Rejection::NoCertificate) => self.ssl.fail_verify_no_cert().inc(),
            Some(Rejection::San { .. }) => self.ssl.fail_verify_san().inc(),
            Some(Rejection::Pin { .. }) => self.ssl.fail_verify_cert_hash().inc(),
            Some(Rejection::RsaKeyUsage) => {
                self.ssl.was_key_usage_invalid().inc();
                self.ssl.connection_error().inc();
            }
            Some(_) => self.ssl.fail_verify_error().inc(),
            // Envoy counts as errors of TLS what its library has an error for, not connections that end.
            None if matches!(error.stage(), Stage::Connection | Stage::Secrets) => {}
            None => self.ssl.connection_error().inc(),
        }
    }
}

fn count(group: &Group, list: &[StatDef], name: &str) {
    if let Some(index) = list.iter().position(|def| def.name == name) {
        group.counter(index).inc();
    }
}
