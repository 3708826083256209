use std::{fmt, time::SystemTime};

use crate::{SvidError, TrustDomain, error::date};

/// Which certificate of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The peer's own.
    Leaf,
    /// One between the leaf and the anchor.
    Issuer,
    /// The one that is trusted.
    Anchor,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "certificate",
            Self::Issuer => "intermediate certificate",
            Self::Anchor => "trusted certificate",
        })
    }
}

/// Why a peer's certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The peer sent none.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// It cannot be read.
    #[error("the peer's certificate cannot be read: {0}")]
    Malformed(String),
    /// Its time is over.
    #[error("the {role} {subject:?} expired at {}", date(*.not_after))]
    Expired {
        /// Whose.
        role: Role,
        /// Its subject.
        subject: String,
        /// When it ended.
        not_after: SystemTime,
    },
    /// Its time has not come.
    #[error("the {role} {subject:?} is not valid before {}", date(*.not_before))]
    NotYetValid {
        /// Whose.
        role: Role,
        /// Its subject.
        subject: String,
        /// When it begins.
        not_before: SystemTime,
    },
    /// No chain from it reaches an anchor.
    #[error("its issuer {issuer:?} is not trusted")]
    UnknownIssuer {
        /// Where the chain ends.
        issuer: String,
        /// The subjects of what is trusted; at most [`TRUSTED_MAX`](Self::TRUSTED_MAX).
        trusted: Vec<String>,
    },
    /// Its issuer took it back.
    #[error("a certificate of the chain is revoked")]
    Revoked,
    /// No list says whether it was taken back.
    #[error("no revocation list covers a certificate of the chain")]
    UnknownRevocation,
    /// The list that covers it is too old.
    #[error("a revocation list expired at {}", date(*.next_update))]
    CrlExpired {
        /// When the next should have come.
        next_update: SystemTime,
    },
    /// It is for something else.
    #[error("its extended key usage does not allow {0} authentication")]
    Purpose(&'static str),
    /// A CA certificate where a leaf should be.
    #[error("it is a CA certificate")]
    CaAsLeaf,
    /// More certificates than allowed between leaf and anchor.
    #[error("the chain is longer than {0}")]
    Depth(usize),
    /// The chain breaks another rule of X.509.
    #[error("the chain does not verify: {0}")]
    Chain(String),
    /// An RSA key that must not sign.
    #[error("its key usage lacks digitalSignature")]
    RsaKeyUsage,
    /// No alternative name passes.
    #[error("none of its names is expected")]
    San {
        /// What would pass.
        expected: Vec<String>,
        /// What is there.
        presented: Vec<String>,
        /// It was a name that came with the connection, no test of the config.
        by_name: bool,
    },
    /// Neither it nor its key is pinned.
    #[error("neither its hash {sha256} nor that of its key is pinned")]
    Pin {
        /// SHA-256 of what was presented.
        sha256: String,
    },
    /// It is no X.509-SVID.
    #[error("it is no X.509-SVID: {0}")]
    Svid(#[from] SvidError),
    /// Its trust domain has no bundle here.
    #[error("its trust domain {presented} is not trusted")]
    TrustDomain {
        /// Whose it is.
        presented: TrustDomain,
        /// Those that have a bundle.
        known: Vec<TrustDomain>,
    },
}

impl Rejection {
    /// So many trusted subjects are named at most.
    pub const TRUSTED_MAX: usize = 16;

    /// What somebody should look at.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "give the peer a certificate, or set require_client_certificate to false"
            }
            Self::Malformed(_) => "look at the peer's certificate file",
            Self::Expired {
                role: Role::Leaf, ..
            } => "see whether the peer's certificate is still rotated, and both clocks",
            Self::Expired {
                role: Role::Issuer, ..
            } => "the peer must send a chain with a current intermediate",
            Self::Expired { .. } => "bring a current CA certificate into trusted_ca",
            Self::NotYetValid { .. } => "compare the clocks of this host, the peer and the CA",
            Self::UnknownIssuer { .. } => {
                "put the issuer's CA into trusted_ca, or let the peer send its intermediates"
            }
            Self::Revoked => "give the peer a new certificate",
            Self::UnknownRevocation => {
                "give a CRL of every CA in the chain, or set only_verify_leaf_cert_crl"
            }
            Self::CrlExpired { .. } => "bring a current CRL",
            Self::Purpose(_) => "issue a certificate with both clientAuth and serverAuth",
            Self::CaAsLeaf => "issue a leaf: a CA certificate must not be used by a workload",
            Self::Depth(_) => "raise max_verify_depth, or issue from a CA nearer to the root",
            Self::Chain(_) => "look at the chain with openssl verify",
            Self::RsaKeyUsage => "issue a certificate whose key usage has digitalSignature",
            Self::San { .. } => {
                "compare the expected names (match_typed_subject_alt_names, SNI) with the presented ones"
            }
            Self::Pin { .. } => "update verify_certificate_hash or verify_certificate_spki",
            Self::Svid(_) => "issue the certificate as the X.509-SVID standard asks",
            Self::TrustDomain { .. } => "add the trust domain's bundle to trust_domains",
        }
    }
}
