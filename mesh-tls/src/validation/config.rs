use crate::{
    Crl, SanMatcher, SpiffeBundles, TrustBundle,
    digest::{from_base64, from_hex},
};

/// How many certificates may stand between a leaf and its anchor when nothing is said. Envoy:
/// `max_verify_depth`. The library that builds chains stops after six in any case.
pub const VERIFY_DEPTH_MAX_DEFAULT: usize = 100;

/// Whose signature makes a peer's certificate good.
#[derive(Debug, Clone, PartialEq)]
pub enum Trust {
    /// Nobody's: **no chain is verified, and any certificate is taken**, unless a pin says otherwise.
    /// It still has to be the peer's own. This is what Envoy does without `trusted_ca`.
    DangerousAnyone,
    /// That of one of these. Envoy: `trusted_ca`.
    Bundle(TrustBundle),
    /// That of the bundle of its own trust domain; it must be an X.509-SVID. Envoy:
    /// `envoy.tls.cert_validator.spiffe`.
    Spiffe(SpiffeBundles),
}

/// A validation that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValidation {
    /// Names are tested, but nobody vouches for them.
    #[error(
        "SAN-based verification of peer certificates without trusted CA is insecure and not allowed"
    )]
    SansWithoutTrust,
    /// No certificate hash.
    #[error("invalid hex-encoded SHA-256 {0:?}")]
    CertificateHash(String),
    /// No hash of a public key.
    #[error("invalid base64-encoded SHA-256 {0:?}")]
    SpkiHash(String),
    /// Revocation lists are given, but no CA.
    #[error("failed to load CRL without trusted CA")]
    CrlWithoutTrust,
}

/// What a peer's certificate must be.
///
/// # Envoy
/// `CertificateValidationContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationConfig {
    pub(super) trust: Trust,
    pub(super) sans: Vec<SanMatcher>,
    pub(super) certificate_hashes: Vec<[u8; 32]>,
    pub(super) spki_hashes: Vec<[u8; 32]>,
    pub(super) crls: Vec<Crl>,
    pub(super) only_leaf_crl: bool,
    pub(super) allow_expired: bool,
    pub(super) accept_untrusted: bool,
    pub(super) depth_max: usize,
    pub(super) match_server_name: bool,
    pub(super) expected_name: Option<Box<str>>,
    pub(super) rsa_key_usage: bool,
}

impl ValidationConfig {
    /// Certificates that `trust` vouches for, whatever they say.
    #[must_use]
    pub const fn new(trust: Trust) -> Self {
        Self {
            trust,
            sans: Vec::new(),
            certificate_hashes: Vec::new(),
            spki_hashes: Vec::new(),
            crls: Vec::new(),
            only_leaf_crl: false,
            allow_expired: false,
            accept_untrusted: false,
            depth_max: VERIFY_DEPTH_MAX_DEFAULT,
            match_server_name: false,
            expected_name: None,
            rsa_key_usage: false,
        }
    }

    /// **Any certificate**: see [`Trust::DangerousAnyone`].
    #[must_use]
    pub const fn dangerous_anyone() -> Self {
        Self::new(Trust::DangerousAnyone)
    }

    /// Asks that one alternative name passes one of `sans`; none asks nothing. Envoy:
    /// `match_typed_subject_alt_names`.
    ///
    /// # Errors
    /// Without a trusted CA.
    pub fn with_sans(mut self, sans: Vec<SanMatcher>) -> Result<Self, InvalidValidation> {
        if !sans.is_empty() && self.trust == Trust::DangerousAnyone {
            return Err(InvalidValidation::SansWithoutTrust);
        }
        self.sans = sans;
        Ok(self)
    }

