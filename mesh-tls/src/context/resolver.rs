use std::{cell::Cell, sync::Arc};

use rustls::{
    CipherSuite, SignatureAlgorithm, SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{Identity, validation::dns_name_matches};

thread_local! {
    /// A handshake asks for its certificate within one poll, and tells nobody which it got.
    static CHOSEN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which of its identities a server showed within the poll that just ended, if it did.
pub(crate) fn take_chosen() -> Option<usize> {
    CHOSEN.take()
}

/// Which of several certificates a client gets: by the name it asks for, exact before wildcard, then by what
/// it can verify; the first for whoever fits none. Envoy does the same.
#[derive(Debug)]
pub(super) struct ByNameAndKey {
    identities: Vec<Identity>,
    require_sni: bool,
}

impl ByNameAndKey {
    pub(super) const fn new(identities: Vec<Identity>, require_sni: bool) -> Self {
        Self {
            identities,
            require_sni,
        }
    }
}

impl ResolvesServerCert for ByNameAndKey {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if self.require_sni && name.is_none() {
            return None;
        }
        let chosen = match self.identities.len() {
            1 => 0,
            _ => self.choose(name, &hello)?,
        };
        CHOSEN.set(Some(chosen));
        Some(Arc::clone(self.identities[chosen].certified()))
    }
}

impl ByNameAndKey {
    fn choose(&self, name: Option<&str>, hello: &ClientHello<'_>) -> Option<usize> {
        let all = || 0..self.identities.len();
        let named = |wild: bool| {
            all().filter(move |at| {
                name.is_some_and(|name| has_name(&self.identities[*at], name, wild))
            })
        };
        let mut fitting = named(false).chain(named(true));
        let usable = |at: &usize| is_usable(&self.identities[*at], hello);
        let chosen = fitting.clone().find(usable).or_else(|| fitting.next());
        chosen
            .or_else(|| all().find(usable))
            .or_else(|| all().next())
    }
}

fn has_name(identity: &Identity, name: &str, wild: bool) -> bool {
    identity
        .leaf()
        .dns_names()
        .any(|pattern| pattern.starts_with('*') == wild && dns_name_matches(name, pattern))
}

/// Whether the client can verify its signature. A client of TLS 1.2 says the kind of key in its suites too.
fn is_usable(identity: &Identity, hello: &ClientHello<'_>) -> bool {
    let key = &identity.certified().key;
    if key.choose_scheme(hello.signature_schemes()).is_none() {
        return false;
    }
    let suites = hello.cipher_suites();
    let with = |key| suites.iter().any(|suite| suits(*suite, key));
    let only_tls13 = !with(SignatureAlgorithm::RSA) && !with(SignatureAlgorithm::ECDSA);
    only_tls13 || with(key.algorithm())
}

const fn suits(suite: CipherSuite, key: SignatureAlgorithm) -> bool {
    let ecdsa = matches!(
        suite,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    );
    let rsa = matches!(
        suite,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    );
    match key {
        SignatureAlgorithm::RSA => rsa,
        _ => ecdsa,
    }
}

/// A client's one certificate, or none. It is sent whatever CAs the server names: servers that take others
/// by SAN or pin name none that fit.
#[derive(Debug)]
pub(super) struct Always(pub(super) Option<Identity>);

impl ResolvesClientCert for Always {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let certified = self.0.as_ref()?.certified();
        certified.key.choose_scheme(schemes)?;
        Some(Arc::clone(certified))
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
