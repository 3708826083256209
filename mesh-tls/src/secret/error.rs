use std::{io, path::PathBuf, sync::Arc, time::SystemTime};

use crate::error::date;

/// Why a secret is refused. It never holds a part of a key.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The text is broken PEM.
    #[error("broken PEM: {0}")]
    Pem(String),
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// More certificates than [`CERTIFICATES_MAX`](crate::CERTIFICATES_MAX).
    #[error("there are more than {} certificates in it", crate::CERTIFICATES_MAX)]
    TooMany,
    /// A certificate cannot be read.
    #[error("a certificate cannot be read: {0}")]
    Certificate(String),
    /// There is no private key in it.
    #[error("there is no private key in it")]
    NoKey,
    /// The private key is encrypted.
    #[error("the private key is encrypted, which is not supported")]
    EncryptedKey,
    /// The private key is of no kind that is known.
    #[error(
        "the private key cannot be used: it must be RSA, ECDSA on P-256, P-384 or P-521, or Ed25519"
    )]
    Key,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate {subject:?}")]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// The certificate has ended.
    #[error("the certificate {subject:?} expired at {}", date(*.not_after))]
    Expired {
        /// The certificate's subject.
        subject: String,
        /// When it ended.
        not_after: SystemTime,
    },
    /// The certificate's time has not come.
    #[error("the certificate {subject:?} is not valid before {}", date(*.not_before))]
    NotYetValid {
        /// The certificate's subject.
        subject: String,
        /// When it begins.
        not_before: SystemTime,
    },
    /// The chain does not reach the bundle.
    #[error("the chain of {subject:?} does not reach the trust bundle: {reason}")]
    Chain {
        /// The certificate's subject.
        subject: String,
        /// Where it ends.
        reason: String,
    },
    /// Every certificate of a trust bundle has ended.
    #[error("every certificate of the trust bundle has expired, the last at {}", date(*.not_after))]
    BundleExpired {
        /// When the last one ended.
        not_after: SystemTime,
    },
    /// A certificate cannot be an anchor of trust.
    #[error("{subject:?} cannot be a trust anchor: {reason}")]
    Anchor {
        /// The certificate's subject.
        subject: String,
        /// Why.
        reason: String,
    },
    /// A revocation list cannot be read.
    #[error("a revocation list cannot be read: {0}")]
    Crl(String),
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: Arc<io::Error>,
    },
    /// A file is longer than [`FILE_MAX`](crate::FILE_MAX).
    #[error("{}: it is longer than {} bytes", .0.display(), crate::FILE_MAX)]
    FileTooLong(PathBuf),
    /// The files changed while they were read, again and again.
    #[error("the files kept changing while they were read")]
    Unstable,
    /// A session ticket key of another length.
    #[error("a session ticket key must have {len} bytes, not {0}", len = crate::TICKET_KEY_LEN)]
    TicketKey(usize),
    /// The source says why there is no secret.
    #[error("{0}")]
    Source(String),
}
