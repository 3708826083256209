//! What a snippet that is taken comes to mean, down in the generated types.

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
use envoy_types::pb::envoy::extensions::filters::http::buffer::v3::Buffer;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::google::protobuf::value::Kind;
use mesh_config::language::{Loaded, Source, load_bootstrap};
use prost::Message;
use serde_json::json;

fn load(text: &str) -> Loaded {
    load_bootstrap(&Source::text("f", text)).unwrap_or_else(|error| panic!("{error}"))
}

fn cluster(fields: &str) -> Cluster {
    let text = format!("static_resources: {{clusters: [{{name: c, {fields}}}]}}");
    let resources = load(&text).bootstrap.static_resources.expect("resources");
    resources.clusters.into_iter().next().expect("a cluster")
}

#[test]
fn a_port_with_a_leading_zero_is_octal() {
    let address = "{socket_address: {address: a, port_value: 010}}";
    let bootstrap = load(&format!("admin: {{address: {address}}}")).bootstrap;
    let address = bootstrap
        .admin
        .and_then(|admin| admin.address)
        .and_then(|a| a.address);
    let Some(Address::SocketAddress(address)) = address else {
        panic!("no socket address");
    };
    assert_eq!(address.port_specifier, Some(PortSpecifier::PortValue(8)));
}

#[test]
fn durations_wrappers_enums_and_truth_come_in_many_forms() {
    for (fields, seconds, nanos) in [
        ("connect_timeout: 0.25s", 0, 250_000_000),
        ("connectTimeout: {seconds: 010, nanos: '5'}", 8, 5),
        ("connect_timeout: 9s, connect_timeout: 1s", 1, 0),
    ] {
        let timeout = cluster(fields).connect_timeout.expect("set");
        assert_eq!(
            (timeout.seconds, timeout.nanos),
            (seconds, nanos),
            "{fields}"
        );
    }
    for limit in [
        "1024",
        "'1024'",
        "{value: 1024}",
        "0x400",
        "1024.0",
        "02000",
    ] {
        let cluster = cluster(&format!("per_connection_buffer_limit_bytes: {limit}"));
        assert_eq!(
            cluster.per_connection_buffer_limit_bytes.map(|v| v.value),
            Some(1024),
            "{limit}"
        );
    }
    for policy in ["LEAST_REQUEST", "least_request", "1", "'1'"] {
        assert_eq!(
            cluster(&format!("lb_policy: {policy}")).lb_policy,
            1,
            "{policy}"
        );
    }
    for yes in ["true", "yes", "On", "y", "'true'", "'1'"] {
        assert!(
            cluster(&format!("connection_pool_per_downstream_connection: {yes}"))
                .connection_pool_per_downstream_connection,
            "{yes}"
        );
    }
}

#[test]
fn text_keeps_its_spelling_unless_it_is_a_large_integer() {
    for (written, read) in [
        ("1.50", "1.50"),
        ("'010'", "010"),
        ("99999999999", "99999999999"),
    ] {
        let text = format!("node: {{id: {written}}}");
        assert_eq!(load(&text).bootstrap.node.expect("node").id, read);
    }
}

#[test]
fn metadata_holds_what_the_document_says() {
    let text = "node: {metadata: {t: true, i: 010, f: 2.50, n: ~, l: [a, [b]], m: {'5': '5'}}}";
    let loaded = load(text);
    let fields = loaded
        .bootstrap
        .node
        .clone()
        .and_then(|n| n.metadata)
        .expect("metadata")
        .fields;
    assert_eq!(fields["i"].kind, Some(Kind::NumberValue(8.0)));
    assert_eq!(fields["f"].kind, Some(Kind::StringValue("2.50".to_owned())));
    assert_eq!(
        loaded.to_json()["node"]["metadata"],
        json!({"t": true, "i": 8, "f": "2.50", "n": null, "l": ["a", ["b"]], "m": {"5": "5"}})
    );
}

const BUFFER: &str = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";

fn first_filter(typed_config: &str) -> (String, Buffer) {
    let text = format!(
        "static_resources: {{listeners: [{{filter_chains: [{{filters: [{{name: hcm, typed_config: {{
            '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
            stat_prefix: s, route_config: {{}}, http_filters: [{{name: b, typed_config: {typed_config}}}]}}}}]}}]}}]}}"
    );
    let bootstrap = load(&text).bootstrap;
    let listener = &bootstrap.static_resources.expect("resources").listeners[0];
    let filter = listener.filter_chains[0].filters[0].clone();
    use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType as Network;
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
    let Some(Network::TypedConfig(any)) = filter.config_type else {
        panic!("no config");
    };
    let manager = HttpConnectionManager::decode(any.value.as_slice()).expect("a manager");
    let Some(ConfigType::TypedConfig(any)) = manager.http_filters[0].config_type.clone() else {
        panic!("no config");
    };
    (
        any.type_url,
        Buffer::decode(any.value.as_slice()).expect("a buffer"),
    )
}

