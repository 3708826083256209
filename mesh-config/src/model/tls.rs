//! Transport sockets.

use std::path::PathBuf;

use mesh_tls::{DownstreamTlsConfig, FileSecret, Identity, UpstreamTlsConfig, ValidationConfig};

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
    },
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
    },
}

impl ValidationSource {
    /// With something else asked besides the anchors.
    #[must_use]
    pub fn map(self, change: impl FnOnce(ValidationConfig) -> ValidationConfig) -> Self {
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
            } => Self::Watched {
                files: FileSecret::Validation {
                    trusted_ca,
                    crl,
                    base: Box::new(change(*base)),
                },
                folder,
            },
            other @ Self::Watched { .. } => other,
        }
    }

    /// What is asked, with the anchors as they were when the config was read.
    #[must_use]
    pub fn config(&self) -> Option<&ValidationConfig> {
        match self {
            Self::Fixed(config) => Some(config),
            Self::Watched {
                files: FileSecret::Validation { base, .. },
                ..
            } => Some(base),
            Self::Watched { .. } => None,
        }
    }
}
