//! TLS towards upstreams: whose name is asked for and verified, which endpoint is connected to how, and what logs say
//! of it. The upstream is a listener of the same proxy, on a Unix socket.

use std::time::SystemTime;

use e2e::{client::Connection, process::Proxy};
use mesh_tls::dev_ca::{DevCa, DevLeaf, Issued};

use crate::support::start;

const SOCKET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

fn inline(pem: &str) -> String {
    format!("{{inline_string: \"{}\"}}", pem.replace('\n', "\\n"))
}

fn pair(issued: &Issued) -> String {
    format!(
        "tls_certificates: [{{certificate_chain: {}, private_key: {}}}]",
        inline(issued.chain_pem()),
        inline(issued.key_pem())
    )
}

struct Pki {
    ca: DevCa,
    server: Issued,
    client: Issued,
}

impl Pki {
    fn new() -> Self {
        let now = SystemTime::now();
        let ca = DevCa::new("example.org".parse().unwrap(), now).unwrap();
        let server = DevLeaf::svid(&"spiffe://example.org/cart".parse().unwrap(), now)
            .dns("a.example")
            .dns("*.b.example")
            .ip([10, 0, 0, 1].into());
        let client = DevLeaf::svid(&"spiffe://example.org/shop".parse().unwrap(), now);
        Self {
            server: ca.issue(server).unwrap(),
            client: ca.issue(client).unwrap(),
            ca,
        }
    }

    fn downstream(&self, more: &str) -> String {
        format!(
            "transport_socket: {{name: tls, typed_config: {{'@type': {SOCKET}.DownstreamTlsContext, \
             common_tls_context: {{{}{more}}}}}}}",
            pair(&self.server)
        )
    }

    fn upstream(&self, fields: &str, validation: &str) -> String {
        format!(
            "transport_socket: {{name: tls, typed_config: {{'@type': {SOCKET}.UpstreamTlsContext, {fields}\
             common_tls_context: {{tls_params: {{tls_maximum_protocol_version: TLSv1_3}}, {}, \
             validation_context: {{{validation}}}}}}}}}",
            pair(&self.client)
        )
    }

    fn trusted(&self) -> String {
        format!("trusted_ca: {}", inline(&self.ca.bundle_pem()))
    }
}

const OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// `UpstreamHttpProtocolOptions` of a cluster.
fn names(fields: &str) -> String {
    format!(
        "typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': {OPTIONS}, \
         explicit_http_config: {{http_protocol_options: {{}}}}, upstream_http_protocol_options: {{{fields}}}}}}}"
    )
}

fn log(format: &str) -> String {
    format!(
        "access_log: [{{name: log, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, \
         log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}], "
    )
}

fn manager(fields: &str, action: &str) -> String {
    format!(
        "filters: [{{name: hcm, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: i, {fields}http_filters: [{{name: router, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], \
         route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, {action}}}]}}]}}}}}}]"
    )
}

/// A listener in the clear whose cluster is a listener on a Unix socket that answers by itself.
fn proxy(
    outer: &str,
    inner_log: &str,
    inner_socket: &str,
    cluster: &str,
    endpoints: &str,
) -> Proxy {
    let front = manager(&log(outer), "route: {cluster: c}");
    let back = manager(&log(inner_log), "direct_response: {status: 200}");
    start(&format!(
        "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - {{name: front, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: [{{{front}}}]}}
  - {{name: back, address: {{pipe: {{path: back.sock}}}}, filter_chains: [{{{inner_socket}, {back}}}]}}
  - {{name: bare, address: {{pipe: {{path: bare.sock}}}}, filter_chains: [{{{back}}}]}}
  clusters:
  - name: c
    load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}
    {cluster}
"
    ))
}

const BACK: &str = "{endpoint: {address: {pipe: {path: back.sock}}}}";

fn ask(proxy: &Proxy, host: &str, header: &str) -> u16 {
    let mut connection = Connection::open(proxy.listener("front").unwrap()).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n");
    connection.send(request.as_bytes());
    connection.response(false).status
}

fn line(proxy: &Proxy, start: &str) -> String {
    let lines = proxy.stdout().take_through(|line| line.starts_with(start));
    lines.unwrap().pop().unwrap()
}

#[test]
fn the_host_is_the_servers_name_and_has_to_be_in_its_certificate() {
    let pki = Pki::new();
    let cluster = format!(
        "{}\n    {}",
        pki.upstream("", &pki.trusted()),
        names("auto_sni: true, auto_san_validation: true, override_auto_sni_header: x-name")
    );
    let proxy = proxy(
        "front %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "back %REQUESTED_SERVER_NAME%",
        &pki.downstream(""),
        &cluster,
        BACK,
    );
    // Twice around: neither a connection nor a session for one name serves another.
    for _ in 0..2 {
        for (host, header, sni) in [
            ("a.example:8080", "", "a.example"),
            ("x.b.example", "", "x.b.example"),
            ("10.0.0.1", "", "-"),
            ("other.example", "x-name: A.Example\r\n", "a.example"),
            ("a.example", "x-name:\r\n", "a.example"),
        ] {
            assert_eq!(ask(&proxy, host, header), 200, "{host}");
            assert_eq!(line(&proxy, "back"), format!("back {sni}"));
        }
        for host in ["c.example", "b.example", "10.0.0.2", "[::1]:80"] {
            assert_eq!(ask(&proxy, host, ""), 503, "{host}");
            let line = line(&proxy, "front 503 UF");
            assert!(line.contains("CERTIFICATE_VERIFY_FAILED"), "{line}");
        }
    }
    let stat = proxy.admin().stat("cluster.c.ssl.fail_verify_san");
    assert_eq!(stat.unwrap(), 8);
}

