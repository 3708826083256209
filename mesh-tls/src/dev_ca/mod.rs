//! A throw-away certificate authority, for trying things out and for tests.
//!
//! Its keys lie in plain files: **it is no CA for anything that matters**.

mod authority;
mod files;
mod leaf;

use std::{
    fmt, io,
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    CertificateRevocationListParams, DistinguishedName, DnType, KeyIdMethod, KeyPair,
    RevokedCertParams, RsaKeySize, SerialNumber,
};
use time::OffsetDateTime;

use crate::{Identity, SecretError, SpiffeId, TrustBundle, TrustDomain, digest::hex};
use authority::Authority;
use files::{place, place_together};
pub use leaf::DevLeaf;

/// How long its CA certificates last: ten years.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long a leaf lasts when nothing is said: one day.
pub const LEAF_LIFETIME_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// Leaves begin this long before they are issued, for clocks that differ.
const BACKDATE: Duration = Duration::from_secs(60);

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevCaError {
    /// The library that makes them says no.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// What was made cannot be read back.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// A root, and an intermediate under it that signs leaves.
pub struct DevCa {
    domain: TrustDomain,
    root: Authority,
    intermediate: Authority,
}

/// A leaf, the chain above it and its key, as PEM. The key is in no other output of this type.
pub struct Issued {
    chain: String,
    key: String,
    serial: SerialNumber,
}

impl Issued {
    /// The chain: the leaf, then the intermediate.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.chain
    }

    /// **The private key**, for its file.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// Both, ready for use.
    ///
    /// # Errors
    /// When what was made cannot be read: a bug.
    pub fn identity(&self) -> Result<Identity, SecretError> {
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes())
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Issued(serial {}, key [hidden])",
            hex(&self.serial.to_bytes())
        )
    }
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevCa({}, keys [hidden])", self.domain)
    }
}

impl DevCa {
    /// A new root and intermediate for `domain`.
    ///
    /// # Errors
    /// When the library fails.
    pub fn new(domain: TrustDomain, now: SystemTime) -> Result<Self, DevCaError> {
        let root = Authority::root(&domain, now)?;
        let intermediate = Authority::under(&root, &domain, now, now + CA_LIFETIME)?;
        Ok(Self {
            domain,
            root,
            intermediate,
        })
    }

    /// The folder of the CA's own certificates and keys, beside those of the workloads.
    pub const OWN_FOLDER: &str = "ca";

