//! Who signs: keys and names of a CA, on disk too.

use std::{path::Path, time::SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

use super::{BACKDATE, CA_LIFETIME, DevCaError, files::place, moment, serial, subject};
use crate::{Certificate, SecretError, TrustDomain, digest::hex, secret::read_file};

pub(super) struct Authority {
    pub(super) pem: String,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn root(domain: &TrustDomain, now: SystemTime) -> Result<Self, DevCaError> {
        let key = KeyPair::generate()?;
        let params = ca_params(domain, "root", now, now + CA_LIFETIME)?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    pub(super) fn under(
        root: &Self,
        domain: &TrustDomain,
        now: SystemTime,
        not_after: SystemTime,
    ) -> Result<Self, DevCaError> {
        let key = KeyPair::generate()?;
        let params = ca_params(domain, "intermediate", now, not_after)?;
        let certificate = params.signed_by(&key, &root.issuer)?;
        Ok(Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// What [`save`](Self::save) wrote.
    pub(super) fn load(folder: &Path, name: &str) -> Result<Self, DevCaError> {
        let read = |file: String| {
            let text = String::from_utf8(read_file(&folder.join(file))?);
            text.map_err(|error| SecretError::Pem(error.to_string()))
        };
        let pem = read(format!("{name}.pem"))?;
        let key = KeyPair::from_pem(&read(format!("{name}-key.pem"))?)?;
        let certificates = Certificate::from_pem(pem.as_bytes())?;
        let certificate = certificates.first().ok_or(SecretError::NoCertificate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(common_name(certificate));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = CA_USAGES.to_vec();
        Ok(Self {
            pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// Its certificate, and **its key**.
    pub(super) fn save(&self, folder: &Path, name: &str) -> Result<(), DevCaError> {
        let key = self.issuer.key().serialize_pem();
        place(
            &folder.join(format!("{name}-key.pem")),
            key.as_bytes(),
            0o600,
        )?;
        place(
            &folder.join(format!("{name}.pem")),
            self.pem.as_bytes(),
            0o644,
        )
    }
}

/// The name that [`ca_params`] gave it.
fn common_name(certificate: &Certificate) -> &str {
    let subject = certificate.subject();
    let name = subject.split(',').find_map(|part| part.strip_prefix("CN="));
    name.unwrap_or_default()
}

const CA_USAGES: [KeyUsagePurpose; 2] = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

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
    params.key_usages = CA_USAGES.to_vec();
    params.not_before = moment(now - BACKDATE);
    params.not_after = moment(not_after);
    params.serial_number = Some(serial);
    Ok(params)
}
