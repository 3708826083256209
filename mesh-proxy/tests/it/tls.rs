//! Two proxies speak TLS to each other.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::SystemTime,
};

use e2e::{
    client::Connection,
    process::Proxy,
    upstream::{Reply, Upstream},
};
use mesh_tls::dev_ca::{DevCa, LEAF_LIFETIME_DEFAULT};

use crate::support::{bootstrap, get, start};

const SOCKET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// Each connection carries one request, so that each request has a handshake of its own.
const ONCE: &str = "common_http_protocol_options: {max_requests_per_connection: 1}";

const LOG: &str = r#"access_log:
          - name: log
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format: {text_format_source: {inline_string: "%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n"}}"#;

/// A CA's files for `cart`, who serves, and `shop`, who asks.
fn write_ca(folder: &Path, domain: &str) -> DevCa {
    let now = SystemTime::now();
    let ca = DevCa::new(domain.parse().unwrap(), now).unwrap();
    rotate(&ca, folder);
    ca
}

fn rotate(ca: &DevCa, folder: &Path) {
    let ids =
        ["cart", "shop"].map(|name| format!("spiffe://{}/{name}", ca.domain()).parse().unwrap());
    ca.write(folder, &ids, SystemTime::now(), LEAF_LIFETIME_DEFAULT)
        .unwrap();
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("mesh-proxy-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// `own` has the key and certificate, `trusted` the bundle; the peer has to be `peer`.
fn common(own: &Path, trusted: &Path, peer: &str, versions: &str) -> String {
    let (own, trusted) = (own.display(), trusted.display());
    format!(
        "{{tls_params: {{{versions}}}, tls_certificates: [{{certificate_chain: {{filename: {own}/svid.pem}}, \
         private_key: {{filename: {own}/key.pem}}, watched_directory: {{path: {own}}}}}], \
         validation_context: {{trusted_ca: {{filename: {trusted}/bundle.pem}}, \
         match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: '{peer}'}}}}]}}}}"
    )
}

/// A listener that only takes mTLS from shop.
fn server(folder: &Path, upstream: SocketAddr) -> Proxy {
    server_with(folder, upstream, ONCE)
}

fn server_with(folder: &Path, upstream: SocketAddr, manager: &str) -> Proxy {
    let common = common(
        &folder.join("cart"),
        folder,
        "spiffe://example.org/shop",
        "",
    );
    let socket = format!(
        "- transport_socket: {{name: tls, typed_config: {{'@type': {SOCKET}.DownstreamTlsContext, \
         require_client_certificate: true, common_tls_context: {common}}}}}\n      filters:"
    );
    start(&bootstrap(upstream, manager, "").replacen("- filters:", &socket, 1))
}

/// A listener in the clear whose upstream is cart.
fn client(own: &Path, trusted: &Path, server: SocketAddr, more: &str, version: &str) -> Proxy {
    let versions =
        format!("tls_minimum_protocol_version: {version}, tls_maximum_protocol_version: {version}");
    let common = common(own, trusted, "spiffe://example.org/cart", &versions);
    let cluster = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {SOCKET}.UpstreamTlsContext, {more}\
         common_tls_context: {common}}}}}"
    );
    start(&bootstrap(server, LOG, &cluster))
}

fn ask(proxy: &Proxy) -> (u16, String) {
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    connection.send(&get("/x"));
    let response = connection.response(false);
    (
        response.status,
        String::from_utf8_lossy(&response.body.data).into_owned(),
    )
}

