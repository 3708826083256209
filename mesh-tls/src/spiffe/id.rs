use std::{fmt, str::FromStr, sync::Arc};

/// The longest SPIFFE ID in bytes; a longer one is refused.
pub const SPIFFE_ID_MAX: usize = 2048;
/// The longest name of a trust domain in bytes; a longer one is refused.
pub const TRUST_DOMAIN_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why a text is no SPIFFE ID, or no trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// It does not begin with `spiffe://`, in lower case.
    #[error("it does not begin with spiffe://")]
    Scheme,
    /// More than [`SPIFFE_ID_MAX`] bytes.
    #[error("it is longer than {SPIFFE_ID_MAX} bytes")]
    TooLong,
    /// No trust domain.
    #[error("it has no trust domain")]
    NoTrustDomain,
    /// More than [`TRUST_DOMAIN_MAX`] bytes of trust domain.
    #[error("its trust domain is longer than {TRUST_DOMAIN_MAX} bytes")]
    TrustDomainTooLong,
    /// A trust domain with other characters; a port, user or percent sign among them.
    #[error(
        "its trust domain has {0:?}; only lower-case letters, digits, '.', '-' and '_' may be there"
    )]
    TrustDomainCharacter(char),
    /// A path with other characters; a query, fragment or percent sign among them.
    #[error("its path has {0:?}; only letters, digits, '.', '-' and '_' may be there")]
    PathCharacter(char),
    /// Two slashes with nothing between them.
    #[error("its path has an empty segment")]
    EmptySegment,
    /// A segment `.` or `..`.
    #[error("its path has a segment '.' or '..'")]
    DotSegment,
    /// The path ends with a slash.
    #[error("its path ends with a slash")]
    TrailingSlash,
}

/// The name of a trust domain, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a name.
    ///
    /// # Errors
    /// When the standard does not allow it.
    pub fn new(name: &str) -> Result<Self, SpiffeIdError> {
        check_trust_domain(name)?;
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(name: &str) -> Result<Self, SpiffeIdError> {
        Self::new(name)
    }
}

/// A SPIFFE ID, such as `spiffe://cluster.local/ns/shop/sa/cart`.
///
/// Only what the standard allows can be in one: no port, user, query, fragment or percent-encoding, no
/// upper-case trust domain, no empty or dot segment. So two IDs are the same if their bytes are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins.
    path: usize,
}

impl SpiffeId {
    /// Reads an ID.
    ///
    /// # Errors
    /// When the standard does not allow it.
    pub fn new(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::Empty);
        }
        if text.len() > SPIFFE_ID_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(domain)?;
        check_path(path)?;
        Ok(Self {
            text: text.into(),
            path: SCHEME.len() + domain.len(),
        })
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Who vouches for it.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.text[SCHEME.len()..self.path].into())
    }

    /// Which workload, beginning with a slash; empty for the trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.path..]
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        Self::new(text)
    }
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeIdError> {
    if name.is_empty() {
        return Err(SpiffeIdError::NoTrustDomain);
    }
    if name.len() > TRUST_DOMAIN_MAX {
        return Err(SpiffeIdError::TrustDomainTooLong);
    }
    let good = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    match name.chars().find(|c| !good(*c)) {
        Some(bad) => Err(SpiffeIdError::TrustDomainCharacter(bad)),
        None => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    let Some(segments) = path.strip_prefix('/') else {
        return Ok(());
    };
    if segments.is_empty() || segments.ends_with('/') {
        return Err(SpiffeIdError::TrailingSlash);
    }
    for segment in segments.split('/') {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if let Some(bad) = segment.chars().find(|c| !good(*c)) {
            return Err(SpiffeIdError::PathCharacter(bad));
        }
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment),
            "." | ".." => return Err(SpiffeIdError::DotSegment),
            _ => {}
        }
    }
    Ok(())
}
