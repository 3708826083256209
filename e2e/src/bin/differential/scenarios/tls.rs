//! TLS towards clients: which filter chain takes them, and who is let in.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use e2e::client::Connection;
use e2e::tls::Client;
use e2e::wait::WAIT_MAX;

use super::{Pki, tls_client, tls_socket};
use crate::ask::get;
use crate::config::{self, Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

/// Who asks in these scenarios.
struct Clients {
    good: Client,
    other_name: Client,
    other_ca: Client,
    expired: Client,
}

/// Ours, and that of others. Scripts are plain functions: what both arms use is made once.
static PKI: LazyLock<(Pki, Pki)> = LazyLock::new(|| (Pki::new(), Pki::new()));

fn pki<T>(f: impl FnOnce(&Pki, &Pki) -> T) -> T {
    let (ours, theirs) = &*PKI;
    f(ours, theirs)
}

fn answering(name: &str) -> String {
    let shown = [
        ("sni", "%REQUESTED_SERVER_NAME%"),
        ("version", "%DOWNSTREAM_TLS_VERSION%"),
        ("ja4", "%TLS_JA4_FINGERPRINT%"),
        ("peer", "%DOWNSTREAM_PEER_URI_SAN%"),
        ("peer-subject", "%DOWNSTREAM_PEER_SUBJECT%"),
        ("peer-serial", "%DOWNSTREAM_PEER_SERIAL%"),
        ("peer-serials", "%DOWNSTREAM_PEER_CHAIN_SERIALS%"),
        ("peer-sha1", "%DOWNSTREAM_PEER_FINGERPRINT_1%"),
        ("peer-sha256s", "%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%"),
        ("peer-start", "%DOWNSTREAM_PEER_CERT_V_START%"),
        ("peer-end", "%DOWNSTREAM_PEER_CERT_V_END(%s)%"),
        (
            "local",
            "%DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_LOCAL_IP_SAN% %DOWNSTREAM_LOCAL_DNS_SAN% %DOWNSTREAM_LOCAL_SUBJECT%",
        ),
    ];
    config::answering(name, "", &shown)
}

fn chain(matches: &str, socket: &str, name: &str) -> String {
    format!(
        "- filter_chain_match: {{{matches}}}\n  {socket}\n  filters:\n{}",
        answering(name)
    )
}

fn inspector(fields: &str) -> String {
    format!(
        "listener_filters: [{{name: t, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector{fields}}}}}]"
    )
}

pub(super) fn groups() -> Vec<Group> {
    let bootstrap = pki(|ours, _| {
        let server = ours.issue("cart", |leaf| {
            leaf.dns("a.example").ip([10, 0, 0, 1].into())
        });
        let open = tls_socket(
            "DownstreamTlsContext",
            "",
            Some(&server),
            "alpn_protocols: [h2, http/1.1, istio]",
        );
        let validation = format!("validation_context: {{{}}}", ours.trusted_ca());
        let strict = |common: &str| {
            tls_socket(
                "DownstreamTlsContext",
                "require_client_certificate: true,",
                Some(&server),
                common,
            )
        };
        let sans = |matchers: &str| {
            format!(
                "validation_context: {{{}, match_typed_subject_alt_names: [{matchers}]}}",
                ours.trusted_ca()
            )
        };
        let names = [
            chain("server_names: [a.example]", &open, "exact"),
            chain(
                "server_names: ['*.b.example', b.example]",
                &open,
                "wildcard",
            ),
            chain(
                "server_names: ['*.b.example'], application_protocols: [istio]",
                &open,
                "istio",
            ),
            chain("server_names: ['*.c.b.example']", &open, "longer"),
            chain(
                "transport_protocol: tls, application_protocols: ['http/1.1']",
                &open,
                "alpn",
            ),
            chain("transport_protocol: tls", &open, "tls"),
            chain("", "", "plain"),
        ];
        let permissive = [
            chain("transport_protocol: tls", &strict(&validation), "mtls"),
            chain("transport_protocol: raw_buffer", "", "plain"),
        ];
        let listener = |prefix: &str, filters: &str| format!("stat_prefix: {prefix}\n{filters}");
        let bootstrap = Bootstrap::default()
            .chains(
                "names",
                &listener("names", &inspector(", enable_ja4_fingerprinting: true")),
                &names.concat(),
            )
            .chains("uninspected", &listener("uninspected", ""), &names.concat())
            .chains(
                "permissive",
                &listener("permissive", &inspector("")),
                &permissive.concat(),
            )
            .chains(
                "strict",
                &listener("strict", &inspector("")),
                &permissive[0],
            )
            .chains(
                "bare",
                &listener("bare", ""),
                &chain("", &strict(&validation), "mtls"),
            )
            .chains(
                "optional",
                &listener("optional", ""),
                &chain(
                    "",
                    &tls_socket("DownstreamTlsContext", "", Some(&server), &validation),
                    "optional",
                ),
            )
            .chains(
                "small",
                &listener("small", &inspector(", max_client_hello_size: 256")),
                &chain("", &open, "small"),
            )
            .chains(
                "closing",
                &listener(
                    "closing",
                    &inspector(", close_connection_on_client_hello_parsing_errors: true"),
                ),
                &chain("", "", "closing"),
            );
        // One listener for each kind of test on names.
        let matchers = [
            (
                "exact",
                "{san_type: URI, matcher: {exact: 'spiffe://example.org/shop'}}",
            ),
            (
                "prefix",
                "{san_type: URI, matcher: {prefix: 'spiffe://example.org/s'}}",
            ),
            ("suffix", "{san_type: URI, matcher: {suffix: /shop}}"),
            ("contains", "{san_type: URI, matcher: {contains: 'org/sh'}}"),
            (
                "regex",
                "{san_type: URI, matcher: {safe_regex: {regex: 'spiffe://[^/]*/shop'}}}",
            ),
            ("dns", "{san_type: DNS, matcher: {exact: x.shop.example}}"),
            ("dnsprefix", "{san_type: DNS, matcher: {prefix: '*.shop'}}"),
            ("ip", "{san_type: IP_ADDRESS, matcher: {exact: 10.1.2.3}}"),
            (
                "email",
                "{san_type: EMAIL, matcher: {suffix: '@example.org'}}",
            ),
            (
                "either",
                "{san_type: DNS, matcher: {exact: nobody}}, {san_type: URI, matcher: {exact: 'spiffe://example.org/shop'}}",
            ),
        ];
        matchers
            .into_iter()
            .fold(bootstrap, |bootstrap, (name, matcher)| {
                bootstrap.chains(
                    name,
                    &listener(name, ""),
                    &chain("", &strict(&sans(matcher)), name),
                )
            })
    });
    let logged = Bootstrap::default().listener(&Hcm {
        listener: "listener_filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}]",
        routes: "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]",
        logs: "
            - name: own
              typed_config:
                '@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
                log_format: {text_format_source: {inline_string: \"+ %DOWNSTREAM_TRANSPORT_FAILURE_REASON% %REQUESTED_SERVER_NAME%\\n\"}}
        ",
        ..Hcm::default()
    });
    vec![
        group(
            bootstrap,
            [
                ("tls/server_names", server_names),
                ("tls/no_inspector", no_inspector),
                ("tls/permissive", permissive),
                ("tls/strict", strict),
                ("tls/refused", refused),
                ("tls/optional_certificate", optional),
                ("tls/hello_too_large", too_large),
                ("tls/parsing_errors", parsing_errors),
                ("tls/san_matchers", san_matchers),
            ],
        ),
        group(logged, [("tls/plaintext_is_logged", plaintext_is_logged)]),
    ]
}

static CLIENTS: LazyLock<Clients> = LazyLock::new(clients);

fn clients() -> Clients {
    pki(|ours, theirs| {
        let shop = ours.issue("shop", |leaf| {
            leaf.dns("*.shop.example")
                .ip([10, 1, 2, 3].into())
                .email("shop@example.org")
        });
        let hour = Duration::from_secs(3600);
        Clients {
            good: tls_client(&shop),
            other_name: tls_client(&ours.issue("other", |leaf| leaf)),
            other_ca: tls_client(&theirs.issue("shop", |leaf| leaf)),
            expired: tls_client(&ours.issue("shop", |leaf| {
                leaf.valid(ours.now - 48 * hour, ours.now - hour)
            })),
        }
    })
}

/// Makes a handshake, and asks on the connection; notes what came of it.
fn ask(run: &mut Run<'_>, listener: &str, label: &str, client: &Client) -> Result<()> {
    match client.connect(run.address(listener)?) {
        Ok(connection) => {
            if let Some(agreed) = connection.agreed() {
                run.note(
                    &format!("{label}.agreed"),
                    format!("{} {:?}", agreed.version, agreed.alpn),
                );
            }
            answer(run, label, connection);
        }
        Err(error) => run.note(&format!("{label}.refused"), format!("{error:#}")),
    }
    Ok(())
}

fn answer(run: &mut Run<'_>, label: &str, mut connection: Connection) {
    connection.send(&get("/").bytes());
    let response = connection.response(false);
    match response.missing {
        None => {
            let body = String::from_utf8_lossy(&response.body.data).into_owned();
            run.note(&format!("{label}.body"), body);
            for name in [
                "sni",
                "version",
                "ja4",
                "peer",
                "peer-subject",
                "peer-serial",
                "peer-serials",
                "peer-sha1",
                "peer-sha256s",
                "peer-start",
                "peer-end",
                "local",
            ] {
                let value = response.head.field(name).unwrap_or("none");
                run.note(&format!("{label}.{name}"), value);
            }
        }
        Some(end) => run.note(
            &format!("{label}.ended"),
            format!("{end:?} {}", connection.tls_error().unwrap_or_default()),
        ),
    }
}

/// How plaintext fares.
fn plaintext(run: &mut Run<'_>, listener: &str, label: &str, bytes: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(run.address(listener)?)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.write_all(bytes)?;
    let mut all = Vec::new();
    // What was not read may reset the connection.
    let _ = stream.read_to_end(&mut all);
    let start = String::from_utf8_lossy(&all)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    run.note(label, start);
    Ok(())
}

const INSPECTED: [&str; 6] = [
    "tls_inspector.tls_found",
    "tls_inspector.tls_not_found",
    "tls_inspector.sni_found",
    "tls_inspector.sni_not_found",
    "tls_inspector.alpn_found",
    "tls_inspector.alpn_not_found",
];

const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n";

fn names_on(run: &mut Run<'_>, listener: &str) -> Result<()> {
    for (name, alpn) in [
        ("a.example", &[][..]),
        ("A.Example", &["istio"]),
        ("b.example", &[]),
        ("x.b.example", &["http/1.1"]),
        ("x.b.example", &["h3", "istio", "http/1.1"]),
        ("x.c.b.example", &["istio"]),
        ("y.x.b.example", &[]),
        ("xa.example", &[]),
        ("example", &["http/1.1"]),
    ] {
        let client = Client::default().sni(name).alpn(alpn);
        ask(run, listener, &format!("{name} {alpn:?}"), &client)?;
    }
    ask(run, listener, "nameless", &Client::default())?;
    ask(
        run,
        listener,
        "nameless over 1.2",
        &Client::default().tls12(),
    )?;
    plaintext(run, listener, "plaintext", CLOSE)
}

fn server_names(run: &mut Run<'_>) -> Result<()> {
    names_on(run, "names")?;
    run.counters(&INSPECTED)
}

fn no_inspector(run: &mut Run<'_>) -> Result<()> {
    names_on(run, "uninspected")?;
    run.counters(&INSPECTED)
}

fn permissive(run: &mut Run<'_>) -> Result<()> {
    let clients = &*CLIENTS;
    plaintext(run, "permissive", "plaintext", CLOSE)?;
    ask(run, "permissive", "mtls", &clients.good)?;
    ask(
        run,
        "permissive",
        "no certificate",
        &Client::default().tls12(),
    )?;
    run.await_counter("listener.permissive.ssl.fail_verify_no_cert", 1)?;
    run.counters(&INSPECTED)?;
    run.counters(&[
        "listener.permissive.ssl.handshake",
        "listener.permissive.ssl.connection_error",
        "listener.permissive.ssl.fail_verify_no_cert",
        "listener.permissive.ssl.no_certificate",
    ])
}

fn strict(run: &mut Run<'_>) -> Result<()> {
    let clients = &*CLIENTS;
    plaintext(run, "strict", "plaintext", CLOSE)?;
    run.await_counter("listener.strict.no_filter_chain_match", 1)?;
    ask(run, "strict", "mtls", &clients.good)?;
    plaintext(run, "bare", "plaintext without an inspector", CLOSE)?;
    run.await_counter("listener.bare.ssl.connection_error", 1)?;
    run.counters(&[
        "listener.strict.ssl.handshake",
        "listener.strict.ssl.connection_error",
        "listener.bare.ssl.handshake",
        "listener.bare.ssl.fail_verify_no_cert",
        "listener.bare.ssl.fail_verify_error",
    ])
}

/// In TLS 1.2 a client is refused within the handshake: its alert says why.
fn refused(run: &mut Run<'_>) -> Result<()> {
    let clients = &*CLIENTS;
    for (label, client) in [
        ("nobody", Client::default()),
        ("of another CA", clients.other_ca.clone()),
        ("expired", clients.expired.clone()),
        ("good", clients.good.clone()),
    ] {
        ask(run, "bare", label, &client.tls12())?;
    }
    ask(
        run,
        "exact",
        "of another name",
        &clients.other_name.clone().tls12(),
    )?;
    run.await_counter("listener.bare.ssl.fail_verify_error", 2)?;
    run.await_counter("listener.exact.ssl.fail_verify_san", 1)?;
    // TLS 1.3: the client is through, and hears of it when it reads.
    ask(run, "bare", "nobody in 1.3", &Client::default())?;
    ask(run, "bare", "of another CA in 1.3", &clients.other_ca)?;
    run.await_counter("listener.bare.ssl.fail_verify_error", 3)?;
    run.await_counter("listener.bare.ssl.fail_verify_no_cert", 2)?;
    run.counters(&[
        "listener.bare.ssl.handshake",
        "listener.bare.ssl.connection_error",
        "listener.bare.ssl.fail_verify_no_cert",
        "listener.bare.ssl.fail_verify_error",
        "listener.bare.ssl.fail_verify_san",
        "listener.bare.ssl.versions.TLSv1.2",
        "listener.exact.ssl.fail_verify_san",
        "listener.exact.ssl.fail_verify_error",
    ])
}

fn optional(run: &mut Run<'_>) -> Result<()> {
    let clients = &*CLIENTS;
    ask(run, "optional", "nobody", &Client::default())?;
    ask(run, "optional", "good", &clients.good)?;
    ask(
        run,
        "optional",
        "of another CA",
        &clients.other_ca.clone().tls12(),
    )?;
    run.await_counter("listener.optional.ssl.fail_verify_error", 1)?;
    run.counters(&[
        "listener.optional.ssl.handshake",
        "listener.optional.ssl.no_certificate",
        "listener.optional.ssl.fail_verify_error",
    ])
}

fn too_large(run: &mut Run<'_>) -> Result<()> {
    let refused = Client::default().connect(run.address("small")?).is_err();
    run.note("refused", refused.to_string());
    run.await_counter("tls_inspector.client_hello_too_large", 1)?;
    run.counters(&[
        "tls_inspector.client_hello_too_large",
        "tls_inspector.tls_found",
    ])
}

fn parsing_errors(run: &mut Run<'_>) -> Result<()> {
    plaintext(run, "closing", "plaintext", CLOSE)?;
    run.counters(&[
        "tls_inspector.client_hello_too_large",
        "tls_inspector.tls_not_found",
    ])
}

fn san_matchers(run: &mut Run<'_>) -> Result<()> {
    let clients = &*CLIENTS;
    for listener in [
        "exact",
        "prefix",
        "suffix",
        "contains",
        "regex",
        "dns",
        "dnsprefix",
        "ip",
        "email",
        "either",
    ] {
        ask(run, listener, listener, &clients.good)?;
        let label = format!("{listener}, another name");
        ask(run, listener, &label, &clients.other_name.clone().tls12())?;
        run.await_counter(&format!("listener.{listener}.ssl.fail_verify_san"), 1)?;
        run.counters(&[&*format!("listener.{listener}.ssl.fail_verify_san")])?;
    }
    Ok(())
}

fn plaintext_is_logged(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/http").expect(200))?;
    let connection = run.open("main")?;
    let request = crate::ask::request("DELETE", "/").expect(200);
    run.send_on(connection, request)?;
    Ok(())
}
