//! xDS over mutual TLS.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use mesh_control::{Control, Settings, TlsFiles, serve};
use mesh_core::{
    Rng,
    stats::{Registry as Stats, Scope},
};
use mesh_tls::{
    Identity, Secret, SpiffeId, TlsConnector, TlsParams, TlsStats, Trust, TrustBundle,
    UpstreamTlsConfig, ValidationConfig, dev_ca::DevCa,
};
use mesh_xds::{
    Accept, Event, Reconnect, Rejection, ResourceType, Subscriber, SubscriberConfig, Variant,
    transport::{Driver, Handler, Interest, Stream},
    wire::Node,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::support::{MESH, knowledge, told};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn connector(folder: &Path, identity: Option<&str>) -> TlsConnector {
    let identity = identity.map(|name| {
        let own = folder.join(name);
        let identity = Identity::from_files(own.join("svid.pem"), own.join("key.pem"));
        Secret::fixed(identity.expect("an identity"))
    });
    let bundle = TrustBundle::from_file(folder.join("bundle.pem")).expect("a bundle");
    let config = UpstreamTlsConfig::default()
        .params(TlsParams::modern())
        .alpn_protocols(&["h2".to_owned()])
        .expect("h2");
    let trust = Secret::fixed(ValidationConfig::new(Trust::Bundle(bundle)));
    TlsConnector::new(config, identity, trust, TlsStats::detached()).expect("a connector")
}

/// The first bytes of the server's HTTP/2, or why there are none.
async fn settings(connector: &TlsConnector, port: u16) -> Result<[u8; 9], String> {
    let socket = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connected");
    let mut stream = connector.connect(socket).await.map_err(|e| e.to_string())?;
    let mut head = [0; 9];
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(hello).await.map_err(|e| e.to_string())?;
    stream
        .read_exact(&mut head)
        .await
        .map_err(|e| e.to_string())?;
    Ok(head)
}

/// Certificates of the control plane and of a shop.
fn write_certificates(folder: &Path, domain: &str) {
    let now = SystemTime::now();
    let ca = DevCa::new(domain.parse().expect("a domain"), now).expect("a CA");
    let ids = ["control", "shop"]
        .map(|name| -> SpiffeId { format!("spiffe://{domain}/{name}").parse().expect("an id") });
    ca.write(folder, &ids, now, DAY).expect("written");
}

fn files(folder: &Path) -> TlsFiles {
    TlsFiles {
        certificate_chain: folder.join("control/svid.pem"),
        private_key: folder.join("control/key.pem"),
        client_ca: Some(folder.join("bundle.pem")),
        client_uri_prefix: Some("spiffe://example.org/".to_owned()),
    }
}

/// On which port.
async fn serve_over_tls(control: Control, files: &TlsFiles) -> u16 {
    let acceptor = files
        .acceptor(&Scope::detached())
        .await
        .expect("good files");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(
        async move { serve(&control, listener, Some(acceptor), std::future::pending()).await },
    );
    port
}

#[tokio::test]
async fn only_who_proves_who_he_is_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    write_certificates(&ours, "example.org");
    write_certificates(&theirs, "evil.test");
    let control = Control::start(Settings::default(), Vec::new(), Stats::new()).expect("started");
    let port = serve_over_tls(control, &files(&ours)).await;

    let good = settings(&connector(&ours, Some("shop")), port).await;
    assert_eq!(good.expect("served")[3], 4, "not the settings of HTTP/2");
    assert!(settings(&connector(&ours, None), port).await.is_err());
    // Somebody who trusts us, and whom we do not know.
    std::fs::copy(ours.join("bundle.pem"), theirs.join("bundle.pem")).expect("copied");
    assert!(
        settings(&connector(&theirs, Some("shop")), port)
            .await
            .is_err()
    );
    // Nobody was disturbed by that.
    let again = settings(&connector(&ours, Some("shop")), port).await;
    assert!(again.is_ok(), "{again:?}");
}

/// Plain bytes in, mutual TLS out.
async fn tunnel(connector: TlsConnector, port: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let socket = TcpStream::connect(("127.0.0.1", port))
                .await
                .expect("connected");
            let mut secure = connector.connect(socket).await.expect("a handshake");
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut plain, &mut secure).await },
            );
        }
    });
    address
}

/// Tells whether the first news is a resource, or why the stream has ended.
struct First(mpsc::UnboundedSender<Result<String, String>>);

impl Accept for First {
    fn accept(&mut self, _: ResourceType, name: &str, _: &bytes::Bytes) -> Result<(), Rejection> {
        let _ = self.0.send(Ok(name.to_owned()));
        Ok(())
    }
}

impl Handler for First {
    fn on_events(&mut self, _: Instant, _: Vec<Event>, _: &mut Interest) {}

    fn on_connection(&mut self, connected: bool, reason: &str) {
        if !connected {
            let _ = self.0.send(Err(reason.to_owned()));
        }
    }
}

#[tokio::test]
async fn a_sidecar_gets_what_is_its_own_services() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path(), "example.org");
    let files = files(folder.path());
    let mut settings = Settings::default();
    settings
        .identity_prefix
        .clone_from(&files.client_uri_prefix);
    let (news, registry) = told();
    news.send(Ok(knowledge(MESH))).expect("heard");
    let control = Control::start(settings, vec![registry], Stats::new()).expect("started");
    let port = serve_over_tls(control.clone(), &files).await;
    control.published().await;
    let address = tunnel(connector(folder.path(), Some("shop")), port).await;
    let first = async |cluster: &str| {
        let node = Node {
            id: "one".to_owned(),
            cluster: cluster.to_owned(),
            ..Node::default()
        };
        let mut subscriber = Subscriber::new(SubscriberConfig::new(node, Variant::Delta));
        subscriber.subscribe_all(mesh_core::clock::now(), ResourceType::Cluster);
        let stream = Stream::aggregated(Variant::Delta, [&*format!("http://{address}")]);
        let (told, mut hears) = mpsc::unbounded_channel();
        let reconnect = Reconnect::new(1).expect("a server");
        let stream = stream.expect("a stream");
        let (driver, _commands) =
            Driver::new(subscriber, First(told), stream, reconnect, Rng::seeded(1));
        let driving = tokio::spawn(driver.run());
        let first = tokio::time::timeout(Duration::from_secs(20), hears.recv()).await;
        driving.abort();
        first.expect("something is told").expect("something")
    };
    let refused = first("users").await.expect_err("another service's config");
    assert!(
        refused.contains("has no URI spiffe://example.org/users"),
        "{refused}"
    );
    first("shop").await.expect("its own config");
}

#[tokio::test]
async fn files_that_cannot_be_used_end_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = TlsFiles {
        certificate_chain: folder.path().join("svid.pem"),
        private_key: folder.path().join("key.pem"),
        client_ca: None,
        client_uri_prefix: None,
    };
    let error = files
        .acceptor(&Scope::detached())
        .await
        .expect_err("no files");
    assert!(format!("{error:#}").contains("svid.pem"), "{error:#}");
    let files = TlsFiles {
        client_uri_prefix: Some("spiffe://a/".to_owned()),
        ..files
    };
    let error = files.acceptor(&Scope::detached()).await.expect_err("no CA");
    assert!(format!("{error:#}").contains("CA"), "{error:#}");
}
