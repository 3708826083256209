use std::{net::IpAddr, time::SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SerialNumber,
};

use super::{BACKDATE, LEAF_LIFETIME_DEFAULT, moment, subject};
use crate::SpiffeId;

/// What a leaf says.
#[derive(Debug, Clone)]
pub struct DevLeaf {
    uris: Vec<String>,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
    emails: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    pub(super) rsa: bool,
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

    pub(super) fn params(self, serial: SerialNumber) -> Result<CertificateParams, rcgen::Error> {
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
