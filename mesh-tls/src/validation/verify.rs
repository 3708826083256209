use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    VerifiedPath,
};

use super::{Rejection, Role, Trust, ValidationConfig, dns_name_matches};
use crate::{
    Certificate, San, TrustBundle, check_svid, digest::hex, secret::Anchor, secret::provider,
};

/// As what a peer shows its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The peer is a client.
    Client,
    /// The peer is a server.
    Server,
}

impl Usage {
    const fn text(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    const fn purpose(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }
}

/// Holds certificates against a [`ValidationConfig`]. It reads no clock and no file.
#[derive(Debug, Clone)]
pub struct Validator {
    config: ValidationConfig,
}

impl Validator {
    /// A validator.
    #[must_use]
    pub const fn new(config: ValidationConfig) -> Self {
        Self { config }
    }

    /// What it asks for.
    #[must_use]
    pub const fn config(&self) -> &ValidationConfig {
        &self.config
    }

    /// Whether the peer that presents `chain`, leaf first, may be who it says at `now`.
    ///
    /// A client gives the `server_name` that it asked for.
    ///
    /// # Errors
    /// The first thing that is wrong. [`ValidationConfig::dangerous_accept_untrusted`] is not looked at.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        server_name: Option<&ServerName<'_>>,
        now: SystemTime,
    ) -> Result<(), Rejection> {
        let (leaf, rest) = chain.split_first().ok_or(Rejection::NoCertificate)?;
        let leaf =
            Certificate::from_der(leaf).map_err(|error| Rejection::Malformed(error.to_string()))?;
        match &self.config.trust {
            Trust::DangerousAnyone => {}
            Trust::Bundle(bundle) => self.verify_chain(&leaf, rest, bundle, usage, now)?,
            Trust::Spiffe(bundles) => {
                let id = check_svid(&leaf)?;
                let domain = id.trust_domain();
                let bundle = bundles.of(&domain).ok_or_else(|| Rejection::TrustDomain {
                    known: bundles.iter().map(|(known, _)| known.clone()).collect(),
                    presented: domain.clone(),
                })?;
                self.verify_chain(&leaf, rest, bundle, usage, now)?;
            }
        }
        if self.config.rsa_key_usage
            && leaf.has_rsa_key()
            && leaf
                .key_usage()
                .is_some_and(|usage| !usage.digital_signature)
        {
            return Err(Rejection::RsaKeyUsage);
        }
        self.check_names(&leaf, server_name)?;
        self.check_pins(&leaf)
    }

    fn check_names(
        &self,
        leaf: &Certificate,
        server_name: Option<&ServerName<'_>>,
    ) -> Result<(), Rejection> {
        let rejection = |expected: Vec<String>| Rejection::San {
            expected,
            presented: leaf.sans().iter().map(ToString::to_string).collect(),
            by_name: false,
        };
        let wanted = &self.config.sans;
        let passes = |san: &San| {
            let spiffe_only = matches!(self.config.trust, Trust::Spiffe(_));
            (!spiffe_only || matches!(san, San::Uri(_)))
                && wanted.iter().any(|matcher| matcher.matches(san))
        };
        if !wanted.is_empty() && !leaf.sans().iter().any(passes) {
            return Err(rejection(self.config.expected_names()));
        }
        if let Some(name) = &self.config.expected_name
            && !leaf.sans().iter().any(|san| is_named(san, name))
        {
            let mut rejection = rejection(vec![name.to_string()]);
            if let Rejection::San { by_name, .. } = &mut rejection {
                *by_name = true;
            }
            return Err(rejection);
        }
        match server_name {
            _ if !self.config.match_server_name => Ok(()),
            Some(ServerName::DnsName(name)) => {
                let mut names = leaf.dns_names();
                if !names.any(|pattern| dns_name_matches(name.as_ref(), pattern)) {
                    return Err(rejection(vec![format!("DNS {}", name.as_ref())]));
                }
                Ok(())
            }
            // Nothing that the certificate says could be what was meant.
            _ => Err(rejection(vec![
                "the server's name, and none was sent".to_owned(),
            ])),
        }
    }

