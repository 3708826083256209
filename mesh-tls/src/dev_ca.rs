//! A throw-away certificate authority, for trying things out and for tests.
//!
//! Its keys lie in plain files: **it is no CA for anything that matters**.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, Certificate as Signed, CertificateParams, CertificateRevocationListParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, RsaKeySize, SanType, SerialNumber,
};

use time::OffsetDateTime;

use crate::{Identity, SecretError, SpiffeId, TrustBundle, TrustDomain, digest::hex};

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

struct Authority {
    certificate: Signed,
    issuer: Issuer<'static, KeyPair>,
}

/// What a leaf says.
#[derive(Debug, Clone)]
pub struct DevLeaf {
    uris: Vec<String>,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
    emails: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    rsa: bool,
    ca: bool,
    usages: Vec<KeyUsagePurpose>,
    purposes: Vec<ExtendedKeyUsagePurpose>,
}

impl DevLeaf {
    /// A leaf without names that is good now and for a day.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        Self {
            uris: Vec::new(),
            dns: Vec::new(),
            ips: Vec::new(),
            emails: Vec::new(),
            not_before: now - BACKDATE,
            not_after: now + LEAF_LIFETIME_DEFAULT,
            rsa: false,
            ca: false,
            usages: vec![KeyUsagePurpose::DigitalSignature],
            purposes: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        }
    }

    /// An X.509-SVID of `id`.
    #[must_use]
    pub fn svid(id: &SpiffeId, now: SystemTime) -> Self {
        Self::new(now).uri(id.as_str())
    }

    /// Another URI.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        self.uris.push(uri.to_owned());
        self
    }

    /// Another host name.
    #[must_use]
    pub fn dns(mut self, name: &str) -> Self {
        self.dns.push(name.to_owned());
        self
    }

    /// Another address.
    #[must_use]
    pub fn ip(mut self, address: IpAddr) -> Self {
        self.ips.push(address);
        self
    }

    /// Another mail address.
    #[must_use]
    pub fn email(mut self, address: &str) -> Self {
        self.emails.push(address.to_owned());
        self
    }

    /// When it may be used.
    #[must_use]
    pub const fn valid(mut self, not_before: SystemTime, not_after: SystemTime) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }

    /// With an RSA key of 2048 bits in place of ECDSA on P-256.
    #[must_use]
    pub const fn rsa(mut self) -> Self {
        self.rsa = true;
        self
    }

    /// Breaks the rules on purpose: with the CA bit.
    #[must_use]
    pub const fn with_ca_bit(mut self) -> Self {
        self.ca = true;
        self
    }

    /// Breaks the rules on purpose: with other key usages; none leaves the extension out.
    #[must_use]
    pub fn key_usages(mut self, usages: Vec<KeyUsagePurpose>) -> Self {
        self.usages = usages;
        self
    }

    /// With other extended key usages; none leaves the extension out.
    #[must_use]
    pub fn purposes(mut self, purposes: Vec<ExtendedKeyUsagePurpose>) -> Self {
        self.purposes = purposes;
        self
    }

    fn params(self, serial: SerialNumber) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        for uri in &self.uris {
            params
                .subject_alt_names
                .push(SanType::URI(uri.as_str().try_into()?));
        }
        for name in &self.dns {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.as_str().try_into()?));
        }
        for address in &self.emails {
            let address = address.as_str().try_into()?;
            params.subject_alt_names.push(SanType::Rfc822Name(address));
        }
        params
            .subject_alt_names
            .extend(self.ips.into_iter().map(SanType::IpAddress));
        params.distinguished_name = subject("workload");
        params.not_before = moment(self.not_before);
        params.not_after = moment(self.not_after);
        params.serial_number = Some(serial);
        params.is_ca = if self.ca {
            IsCa::Ca(BasicConstraints::Unconstrained)
        } else {
            IsCa::ExplicitNoCa
        };
        params.key_usages = self.usages;
        params.extended_key_usages = self.purposes;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
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
        self.root.certificate.pem()
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
        self.intermediate.certificate.pem()
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
            chain: signed.pem() + &self.intermediate.certificate.pem(),
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
    /// Every file is moved into its place: whoever watches a folder sees whole files.
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
            let name = id.path().rsplit('/').next().unwrap_or("workload");
            let leaf = DevLeaf::svid(id, now)
                .dns("localhost")
                .ip(IpAddr::from([127, 0, 0, 1]))
                .ip(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16]))
                .valid(now - BACKDATE, now + lifetime);
            let issued = self.issue(leaf)?;
            let own = folder.join(name);
            // The key first: a watcher that reads between the two sees a pair that does not fit, and keeps
            // what it has until the second file is there.
            place(&own.join("key.pem"), issued.key.as_bytes(), 0o600)?;
            place(&own.join("svid.pem"), issued.chain.as_bytes(), 0o644)?;
        }
        Ok(())
    }
}

impl Authority {
    fn root(domain: &TrustDomain, now: SystemTime) -> Result<Self, DevCaError> {
        let key = KeyPair::generate()?;
        let params = ca_params(domain, "root", now, now + CA_LIFETIME)?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    fn under(
        root: &Self,
        domain: &TrustDomain,
        now: SystemTime,
        not_after: SystemTime,
    ) -> Result<Self, DevCaError> {
        let key = KeyPair::generate()?;
        let params = ca_params(domain, "intermediate", now, not_after)?;
        let certificate = params.signed_by(&key, &root.issuer)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }
}

fn ca_params(
    domain: &TrustDomain,
    name: &str,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, DevCaError> {
    let mut params = CertificateParams::default();
    let serial = serial()?;
    // Names of two authorities differ, as their keys do.
    let number = hex(&serial.to_bytes()[..4]);
    params.distinguished_name = subject(&format!("{domain} {name} {number}"));
    let uri = format!("spiffe://{domain}");
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = moment(now - BACKDATE);
    params.not_after = moment(not_after);
    params.serial_number = Some(serial);
    Ok(params)
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

fn place(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DevCaError> {
    let failed = |error: io::Error| DevCaError::File {
        path: path.display().to_string(),
        error,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(&new).map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}
