//! Transport sockets.

use std::time::SystemTime;

use mesh_config::model::{CertificateSource, TransportSocketMatch, UpstreamTls, ValidationSource};
use mesh_tls::{
    TlsParams, TlsVersion, Trust, UpstreamTlsConfig, ValidationConfig,
    dev_ca::{DevCa, DevLeaf},
};

use super::{assert_refused, cluster, cluster_text, config, refusal, report};

const AT: &str = "static_resources.clusters[0].transport_socket.typed_config";

/// The fields of a cluster with this TLS context.
fn tls(context: &str) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, {context}}}}}"
    )
}

/// A throw-away CA's bundle, and a chain and key of it, each as an inline source in YAML.
fn inline() -> [String; 3] {
    let now = SystemTime::now();
    let ca = DevCa::new("example.org".parse().unwrap(), now).unwrap();
    let leaf = DevLeaf::svid(&"spiffe://example.org/a".parse().unwrap(), now);
    let issued = ca.issue(leaf).unwrap();
    [&*ca.bundle_pem(), issued.chain_pem(), issued.key_pem()]
        .map(|pem| format!("{{inline_string: \"{}\"}}", pem.replace('\n', "\\n")))
}

#[test]
fn the_defaults_are_envoys() {
    let cluster = cluster(&tls("sni: a.b"));
    let tls = cluster.tls.as_ref().unwrap();
    assert_eq!(tls.config, UpstreamTlsConfig::default().sni("a.b").unwrap());
    assert_eq!(tls.certificate, None);
    assert!(!tls.auto_host_sni);
    let anyone = ValidationConfig::dangerous_anyone();
    assert_eq!(tls.validation, ValidationSource::Fixed(Box::new(anyone)));
    assert!(super::cluster("type: STATIC").tls.is_none());
}

#[test]
fn all_that_is_said_is_done() {
    let [ca, chain, key] = inline();
    let text = format!(
        "auto_host_sni: true, auto_sni_san_validation: true, max_session_keys: 0, enforce_rsa_key_usage: true, \
         common_tls_context: {{alpn_protocols: [h2], tls_params: {{tls_minimum_protocol_version: TLSv1_3, \
         tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519]}}, \
         tls_certificates: [{{certificate_chain: {chain}, private_key: {key}}}], \
         validation_context: {{trusted_ca: {ca}, max_verify_depth: 2, match_typed_subject_alt_names: \
         [{{san_type: URI, matcher: {{prefix: 'spiffe://example.org/'}}}}]}}}}"
    );
    assert_eq!(report(&cluster_text(&tls(&text))), []);
    let cluster = cluster(&tls(&text));
    let tls = cluster.tls.as_ref().unwrap();
    let params = TlsParams::modern()
        .ecdh_curves(&["X25519".to_owned()])
        .unwrap();
    assert_eq!(params.max(), TlsVersion::Tls13);
    let expected = UpstreamTlsConfig::default()
        .params(params)
        .alpn_protocols(&["h2".to_owned()])
        .unwrap()
        .max_session_keys(0);
    assert_eq!(tls.config, expected);
    assert!(tls.auto_host_sni);
    let Some(CertificateSource::Fixed(identity)) = &tls.certificate else {
        panic!("{tls:?}");
    };
    assert_eq!(identity.spiffe_id().unwrap().path(), "/a");
    assert!(!tls.validation.config().unwrap().is_dangerous());
    let secret = key.split("\\n").nth(1).unwrap();
    assert!(!format!("{cluster:?}").contains(secret));
    let dump = config(&cluster_text(&self::tls(&text))).dump.to_string();
    assert!(!dump.contains(secret), "{dump}");
}

