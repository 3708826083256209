//! What several tests need: a CA, identities of it, and pairs that shake hands in memory.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_tls::{
    ContextError, DownstreamTlsConfig, HandshakeError, Identity, Secret, TlsAcceptor, TlsConnector,
    TlsParams, TlsStats, TlsStream, Trust, UpstreamTlsConfig, ValidationConfig, WallClock,
    dev_ca::{DevCa, DevLeaf},
};
use tokio::io::DuplexStream;

pub(crate) type Half = TlsStream<DuplexStream>;

/// A moment that no test leaves by accident: the first of January 2030.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_893_456_000)
}

pub(crate) const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

pub(crate) fn clock_at(time: SystemTime) -> WallClock {
    Arc::new(move || time)
}

pub(crate) fn ca(domain: &str) -> DevCa {
    DevCa::new(domain.parse().unwrap(), now()).unwrap()
}

pub(crate) fn svid(id: &str) -> DevLeaf {
    DevLeaf::svid(&id.parse().unwrap(), now()).dns("localhost")
}

pub(crate) fn identity(ca: &DevCa, id: &str) -> Identity {
    ca.issue(svid(id)).unwrap().identity().unwrap()
}

pub(crate) fn trust(ca: &DevCa) -> ValidationConfig {
    ValidationConfig::new(Trust::Bundle(ca.bundle().unwrap()))
}

/// Both ends of one handshake, at one time unless said.
pub(crate) struct Pair {
    pub(crate) server: DownstreamTlsConfig,
    pub(crate) client: UpstreamTlsConfig,
    pub(crate) server_identities: Vec<Identity>,
    pub(crate) client_identity: Option<Identity>,
    pub(crate) of_clients: Option<ValidationConfig>,
    pub(crate) of_servers: ValidationConfig,
    pub(crate) time: SystemTime,
}

impl Pair {
    /// mTLS within one CA, in TLS 1.3.
    pub(crate) fn of(ca: &DevCa) -> Self {
        Self {
            server: DownstreamTlsConfig::default()
                .params(TlsParams::modern())
                .require_client_certificate(true),
            client: UpstreamTlsConfig::default().params(TlsParams::modern()),
            server_identities: vec![identity(ca, "spiffe://example.org/server")],
            client_identity: Some(identity(ca, "spiffe://example.org/client")),
            of_clients: Some(trust(ca)),
            of_servers: trust(ca),
            time: now(),
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let identities = self.server_identities.iter().cloned().map(Secret::fixed);
        TlsAcceptor::new(
            self.server.clone(),
            identities.collect(),
            self.of_clients.clone().map(Secret::fixed),
            TlsStats::detached(),
        )
        .unwrap()
        .with_clock(clock_at(self.time))
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        self.try_connector()
            .unwrap()
            .with_clock(clock_at(self.time))
    }

    pub(crate) fn try_connector(&self) -> Result<TlsConnector, ContextError> {
        TlsConnector::new(
            self.client.clone(),
            self.client_identity.clone().map(Secret::fixed),
            Secret::fixed(self.of_servers.clone()),
            TlsStats::detached(),
        )
    }

    /// One handshake between fresh ends.
    pub(crate) async fn shake(&self) -> Shaken {
        shake(&self.acceptor(), &self.connector()).await
    }
}

/// What both ends say of one handshake.
pub(crate) struct Shaken {
    pub(crate) server: Result<Half, HandshakeError>,
    pub(crate) client: Result<Half, HandshakeError>,
}

pub(crate) async fn shake(acceptor: &TlsAcceptor, connector: &TlsConnector) -> Shaken {
    let (a, b) = tokio::io::duplex(1 << 16);
    let (server, client) = tokio::join!(acceptor.accept(a), connector.connect(b));
    Shaken { server, client }
}

impl Shaken {
    pub(crate) fn both(self) -> (Half, Half) {
        (self.server.unwrap(), self.client.unwrap())
    }

    /// Why the server refused.
    pub(crate) fn refused(self) -> HandshakeError {
        self.server.expect_err("the server took the client")
    }
}

/// Bytes go both ways.
pub(crate) async fn talk(a: &mut Half, b: &mut Half) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut got = [0; 4];
    a.write_all(b"ping").await.unwrap();
    a.flush().await.unwrap();
    b.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
    b.write_all(b"pong").await.unwrap();
    b.flush().await.unwrap();
    a.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"pong");
}