#[test]
fn two_proxies_and_a_rotation_in_between() {
    let folder = folder("mtls");
    let mut ca = write_ca(&folder, "example.org");
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", std::iter::repeat_n(Reply::ok("x"), 1000));
    let server = server(&folder, upstream.address());
    let address = server.listener("ingress").unwrap();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let client = client(
            &folder.join("shop"),
            &folder,
            address,
            "sni: localhost, ",
            version,
        );
        assert_eq!(ask(&client), (200, "x".to_owned()));
        let stat = format!(
            "cluster.upstream.ssl.versions.{}: 1",
            version.replace('_', ".")
        );
        let stats = client.admin().text("/stats?filter=ssl").unwrap();
        assert!(stats.contains(&stat), "{stats}");
    }
    let client = client(
        &folder.join("shop"),
        &folder,
        address,
        "max_session_keys: 0, ",
        "TLSv1_3",
    );
    // The leaf rotates, then its issuer; each answer counts.
    for round in 0..30 {
        if round == 10 {
            rotate(&ca, &folder);
        }
        if round == 20 {
            let now = SystemTime::now();
            ca.rotate_intermediate(now, now + LEAF_LIFETIME_DEFAULT)
                .unwrap();
            rotate(&ca, &folder);
        }
        assert_eq!(ask(&client), (200, "x".to_owned()), "round {round}");
    }
    let requests = upstream.take_requests();
    let proto = requests
        .last()
        .unwrap()
        .head
        .field("x-forwarded-proto")
        .map(str::to_owned);
    assert_eq!(
        proto.as_deref(),
        Some("http"),
        "what the first proxy was asked with"
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn who_is_not_expected_is_refused_with_the_reason() {
    let (ours, theirs) = (folder("ours"), folder("theirs"));
    write_ca(&ours, "example.org");
    write_ca(&theirs, "other.org");
    let upstream = Upstream::start("a").unwrap();
    let server = server(&ours, upstream.address());
    let address = server.listener("ingress").unwrap();
    // The client does not trust the server.
    let stranger = client(&ours.join("shop"), &theirs, address, "", "TLSv1_3");
    assert_eq!(ask(&stranger).0, 503);
    let line = stranger
        .stdout()
        .take_through(|line| line.contains("503"))
        .unwrap()
        .concat();
    assert!(line.contains("CERTIFICATE_VERIFY_FAILED"), "{line}");
    assert!(line.starts_with("503 UF TLS_error:|"), "{line}");
    // The server does not trust the client: known at once in TLS 1.2.
    let stranger = client(&theirs.join("shop"), &ours, address, "", "TLSv1_2");
    assert_eq!(ask(&stranger).0, 503);
    let line = stranger
        .stdout()
        .take_through(|line| line.contains("503"))
        .unwrap()
        .concat();
    assert!(line.contains("TLSV1_ALERT_UNKNOWN_CA"), "{line}");
    // Plaintext.
    let mut plain = TcpStream::connect(address).unwrap();
    plain.write_all(&get("/x")).unwrap();
    let mut alert = Vec::new();
    // Closed after an alert; what was not read may reset the connection.
    let _ = plain.read_to_end(&mut alert);
    assert!(!alert.starts_with(b"HTTP"));
    let stats = server.admin().text("/stats?filter=ssl").unwrap();
    for part in ["ssl.fail_verify_error: 1", "ssl.handshake: 0"] {
        assert!(stats.contains(part), "{part}: {stats}");
    }
    assert!(upstream.take_requests().is_empty());
    for folder in [ours, theirs] {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder("mode");
    write_ca(&folder, "example.org");
    let upstream = Upstream::start("a").unwrap();
    let quiet = server(&folder, upstream.address());
    let warned = |proxy: &Proxy| {
        let lines = proxy.stderr().all();
        lines
            .iter()
            .filter(|line| line.contains("others can read this private key"))
            .count()
    };
    assert_eq!(warned(&quiet), 0);
    let key = folder.join("cart/key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let loud = server(&folder, upstream.address());
    assert!(warned(&loud) > 0, "{:?}", loud.stderr().all());
    std::fs::remove_dir_all(folder).unwrap();
}

/// A client that speaks TLS itself: who it is reaches the log and the upstream.
#[test]
fn a_client_certificate_is_passed_on() {
    let folder = folder("xfcc");
    let ca = write_ca(&folder, "example.org");
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", [Reply::ok("x")]);
    let manager = r#"forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true}
          access_log:
          - name: log
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format: {text_format_source: {inline_string: "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_TLS_VERSION%\n"}}"#;
    let proxy = server_with(&folder, upstream.address(), manager);
    let address = proxy.listener("ingress").unwrap();
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-servername",
            "cart.example.org",
        ])
        .args(["-connect", &address.to_string()])
        .arg("-CAfile")
        .arg(folder.join("bundle.pem"))
        .arg("-cert")
        .arg(folder.join("shop/svid.pem"))
        .arg("-cert_chain")
        .arg(folder.join("shop/svid.pem"))
        .arg("-key")
        .arg(folder.join("shop/key.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nx-forwarded-client-cert: Hash=forged\r\nConnection: close\r\n\r\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let requests = upstream.take_requests();
    let field = |name: &str| requests[0].head.field(name).unwrap_or_default().to_owned();
    let xfcc = field("x-forwarded-client-cert");
    assert!(
        xfcc.starts_with("By=spiffe://example.org/cart;Hash="),
        "{xfcc}"
    );
    assert!(xfcc.ends_with(";URI=spiffe://example.org/shop"), "{xfcc}");
    assert!(!xfcc.contains("forged"));
    assert_eq!(field("x-forwarded-proto"), "https");
    let lines = proxy
        .stdout()
        .take_through(|line| line.contains("spiffe"))
        .unwrap();
    assert_eq!(lines.last().unwrap(), "spiffe://example.org/shop TLSv1.3");
    // No key is in any page.
    let key = std::fs::read_to_string(folder.join("cart/key.pem")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for page in [
        "/config_dump",
        "/listeners",
        "/stats",
        "/clusters",
        "/certs",
        "/server_info",
    ] {
        assert!(
            !proxy.admin().text(page).unwrap().contains(secret),
            "{page}"
        );
    }
    for line in [proxy.stdout().all(), proxy.stderr().all()].concat() {
        assert!(!line.contains(secret), "{line}");
    }
    let certs = proxy.admin().text("/certs").unwrap();
    let certs: serde_json::Value = serde_json::from_str(&certs).unwrap();
    let [socket] = certs["certificates"].as_array().unwrap().as_slice() else {
        panic!("{certs}");
    };
    let leaf = &socket["cert_chain"][0];
    let path = folder.join("cart/svid.pem").display().to_string();
    assert_eq!(leaf["path"], path);
    let names = leaf["subject_alt_names"].to_string();
    assert!(
        names.contains("{\"uri\":\"spiffe://example.org/cart\"}"),
        "{names}"
    );
    assert_eq!(leaf["days_until_expiration"], "0");
    let end = leaf["expiration_time"].as_str().unwrap();
    assert!(
        end.starts_with("20") && end.ends_with('Z') && !end.contains('.'),
        "{end}"
    );
    let bundle = folder.join("bundle.pem").display().to_string();
    assert_eq!(socket["ca_cert"][0]["path"], bundle);
    drop(ca);
    std::fs::remove_dir_all(folder).unwrap();
}
