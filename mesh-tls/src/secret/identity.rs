use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, pem},
    sign::CertifiedKey,
};

use super::{SecretError, read_file};
use crate::{Certificate, SpiffeId, Validity};

/// A certificate chain and its private key: who this process is.
///
/// The key is only inside, where signatures are made: it is in no output of this type.
#[derive(Clone)]
pub struct Identity {
    chain: Arc<[Arc<Certificate>]>,
    certified: Arc<CertifiedKey>,
    path: Option<Arc<Path>>,
}

impl Identity {
    /// Reads a chain, leaf first, and its key.
    ///
    /// # Errors
    /// When one of them cannot be read, or the key is not the leaf's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SecretError> {
        Self::new(Certificate::from_pem(chain)?, read_key(key)?)
    }

    /// The same from files.
    ///
    /// # Errors
    /// Also when a file cannot be read.
    pub fn from_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, SecretError> {
        let chain_bytes = read_file(chain.as_ref())?;
        super::warn_if_readable_by_others(key.as_ref());
        let identity = Self::from_pem(&chain_bytes, &read_file(key.as_ref())?)?;
        Ok(identity.read_from(chain.as_ref()))
    }

    /// The same from DER, as the SPIFFE Workload API sends it: certificates one after another, and a key in
    /// PKCS#8.
    ///
    /// # Errors
    /// As above.
    pub fn from_der(chain: &[u8], key: &[u8]) -> Result<Self, SecretError> {
        let certificates = certificates(chain)?;
        let key = PrivateKeyDer::try_from(key.to_vec()).map_err(|_| SecretError::Key)?;
        Self::new(certificates, key)
    }

    fn new(chain: Vec<Arc<Certificate>>, key: PrivateKeyDer<'static>) -> Result<Self, SecretError> {
        let leaf = chain.first().ok_or(SecretError::NoCertificate)?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| SecretError::Key)?;
        let ders = chain.iter().map(|one| one.shared_der().clone()).collect();
        let certified = CertifiedKey::new(ders, key);
        certified
            .keys_match()
            .map_err(|_| SecretError::KeyMismatch {
                subject: leaf.subject().to_owned(),
            })?;
        Ok(Self {
            chain: chain.into(),
            certified: Arc::new(certified),
            path: None,
        })
    }

    /// The same, from this file: people are told.
    #[must_use]
    pub fn read_from(mut self, chain: &Path) -> Self {
        self.path = Some(chain.into());
        self
    }

    /// The file that the chain was read from, if it was and that is known.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The certificate of this process.
    #[must_use]
    pub fn leaf(&self) -> &Arc<Certificate> {
        &self.chain[0]
    }

    /// The leaf, and what leads from it towards an anchor.
    #[must_use]
    pub fn chain(&self) -> &[Arc<Certificate>] {
        &self.chain
    }

    /// The SPIFFE ID of the leaf, if it has one.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        self.leaf().spiffe_id()
    }

    /// When the leaf may be used.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.leaf().validity()
    }

    /// When the first of the intermediate certificates ends, if there are any.
    #[must_use]
    pub fn issuer_not_after(&self) -> Option<SystemTime> {
        let issuers = self.chain[1..].iter();
        issuers.map(|issuer| issuer.validity().not_after).min()
    }

    pub(crate) const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl PartialEq for Identity {
    /// The chain decides: a key cannot be looked at, and the leaf names its public half.
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("leaf", self.leaf())
            .field("chain", &self.chain.len())
            .field("key", &"[hidden]")
            .finish()
    }
}

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, SecretError> {
    let mut rest = text;
    let mut encrypted = find(text, b"ENCRYPTED PRIVATE KEY").is_some();
    encrypted |= find(text, b"Proc-Type: 4,ENCRYPTED").is_some();
    if encrypted {
        return Err(SecretError::EncryptedKey);
    }
    loop {
        // What the library says of broken PEM may quote the text: it is not passed on.
        let section = pem::from_buf(&mut rest)
            .map_err(|_| SecretError::Pem("in the private key".to_owned()))?;
        let Some((kind, bytes)) = section else {
            return Err(SecretError::NoKey);
        };
        match kind {
            pem::SectionKind::PrivateKey => return Ok(PrivateKeyDer::Pkcs8(bytes.into())),
            pem::SectionKind::RsaPrivateKey => return Ok(PrivateKeyDer::Pkcs1(bytes.into())),
            pem::SectionKind::EcPrivateKey => return Ok(PrivateKeyDer::Sec1(bytes.into())),
            _ => {}
        }
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

/// Certificates in DER, one after the other.
pub(super) fn certificates(mut der: &[u8]) -> Result<Vec<Arc<Certificate>>, SecretError> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        if certificates.len() == crate::CERTIFICATES_MAX {
            return Err(SecretError::TooMany);
        }
        let length = der_length(der)
            .ok_or_else(|| SecretError::Certificate("it is cut short".to_owned()))?;
        let (one, rest) = der.split_at(length);
        certificates.push(Arc::new(Certificate::from_der(one)?));
        der = rest;
    }
    Ok(certificates)
}

/// How many bytes the DER element at the start takes; `None` when it is not all there.
fn der_length(der: &[u8]) -> Option<usize> {
    let first = usize::from(*der.get(1)?);
    let (header, length) = if first < 0x80 {
        (2, first)
    } else {
        let bytes = first & 0x7f;
        if bytes == 0 || bytes > 4 {
            return None;
        }
        let digits = der.get(2..2 + bytes)?;
        let length = digits
            .iter()
            .fold(0usize, |length, byte| length << 8 | usize::from(*byte));
        (2 + bytes, length)
    };
    let whole = header.checked_add(length)?;
    (whole <= der.len()).then_some(whole)
}