    fn check_pins(&self, leaf: &Certificate) -> Result<(), Rejection> {
        let (hashes, keys) = (&self.config.certificate_hashes, &self.config.spki_hashes);
        let free = hashes.is_empty() && keys.is_empty();
        if free || hashes.contains(leaf.sha256()) || keys.contains(leaf.spki_sha256()) {
            return Ok(());
        }
        Err(Rejection::Pin {
            sha256: hex(leaf.sha256()),
        })
    }

    fn verify_chain(
        &self,
        leaf: &Certificate,
        rest: &[CertificateDer<'_>],
        bundle: &TrustBundle,
        usage: Usage,
        now: SystemTime,
    ) -> Result<(), Rejection> {
        // A leaf that is itself trusted needs no chain, be it its own CA or not.
        if bundle.certificates().any(|trusted| **trusted == *leaf) {
            return check_time(leaf, Role::Leaf, now).or_else(|late| self.forgive_time(late));
        }
        match self.build(leaf, rest, bundle, usage, now) {
            Err(late) if self.forgive_time(late.clone()).is_ok() => {
                match common_time(leaf, rest, bundle) {
                    Some(then) => self.build(leaf, rest, bundle, usage, then),
                    None => Err(late),
                }
            }
            result => result,
        }
    }

    fn forgive_time(&self, late: Rejection) -> Result<(), Rejection> {
        let about_time = matches!(
            late,
            Rejection::Expired { .. } | Rejection::NotYetValid { .. }
        );
        if self.config.allow_expired && about_time {
            return Ok(());
        }
        Err(late)
    }

    /// Builds a chain to an anchor of `bundle`, with signatures, times, constraints and revocation.
    fn build(
        &self,
        leaf: &Certificate,
        rest: &[CertificateDer<'_>],
        bundle: &TrustBundle,
        usage: Usage,
        now: SystemTime,
    ) -> Result<(), Rejection> {
        let malformed = |error: webpki::Error| Rejection::Malformed(error.to_string());
        let parsed = EndEntityCert::try_from(leaf.shared_der()).map_err(malformed)?;
        let anchors: Vec<TrustAnchor<'_>> = bundle
            .anchors()
            .iter()
            .map(|anchor| anchor.anchor.clone())
            .collect();
        let lists: Vec<_> = self.config.crls.iter().map(|crl| &*crl.list).collect();
        let depth = if self.config.only_leaf_crl {
            RevocationCheckDepth::EndEntity
        } else {
            RevocationCheckDepth::Chain
        };
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|builder| {
            let builder = builder.with_depth(depth);
            builder
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let depth_max = self.config.depth_max;
        let check_path = |path: &VerifiedPath<'_>| {
            if path.intermediate_certificates().count() > depth_max {
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            let index = anchors
                .iter()
                .position(|one| std::ptr::eq(one, path.anchor()));
            check_anchor_time(index.and_then(|index| bundle.anchors().get(index)), now)
        };
        parsed
            .verify_for_usage(
                provider().signature_verification_algorithms.all,
                &anchors,
                rest,
                unix(now),
                usage.purpose(),
                revocation,
                Some(&check_path),
            )
            .map(drop)
            .map_err(|error| self.explain(error, leaf, rest, bundle, usage))
    }

    fn explain(
        &self,
        error: webpki::Error,
        leaf: &Certificate,
        rest: &[CertificateDer<'_>],
        bundle: &TrustBundle,
        usage: Usage,
    ) -> Rejection {
        use webpki::Error as E;
        match error {
            E::CertExpired { not_after, .. } => {
                let not_after = from_unix(not_after);
                let (role, subject) = whose(leaf, rest, bundle, |one| {
                    one.validity().not_after == not_after
                });
                Rejection::Expired {
                    role,
                    subject,
                    not_after,
                }
            }
            E::CertNotValidYet { not_before, .. } => {
                let not_before = from_unix(not_before);
                let (role, subject) = whose(leaf, rest, bundle, |one| {
                    one.validity().not_before == not_before
                });
                Rejection::NotYetValid {
                    role,
                    subject,
                    not_before,
                }
            }
            E::UnknownIssuer => unknown_issuer(leaf, rest, bundle),
            E::CertRevoked => Rejection::Revoked,
            E::UnknownRevocationStatus => Rejection::UnknownRevocation,
            E::CrlExpired { next_update, .. } => Rejection::CrlExpired {
                next_update: from_unix(next_update),
            },
            E::RequiredEkuNotFoundContext(_) => Rejection::Purpose(usage.text()),
            E::CaUsedAsEndEntity => Rejection::CaAsLeaf,
            E::MaximumPathDepthExceeded => Rejection::Depth(self.config.depth_max),
            other => Rejection::Chain(other.to_string()),
        }
    }
}

/// Whether `san` is `name`, whatever kind it is.
fn is_named(san: &San, name: &str) -> bool {
    match san {
        San::Dns(pattern) => dns_name_matches(name, pattern),
        San::Uri(text) | San::Email(text) => text == name,
        San::Ip(address) => address.to_string() == name,
    }
}

fn check_time(one: &Certificate, role: Role, now: SystemTime) -> Result<(), Rejection> {
    let validity = one.validity();
    let subject = || one.subject().to_owned();
    if now < validity.not_before {
        Err(Rejection::NotYetValid {
            role,
            subject: subject(),
            not_before: validity.not_before,
        })
    } else if now > validity.not_after {
        Err(Rejection::Expired {
            role,
            subject: subject(),
            not_after: validity.not_after,
        })
    } else {
        Ok(())
    }
}

/// The library takes anchors at any time; here they end like any certificate, as in Envoy.
fn check_anchor_time(anchor: Option<&Anchor>, now: SystemTime) -> Result<(), webpki::Error> {
    let anchor = anchor.ok_or(webpki::Error::UnknownIssuer)?;
    let validity = anchor.certificate.validity();
    let time = unix(now);
    if now < validity.not_before {
        let not_before = unix(validity.not_before);
        return Err(webpki::Error::CertNotValidYet { time, not_before });
    }
    if now > validity.not_after {
        let not_after = unix(validity.not_after);
        return Err(webpki::Error::CertExpired { time, not_after });
    }
    Ok(())
}

/// Which certificate an error is about, found by its times.
fn whose(
    leaf: &Certificate,
    rest: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    is_it: impl Fn(&Certificate) -> bool,
) -> (Role, String) {
    if is_it(leaf) {
        return (Role::Leaf, leaf.subject().to_owned());
    }
    for issuer in rest
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok())
    {
        if is_it(&issuer) {
            return (Role::Issuer, issuer.subject().to_owned());
        }
    }
    let anchor = bundle.certificates().find(|one| is_it(one));
    let subject = anchor.map_or_else(String::new, |one| one.subject().to_owned());
    (Role::Anchor, subject)
}

fn unknown_issuer(
    leaf: &Certificate,
    rest: &[CertificateDer<'_>],
    bundle: &TrustBundle,
) -> Rejection {
    let issuers: Vec<_> = rest
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok())
        .collect();
    // Follow the names as far as they go; each step takes another certificate.
    let mut last = leaf;
    for _ in 0..issuers.len() {
        let next = issuers.iter().find(|one| one.subject() == last.issuer());
        match next {
            Some(next) if next.subject() != next.issuer() => last = next,
            _ => break,
        }
    }
    Rejection::UnknownIssuer {
        issuer: last.issuer().to_owned(),
        trusted: bundle
            .certificates()
            .take(Rejection::TRUSTED_MAX)
            .map(|one| one.subject().to_owned())
            .collect(),
    }
}

/// A moment at which the whole chain was good, for those who take expired certificates.
fn common_time(
    leaf: &Certificate,
    rest: &[CertificateDer<'_>],
    bundle: &TrustBundle,
) -> Option<SystemTime> {
    let issuers: Vec<_> = rest
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok())
        .collect();
    let times = || {
        [leaf]
            .into_iter()
            .chain(&issuers)
            .map(Certificate::validity)
    };
    let anchors = bundle.certificates().map(|one| one.validity());
    anchors
        .filter_map(|anchor| {
            let begin = times()
                .map(|one| one.not_before)
                .max()?
                .max(anchor.not_before);
            let end = times()
                .map(|one| one.not_after)
                .min()?
                .min(anchor.not_after);
            (begin <= end).then_some(begin)
        })
        .max()
}

pub(crate) fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(crate) fn from_unix(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}
