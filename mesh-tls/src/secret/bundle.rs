use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::SystemTime};

use rustls::pki_types::{CertificateRevocationListDer, TrustAnchor, pem::PemObject};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use super::{SecretError, read_file};
use crate::{
    Certificate, TrustDomain,
    digest::{hex, sha256},
};

/// The certificates whose signatures count.
///
/// Each is an anchor: also an intermediate, or a leaf itself. That is how Envoy reads `trusted_ca`.
#[derive(Clone)]
pub struct TrustBundle {
    anchors: Arc<[Anchor]>,
    path: Option<Arc<Path>>,
}

pub(crate) struct Anchor {
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) anchor: TrustAnchor<'static>,
}

impl TrustBundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// When there is no certificate, or one is broken.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SecretError> {
        Self::new(Certificate::from_pem(pem)?)
    }

    /// The same from a file.
    ///
    /// # Errors
    /// Also when the file cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SecretError> {
        Ok(Self::from_pem(&read_file(path.as_ref())?)?.read_from(path.as_ref()))
    }

    /// The same from DER, as the SPIFFE Workload API sends it: certificates one after another.
    ///
    /// # Errors
    /// As above.
    pub fn from_der(der: &[u8]) -> Result<Self, SecretError> {
        Self::new(super::identity::certificates(der)?)
    }

    /// The same, from this file: people are told.
    #[must_use]
    pub fn read_from(mut self, path: &Path) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The file that it was read from, if it was and that is known.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// A bundle of certificates that were read already.
    ///
    /// # Errors
    /// When there are none, or one cannot be an anchor.
    pub fn new(certificates: Vec<Arc<Certificate>>) -> Result<Self, SecretError> {
        if certificates.is_empty() {
            return Err(SecretError::NoCertificate);
        }
        let anchors: Result<Vec<_>, _> = certificates.into_iter().map(Anchor::new).collect();
        Ok(Self {
            anchors: anchors?.into(),
            path: None,
        })
    }

    /// Its certificates.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.anchors.iter().map(|anchor| &anchor.certificate)
    }

    pub(crate) fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// When the last of its certificates ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        let ends = self.certificates().map(|one| one.validity().not_after);
        ends.max().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// When the first of its certificates ends.
    #[must_use]
    pub fn first_not_after(&self) -> SystemTime {
        let ends = self.certificates().map(|one| one.validity().not_after);
        ends.min().unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Anchor {
    fn new(certificate: Arc<Certificate>) -> Result<Self, SecretError> {
        match webpki::anchor_from_trusted_cert(certificate.shared_der()) {
            Ok(anchor) => Ok(Self {
                anchor: anchor.to_owned(),
                certificate,
            }),
            Err(error) => Err(SecretError::Anchor {
                subject: certificate.subject().to_owned(),
                reason: error.to_string(),
            }),
        }
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.certificates().eq(other.certificates())
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The hash tells keys of one name apart: session tickets hang on this text.
        let each = self
            .certificates()
            .map(|one| (one.subject(), hex(one.sha256())));
        f.debug_list().entries(each).finish()
    }
}

/// One bundle for each trust domain: a peer is held against the bundle of its own.
///
/// Several entries are a federation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpiffeBundles(BTreeMap<TrustDomain, TrustBundle>);

impl SpiffeBundles {
    /// Bundles by trust domain.
    #[must_use]
    pub fn new(bundles: impl IntoIterator<Item = (TrustDomain, TrustBundle)>) -> Self {
        Self(bundles.into_iter().collect())
    }

    /// The bundle of a trust domain.
    #[must_use]
    pub fn of(&self, domain: &TrustDomain) -> Option<&TrustBundle> {
        self.0.get(domain)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &TrustBundle)> {
        self.0.iter()
    }
}

/// Certificates that their issuer took back.
#[derive(Clone)]
pub struct Crl {
    der: Arc<[u8]>,
    pub(crate) list: Arc<CertRevocationList<'static>>,
}

impl Crl {
    /// Reads all lists of a PEM text.
    ///
    /// # Errors
    /// When there is none, or one is broken.
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Self>, SecretError> {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        let lists = lists.map_err(|error| SecretError::Pem(error.to_string()))?;
        if lists.is_empty() {
            return Err(SecretError::Crl("there is none in it".to_owned()));
        }
        lists.iter().map(|der| Self::from_der(der)).collect()
    }

    /// Reads one list.
    ///
    /// # Errors
    /// When it is broken.
    pub fn from_der(der: &[u8]) -> Result<Self, SecretError> {
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|error| SecretError::Crl(error.to_string()))?;
        Ok(Self {
            der: der.into(),
            list: Arc::new(list.into()),
        })
    }
}

impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl({})", hex(&sha256(&self.der)))
    }
}
