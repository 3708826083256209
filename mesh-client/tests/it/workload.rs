//! The SPIFFE Workload API feeds handshakes: a scripted agent on a Unix socket, spoken to over HTTP/2 by hand.

use std::{path::Path, sync::Arc, time::SystemTime};

use bytes::Bytes;
use mesh_client::workload_source;
use mesh_core::Rng;
use mesh_tls::{
    DownstreamTlsConfig, Identity, KeeperStats, Secret, SecretKeeper, TlsAcceptor, TlsConnector,
    TlsParams, TlsStats, UpstreamTlsConfig, ValidationConfig,
    dev_ca::{DevCa, DevLeaf, Issued},
    rotation::ChainPolicy,
};
use mesh_xds::workload::WorkloadClient;
use tokio::{net::UnixListener, sync::mpsc};

/// A field of bytes in protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(bytes);
    out
}

/// What is between the lines of a PEM text.
fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("---"));
    let digits = lines.flat_map(str::bytes).filter(|byte| *byte != b'=');
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
    for digit in digits {
        bits = bits << 6 | u32::from(value(digit));
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    out
}

/// An answer of the agent: one identity, and a federated bundle.
fn context(ca: &DevCa, issued: &Issued, key: &str, other: &DevCa) -> Vec<u8> {
    let identity = issued.identity().unwrap();
    let chain: Vec<u8> = identity
        .chain()
        .iter()
        .flat_map(|one| one.der().to_vec())
        .collect();
    let svid = [
        field(1, identity.spiffe_id().unwrap().as_str().as_bytes()),
        field(2, &chain),
        field(3, &der(key)),
        field(4, &der(&ca.bundle_pem())),
    ];
    let federated = [
        field(1, b"spiffe://other.org"),
        field(2, &der(&other.bundle_pem())),
    ];
    [field(1, &svid.concat()), field(3, &federated.concat())].concat()
}

/// Sends what it is told to, to one client.
async fn agent(listener: UnixListener, mut contexts: mpsc::Receiver<Vec<u8>>) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
    assert_eq!(request.headers()["workload.spiffe.io"], "true");
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let response = http::Response::builder().header("content-type", "application/grpc");
    let mut stream = respond
        .send_response(response.body(()).unwrap(), false)
        .unwrap();
    while let Some(message) = contexts.recv().await {
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&message);
        stream.send_data(Bytes::from(frame), false).unwrap();
    }
}

async fn until(identity: &mut Secret<Identity>, serial: &str) {
    while identity
        .current()
        .is_none_or(|now| now.leaf().serial() != serial)
    {
        assert!(identity.changed().await, "the keeper is gone");
    }
}

fn serial(issued: &Issued) -> String {
    issued.identity().unwrap().leaf().serial().to_owned()
}

#[tokio::test]
async fn an_agents_identities_are_served_and_renewed_and_never_get_worse() {
    let now = SystemTime::now();
    let ca = DevCa::new("example.org".parse().unwrap(), now).unwrap();
    let other = DevCa::new("other.org".parse().unwrap(), now).unwrap();
    let issue = |ca: &DevCa, id: &str| ca.issue(DevLeaf::svid(&id.parse().unwrap(), now)).unwrap();
    let path = std::env::temp_dir().join(format!("mesh-workload-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let (told, contexts) = mpsc::channel(1);
    let agent = tokio::spawn(agent(UnixListener::bind(&path).unwrap(), contexts));
    let (mut identity, validation, stats) = keeper(&path);
    let first = issue(&ca, "spiffe://example.org/cart");
    told.send(context(&ca, &first, first.key_pem(), &other))
        .await
        .unwrap();
    until(&mut identity, &serial(&first)).await;
    // Both ends have their secrets from the agent; a stranger of the federated domain is let in too.
    let acceptor = TlsAcceptor::new(
        DownstreamTlsConfig::default()
            .params(TlsParams::modern())
            .require_client_certificate(true),
        vec![identity.clone()],
        Some(validation.clone()),
        TlsStats::detached(),
    )
    .unwrap();
    let connector = |own: Secret<Identity>| {
        let config = UpstreamTlsConfig::default().params(TlsParams::modern());
        TlsConnector::new(config, Some(own), validation.clone(), TlsStats::detached()).unwrap()
    };
    let stranger = issue(&other, "spiffe://other.org/shop").identity().unwrap();
    for own in [identity.clone(), Secret::fixed(stranger)] {
        let (a, b) = tokio::io::duplex(1 << 16);
        let connector = connector(own);
        let (server, client) = tokio::join!(acceptor.accept(a), connector.connect(b));
        client.unwrap();
        assert!(server.unwrap().session().peer.is_some());
    }
    // A key that is not the certificate's changes nothing; the next good one does.
    let (broken, second) = (
        issue(&ca, "spiffe://example.org/cart"),
        issue(&ca, "spiffe://example.org/cart"),
    );
    told.send(context(&ca, &broken, first.key_pem(), &other))
        .await
        .unwrap();
    told.send(context(&ca, &second, second.key_pem(), &other))
        .await
        .unwrap();
    until(&mut identity, &serial(&second)).await;
    assert!(stats.update_rejected().value() <= 1, "only what was broken");
    // The agent goes: what it gave stays.
    drop(told);
    agent.await.unwrap();
    assert_eq!(identity.current().unwrap().leaf().serial(), serial(&second));
    std::fs::remove_file(path).unwrap();
}

fn keeper(path: &Path) -> (Secret<Identity>, Secret<ValidationConfig>, KeeperStats) {
    let address = format!("unix://{}", path.display());
    let client = WorkloadClient::new(&address, Rng::seeded(1)).unwrap();
    let stats = KeeperStats::detached();
    let keeper = SecretKeeper::new("workload", ChainPolicy::MustReachTrust, stats.clone())
        .with_clock(Arc::new(mesh_core::clock::wall));
    let secrets = (keeper.identity(), keeper.validation());
    let source = workload_source(client, ValidationConfig::dangerous_anyone());
    tokio::spawn(keeper.run(source));
    (secrets.0, secrets.1, stats)
}