#[test]
fn a_typed_struct_becomes_the_message_it_stands_for() {
    for kind in ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"] {
        for value in ["{max_request_bytes: 5}", "{maxRequestBytes: {value: '5'}}"] {
            let config = format!("{{'@type': a.b/{kind}, type_url: {BUFFER}, value: {value}}}");
            let (url, buffer) = first_filter(&config);
            assert_eq!(url, BUFFER);
            assert_eq!(buffer.max_request_bytes.map(|v| v.value), Some(5));
        }
    }
}

#[test]
fn the_type_may_come_last_and_from_any_host() {
    let (url, buffer) = first_filter(&format!("{{max_request_bytes: 7, '@type': x/{BUFFER}}}"));
    assert_eq!(url, format!("x/{BUFFER}"));
    assert_eq!(buffer.max_request_bytes.map(|v| v.value), Some(7));
}

#[test]
fn typed_metadata_keeps_a_typed_struct_as_it_is() {
    let any = "{'@type': t.g/xds.type.v3.TypedStruct, type_url: a/b, value: {x: y}}";
    let cluster = cluster(&format!(
        "metadata: {{typed_filter_metadata: {{k: {any}}}}}"
    ));
    let metadata = cluster.metadata.expect("metadata").typed_filter_metadata;
    assert_eq!(metadata["k"].type_url, "t.g/xds.type.v3.TypedStruct");
}

#[test]
fn single_values_stand_for_lists_and_nested_lists_are_flattened() {
    let bootstrap =
        load("static_resources: {clusters: [[{name: a}, [{name: b}]], {name: c}]}").bootstrap;
    let names = |bootstrap: Bootstrap| -> Vec<String> {
        let clusters = bootstrap.static_resources.expect("resources").clusters;
        clusters.into_iter().map(|cluster| cluster.name).collect()
    };
    assert_eq!(names(bootstrap), ["a", "b", "c"]);
    assert_eq!(
        names(load("static_resources: {clusters: {name: a}}").bootstrap),
        ["a"]
    );
}

#[test]
fn anchors_spare_repetition() {
    let text = "static_resources:\n  clusters:\n  - &a {name: a, connect_timeout: &t 3s}\n  - {name: b, connect_timeout: *t}\n  - *a\n";
    let clusters = load(text)
        .bootstrap
        .static_resources
        .expect("resources")
        .clusters;
    assert_eq!(clusters.len(), 3);
    assert!(
        clusters
            .iter()
            .all(|cluster| cluster.connect_timeout.map(|t| t.seconds) == Some(3))
    );
}

#[test]
fn json_is_yaml() {
    let text = "{\n\t\"node\": {\"id\": \"a\\u00e9\\n\", \"metadata\": {\"x\": 1e2}}\n}";
    assert_eq!(load(text).bootstrap.node.expect("node").id, "aé\n");
}

#[test]
fn a_dump_spells_out_what_any_holds_and_hides_secrets() {
    let context = "{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
         sni: a, common_tls_context: {tls_certificates: [{certificate_chain: {inline_string: chain}, \
         private_key: {inline_string: hunter2}, password: {inline_bytes: aHVudGVyMg==}}]}}";
    let text = format!(
        "static_resources: {{clusters: [{{name: c, type: strict_dns, connect_timeout: 0.5s, transport_socket: {{name: t, typed_config: {context}}}}}]}}"
    );
    let json = load(&text).to_json();
    assert_eq!(
        json,
        json!({"static_resources": {"clusters": [{
            "name": "c",
            "type": "STRICT_DNS",
            "connect_timeout": "0.5s",
            "transport_socket": {"name": "t", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "a",
                "common_tls_context": {"tls_certificates": [{
                    "certificate_chain": {"inline_string": "chain"},
                    "private_key": {"inline_string": "[redacted]"},
                    "password": {"inline_bytes": "[redacted]"},
                }]},
            }},
        }]}})
    );
}

#[test]
fn a_dump_can_be_read_again() {
    let text = "
node: {id: a, metadata: {x: [1, y, ~, {z: false}]}}
static_resources:
  clusters:
  - name: c
    per_connection_buffer_limit_bytes: 5
    metadata: {typed_filter_metadata: {k: {'@type': t.g/google.protobuf.Duration, value: 1.5s}}}
    load_assignment: {cluster_name: c, endpoints: {lb_endpoints: {load_balancing_weight: 3}}}
";
    let json = load(text).to_json();
    assert_eq!(load(&json.to_string()).to_json(), json);
}
