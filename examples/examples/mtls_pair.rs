//! How do two services prove to each other who they are, and how do their certificates rotate?
//!
//! ```sh
//! cargo run -p examples --example mtls_pair
//! ```
//!
//! A throw-away CA writes an SVID for `cart` and one for `shop`. Cart serves HTTP (with hyper; axum and tonic take
//! the same streams), shop asks it. Then shop's certificate rotates on disk while both run, and at last somebody
//! of another trust domain knocks.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    body::{Bytes, Incoming},
    client, server,
};
use hyper_util::rt::TokioIo;
use mesh_tls::{
    DownstreamTlsConfig, FileSecret, FilesSource, Identity, KeeperStats, SanMatcher, Secret,
    SecretKeeper, TlsAcceptor, TlsConnector, TlsParams, TlsSession, TlsStats, Trust, TrustBundle,
    UpstreamTlsConfig, ValidationConfig, dev_ca::DevCa, rotation::ChainPolicy, tower::SessionLayer,
};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, service_fn};

/// Who asks? The handler finds the peer of its connection in the request.
async fn cart(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let session = request.extensions().get::<Arc<TlsSession>>();
    let peer = session.and_then(|session| session.peer.as_ref());
    let (who, serial) = peer.map_or(("nobody", ""), |peer| {
        (peer.principal(), peer.certificate().serial())
    });
    Ok(Response::new(Full::from(format!("hello {who} {serial}"))))
}

/// What `folder` says about one workload, now and whenever something is moved into it.
fn secrets(folder: PathBuf, trust: &ValidationConfig) -> Secret<Identity> {
    let keeper = SecretKeeper::new("svid", ChainPolicy::MustReachTrust, KeeperStats::detached());
    let identity = keeper.identity();
    let files = FilesSource::new(vec![
        FileSecret::Validation {
            trusted_ca: folder.join("../bundle.pem"),
            crl: None,
            base: Box::new(trust.clone()),
        },
        FileSecret::Identity {
            chain: folder.join("svid.pem"),
            key: folder.join("key.pem"),
        },
    ]);
    tokio::spawn(keeper.run(files.watched_directory(folder).into_source()));
    identity
}

/// Anybody of our trust domain, in TLS 1.3.
fn trust(folder: &Path) -> Result<ValidationConfig> {
    let bundle = TrustBundle::from_file(folder.join("bundle.pem"))?;
    let ours = SanMatcher::uri_prefix("spiffe://example.org/")?;
    Ok(ValidationConfig::new(Trust::Bundle(bundle)).with_sans(vec![ours])?)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((socket, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let stream = match acceptor.accept(socket).await {
                Ok(stream) => stream,
                Err(error) => return println!("cart:  {error}"),
            };
            let service = SessionLayer::new(Arc::clone(stream.session())).layer(service_fn(cart));
            let service = hyper_util::service::TowerToHyperService::new(service);
            let connection = server::conn::http1::Builder::new();
            let _ = connection
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn ask(connector: &TlsConnector, port: u16) -> Result<String> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let stream = connector.connect(socket).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "cart")
        .body(Empty::<Bytes>::new())?;
    let body = sender
        .send_request(request)
        .await?
        .into_body()
        .collect()
        .await?;
    let answer = String::from_utf8(body.to_bytes().to_vec())?;
    println!("shop:  {answer}");
    Ok(answer)
}

fn connector(identity: Secret<Identity>, trust: &ValidationConfig) -> Result<TlsConnector> {
    // Sessions are not taken up again, so that each answer shows the certificate of its own handshake.
    let config = UpstreamTlsConfig::default()
        .params(TlsParams::modern())
        .max_session_keys(0);
    let validation = Secret::fixed(trust.clone());
    Ok(TlsConnector::new(
        config,
        Some(identity),
        validation,
        TlsStats::detached(),
    )?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("mtls-pair-{}", std::process::id()));
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    let ca = DevCa::new("example.org".parse()?, now)?;
    let (cart, shop) = ("spiffe://example.org/cart", "spiffe://example.org/shop");
    ca.write(&folder, &[cart.parse()?, shop.parse()?], now, day)?;
    let trust = trust(&folder)?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let acceptor = TlsAcceptor::new(
        DownstreamTlsConfig::default()
            .params(TlsParams::modern())
            .require_client_certificate(true),
        vec![secrets(folder.join("cart"), &trust)],
        Some(Secret::fixed(trust.clone())),
        TlsStats::detached(),
    )?;
    tokio::spawn(serve(listener, acceptor));

    let mut identity = secrets(folder.join("shop"), &trust);
    let shop_connector = connector(identity.clone(), &trust)?;
    identity.ready().await.context("no secret")?;
    let first = ask(&shop_connector, port).await?;
    ensure!(first.starts_with("hello spiffe://example.org/shop "));

    println!("-- shop's certificate rotates");
    let before = identity.current();
    ca.write(&folder, &[shop.parse()?], SystemTime::now(), day)?;
    while identity.current() == before {
        ensure!(identity.changed().await);
    }
    let second = ask(&shop_connector, port).await?;
    ensure!(second != first && second.starts_with("hello spiffe://example.org/shop "));

    println!("-- somebody of another trust domain knocks");
    let other = DevCa::new("other.org".parse()?, now)?;
    let mallory = mesh_tls::dev_ca::DevLeaf::svid(&"spiffe://other.org/shop".parse()?, now);
    let mallory = connector(Secret::fixed(other.issue(mallory)?.identity()?), &trust)?;
    let refused = ask(&mallory, port).await.expect_err("cart must refuse");
    println!("other: {refused:#}");
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
