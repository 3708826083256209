//! TLS towards upstreams, which are listeners of the same proxy on Unix sockets.

use std::sync::LazyLock;

use anyhow::Result;

use super::{Pki, http_options, pem, tls_socket};
use crate::ask::get;
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

/// Ours, and that of others.
static PKI: LazyLock<(Pki, Pki)> = LazyLock::new(|| (Pki::new(), Pki::new()));

const ANSWER: &str = "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]";

const INSPECTOR: &str = "listener_filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}]";

/// What the front listener logs besides.
const FRONT: &str = "+ front %UPSTREAM_TLS_VERSION% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_PEER_DNS_SAN% %UPSTREAM_PEER_IP_SAN% %UPSTREAM_PEER_SUBJECT% %UPSTREAM_PEER_ISSUER% %UPSTREAM_LOCAL_URI_SAN% %UPSTREAM_LOCAL_DNS_SAN% %UPSTREAM_PEER_CERT_V_START% %UPSTREAM_PEER_CERT_V_END(%s)%";

/// What the one behind logs.
const BACK: &str =
    "+ back %REQUESTED_SERVER_NAME% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_TLS_VERSION%";

fn log(format: &str) -> String {
    format!(
        "
        - name: own
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
            log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}
"
    )
}

/// A cluster of these pipes, each with the fields of its endpoint.
fn pipes(name: &str, endpoints: &[(&str, &str)], fields: &str) -> String {
    let endpoints = endpoints.iter().map(|(path, fields)| {
        format!("    - {{endpoint: {{address: {{pipe: {{path: {path}}}}}}}{fields}}}\n")
    });
    format!(
        "load_assignment:\n  cluster_name: {name}\n  endpoints:\n  - lb_endpoints:\n{}{fields}",
        endpoints.collect::<String>()
    )
}

fn back(path: &str) -> String {
    format!("address: {{pipe: {{path: {path}}}}}")
}

pub(super) fn groups() -> Vec<Group> {
    let bootstrap = {
        let (ours, theirs) = &*PKI;
        let server = ours.issue("cart", |leaf| {
            leaf.dns("a.example")
                .dns("*.b.example")
                .ip([10, 0, 0, 1].into())
        });
        let client = ours.issue("shop", |leaf| leaf.dns("shop.example"));
        let validation = format!("validation_context: {{{}}}", ours.trusted_ca());
        let down = tls_socket("DownstreamTlsContext", "", Some(&server), &validation);
        let up = |fields: &str, validation: &str| {
            let common =
                format!("tls_params: {{tls_maximum_protocol_version: TLSv1_3}}, {validation}");
            tls_socket("UpstreamTlsContext", fields, Some(&client), &common)
        };
        let spiffe = |domains: &[(&str, &Pki)]| {
            let domains = domains.iter().map(|(name, pki)| {
                format!(
                    "{{name: {name}, trust_bundle: {}}}",
                    pem(&pki.ca.bundle_pem())
                )
            });
            let domains: Vec<_> = domains.collect();
            format!(
                "validation_context: {{custom_validator_config: {{name: envoy.tls.cert_validator.spiffe, typed_config: \
                 {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, \
                 trust_domains: [{}]}}}}}}",
                domains.join(", ")
            )
        };
        let auto = |fields: &str| {
            http_options(&format!(
                "explicit_http_config: {{http_protocol_options: {{}}}}\n    upstream_http_protocol_options: {{{fields}}}"
            ))
        };
        let cluster =
            |name: &str, fields: &str| (name.to_owned(), pipes(name, &[("back.sock", "")], fields));
        let labelled = |labels: &str| {
            format!(
                ", metadata: {{filter_metadata: {{envoy.transport_socket_match: {{{labels}}}}}}}"
            )
        };
        let matching = |name: &str, path: &str, labels: &str| {
            let matches = format!(
                "transport_socket_matches:\n- name: tls\n  match: {{tls: true}}\n  {}\n- name: bare\n  match: {{}}\n  transport_socket: \
                 {{name: raw, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}\n",
                up("sni: a.example,", &validation)
            );
            (
                name.to_owned(),
                pipes(name, &[(path, &labelled(labels))], &matches),
            )
        };
        let clusters = [
            cluster("fixed", &up("sni: a.example,", &validation)),
            cluster("none", &up("", &validation)),
            cluster(
                "auto",
                &format!(
                    "{}\n{}",
                    up("sni: fixed.example,", &validation),
                    auto(
                        "auto_sni: true, auto_san_validation: true, override_auto_sni_header: x-name"
                    )
                ),
            ),
            cluster(
                "san",
                &format!(
                    "{}\n{}",
                    up("sni: a.example,", &validation),
                    auto("auto_san_validation: true")
                ),
            ),
            cluster(
                "sansni",
                &up(
                    "sni: c.example, auto_sni_san_validation: true,",
                    &validation,
                ),
            ),
            cluster(
                "spiffe",
                &up("", &spiffe(&[("other.org", theirs), ("example.org", ours)])),
            ),
            cluster("spiffeother", &up("", &spiffe(&[("other.org", ours)]))),
            cluster("spiffewrong", &up("", &spiffe(&[("example.org", theirs)]))),
            matching("matchtls", "back.sock", "tls: true, other: 1"),
            matching("matchbare", "bare.sock", "tls: 'true'"),
        ];
        let routes: String = clusters
            .iter()
            .map(|(name, _)| format!("    - {{match: {{prefix: /{name}/rewritten}}, route: {{cluster: {name}, host_rewrite_literal: x.b.example}}}}\n    - {{match: {{prefix: /{name}/}}, route: {{cluster: {name}}}}}\n"))
            .collect();
        let bootstrap = Bootstrap::default()
            .listener(&Hcm {
                routes: &format!(
                    "virtual_hosts:\n- name: all\n  domains: ['*']\n  routes:\n{}",
                    routes.replace("    - ", "  - ")
                ),
                logs: &log(FRONT),
                ..Hcm::default()
            })
            .listener_at(
                &back("back.sock"),
                &Hcm {
                    name: "back",
                    listener: INSPECTOR,
                    routes: ANSWER,
                    chain: &down,
                    logs: &log(BACK),
                    ..Hcm::default()
                },
            )
            .listener_at(
                &back("bare.sock"),
                &Hcm {
                    name: "bare",
                    routes: ANSWER,
                    logs: &log(BACK),
                    ..Hcm::default()
                },
            );
        clusters
            .into_iter()
            .fold(bootstrap, |bootstrap, (name, fields)| {
                bootstrap.cluster_with(&name, &fields)
            })
    };
    vec![group(
        bootstrap,
        [
            ("tls/upstream_facts", facts),
            ("tls/auto_sni", auto_sni),
            ("tls/auto_san_validation", auto_san),
            ("tls/auto_sni_san_validation", sni_san),
            ("tls/spiffe_validator", spiffe),
            ("tls/transport_socket_matches", matches),
        ],
    )]
}