#[test]
fn a_name_that_was_not_sent_cannot_be_verified() {
    let pki = Pki::new();
    for (fields, status) in [
        ("auto_sni_san_validation: true, ", 503),
        ("sni: a.example, auto_sni_san_validation: true, ", 200),
        ("sni: c.example, auto_sni_san_validation: true, ", 503),
        ("", 200),
    ] {
        let cluster = pki.upstream(fields, &pki.trusted());
        let proxy = proxy("front", "back", &pki.downstream(""), &cluster, BACK);
        assert_eq!(ask(&proxy, "a.example", ""), status, "{fields}");
    }
}

#[test]
fn logs_know_the_upstreams_tls() {
    let pki = Pki::new();
    let cluster = pki.upstream("sni: a.example, ", &pki.trusted());
    let outer = "front %UPSTREAM_TLS_VERSION% %UPSTREAM_TLS_CIPHER% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_PEER_DNS_SAN% \
         %UPSTREAM_PEER_IP_SAN% %UPSTREAM_PEER_SUBJECT% %UPSTREAM_LOCAL_URI_SAN% %UPSTREAM_PEER_CERT_V_END(%Y)% \
         %DOWNSTREAM_TLS_VERSION%";
    let inner = "back %DOWNSTREAM_LOCAL_IP_SAN% %DOWNSTREAM_LOCAL_EMAIL_SAN% %DOWNSTREAM_PEER_CERT_V_START(%Y)% \
         %DOWNSTREAM_PEER_CHAIN_SERIALS% %DOWNSTREAM_PEER_FINGERPRINT_1% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%";
    let back = pki.downstream(&format!(", validation_context: {{{}}}", pki.trusted()));
    let proxy = proxy(outer, inner, &back, &cluster, BACK);
    assert_eq!(ask(&proxy, "a", ""), 200);
    let said = line(&proxy, "back");
    let words: Vec<_> = said.split(' ').collect();
    assert_eq!(words[1..3], ["10.0.0.1", "-"]);
    assert!(words[3].starts_with("20"), "{said}");
    assert_eq!(words[4].len(), 2 * 32 + 1, "two serials: {said}");
    assert_eq!((words[5].len(), words[6]), (40, "-"), "{said}");
    let said = line(&proxy, "front");
    let expected = "front TLSv1.3 TLS_AES_256_GCM_SHA384 spiffe://example.org/cart a.example,*.b.example 10.0.0.1 \
         CN=workload,O=mesh dev-ca spiffe://example.org/shop 20";
    let cipher = |text: &str| text.replace("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384");
    assert!(cipher(&said).starts_with(expected), "{said}");
    assert!(said.ends_with(" -"), "{said}");
}

#[test]
fn an_endpoint_says_how_it_is_connected_to() {
    let pki = Pki::new();
    let labelled = |path: &str, labels: &str| {
        format!(
            "{{endpoint: {{address: {{pipe: {{path: {path}}}}}}}, \
             metadata: {{filter_metadata: {{envoy.transport_socket_match: {{{labels}}}}}}}}}"
        )
    };
    let matches = format!(
        "transport_socket_matches: [{{name: tls, match: {{tls: true}}, {}}}, \
         {{name: bare, match: {{}}, transport_socket: {{name: raw, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}]",
        pki.upstream("", &pki.trusted())
    );
    let endpoints = [
        labelled("back.sock", "tls: true, other: 1"),
        labelled("bare.sock", "tls: 'true'"),
    ];
    let proxy = proxy(
        "front %UPSTREAM_HOST% %UPSTREAM_TLS_VERSION%",
        "back",
        &pki.downstream(""),
        &matches,
        &endpoints.join(", "),
    );
    let mut said: Vec<_> = (0..2)
        .map(|_| {
            assert_eq!(ask(&proxy, "a", ""), 200);
            line(&proxy, "front")
        })
        .collect();
    said.sort();
    assert_eq!(said, ["front back.sock TLSv1.3", "front bare.sock -"]);
}

#[test]
fn a_bundle_for_each_trust_domain() {
    let pki = Pki::new();
    let other = Pki::new();
    let validator = |domains: &[(&str, &Pki)]| {
        let domains = domains.iter().map(|(name, pki)| {
            let bundle = inline(&pki.ca.bundle_pem());
            format!("{{name: {name}, trust_bundle: {bundle}}}")
        });
        format!(
            "custom_validator_config: {{name: envoy.tls.cert_validator.spiffe, typed_config: \
             {{'@type': {SOCKET}.SPIFFECertValidatorConfig, trust_domains: [{}]}}}}",
            domains.collect::<Vec<_>>().join(", ")
        )
    };
    for (domains, status) in [
        (&[("example.org", &pki)][..], 200),
        (&[("other.org", &other), ("example.org", &pki)], 200),
        (&[("other.org", &pki)], 503),
        (&[("example.org", &other)], 503),
    ] {
        let cluster = pki.upstream("", &validator(domains));
        let proxy = proxy("front", "back", &pki.downstream(""), &cluster, BACK);
        assert_eq!(ask(&proxy, "a", ""), status);
    }
}