    /// Asks for one of these leaves, by SHA-256 in hexadecimal digits, with or without colons. Envoy:
    /// `verify_certificate_hash`. Either this list or that of the keys must have it.
    ///
    /// # Errors
    /// When one is no such hash.
    pub fn with_certificate_hashes(mut self, hashes: &[String]) -> Result<Self, InvalidValidation> {
        self.certificate_hashes = hashes
            .iter()
            .map(|text| hash(from_hex(text)).ok_or_else(|| bad_certificate_hash(text)))
            .collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Asks for one of these keys, by SHA-256 of the public key in base64. Envoy: `verify_certificate_spki`.
    ///
    /// # Errors
    /// When one is no such hash.
    pub fn with_spki_hashes(mut self, hashes: &[String]) -> Result<Self, InvalidValidation> {
        self.spki_hashes = hashes
            .iter()
            .map(|text| {
                hash(from_base64(text)).ok_or_else(|| InvalidValidation::SpkiHash(text.clone()))
            })
            .collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Refuses what is in these lists; every CA of a chain must have one. Envoy: `crl`.
    ///
    /// # Errors
    /// Without a trusted CA.
    pub fn with_crls(mut self, crls: Vec<Crl>) -> Result<Self, InvalidValidation> {
        if !crls.is_empty() && self.trust == Trust::DangerousAnyone {
            return Err(InvalidValidation::CrlWithoutTrust);
        }
        self.crls = crls;
        Ok(self)
    }

    /// Looks only for the leaf's CRL; off by default. Envoy: `only_verify_leaf_cert_crl`.
    #[must_use]
    pub const fn only_verify_leaf_cert_crl(mut self, only: bool) -> Self {
        self.only_leaf_crl = only;
        self
    }

    /// Takes certificates outside their time too; off by default. Envoy: `allow_expired_certificate`.
    #[must_use]
    pub const fn dangerous_allow_expired_certificate(mut self, allow: bool) -> Self {
        self.allow_expired = allow;
        self
    }

    /// Takes what does not verify, and says so in the peer's identity; off by default. Envoy:
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`.
    #[must_use]
    pub const fn dangerous_accept_untrusted(mut self, accept: bool) -> Self {
        self.accept_untrusted = accept;
        self
    }

    /// At most so many certificates between leaf and anchor. Envoy: `max_verify_depth`, 0 to 100.
    #[must_use]
    pub const fn max_verify_depth(mut self, depth: usize) -> Self {
        self.depth_max = depth;
        self
    }

    /// A client asks that the server's host names have the one that it sent, and refuses every server that it sent
    /// none to; off by default. Envoy: `auto_sni_san_validation`.
    #[must_use]
    pub const fn match_server_name(mut self, on: bool) -> Self {
        self.match_server_name = on;
        self
    }

    /// Asks that some alternative name is this one, a host name, address or URI; not asked by default. Envoy:
    /// `auto_san_validation`.
    #[must_use]
    pub fn expect_name(mut self, name: &str) -> Self {
        self.expected_name = Some(name.into());
        self
    }

    /// A client refuses RSA certificates whose key usage lacks `digitalSignature`; off by default. Envoy:
    /// `enforce_rsa_key_usage`.
    #[must_use]
    pub const fn enforce_rsa_key_usage(mut self, on: bool) -> Self {
        self.rsa_key_usage = on;
        self
    }

    /// Whose signature counts.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The same tests with other anchors, when a bundle rotates.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Whether a certificate of anyone's making would pass. Whoever runs such a config should hear of it.
    #[must_use]
    pub fn is_dangerous(&self) -> bool {
        let pinned = !(self.certificate_hashes.is_empty() && self.spki_hashes.is_empty());
        (self.trust == Trust::DangerousAnyone && !pinned) || self.accept_untrusted
    }

    /// Whether certificates outside their time are taken.
    pub(crate) const fn takes_expired(&self) -> bool {
        self.allow_expired || self.accept_untrusted
    }

    /// What it asks for, for people.
    pub(super) fn expected_names(&self) -> Vec<String> {
        self.sans.iter().map(ToString::to_string).collect()
    }
}

/// What is asked of peers besides what a secret that is to come will ask.
///
/// # Envoy
/// `CombinedCertificateValidationContext.default_validation_context`.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationDefaults {
    /// Anchors, pins and flags.
    base: ValidationConfig,
    /// Kept aside, since nobody vouches for names before the secret comes.
    sans: Vec<SanMatcher>,
    crls: Vec<Crl>,
}

impl ValidationDefaults {
    /// `base`, and names and revocation lists that count together with the anchors of the secret.
    #[must_use]
    pub const fn new(base: ValidationConfig, sans: Vec<SanMatcher>, crls: Vec<Crl>) -> Self {
        Self { base, sans, crls }
    }

    /// The same with a changed base.
    #[must_use]
    pub fn map(self, change: impl FnOnce(ValidationConfig) -> ValidationConfig) -> Self {
        Self {
            base: change(self.base),
            ..self
        }
    }

    /// Both together: lists are joined, what is single is the secret's if it says anything about it, and a flag
    /// that one has set is set.
    ///
    /// # Errors
    /// When names or lists are asked for and neither has an anchor.
    pub fn merge(&self, secret: ValidationConfig) -> Result<ValidationConfig, InvalidValidation> {
        let Self { base, sans, crls } = self;
        let mut merged = secret;
        if merged.trust == Trust::DangerousAnyone {
            merged.trust = base.trust.clone();
        }
        let own = [sans, &base.sans].into_iter().flatten().cloned();
        merged.sans = own.chain(merged.sans).collect();
        merged.certificate_hashes.extend(&base.certificate_hashes);
        merged.spki_hashes.extend(&base.spki_hashes);
        if merged.crls.is_empty() {
            merged.crls = [crls, &base.crls].into_iter().flatten().cloned().collect();
        }
        if merged.depth_max == VERIFY_DEPTH_MAX_DEFAULT {
            merged.depth_max = base.depth_max;
        }
        merged.only_leaf_crl |= base.only_leaf_crl;
        merged.allow_expired |= base.allow_expired;
        merged.accept_untrusted |= base.accept_untrusted;
        merged.match_server_name |= base.match_server_name;
        merged.rsa_key_usage |= base.rsa_key_usage;
        if merged.trust == Trust::DangerousAnyone {
            if !merged.sans.is_empty() || merged.match_server_name {
                return Err(InvalidValidation::SansWithoutTrust);
            }
            if !merged.crls.is_empty() {
                return Err(InvalidValidation::CrlWithoutTrust);
            }
        }
        Ok(merged)
    }
}

fn bad_certificate_hash(text: &str) -> InvalidValidation {
    InvalidValidation::CertificateHash(text.to_owned())
}

fn hash(bytes: Option<Vec<u8>>) -> Option<[u8; 32]> {
    bytes?.try_into().ok()
}
