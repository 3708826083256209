//! TLS as a client.
//!
//! It offers one suite and one group, so that all contenders do the same, and looks at no certificate: what it
//! would cost here, the proxy would be kept waiting.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use mesh_core::clock;
use mesh_tls::dev_ca::{DevCa, DevLeaf, Issued};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use super::{Tls, client::State};

/// So many tickets are kept, for more connections at once than there are.
const TICKETS_MAX: usize = 256;

/// Where keys and certificates are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) folder: PathBuf,
}

/// Makes a throw-away authority, one certificate for the proxies and one for clients, all of P-256.
pub(crate) fn write_files(folder: &Path) -> Result<Files> {
    let now = clock::wall();
    let ca = DevCa::new("bench.test".parse()?, now)?;
    let issue = |name: &str| ca.issue(DevLeaf::new(now).dns(name));
    let place = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    let both = |name: &str, issued: &Issued| {
        place(&format!("{name}.pem"), issued.chain_pem())?;
        place(&format!("{name}.key"), issued.key_pem())?;
        // HAProxy wants all in one file.
        let all = [issued.chain_pem(), issued.key_pem()].concat();
        place(&format!("{name}-all.pem"), &all)
    };
    fs::create_dir_all(folder)?;
    place("ca.pem", &ca.bundle_pem())?;
    both("server", &issue("bench.test")?)?;
    both("client", &issue("client.test")?)?;
    Ok(Files {
        folder: folder.to_owned(),
    })
}

/// What sessions begin with.
pub(super) struct Clients {
    full: Arc<ClientConfig>,
    resumed: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Clients {
    pub(super) fn new(files: &Files) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(files.folder.join("client.pem"))?;
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(files.folder.join("client.key"))?;
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Blind))
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        let mut resumed = config.clone();
        resumed.resumption = Resumption::store(Arc::new(Tickets::default()));
        Ok(Self {
            full: Arc::new(config),
            resumed: Arc::new(resumed),
            name: ServerName::try_from("bench.test")?,
        })
    }

    pub(super) fn begin(&self, tls: Tls) -> Result<Session> {
        let config = match tls {
            Tls::Full => &self.full,
            Tls::Resumed => &self.resumed,
        };
        let connection = ClientConnection::new(Arc::clone(config), self.name.clone())?;
        Ok(Session(Box::new(connection)))
    }
}

/// One connection's session.
pub(super) struct Session(Box<ClientConnection>);

impl Session {
    /// Takes what came from the socket, and gives `take` what it says.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        plain: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<State>,
    ) -> Result<State> {
        let mut state = State::Open;
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes)?;
            let mut there = self.0.process_new_packets()?.plaintext_bytes_to_read();
            while there > 0 {
                let read = self.0.reader().read(plain)?;
                state = take(&plain[..read])?;
                there = there.saturating_sub(read);
            }
        }
        Ok(state)
    }

    /// Writes what is to be said, and what the session has to say for itself.
    pub(super) fn write(&mut self, bytes: &[u8], stream: &mut TcpStream) -> Result<()> {
        self.0.writer().write_all(bytes)?;
        while self.0.wants_write() {
            self.0.write_tls(stream)?;
        }
        Ok(())
    }

    pub(super) fn close(&mut self, stream: &mut TcpStream) -> Result<()> {
        self.0.send_close_notify();
        self.write(&[], stream)
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// Tickets of whoever gave the last ones: the library's own store has too few for many connections at once.
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() < TICKETS_MAX {
            tickets.push(ticket);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.pop()
    }
}

/// Takes any certificate, and any signature.
#[derive(Debug)]
struct Blind;

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
