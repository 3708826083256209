//! Filter chains that are chosen by what a ClientHello says.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::SystemTime,
};

use e2e::{
    client::Connection,
    process::Proxy,
    tls::Client,
    wait::{Deadline, until},
};
use mesh_tls::dev_ca::{DevCa, DevLeaf, Issued};

use crate::support::{Plain, get, start};

const SOCKET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const INSPECTOR: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

/// A CA with the certificates of a server and of a client.
struct Pki {
    ca: DevCa,
    server: Issued,
    client: Issued,
}

impl Pki {
    fn new() -> Self {
        let now = SystemTime::now();
        let ca = DevCa::new("example.org".parse().unwrap(), now).unwrap();
        let issue = |id: &str| {
            let leaf = DevLeaf::svid(&id.parse().unwrap(), now);
            ca.issue(leaf).unwrap()
        };
        Self {
            server: issue("spiffe://example.org/cart"),
            client: issue("spiffe://example.org/shop"),
            ca,
        }
    }

    /// The transport socket of a chain; `strict` takes only clients of this CA.
    fn socket(&self, strict: bool, alpn: &str) -> String {
        let inline = |pem: &str| format!("{{inline_string: \"{}\"}}", pem.replace('\n', "\\n"));
        let validation = if strict {
            let ca = inline(&self.ca.bundle_pem());
            format!(", validation_context: {{trusted_ca: {ca}}}")
        } else {
            String::new()
        };
        format!(
            "transport_socket: {{name: tls, typed_config: {{'@type': {SOCKET}.DownstreamTlsContext, \
             require_client_certificate: {strict}, common_tls_context: {{alpn_protocols: [{alpn}], \
             tls_certificates: [{{certificate_chain: {}, private_key: {}}}]{validation}}}}}}}",
            inline(self.server.chain_pem()),
            inline(self.server.key_pem()),
        )
    }

    fn client(&self) -> Client {
        Client::default().identity(self.client.chain_pem(), self.client.key_pem())
    }
}

/// A chain that answers with `body`.
fn chain(matches: &str, socket: &str, body: &str) -> String {
    let comma = if socket.is_empty() { "" } else { ", " };
    format!(
        "{{filter_chain_match: {{{matches}}}{comma}{socket}, filters: [{{name: hcm, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: i, http_filters: [{{name: router, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], \
         route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, \
         direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}]}}]}}}}}}]}}"
    )
}

fn proxy(chains: &[String], inspector: &str) -> Proxy {
    let listener = format!(
        "stat_prefix: main\n    listener_filters: [{{name: t, typed_config: {{'@type': {INSPECTOR}{inspector}}}}}]"
    );
    let yaml = Plain {
        chains: &chains.join(", "),
        listener: &listener,
        ..Plain::default()
    };
    start(&yaml.bootstrap())
}

fn ask(mut connection: Connection) -> String {
    connection.send(&get("/"));
    let response = connection.response(false);
    assert_eq!(response.status, 200, "{response:?}");
    String::from_utf8(response.body.data).unwrap()
}

fn address(proxy: &Proxy) -> SocketAddr {
    proxy.listener("ingress").unwrap()
}

/// What a peer that is not let in gets in answer to plaintext.
fn plaintext(address: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&get("/")).unwrap();
    let mut all = Vec::new();
    // What was not read may reset the connection.
    let _ = stream.read_to_end(&mut all);
    all
}

fn await_stat(proxy: &Proxy, name: &str, value: i64) {
    let found = until(Deadline::default(), || {
        (proxy.admin().stat(name).ok()? == value).then_some(())
    });
    assert!(found.is_some(), "{name}: {:?}", proxy.admin().stat(name));
}

#[test]
fn a_permissive_port_takes_plaintext_and_mtls_and_no_other_tls() {
    let pki = Pki::new();
    let chains = [
        chain("transport_protocol: tls", &pki.socket(true, ""), "mtls"),
        chain("transport_protocol: raw_buffer", "", "plaintext"),
    ];
    let proxy = proxy(&chains, "");
    assert_eq!(ask(Connection::open(address(&proxy)).unwrap()), "plaintext");
    assert_eq!(ask(pki.client().connect(address(&proxy)).unwrap()), "mtls");
    let error = Client::default().tls12().connect(address(&proxy));
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("alert"), "{error}");
    // TLS 1.3: the client learns it when it reads.
    let mut late = Client::default().connect(address(&proxy)).unwrap();
    assert!(late.closes());
    let error = late.tls_error().unwrap_or_default();
    assert!(error.contains("CertificateRequired"), "{error}");
    for (stat, value) in [
        ("tls_inspector.tls_found", 3),
        ("tls_inspector.tls_not_found", 1),
        ("tls_inspector.sni_not_found", 3),
        ("tls_inspector.alpn_not_found", 3),
        ("listener.main.ssl.fail_verify_no_cert", 2),
        ("listener.main.ssl.handshake", 1),
    ] {
        await_stat(&proxy, stat, value);
    }
}

