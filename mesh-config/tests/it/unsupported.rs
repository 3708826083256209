//! The report of what a config asks for and nobody does.

use mesh_config::language::{
    Language, Loaded, MessageSupport, Source, Support, SupportTable, Unsupported, load_bootstrap,
};

const ROWS: [MessageSupport; 5] = [
    MessageSupport {
        message: "envoy.config.bootstrap.v3.Bootstrap",
        fields: &[
            ("static_resources", Support::Enforced),
            ("node", Support::Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.bootstrap.v3.Bootstrap.StaticResources",
        fields: &[("clusters", Support::Enforced)],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster",
        fields: &[
            ("name", Support::Enforced),
            (
                "lb_policy",
                Support::EnforcedFor(&["ROUND_ROBIN", "LEAST_REQUEST"]),
            ),
            ("transport_socket", Support::Enforced),
            ("typed_extension_protocol_options", Support::Enforced),
        ],
    },
    // A second row adds to the first.
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster",
        fields: &[
            ("connect_timeout", Support::Enforced),
            ("cleanup_interval", Support::Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.TransportSocket",
        fields: &[
            ("name", Support::Meaningless),
            ("typed_config", Support::Enforced),
        ],
    },
];

fn load(text: &str) -> Loaded {
    load_bootstrap(&Source::text("f", text)).unwrap_or_else(|error| panic!("{error}"))
}

fn report(fields: &str) -> Vec<Unsupported> {
    let text = format!("static_resources:\n  clusters:\n  - name: c\n    {fields}\n");
    load(&text).unsupported(&SupportTable::new(ROWS)).entries
}

fn summary(fields: &str) -> Vec<(String, bool)> {
    report(fields)
        .into_iter()
        .map(|entry| (entry.path, entry.security))
        .collect()
}

#[test]
fn what_is_enforced_or_meaningless_is_not_reported() {
    assert!(
        load("node: {id: a}")
            .unsupported(&SupportTable::new(ROWS))
            .is_empty()
    );
    assert_eq!(summary("connect_timeout: 1s"), []);
    assert_eq!(summary("lb_policy: LEAST_REQUEST"), []);
}

#[test]
fn a_field_that_no_table_names_is_reported_with_its_line() {
    let entries = report("respectDnsTtl: true");
    assert_eq!(entries.len(), 1);
    assert_eq!(
        entries[0].to_string(),
        "line 4: static_resources.clusters[0].respect_dns_ttl: \
         envoy.config.cluster.v3.Cluster.respect_dns_ttl is not enforced"
    );
}

#[test]
fn a_default_that_is_not_sent_is_not_reported() {
    assert_eq!(summary("respect_dns_ttl: false"), []);
}

#[test]
fn an_enum_is_reported_for_the_values_that_are_not_enforced() {
    let entries = report("lb_policy: RING_HASH");
    assert_eq!(entries[0].value.as_deref(), Some("RING_HASH"));
    assert!(!entries[0].security);
}

#[test]
fn a_message_in_a_typed_config_that_no_table_names_is_reported_once() {
    let options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let entries = report(&format!(
        "typed_extension_protocol_options: {{k: {{'@type': {options}, explicit_http_config: {{http_protocol_options: {{}}}}}}}}"
    ));
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(
        entries[0].path,
        "static_resources.clusters[0].typed_extension_protocol_options[\"k\"]"
    );
    assert_eq!(
        entries[0].field,
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    );
    assert!(!entries[0].security);
}

#[test]
fn a_transport_socket_that_nobody_implements_is_about_security() {
    let tls = "{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}";
    assert_eq!(
        summary(&format!(
            "transport_socket: {{name: t, typed_config: {tls}}}"
        )),
        [(
            "static_resources.clusters[0].transport_socket.typed_config".to_owned(),
            true
        )]
    );
    // Even below a field that is not about security itself.
    assert_eq!(
        summary(&format!(
            "transport_socket_matches: [{{name: m, transport_socket: {{name: t, typed_config: {tls}}}}}]"
        )),
        [(
            "static_resources.clusters[0].transport_socket_matches".to_owned(),
            true
        )]
    );
}

#[test]
fn a_field_marked_as_security_is_reported_as_that() {
    assert_eq!(
        summary("cleanup_interval: 1s"),
        [(
            "static_resources.clusters[0].cleanup_interval".to_owned(),
            true
        )]
    );
}

#[test]
fn a_listener_with_a_filter_that_nobody_implements_is_about_security() {
    let text = "static_resources: {listeners: [{filter_chains: [{filters: [{name: e, typed_config: \
                {'@type': type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}]}]}";
    let report = load(text).unsupported(&SupportTable::new(ROWS));
    assert_eq!(report.security().count(), 1);
    assert_eq!(report.entries[0].path, "static_resources.listeners");
}

#[test]
fn a_table_that_names_what_does_not_exist_is_found_out() {
    let language = Language::full();
    assert_eq!(
        SupportTable::new(ROWS).mistakes(&language),
        Vec::<String>::new()
    );
    let wrong = SupportTable::new([
        MessageSupport {
            message: "envoy.config.cluster.v3.Cluster",
            fields: &[
                ("nam", Support::Enforced),
                ("name", Support::EnforcedFor(&["x"])),
                ("lb_policy", Support::EnforcedFor(&["x"])),
            ],
        },
        MessageSupport {
            message: "envoy.Bogus",
            fields: &[],
        },
    ]);
    assert_eq!(wrong.mistakes(&language).len(), 4);
}
