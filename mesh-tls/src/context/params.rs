use std::{fmt, sync::Arc};

use rustls::{
    ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup},
    version::{TLS12, TLS13},
};

use super::names::{cipher_by_name, curve_by_name, default_ciphers, default_curves, tls13_ciphers};
use crate::secret::provider;

/// The longest name of an application protocol, in bytes; a longer one is a config error.
const ALPN_MAX: usize = 255;

/// A version of TLS that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// As Envoy logs it: `%DOWNSTREAM_TLS_VERSION%`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A TLS context that makes no sense, or asks for what is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The lowest version is above the highest.
    #[error("the minimum version {min} is above the maximum {max}")]
    Versions {
        /// The lowest.
        min: TlsVersion,
        /// The highest.
        max: TlsVersion,
    },
    /// A cipher suite that nobody knows, or that is not offered.
    #[error("cipher suite {name:?} is not offered: {}", KNOWN_CIPHERS)]
    Cipher {
        /// What config says.
        name: String,
    },
    /// A curve likewise.
    #[error("ECDH curve {name:?} is not offered: X25519MLKEM768, X25519, P-256 and P-384 are")]
    Curve {
        /// What config says.
        name: String,
    },
    /// No curve that a version can use.
    #[error("none of the ECDH curves can be used with {0}")]
    NoCurve(TlsVersion),
    /// An application protocol that cannot be sent.
    #[error("ALPN protocol {name:?} must have 1 to 255 bytes")]
    Alpn {
        /// What config says.
        name: String,
    },
    /// A server name that is no host name.
    #[error("SNI {name:?} is no host name")]
    Sni {
        /// What config says.
        name: String,
    },
    /// More session ticket keys than allowed.
    #[error("there are {0} session ticket keys, where at most {max} may be", max = super::TICKET_KEYS_MAX)]
    TicketKeys(usize),
    /// A server without a certificate.
    #[error("a server needs a certificate")]
    NoCertificate,
    /// The library refuses the combination.
    #[error("{0}")]
    Library(String),
}

const KNOWN_CIPHERS: &str = "ECDHE-ECDSA and ECDHE-RSA with AES128-GCM-SHA256, AES256-GCM-SHA384 and \
     CHACHA20-POLY1305 are";

/// Versions, ciphers and curves.
///
/// # Envoy
/// `TlsParameters`. TLS 1.3 suites are not configurable.
#[derive(Clone)]
pub struct TlsParams {
    min: TlsVersion,
    max: TlsVersion,
    ciphers: Vec<SupportedCipherSuite>,
    curves: Vec<&'static dyn SupportedKxGroup>,
}

impl TlsParams {
    /// What Envoy offers to clients: TLS 1.2 and 1.3.
    #[must_use]
    pub fn downstream() -> Self {
        Self {
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
            ciphers: default_ciphers(),
            curves: default_curves(),
        }
    }

    /// What Envoy offers to servers: TLS 1.2 only, unless config says TLS 1.3.
    #[must_use]
    pub fn upstream() -> Self {
        Self {
            max: TlsVersion::Tls12,
            ..Self::downstream()
        }
    }

    /// TLS 1.3 only: what both ends of a mesh speak.
    #[must_use]
    pub fn modern() -> Self {
        Self {
            min: TlsVersion::Tls13,
            ..Self::downstream()
        }
    }

    /// The highest version.
    #[must_use]
    pub const fn max(&self) -> TlsVersion {
        self.max
    }

    /// The lowest and the highest version.
    ///
    /// # Errors
    /// When the lowest is above the highest.
    pub fn versions(mut self, min: TlsVersion, max: TlsVersion) -> Result<Self, ContextError> {
        if min > max {
            return Err(ContextError::Versions { min, max });
        }
        self.min = min;
        self.max = max;
        Ok(self)
    }

    /// The TLS 1.2 suites, best first, by OpenSSL's names; `[A|B]` are equal, and are taken in their order.
    /// None means the default. Envoy: `cipher_suites`.
    ///
    /// # Errors
    /// When one is not offered here: it names those that are.
    pub fn cipher_suites(mut self, names: &[String]) -> Result<Self, ContextError> {
        let words = names.iter().flat_map(|entry| entry.split(':'));
        let words = words.flat_map(|word| word.trim_matches(['[', ']']).split('|'));
        let suites: Result<Vec<_>, _> = words
            .filter(|word| !word.is_empty())
            .map(|word| {
                cipher_by_name(word).ok_or_else(|| ContextError::Cipher {
                    name: word.to_owned(),
                })
            })
            .collect();
        let suites = suites?;
        if !suites.is_empty() {
            self.ciphers = suites;
        }
        Ok(self)
    }

    /// The key exchange groups, best first. None means the default. Envoy: `ecdh_curves`.
    ///
    /// # Errors
    /// When one is not offered here.
    pub fn ecdh_curves(mut self, names: &[String]) -> Result<Self, ContextError> {
        let words = names.iter().flat_map(|entry| entry.split(':'));
        let curves: Result<Vec<_>, _> = words
            .map(|word| {
                curve_by_name(word).ok_or_else(|| ContextError::Curve {
                    name: word.to_owned(),
                })
            })
            .collect();
        let curves = curves?;
        if !curves.is_empty() {
            self.curves = curves;
        }
        Ok(self)
    }

    /// # Errors
    /// When no curve goes with the versions: the hybrids are for TLS 1.3 only.
    pub(super) fn check(&self) -> Result<(), ContextError> {
        let version = match self.max {
            TlsVersion::Tls12 => ProtocolVersion::TLSv1_2,
            TlsVersion::Tls13 => ProtocolVersion::TLSv1_3,
        };
        let usable = |curve: &&dyn SupportedKxGroup| curve.usable_for_version(version);
        if self.curves.iter().any(usable) {
            Ok(())
        } else {
            Err(ContextError::NoCurve(self.max))
        }
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = CryptoProvider::clone(&provider());
        provider.cipher_suites.clear();
        if self.max == TlsVersion::Tls13 {
            provider.cipher_suites.extend(tls13_ciphers());
        }
        if self.min == TlsVersion::Tls12 {
            provider.cipher_suites.extend(&self.ciphers);
        }
        provider.kx_groups = self.curves.clone();
        Arc::new(provider)
    }

    pub(super) fn protocol_versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match (self.min, self.max) {
            (TlsVersion::Tls12, TlsVersion::Tls12) => &BOTH[1..],
            (TlsVersion::Tls12, TlsVersion::Tls13) => &BOTH,
            (TlsVersion::Tls13, _) => &BOTH[..1],
        }
    }
}

impl fmt::Debug for TlsParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ciphers = self
            .ciphers
            .iter()
            .map(|one| super::suite_name(one.suite()));
        let curves = self.curves.iter().map(|one| super::group_name(one.name()));
        f.debug_struct("TlsParams")
            .field("min", &self.min)
            .field("max", &self.max)
            .field("ciphers", &ciphers.collect::<Vec<_>>())
            .field("curves", &curves.collect::<Vec<_>>())
            .finish()
    }
}

impl PartialEq for TlsParams {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// Application protocols, best first.
pub(super) fn check_alpn(names: &[String]) -> Result<Vec<Vec<u8>>, ContextError> {
    names
        .iter()
        .map(|name| {
            if (1..=ALPN_MAX).contains(&name.len()) {
                Ok(name.clone().into_bytes())
            } else {
                Err(ContextError::Alpn { name: name.clone() })
            }
        })
        .collect()
}
