//! Transport sockets.

use std::{path::PathBuf, sync::Arc};

use http::HeaderName;
use mesh_core::MetadataValue;
use mesh_tls::{
    DownstreamTlsConfig, FileSecret, Identity, UpstreamTlsConfig, ValidationConfig,
    ValidationDefaults,
};

/// Envoy: `DownstreamTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTls {
    /// Versions, ciphers, sessions.
    pub config: DownstreamTlsConfig,
    /// What clients are shown; at least one.
    pub certificates: Vec<CertificateSource>,
    /// What clients have to show; `None` asks for nothing.
    pub validation: Option<ValidationSource>,
}

/// Envoy: `UpstreamTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// Versions, ciphers, sessions, the server's name.
    pub config: UpstreamTlsConfig,
    /// What servers are shown when they ask.
    pub certificate: Option<CertificateSource>,
    /// What servers have to show.
    pub validation: ValidationSource,
    /// The server's name is the endpoint's hostname, where it has one. Envoy: `auto_host_sni`.
    pub auto_host_sni: bool,
}

/// How some endpoints are connected to. Envoy: `Cluster.TransportSocketMatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportSocketMatch {
    /// For people.
    pub name: String,
    /// What an endpoint's labels must have; nothing fits every endpoint. Envoy: `match`.
    pub wanted: MetadataValue,
    /// The encryption; `None` is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
}

impl TransportSocketMatch {
    /// Which of `matches` an endpoint is connected by, counted from 1; 0 when none of them fits, and its cluster's own
    /// way counts. `labels` are the endpoint's, then its locality's: what comes first is looked at first.
    #[must_use]
    pub fn pick(matches: &[Self], labels: &[MetadataValue]) -> usize {
        let of = |labels| matches.iter().position(|one| one.fits(labels));
        let own = labels.first().unwrap_or(&MetadataValue::Null);
        let later = labels.iter().skip(1);
        let found = [own].into_iter().chain(later).find_map(of);
        found.map_or(0, |index| index + 1)
    }

    fn fits(&self, labels: &MetadataValue) -> bool {
        let MetadataValue::Struct(wanted) = &self.wanted else {
            return true;
        };
        let MetadataValue::Struct(labels) = labels else {
            return wanted.is_empty();
        };
        wanted
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Names that come with each request. Envoy: `UpstreamHttpProtocolOptions`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AutoNames {
    /// The request's host is the server's name to ask for. Envoy: `auto_sni`.
    pub sni: bool,
    /// The server's certificate must have the request's host. Envoy: `auto_san_validation`.
    pub san: bool,
    /// A header that is used in place of the host, where a request has it. Envoy: `override_auto_sni_header`.
    pub header: Option<HeaderName>,
}

/// Where a certificate and its key come from. Envoy: `TlsCertificate`.
#[derive(Debug, Clone, PartialEq)]
pub enum CertificateSource {
    /// From the config, or from files that are read once.
    Fixed(Box<Identity>),
    /// From files that are read again whenever something is moved into `folder`. Envoy:
    /// `watched_directory`.
    Watched {
        /// Which files.
        files: FileSecret,
        /// The folder.
        folder: PathBuf,
        /// What the files held when the config was read.
        first: AsRead<Identity>,
    },
    /// From a control plane, as the [secret](super::Secret) of that name. Envoy: `SdsSecretConfig`.
    Sds(Arc<str>),
}

/// What watched files held when the config was read. What the config says does not depend on it: any two are
/// equal, so that a rotation changes no config.
#[derive(Debug, Clone)]
pub struct AsRead<T>(pub Arc<T>);

impl<T> PartialEq for AsRead<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Where the anchors and revocation lists come from. Envoy: `CertificateValidationContext`.
#[derive(Debug, Clone, PartialEq)]
pub enum ValidationSource {
    /// From the config, or from files that are read once.
    Fixed(Box<ValidationConfig>),
    /// From files that are read again, as above.
    Watched {
        /// Which files, and what is asked besides.
        files: FileSecret,
        /// The folder.
        folder: PathBuf,
        /// All that is asked, with what the files held when the config was read.
        first: AsRead<ValidationConfig>,
    },
    /// From a control plane, as the [secret](super::Secret) of that name. Envoy: `SdsSecretConfig`,
    /// `CombinedCertificateValidationContext`.
    Sds {
        /// Its name.
        name: Arc<str>,
        /// What is asked besides.
        defaults: Box<ValidationDefaults>,
    },
}

/// A secret that came from a control plane. Envoy: `Secret`.
#[derive(Debug, Clone, PartialEq)]
pub enum Secret {
    /// A certificate and its key. Envoy: `tls_certificate`.
    Certificate(Box<Identity>),
    /// What peers have to be. Envoy: `validation_context`.
    Validation(Box<ValidationConfig>),
}

impl ValidationSource {
    /// With something else asked besides the anchors.
    #[must_use]
    pub fn map(self, change: impl Fn(ValidationConfig) -> ValidationConfig) -> Self {
        match self {
            Self::Fixed(config) => Self::Fixed(Box::new(change(*config))),
            Self::Watched {
                files:
                    FileSecret::Validation {
                        trusted_ca,
                        crl,
                        base,
                    },
                folder,
                first,
            } => Self::Watched {
                files: FileSecret::Validation {
                    trusted_ca,
                    crl,
                    base: Box::new(change(*base)),
                },
                folder,
                first: AsRead(Arc::new(change(Arc::unwrap_or_clone(first.0)))),
            },
            Self::Sds { name, defaults } => Self::Sds {
                name,
                defaults: Box::new(defaults.map(change)),
            },
            other @ Self::Watched { .. } => other,
        }
    }

    /// What is asked, with the anchors as they were when the config was read.
    #[must_use]
    pub fn config(&self) -> Option<&ValidationConfig> {
        match self {
            Self::Fixed(config) => Some(config),
            Self::Watched { first, .. } => Some(&first.0),
            Self::Sds { .. } => None,
        }
    }
}