#[test]
fn a_strict_port_takes_mtls_only() {
    let pki = Pki::new();
    let chains = [chain(
        "transport_protocol: tls",
        &pki.socket(true, ""),
        "mtls",
    )];
    let proxy = proxy(&chains, "");
    assert_eq!(plaintext(address(&proxy)), b"");
    await_stat(&proxy, "listener.main.no_filter_chain_match", 1);
    assert_eq!(ask(pki.client().connect(address(&proxy)).unwrap()), "mtls");
}

#[test]
fn names_and_protocols_choose() {
    let pki = Pki::new();
    let tls = pki.socket(false, "h2, http/1.1, istio");
    let chains = [
        chain("server_names: [a.example.org]", &tls, "exact"),
        chain("server_names: ['*.example.org']", &tls, "wildcard"),
        chain(
            "server_names: ['*.example.org'], application_protocols: [istio]",
            &tls,
            "istio",
        ),
        chain("transport_protocol: tls", &tls, "tls"),
        chain("", "", "other"),
    ];
    let proxy = proxy(&chains, "");
    let with = |name: &str, alpn: &[&str]| {
        let client = Client::default().sni(name).alpn(alpn);
        let connection = client.connect(address(&proxy)).unwrap();
        let alpn = connection.agreed().unwrap().alpn;
        (ask(connection), alpn)
    };
    let answer = |body: &str, alpn: &str| (body.to_owned(), alpn.to_owned());
    assert_eq!(with("A.example.ORG", &[]), answer("exact", ""));
    assert_eq!(with("b.c.example.org", &[]), answer("wildcard", ""));
    assert_eq!(
        with("b.example.org", &["http/1.1"]),
        answer("wildcard", "http/1.1")
    );
    assert_eq!(
        with("b.example.org", &["istio", "http/1.1"]),
        answer("istio", "http/1.1")
    );
    // There is no way back from a name to those that match every name.
    assert_eq!(with("a.example.org", &["istio", "http/1.1"]).0, "exact");
    assert_eq!(with("example.org", &[]), answer("tls", ""));
    let nameless = Client::default().connect(address(&proxy)).unwrap();
    assert_eq!(ask(nameless), "tls");
    assert_eq!(ask(Connection::open(address(&proxy)).unwrap()), "other");
    for (stat, value) in [
        ("tls_inspector.sni_found", 6),
        ("tls_inspector.sni_not_found", 1),
        ("tls_inspector.alpn_found", 3),
        ("tls_inspector.alpn_not_found", 4),
    ] {
        await_stat(&proxy, stat, value);
    }
}

#[test]
fn a_hello_in_pieces_is_waited_for_and_one_that_is_too_long_is_not() {
    let pki = Pki::new();
    let chains = [
        chain("transport_protocol: tls", &pki.socket(false, ""), "tls"),
        chain("", "", "other"),
    ];
    let patient = proxy(&chains, "");
    let connection = Client::default().connect_in_pieces(address(&patient), 300, || {
        await_stat(&patient, "listener.main.downstream_pre_cx_active", 1);
    });
    assert_eq!(ask(connection.unwrap()), "tls");
    drop(patient);
    let strict = proxy(
        &chains,
        ", max_client_hello_size: 256, close_connection_on_client_hello_parsing_errors: true",
    );
    let error = Client::default().connect(address(&strict));
    assert!(error.is_err(), "{error:?}");
    await_stat(&strict, "tls_inspector.client_hello_too_large", 1);
    assert_eq!(plaintext(address(&strict)), b"");
    await_stat(&strict, "listener.main.downstream_pre_cx_active", 0);
    assert_eq!(strict.admin().stat("tls_inspector.tls_found").unwrap(), 0);
    await_stat(&strict, "tls_inspector.tls_not_found", 1);
}