    /// The CA that was [saved](Self::save) in `folder`; `None` when there is none.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn open(folder: &Path) -> Result<Option<Self>, DevCaError> {
        let own = folder.join(Self::OWN_FOLDER);
        if !own.exists() {
            return Ok(None);
        }
        let root = Authority::load(&own, "root")?;
        let certificates = crate::Certificate::from_pem(root.pem.as_bytes())?;
        let mut uris = certificates.iter().flat_map(|one| one.uris());
        let domain = uris.find_map(|uri| uri.strip_prefix("spiffe://")?.parse().ok());
        Ok(Some(Self {
            domain: domain.ok_or_else(|| {
                SecretError::Certificate("the root names no trust domain".to_owned())
            })?,
            intermediate: Authority::load(&own, "intermediate")?,
            root,
        }))
    }

    /// Writes the CA itself into `folder`, **its keys too**, so that it can be [opened](Self::open) again. Keys are
    /// for their owner only.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), DevCaError> {
        let own = folder.join(Self::OWN_FOLDER);
        self.root.save(&own, "root")?;
        self.intermediate.save(&own, "intermediate")
    }

    /// The folder of a workload: the last part of its path.
    #[must_use]
    pub fn folder_of(id: &SpiffeId) -> &str {
        id.path().rsplit('/').next().unwrap_or("workload")
    }

    /// A new intermediate under the same root, which ends at `not_after`: the issuer rotates.
    ///
    /// # Errors
    /// When the library fails.
    pub fn rotate_intermediate(
        &mut self,
        now: SystemTime,
        not_after: SystemTime,
    ) -> Result<(), DevCaError> {
        self.intermediate = Authority::under(&self.root, &self.domain, now, not_after)?;
        Ok(())
    }

    /// The trust domain.
    #[must_use]
    pub const fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The root certificate as PEM: what peers trust.
    #[must_use]
    pub fn bundle_pem(&self) -> String {
        self.root.pem.clone()
    }

    /// The same, ready for use.
    ///
    /// # Errors
    /// When what was made cannot be read: a bug.
    pub fn bundle(&self) -> Result<TrustBundle, SecretError> {
        TrustBundle::from_pem(self.bundle_pem().as_bytes())
    }

    /// The intermediate's certificate as PEM.
    #[must_use]
    pub fn intermediate_pem(&self) -> String {
        self.intermediate.pem.clone()
    }

    /// Signs a leaf.
    ///
    /// # Errors
    /// When a name cannot be in a certificate.
    pub fn issue(&self, leaf: DevLeaf) -> Result<Issued, DevCaError> {
        let key = if leaf.rsa {
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?
        } else {
            KeyPair::generate()?
        };
        let serial = serial()?;
        let params = leaf.params(serial.clone())?;
        let signed = params.signed_by(&key, &self.intermediate.issuer)?;
        Ok(Issued {
            chain: signed.pem() + &self.intermediate.pem,
            key: key.serialize_pem(),
            serial,
        })
    }

    /// Lists of what the intermediate took back, and of what the root did: nothing.
    ///
    /// # Errors
    /// When the library fails.
    pub fn crls_pem(
        &self,
        revoked: &[&Issued],
        now: SystemTime,
        next_update: SystemTime,
    ) -> Result<String, DevCaError> {
        let list =
            |authority: &Authority, serials: Vec<SerialNumber>| -> Result<String, rcgen::Error> {
                let revoked = serials.into_iter().map(|serial_number| RevokedCertParams {
                    serial_number,
                    revocation_time: moment(now),
                    reason_code: None,
                    invalidity_date: None,
                });
                let params = CertificateRevocationListParams {
                    this_update: moment(now),
                    next_update: moment(next_update),
                    crl_number: SerialNumber::from(1u64),
                    issuing_distribution_point: None,
                    revoked_certs: revoked.collect(),
                    key_identifier_method: KeyIdMethod::Sha256,
                };
                params.signed_by(&authority.issuer)?.pem()
            };
        let serials = revoked.iter().map(|one| one.serial.clone()).collect();
        Ok(list(&self.intermediate, serials)? + &list(&self.root, Vec::new())?)
    }

    /// Writes `bundle.pem`, and for each workload a folder of its path's last part with `svid.pem` and `key.pem`.
    /// Each SVID has `localhost` and the loopback addresses among its names. Keys are for their owner only.
    /// They are projected as Kubernetes does it, through a link that is moved into the folder: whoever watches it
    /// sees whole files that go together.
    ///
    /// # Errors
    /// When a file cannot be written, or a leaf cannot be signed.
    pub fn write(
        &self,
        folder: &Path,
        workloads: &[SpiffeId],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<(), DevCaError> {
        place(
            &folder.join("bundle.pem"),
            self.bundle_pem().as_bytes(),
            0o644,
        )?;
        for id in workloads {
            let name = Self::folder_of(id);
            let leaf = DevLeaf::svid(id, now)
                .dns("localhost")
                .ip(IpAddr::from([127, 0, 0, 1]))
                .ip(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16]))
                .valid(now - BACKDATE, now + lifetime);
            let issued = self.issue(leaf)?;
            // Both at once: whoever watches the folder never sees a pair that does not fit.
            place_together(
                &folder.join(name),
                &hex(&issued.serial.to_bytes()),
                &[
                    ("key.pem", issued.key.as_bytes(), 0o600),
                    ("svid.pem", issued.chain.as_bytes(), 0o644),
                ],
            )?;
        }
        Ok(())
    }
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "mesh dev-ca");
    subject.push(DnType::CommonName, name);
    subject
}

fn serial() -> Result<SerialNumber, DevCaError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive, and of full length.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn moment(time: SystemTime) -> OffsetDateTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    OffsetDateTime::UNIX_EPOCH + since
}
