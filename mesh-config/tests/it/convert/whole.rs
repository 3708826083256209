//! Whole bootstraps, and what must hold for any.

use mesh_config::{language::Language, support_table};
use mesh_core::Address;

use super::config;

#[test]
fn the_support_table_names_only_what_there_is() {
    let mistakes = support_table().mistakes(&Language::full());
    assert_eq!(mistakes, Vec::<String>::new());
}

#[test]
fn a_listener_a_route_and_a_cluster() {
    let config = config(
        r#"
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            name: main
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: backend}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: backend
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9000}}}
"#,
    );
    assert!(config.report.is_empty(), "{:?}", config.report);
    let [listener] = config.listeners.as_slice() else {
        panic!("{:?}", config.listeners)
    };
    assert_eq!(&*listener.name, "127.0.0.1:0");
    assert_eq!(
        listener.address,
        Address::Socket("127.0.0.1:0".parse().unwrap())
    );
    assert_eq!(&*listener.manager.stat_prefix, "ingress");
    let names: Vec<&str> = listener
        .manager
        .routes
        .clusters()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["backend"]);
    assert_eq!(config.clusters.len(), 1);
    assert_eq!(config.clusters[0].endpoints.len(), 1);
}
