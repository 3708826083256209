//! Our verdict in the place of the TLS library's own.
//!
//! The library calls these "dangerous" because whoever writes one can get it wrong. This one takes chains and
//! signatures from webpki, as the library's own verifiers do, and adds the tests of a [`Validator`]. Handshake
//! signatures are always verified: a peer must own the key of what it shows, whoever vouches for it.

use std::{cell::RefCell, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{Rejection, Trust, Usage, Validator, verify::from_unix};
use crate::secret::provider;

/// So many names of CAs are sent to clients at most; with more, none is, and clients choose freely.
const HINTS_MAX: usize = 100;

thread_local! {
    /// A handshake is verified within one poll of its future. The library's error has no room for what
    /// was refused and why, so it is left here for whoever polls.
    static LAST: RefCell<Option<LastRejection>> = const { RefCell::new(None) };
}

/// What was refused last on this thread.
#[derive(Debug, Clone)]
pub(crate) struct LastRejection {
    pub(crate) why: Rejection,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl LastRejection {
    /// Takes what the poll that just ended left behind.
    pub(crate) fn take() -> Option<Self> {
        LAST.take()
    }
}

#[derive(Debug)]
pub(crate) struct DangerVerifier {
    validator: Arc<Validator>,
    provider: Arc<CryptoProvider>,
    mandatory: bool,
    hints: Vec<DistinguishedName>,
}

impl DangerVerifier {
    /// `mandatory`: a server takes no client without a certificate.
    pub(crate) fn new(validator: Arc<Validator>, mandatory: bool) -> Self {
        Self {
            hints: hints(validator.config().trust()),
            validator,
            provider: provider(),
            mandatory,
        }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        usage: Usage,
        name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Error> {
        LAST.take();
        let all: Vec<_> = [leaf].into_iter().chain(rest).cloned().collect();
        let config = self.validator.config();
        match self.validator.verify(&all, usage, name, from_unix(now)) {
            Ok(()) => Ok(()),
            // Envoy goes on with the handshake, and the names are not looked at either.
            Err(_) if config.accept_untrusted => Ok(()),
            Err(why) => {
                let error = library_error(&why);
                let chain = all.into_iter().map(CertificateDer::into_owned).collect();
                LAST.set(Some(LastRejection { why, chain }));
                Err(error)
            }
        }
    }
}

fn hints(trust: &Trust) -> Vec<DistinguishedName> {
    let names: Vec<_> = match trust {
        Trust::DangerousAnyone => Vec::new(),
        Trust::Bundle(bundle) => bundle.certificates().collect(),
        Trust::Spiffe(bundles) => bundles
            .iter()
            .flat_map(|(_, bundle)| bundle.certificates())
            .collect(),
    };
    if names.len() > HINTS_MAX {
        return Vec::new();
    }
    let names = names.into_iter().map(|one| one.raw_subject().to_vec());
    names.map(DistinguishedName::from).collect()
}

/// The error that makes the library send the alert that tells the peer most.
fn library_error(why: &Rejection) -> Error {
    let error = match why {
        Rejection::NoCertificate => return Error::NoCertificatesPresented,
        Rejection::Malformed(_) => CertificateError::BadEncoding,
        Rejection::Expired { .. } => CertificateError::Expired,
        Rejection::NotYetValid { .. } => CertificateError::NotValidYet,
        Rejection::UnknownIssuer { .. } | Rejection::TrustDomain { .. } => {
            CertificateError::UnknownIssuer
        }
        Rejection::Revoked => CertificateError::Revoked,
        Rejection::UnknownRevocation => CertificateError::UnknownRevocationStatus,
        Rejection::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        Rejection::Purpose(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    };
    Error::InvalidCertificate(error)
}

impl ServerCertVerifier for DangerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(
            end_entity,
            intermediates,
            Usage::Server,
            Some(server_name),
            now,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for DangerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Client, None, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
