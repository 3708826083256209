use super::{SpiffeId, SpiffeIdError};
use crate::{Certificate, San};

/// Why a certificate is no X.509-SVID of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// No URI SAN at all.
    #[error("it has no URI SAN")]
    NoUri,
    /// More URI SANs than one.
    #[error("it has {0} URI SANs, where exactly one must be")]
    ManyUris(usize),
    /// The URI is no SPIFFE ID.
    #[error("its URI SAN {uri:?} is no SPIFFE ID: {reason}")]
    Id {
        /// What it says.
        uri: String,
        /// What is wrong with it.
        reason: SpiffeIdError,
    },
    /// A SPIFFE ID without a path names a trust domain, not a workload.
    #[error("its SPIFFE ID {0} names a trust domain, not a workload")]
    NoPath(SpiffeId),
    /// The CA bit.
    #[error("it is a CA certificate")]
    Ca,
    /// No key usage extension.
    #[error("it has no key usage")]
    NoKeyUsage,
    /// Key usage without digital signature.
    #[error("its key usage lacks digitalSignature")]
    NoDigitalSignature,
    /// Key usage of a CA.
    #[error("its key usage has keyCertSign or cRLSign")]
    CaKeyUsage,
}

/// Holds a leaf against the rules of the X.509-SVID standard, and gives its identity.
///
/// Exactly one URI SAN, which is a SPIFFE ID with a path; no CA bit; key usage is there with
/// `digitalSignature` and without `keyCertSign` and `cRLSign`. Other kinds of SAN may be there too.
/// This does not look at who signed it: that is [`Validator`](crate::Validator)'s work.
///
/// # Errors
/// The first rule that it breaks.
///
/// # Envoy
/// Its SPIFFE validator does not ask for `digitalSignature`, and takes the first SPIFFE ID among several URIs.
pub fn check_svid(leaf: &Certificate) -> Result<SpiffeId, SvidError> {
    let mut uris = leaf.sans().iter().filter_map(|san| match san {
        San::Uri(uri) => Some(uri),
        _ => None,
    });
    let uri = uris.next().ok_or(SvidError::NoUri)?;
    let more = uris.count();
    if more > 0 {
        return Err(SvidError::ManyUris(more + 1));
    }
    let id = SpiffeId::new(uri).map_err(|reason| SvidError::Id {
        uri: uri.clone(),
        reason,
    })?;
    if id.path().is_empty() {
        return Err(SvidError::NoPath(id));
    }
    if leaf.is_ca() {
        return Err(SvidError::Ca);
    }
    let usage = leaf.key_usage().ok_or(SvidError::NoKeyUsage)?;
    if usage.key_cert_sign || usage.crl_sign {
        return Err(SvidError::CaKeyUsage);
    }
    if !usage.digital_signature {
        return Err(SvidError::NoDigitalSignature);
    }
    Ok(id)
}