fn facts(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/fixed/x").expect(200))?;
    run.send(get("/none/x").expect(200))?;
    run.counters(&[
        "cluster.fixed.ssl.handshake",
        "cluster.fixed.ssl.versions.TLSv1.3",
        "cluster.fixed.ssl.no_certificate",
        "cluster.fixed.ssl.session_reused",
    ])
}

fn auto_sni(run: &mut Run<'_>) -> Result<()> {
    for host in ["a.example:8080", "x.b.example", "10.0.0.1"] {
        run.send(get("/auto/x").host(host).expect(200))?;
    }
    run.send(get("/auto/rewritten").host("a.example").expect(200))?;
    run.send(
        get("/auto/x")
            .host("other.example")
            .header("x-name", "a.example")
            .expect(200),
    )?;
    run.send(
        get("/auto/x")
            .host("a.example")
            .header("x-name", "")
            .expect(200),
    )?;
    Ok(())
}

fn auto_san(run: &mut Run<'_>) -> Result<()> {
    for (host, status) in [
        ("a.example", 200),
        ("x.b.example", 200),
        ("b.example", 503),
        ("c.example:80", 503),
        ("10.0.0.1", 200),
        ("10.0.0.2", 503),
        ("a.example", 200),
    ] {
        run.send(get("/san/x").host(host).expect(status))?;
    }
    run.send(get("/san/rewritten").host("c.example"))?;
    run.counters(&[
        "cluster.san.ssl.fail_verify_san",
        "cluster.san.ssl.fail_verify_error",
    ])
}

fn sni_san(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/sansni/x").expect(503))?;
    run.counters(&[
        "cluster.sansni.ssl.fail_verify_san",
        "cluster.sansni.ssl.connection_error",
    ])
}

fn spiffe(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/spiffe/x").expect(200))?;
    run.send(get("/spiffeother/x").expect(503))?;
    run.send(get("/spiffewrong/x").expect(503))?;
    run.counters(&[
        "cluster.spiffeother.ssl.fail_verify_error",
        "cluster.spiffewrong.ssl.fail_verify_error",
    ])
}

fn matches(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/matchtls/x").expect(200))?;
    run.send(get("/matchbare/x").expect(200))?;
    run.gauges(&[
        "cluster.matchtls.tls.total_match_count",
        "cluster.matchtls.bare.total_match_count",
        "cluster.matchtls.default.total_match_count",
        "cluster.matchbare.tls.total_match_count",
        "cluster.matchbare.bare.total_match_count",
        "cluster.matchbare.default.total_match_count",
    ])?;
    run.counters(&[
        "cluster.matchtls.ssl.handshake",
        "cluster.matchbare.ssl.handshake",
    ])
}
