//! Who runs it, the admin listener, and what belongs to no listener or cluster.

use std::path::PathBuf;

use mesh_config::{LoadOptions, language::Source, load};
use mesh_core::Address;

use super::{assert_refused, config, paths, refusal, report};

#[test]
fn node_and_admin_are_read() {
    let config = config(
        "node: {id: me, cluster: c, locality: {region: r, zone: z, sub_zone: s}, metadata: {a: 1}}\n\
         admin: {address: {pipe: {path: /run/admin}}, access_log_path: /dev/null}",
    );
    assert_eq!(
        (config.node.id.as_str(), config.node.cluster.as_str()),
        ("me", "c")
    );
    assert_eq!(config.node.locality.sub_zone, "s");
    assert_eq!(
        config.admin.unwrap().address,
        Address::Unix(PathBuf::from("/run/admin"))
    );
    assert!(config.report.is_empty(), "{:?}", config.report);
}

#[test]
fn an_admin_without_an_address_opens_nothing() {
    assert!(config("admin: {}").admin.is_none());
}

#[test]
fn the_command_line_has_the_last_word_on_the_node() {
    let mut options = LoadOptions::default();
    options.service_node = Some("flag".into());
    options.service_zone = Some("zone".into());
    let source = Source::text("f", "node: {id: me, cluster: c, locality: {zone: z}}");
    let node = load(&source, &options).unwrap().node;
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("flag", "c"));
    assert_eq!(node.locality.zone, "zone");
}

#[test]
fn an_admin_needs_an_ip_address() {
    assert_refused(
        "admin:\n  address: {socket_address: {address: localhost, port_value: 1}}",
        "localhost",
        "admin.address.socket_address.address",
        "\"localhost\" is not an IP address; names are looked up for clusters of type STRICT_DNS and \
         LOGICAL_DNS only",
    );
}

#[test]
fn the_version_names_the_text() {
    let version = |text| config(text).version;
    assert_eq!(version("node: {id: a}"), version("node: {id: a}"));
    assert_ne!(version("node: {id: a}"), version("node: {id: b}"));
    // FNV-1a.
    assert_eq!(&*version("{}"), "08f44b07b5901a25");
}

#[test]
fn the_dump_shows_the_bootstrap() {
    let config = config("node: {id: a}");
    assert_eq!(config.dump.pointer("/node/id").unwrap(), "a");
}

#[test]
fn what_is_not_done_is_reported() {
    assert_eq!(
        paths(
            "layered_runtime: {layers: [{name: a, static_layer: {x: 1}}]}\n\
             stats_sinks: [{name: s}]\n\
             overload_manager: {resource_monitors: [{name: m}]}\n\
             stats_flush_interval: 5s"
        ),
        ["overload_manager", "stats_sinks[0]"]
    );
    let restricted = report("admin: {allow_paths: [{exact: /stats}]}");
    assert_eq!(restricted, [("admin.allow_paths".to_owned(), None, true)]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let refusal = refusal(
        "static_resources:\n  clusters:\n  - name: a\n    type: EDS\n  - name: a\n    lb_policy: CLUSTER_PROVIDED\n",
    );
    assert_eq!(
        refusal,
        "f:3:5: static_resources.clusters[0].eds_cluster_config.eds_config: it does not say where the config comes from\n\
         f:5:5: static_resources.clusters[1].name: there is another cluster named \"a\"\n\
         f:6:5: static_resources.clusters[1].lb_policy: CLUSTER_PROVIDED is not supported: requests would go to other \
         endpoints than they should"
    );
}

#[test]
fn load_is_reported_beside_a_control_plane() {
    let control = "static_resources: {clusters: [{name: control, connect_timeout: 1s, load_assignment: {cluster_name: \
                   control, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, \
                   port_value: 1}}}}]}]}}]}\n";
    let services = "api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control}}]";
    let manager = format!("cluster_manager: {{load_stats_config: {{{services}}}}}\n");
    let ads =
        format!("dynamic_resources: {{ads_config: {{{services}}}, cds_config: {{ads: {{}}}}}}\n");
    let with = config(&format!("{control}{manager}{ads}"));
    assert_eq!(&*with.load_stats.unwrap().servers[0].cluster, "control");
    assert!(with.report.is_empty(), "{:?}", with.report);
    // Nobody would ask for it.
    assert_eq!(
        paths(&format!("{control}{manager}")),
        ["cluster_manager.load_stats_config"]
    );
    let unknown = format!("{control}{ads}{}", manager.replace("control", "nobody"));
    assert!(refusal(&unknown).contains(
        "cluster_manager.load_stats_config.grpc_services[0]: there is no static cluster \"nobody\""
    ));
}
