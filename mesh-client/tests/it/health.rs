//! Endpoints that are checked, over config pushes and changes of address.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use mesh_client::MeshClient;
use mesh_config::model::Config;
use mesh_core::{Health, HealthFlag};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
};

use crate::support::{
    NameServer, bootstrap, client, cluster, counter, dns_cluster, eventually, get,
};

const ROUTES: &str = "[{match: {prefix: /}, route: {cluster: a}}]";

/// An upstream that answers requests with 200, and checks with what it is told to.
struct Host {
    port: u16,
    health: watch::Sender<u16>,
    requests: Arc<AtomicUsize>,
    checks: Arc<AtomicUsize>,
}

impl Host {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Self {
            port: listener.local_addr().unwrap().port(),
            health: watch::Sender::new(200),
            requests: Arc::default(),
            checks: Arc::default(),
        };
        let (health, counts) = (
            host.health.subscribe(),
            [Arc::clone(&host.requests), Arc::clone(&host.checks)],
        );
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (health, [requests, checks]) = (health.clone(), counts.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while stream.read_buf(&mut head).await.is_ok_and(|n| n > 0) {
                        if !head.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        let is_check = head.starts_with(b"GET /hc ");
                        let count = if is_check { &checks } else { &requests };
                        count.fetch_add(1, Ordering::SeqCst);
                        let status = if is_check { *health.borrow() } else { 200 };
                        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                        head.clear();
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        host
    }

    fn is(&self, status: u16) {
        self.health.send_replace(status);
    }
}

fn checked(interval: &str) -> String {
    format!(
        "common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, health_checks: [{{timeout: 2s, interval: {interval}, \
         no_traffic_interval: {interval}, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {{path: /hc}}}}],"
    )
}

fn config(host: &Host, more: &str) -> Config {
    bootstrap(ROUTES, &format!("[{}]", cluster("a", &[host.port], more)))
}

fn health(client: &MeshClient) -> Health {
    let set = client.mesh().clusters().list()[0].endpoints();
    set.endpoints()[0].state.health()
}

async fn status(client: &MeshClient) -> u16 {
    match get(client, "/").await.0 {
        Ok((status, _)) => status,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_client_starts_when_its_endpoints_have_been_checked() {
    let (well, ill) = (Host::start().await, Host::start().await);
    ill.is(503);
    let ports = [well.port, ill.port];
    let clusters = format!("[{}]", cluster("a", &ports, &checked("60s")));
    let client = client(bootstrap(ROUTES, &clusters)).await.unwrap();
    assert_eq!(
        (
            well.checks.load(Ordering::SeqCst),
            ill.checks.load(Ordering::SeqCst)
        ),
        (1, 1)
    );
    for _ in 0..4 {
        assert_eq!(status(&client).await, 200);
    }
    assert_eq!(ill.requests.load(Ordering::SeqCst), 0);
    assert_eq!(counter(&client, "cluster.a.health_check.attempt"), 2);
}

#[tokio::test]
async fn health_survives_a_push_and_goes_with_its_checks() {
    let host = Host::start().await;
    host.is(503);
    let often = checked("0.01s");
    let client = client(config(&host, &often)).await.unwrap();
    assert_eq!(health(&client), Health::Unhealthy);
    // Something else changes: the checks go on as if nothing had happened.
    let other = format!("connect_timeout: 2s, {often}");
    client.mesh().apply(&config(&host, &other)).unwrap();
    assert_eq!(health(&client), Health::Unhealthy);
    host.is(200);
    eventually(|| health(&client) == Health::Healthy).await;
    // Other rules: it is as well as it was.
    client
        .mesh()
        .apply(&config(&host, &checked("60s")))
        .unwrap();
    assert_eq!(health(&client), Health::Healthy);
    host.is(503);
    client.mesh().apply(&config(&host, &often)).unwrap();
    eventually(|| health(&client) == Health::Unhealthy).await;
    // No checks, no verdict.
    client.mesh().apply(&config(&host, "")).unwrap();
    assert_eq!(health(&client), Health::Healthy);
}

#[tokio::test]
async fn an_endpoint_that_took_requests_goes_on_when_checks_are_added() {
    let host = Host::start().await;
    let client = client(config(&host, "")).await.unwrap();
    host.is(503);
    client
        .mesh()
        .apply(&config(&host, &checked("60s")))
        .unwrap();
    client.mesh().warmed().await;
    assert_eq!(health(&client), Health::Unhealthy);
    assert_eq!(host.checks.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn checks_end_with_their_cluster() {
    let host = Host::start().await;
    let client = client(config(&host, &checked("0.01s"))).await.unwrap();
    let other = "[{match: {prefix: /}, route: {cluster: b}}]";
    let other = bootstrap(other, &format!("[{}]", cluster("b", &[host.port], "")));
    client.mesh().apply(&other).unwrap();
    // The worker lets go of the cluster at its next sweep, and stats go with whoever counts.
    let counts = || {
        let stats = client.mesh().registry().snapshot();
        let mut names = stats.iter().map(|stat| stat.name.as_str());
        names.any(|name| name.starts_with("cluster.a.health_check."))
    };
    eventually(|| !counts()).await;
}

#[tokio::test]
async fn a_check_that_passes_ends_an_ejection() {
    let host = Host::start().await;
    let outlier = "outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 100},";
    let more = format!("{outlier}{}", checked("0.01s"));
    let client = client(config(&host, &more)).await.unwrap();
    let set = client.mesh().clusters().list()[0].endpoints();
    let detector = Arc::clone(client.mesh().clusters().list()[0].detector().unwrap());
    detector.monitor(&set.endpoints()[0].state).on_response(500);
    eventually(|| !set.endpoints()[0].state.has(HealthFlag::FailedOutlier)).await;
    assert_eq!(detector.stats().ejections_enforced_total().value(), 1);
}

#[tokio::test]
async fn an_endpoint_that_left_stays_while_its_checks_pass() {
    let host = Host::start().await;
    let server = NameServer::start(true).await;
    let more = format!("dns_refresh_rate: 0.01s, {}", checked("0.01s"));
    let named = dns_cluster("a", "up.test", &[host.port], server.port, &more);
    let client = client(bootstrap(ROUTES, &format!("[{named}]")))
        .await
        .unwrap();
    let members = || {
        let set = client.mesh().clusters().list()[0].endpoints();
        let members = set.endpoints().iter().map(|endpoint| {
            let address = endpoint.address().to_string();
            let address = address.split(':').next().unwrap().to_owned();
            (address, endpoint.state.health_flags())
        });
        members.collect::<Vec<_>>()
    };
    let member = |address: &str, flags: &str| (address.to_owned(), flags.to_owned());
    assert_eq!(members(), [member("127.0.0.1", "healthy")]);
    // Nobody listens at the new address.
    server.last_octet.store(2, Ordering::SeqCst);
    eventually(|| {
        members()
            == [
                member("127.0.0.2", "/failed_active_hc"),
                member("127.0.0.1", "/pending_dynamic_removal"),
            ]
    })
    .await;
    assert_eq!(status(&client).await, 200);
    host.is(503);
    eventually(|| members() == [member("127.0.0.2", "/failed_active_hc")]).await;
}

/// What an HTTP/2 endpoint was asked, and what it answers: a status of `grpc.health.v1`.
struct GrpcHost {
    port: u16,
    serving: watch::Sender<u8>,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl GrpcHost {
    async fn start(serving: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Self {
            port: listener.local_addr().unwrap().port(),
            serving: watch::Sender::new(serving),
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let (serving, asked) = (host.serving.subscribe(), Arc::clone(&host.asked));
        let connections = Arc::clone(&host.connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer_checks(stream, serving.clone(), Arc::clone(&asked)));
            }
        });
        host
    }
}

async fn answer_checks(
    stream: tokio::net::TcpStream,
    serving: watch::Receiver<u8>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (serving, asked) = (*serving.borrow(), Arc::clone(&asked));
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let header = |name| {
                head.headers
                    .get(name)
                    .map(|v| v.to_str().unwrap().to_owned())
            };
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                message.extend_from_slice(&data);
            }
            asked.lock().unwrap().push(format!(
                "{} {} {:?} {:?} {:?} {:?}",
                head.method,
                head.uri,
                header("content-type"),
                header("te"),
                header("grpc-timeout"),
                String::from_utf8_lossy(&message),
            ));
            let answer = http::Response::builder().header("content-type", "application/grpc");
            let answer = answer.body(()).unwrap();
            let mut stream = respond.send_response(answer, false).unwrap();
            let frame = vec![0, 0, 0, 0, 2, 8, serving];
            stream.send_data(frame.into(), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            stream.send_trailers(trailers).unwrap();
        });
    }
}

fn http2(check: &str) -> String {
    format!(
        "common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
         {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}, \
         health_checks: [{{timeout: 2s, interval: 0.01s, no_traffic_interval: 0.01s, unhealthy_threshold: 1, healthy_threshold: 1, {check}}}],"
    )
}

#[tokio::test]
async fn grpc_health_is_asked_over_one_connection() {
    let host = GrpcHost::start(1).await;
    let more = http2("grpc_health_check: {service_name: users, authority: a.test}");
    let clusters = format!("[{}]", cluster("a", &[host.port], &more));
    let client = client(bootstrap(ROUTES, &clusters)).await.unwrap();
    assert_eq!(health(&client), Health::Healthy);
    assert_eq!(
        host.asked.lock().unwrap()[0],
        "POST http://a.test/grpc.health.v1.Health/Check Some(\"application/grpc\") Some(\"trailers\") \
         Some(\"2000m\") \"\\0\\0\\0\\0\\u{7}\\n\\u{5}users\""
    );
    // NOT_SERVING, and SERVING again.
    host.serving.send_replace(2);
    eventually(|| health(&client) == Health::Unhealthy).await;
    assert_eq!(host.connections.load(Ordering::SeqCst), 1);
    host.serving.send_replace(1);
    eventually(|| health(&client) == Health::Healthy).await;
    assert_eq!(counter(&client, "cluster.a.upstream_cx_total"), 0);
    assert_eq!(
        counter(&client, "cluster.a.health_check.network_failure"),
        0
    );
    let set = client.mesh().clusters().list()[0].endpoints();
    let stats = &set.endpoints()[0].state.stats;
    assert_eq!(
        stats.cx_total.load(Ordering::SeqCst),
        0,
        "checks are not counted"
    );
}

#[tokio::test]
async fn http_checks_go_over_http2_when_told_to() {
    let host = GrpcHost::start(1).await;
    let more =
        http2("http_health_check: {path: /hc, codec_client_type: HTTP2}, reuse_connection: false");
    let clusters = format!("[{}]", cluster("a", &[host.port], &more));
    let client = client(bootstrap(ROUTES, &clusters)).await.unwrap();
    assert_eq!(health(&client), Health::Healthy);
    assert!(host.asked.lock().unwrap()[0].starts_with("GET http://a/hc "));
    eventually(|| host.connections.load(Ordering::SeqCst) >= 3).await;
}
