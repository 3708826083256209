//! A TLS client for [`client`](crate::client): it offers what a test says, takes any certificate, and tells what it
//! got.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
    SupportedProtocolVersion, version,
};

use crate::client::Connection;

/// What a client offers: TLS 1.2 and 1.3, no server's name, no protocols and no certificate, unless it is told.
#[derive(Clone, Debug, Default)]
pub struct Client {
    sni: Option<String>,
    alpn: Vec<Vec<u8>>,
    only: Option<&'static SupportedProtocolVersion>,
    identity: Option<(String, String)>,
}

/// What a handshake brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The application protocol, or nothing.
    pub alpn: String,
    /// What the server showed, leaf first, as DER.
    pub chain: Vec<Vec<u8>>,
}

impl Client {
    /// Asks for this server.
    #[must_use]
    pub fn sni(mut self, name: &str) -> Self {
        self.sni = Some(name.to_owned());
        self
    }

    /// Offers these protocols, best first.
    #[must_use]
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Speaks TLS 1.2 only: there a server that refuses the client says so within the handshake.
    #[must_use]
    pub fn tls12(mut self) -> Self {
        self.only = Some(&version::TLS12);
        self
    }

    /// Shows this chain when asked, by this key, both in PEM.
    #[must_use]
    pub fn identity(mut self, chain: &str, key: &str) -> Self {
        self.identity = Some((chain.to_owned(), key.to_owned()));
        self
    }

    /// Connects and makes the handshake.
    ///
    /// # Errors
    /// Also when the server ends the handshake: with its alert, if it sent one.
    pub fn connect(&self, address: SocketAddr) -> Result<Connection> {
        let mut stream = Connection::socket(address)?;
        let mut session = self.session()?;
        handshake(&mut session, &mut stream)?;
        Ok(Connection::over(stream, Some(session)))
    }

    /// The same with a pause after the first `cut` bytes.
    ///
    /// # Errors
    /// Likewise.
    pub fn connect_in_pieces(
        &self,
        address: SocketAddr,
        cut: usize,
        pause: impl FnOnce(),
    ) -> Result<Connection> {
        let mut stream = Connection::socket(address)?;
        let mut session = self.session()?;
        let mut hello = Vec::new();
        session.write_tls(&mut hello)?;
        let (head, tail) = hello.split_at(cut.min(hello.len()));
        stream.write_all(head)?;
        pause();
        stream.write_all(tail)?;
        handshake(&mut session, &mut stream)?;
        Ok(Connection::over(stream, Some(session)))
    }

    fn session(&self) -> Result<ClientConnection> {
        let name = match &self.sni {
            Some(name) => ServerName::try_from(name.clone())?,
            // The library wants a name, and sends none that is an address.
            None => ServerName::from(std::net::IpAddr::from([0, 0, 0, 0])),
        };
        Ok(ClientConnection::new(Arc::new(self.config()?), name)?)
    }

    fn config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let both = [&version::TLS13, &version::TLS12];
        let one = self.only.map(|one| [one]);
        let versions = one.as_ref().map_or(&both[..], |one| &one[..]);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
                let chain: Vec<_> = chain.collect::<Result<_, _>>()?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.check_selected_alpn = false;
        Ok(config)
    }
}

fn handshake(session: &mut ClientConnection, stream: &mut TcpStream) -> Result<()> {
    while session.is_handshaking() {
        session.complete_io(stream).context("the handshake")?;
    }
    Ok(())
}

/// What was agreed.
pub(crate) fn agreed(session: &ClientConnection) -> Agreed {
    let chain = session.peer_certificates().unwrap_or_default();
    Agreed {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        alpn: String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned(),
        chain: chain.iter().map(|der| der.to_vec()).collect(),
    }
}

/// Takes everybody: a test looks at the certificate itself.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
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
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