#[test]
fn files_can_be_watched() {
    let folder = std::env::temp_dir().join(format!("mesh-config-tls-{}", std::process::id()));
    let now = SystemTime::now();
    let ca = DevCa::new("example.org".parse().unwrap(), now).unwrap();
    let id = "spiffe://example.org/a".parse().unwrap();
    ca.write(
        &folder,
        std::slice::from_ref(&id),
        now,
        std::time::Duration::from_secs(60),
    )
    .unwrap();
    let at = folder.display();
    let text = format!(
        "common_tls_context: {{tls_certificates: [{{certificate_chain: {{filename: {at}/a/svid.pem}}, \
         private_key: {{filename: {at}/a/key.pem}}, watched_directory: {{path: {at}/a}}}}], \
         validation_context: {{trusted_ca: {{filename: {at}/bundle.pem}}, watched_directory: {{path: {at}}}}}}}"
    );
    let before = cluster(&tls(&text));
    let socket = before.tls.as_ref().unwrap();
    match (&socket.certificate, &socket.validation) {
        (
            Some(CertificateSource::Watched { folder: one, .. }),
            ValidationSource::Watched { folder: other, .. },
        ) => assert_eq!((one, other), (&folder.join("a"), &folder)),
        other => panic!("{other:?}"),
    }
    let trust = |socket: &UpstreamTls| socket.validation.config().unwrap().trust().clone();
    assert_eq!(trust(socket), Trust::Bundle(ca.bundle().unwrap()));
    // Another CA, and all that comes of it, is no other config.
    let next = DevCa::new("example.org".parse().unwrap(), now).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    next.write(&folder, &[id], now, std::time::Duration::from_secs(60))
        .unwrap();
    let after = cluster(&tls(&text));
    assert_eq!(before, after);
    let rotated = trust(after.tls.as_ref().unwrap());
    assert_eq!(rotated, Trust::Bundle(next.bundle().unwrap()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let [ca, chain, key] = inline();
    let [_, other_chain, _] = inline();
    let certificates = |all: &str| format!("common_tls_context: {{tls_certificates: [{all}]}}");
    let pair = format!("{{certificate_chain: {chain}, private_key: {key}}}");
    for (context, reason) in [
        (
            certificates(&format!(
                "{{certificate_chain: {other_chain}, private_key: {key}}}"
            )),
            "does not belong to the certificate",
        ),
        (
            certificates(&format!("{{certificate_chain: {chain}}}")),
            "are both needed",
        ),
        (
            certificates(&format!("{pair}, {pair}")),
            "multiple TLS certificates are not supported for client contexts",
        ),
        (
            format!(
                "common_tls_context: {{tls_certificates: [{{certificate_chain: {chain}, private_key: {key}, \
                 watched_directory: {{path: /a}}}}]}}"
            ),
            "is for a certificate and a key in files",
        ),
        (
            "common_tls_context: {tls_params: {cipher_suites: [AES128-SHA]}}".to_owned(),
            "\"AES128-SHA\" is not offered",
        ),
        (
            "common_tls_context: {tls_params: {ecdh_curves: [X25519MLKEM768]}}".to_owned(),
            "can be used with TLSv1.2",
        ),
        (
            "common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_3, \
             tls_maximum_protocol_version: TLSv1_2}}"
                .to_owned(),
            "above the maximum",
        ),
        (
            "common_tls_context: {validation_context: {match_typed_subject_alt_names: \
             [{san_type: DNS, matcher: {exact: a}}]}}"
                .to_owned(),
            "without trusted CA is insecure",
        ),
        (
            "auto_sni_san_validation: true".to_owned(),
            "without a trusted CA",
        ),
        (
            "common_tls_context: {validation_context: {trusted_ca: {inline_string: nonsense}}}"
                .to_owned(),
            "no certificate",
        ),
        (
            format!(
                "common_tls_context: {{validation_context: {{trusted_ca: {ca}, crl: {{inline_string: nonsense}}}}}}"
            ),
            "revocation list",
        ),
    ] {
        let error = refusal(&cluster_text(&tls(&context)));
        assert!(error.contains(reason), "{error}");
        let secret = key.split("\\n").nth(1).unwrap();
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn what_is_not_done_keeps_the_proxy_from_running() {
    for (context, path) in [
        (
            "common_tls_context: {validation_context: {system_root_certs: {}}}",
            "common_tls_context.validation_context.system_root_certs",
        ),
        (
            "common_tls_context: {tls_params: {signature_algorithms: [a]}}",
            "common_tls_context.tls_params.signature_algorithms",
        ),
    ] {
        let entries = report(&cluster_text(&tls(context)));
        assert_eq!(entries, [(format!("{AT}.{path}"), None, true)]);
    }
}

#[test]
fn a_spiffe_validator_has_a_bundle_for_each_trust_domain() {
    let [ca, ..] = inline();
    let validator = |domains: &str| {
        tls(&format!(
            "common_tls_context: {{validation_context: {{custom_validator_config: {{name: envoy.tls.cert_validator.spiffe, \
             typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, \
             trust_domains: [{domains}]}}}}}}}}"
        ))
    };
    let text = validator(&format!(
        "{{name: a.org, trust_bundle: {ca}}}, {{name: b.org, trust_bundle: {ca}}}"
    ));
    assert_eq!(report(&cluster_text(&text)), []);
    let cluster = cluster(&text);
    let validation = &cluster.tls.as_ref().unwrap().validation;
    let Trust::Spiffe(bundles) = validation.config().unwrap().trust() else {
        panic!("{validation:?}");
    };
    let names: Vec<_> = bundles.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.org", "b.org"]);
    let bundle = std::env::temp_dir().join(format!("mesh-config-ca-{}.pem", std::process::id()));
    std::fs::write(
        &bundle,
        DevCa::new("a.org".parse().unwrap(), SystemTime::now())
            .unwrap()
            .bundle_pem(),
    )
    .unwrap();
    let watched = format!(
        "trusted_ca: {{filename: {}}}, watched_directory: {{path: /tmp}}, custom_validator_config",
        bundle.display()
    );
    let error = refusal(&cluster_text(
        &text.replace("custom_validator_config", &watched),
    ));
    assert!(error.contains("beside custom_validator_config"), "{error}");
    std::fs::remove_file(bundle).unwrap();
    for (domains, reason) in [
        (
            format!("{{name: a.org, trust_bundle: {ca}}}, {{name: a.org, trust_bundle: {ca}}}"),
            "several bundles of the trust domain a.org",
        ),
        (
            format!("{{name: 'spiffe://a.org', trust_bundle: {ca}}}"),
            "trust domain has ':'",
        ),
        ("{name: a.org}".to_owned(), "trust_bundle: is missing"),
    ] {
        let error = refusal(&cluster_text(&validator(&domains)));
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn names_come_from_requests_where_the_config_says_so() {
    let typed = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': \
         type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
         {http_protocol_options: {}}, upstream_http_protocol_options: {auto_sni: true, override_auto_sni_header: x-a}}}";
    let names = cluster(typed).auto_names.clone();
    assert!(names.sni && !names.san);
    assert_eq!(names.header.unwrap().as_str(), "x-a");
    let old = cluster("upstream_http_protocol_options: {auto_san_validation: true}");
    assert_eq!((old.auto_names.sni, old.auto_names.san), (false, true));
    assert!(!cluster("type: STATIC").auto_names.sni);
}

#[test]
fn labels_pick_a_transport_socket() {
    use mesh_core::MetadataValue as V;
    let matches = "transport_socket_matches: [{name: a, match: {x: 1, y: [b]}}, {name: b, match: {x: '1'}}, {name: c, match: {x: {z: null}}}]";
    let matches = &cluster(matches).socket_matches.clone();
    let labels = |fields: &[(&str, V)]| {
        let fields = fields
            .iter()
            .map(|(key, value)| ((*key).into(), value.clone()));
        V::Struct(fields.collect())
    };
    let list = V::List(vec![V::Text("b".into())]);
    let number = labels(&[("x", V::Number(1.0)), ("y", list), ("other", V::Null)]);
    let text = labels(&[("x", V::Text("1".into()))]);
    let nested = labels(&[("x", labels(&[("z", V::Null)]))]);
    let pick = |labels: &[V]| TransportSocketMatch::pick(matches, labels);
    assert_eq!(pick(&[]), 0);
    assert_eq!(pick(&[labels(&[("x", V::Number(1.0))])]), 0);
    assert_eq!(pick(std::slice::from_ref(&number)), 1);
    assert_eq!(pick(std::slice::from_ref(&text)), 2);
    assert_eq!(pick(&[nested]), 3);
    // The endpoint's own labels come first, whatever the order of the matches.
    assert_eq!(pick(&[text, number]), 2);
    let any = &cluster("transport_socket_matches: [{name: any}]")
        .socket_matches
        .clone();
    assert_eq!(TransportSocketMatch::pick(any, &[]), 1);
}

#[test]
fn a_secret_without_a_source_is_the_bootstraps_own() {
    for (context, path) in [
        (
            "common_tls_context: {tls_certificate_sds_secret_configs: [{name: a}]}",
            "common_tls_context.tls_certificate_sds_secret_configs[0].name",
        ),
        (
            "common_tls_context: {validation_context_sds_secret_config: {name: a}}",
            "common_tls_context.validation_context_sds_secret_config.name",
        ),
    ] {
        assert_refused(
            &cluster_text(&tls(context)),
            "transport_socket",
            &format!("{AT}.{path}"),
            "there is no static secret \"a\", and no sds_config",
        );
    }
}
