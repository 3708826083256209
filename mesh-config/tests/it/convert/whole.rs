//! Whole bootstraps, and what must hold for any.

use mesh_balance::LbPolicy;
use mesh_config::{
    LoadOptions, convert,
    language::{Language, Source, load_bootstrap},
    model::{Discovery, HttpFilterKind},
    support_table,
};
use mesh_core::{Address, RetryLimit};
use mesh_retry::RetryOn;
use mesh_telemetry::Target;

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
        listener.addresses[0].address,
        Address::Socket("127.0.0.1:0".parse().unwrap())
    );
    assert_eq!(&*listener.manager().unwrap().stat_prefix, "ingress");
    let names: Vec<&str> = listener
        .manager()
        .unwrap()
        .routes
        .clusters()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["backend"]);
    assert_eq!(config.clusters.len(), 1);
    assert_eq!(config.clusters[0].endpoints.len(), 1);
}

#[test]
fn a_bootstrap_as_people_write_them() {
    let text = include_str!("shop.yaml");
    let loaded = load_bootstrap(&Source::text("shop.yaml", text)).expect("a bootstrap");
    let config = convert(&loaded, &LoadOptions::default()).expect("a config");
    let report: Vec<String> = config
        .report
        .entries
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(report, Vec::<String>::new());
    let [ingress, ops] = config.listeners.as_slice() else {
        panic!("{:?}", config.listeners)
    };
    assert_eq!((&*ingress.name, &*ops.name), ("ingress", "0.0.0.0:8081"));
    let manager = ingress.manager().unwrap();
    assert!(manager.edge.use_remote_address && manager.edge.normalize_path);
    assert_eq!(manager.access_log[0].target, Target::Stdout);
    let HttpFilterKind::LocalRateLimit(limit) = &manager.http_filters[0].kind else {
        panic!("another filter")
    };
    assert_eq!(limit.config.token_bucket.unwrap().max_tokens().get(), 1000);

    let routes: Vec<_> = manager.routes.routes().collect();
    let names: Vec<&str> = routes.iter().map(|route| &**route.name()).collect();
    assert_eq!(names, ["health", "cart", "catalogue", "rest", "to-https"]);
    let cart = routes[1].policy();
    assert_eq!(cart.retry.as_ref().unwrap().retry_on, RetryOn::PROVEN_SAFE);
    assert!(cart.filters.contains_key("limit"));
    let rest = routes[3].policy().retry.clone().unwrap();
    assert_eq!(rest.retry_on, RetryOn::GATEWAY_ERROR | RetryOn::RESET);
    assert!(rest.include_request_attempt_count);

    let [cart, catalogue] = config.clusters.as_slice() else {
        panic!("{:?}", config.clusters)
    };
    assert!(matches!(cart.discovery, Discovery::Dns(_)));
    assert!(matches!(cart.balance.policy, LbPolicy::LeastRequest(_)));
    assert_eq!(cart.thresholds.max_requests, 200);
    assert!(matches!(
        cart.thresholds.retries,
        RetryLimit::Budget { min: 5, .. }
    ));
    assert_eq!(catalogue.endpoints.len(), 3);
    assert_eq!(catalogue.endpoints[2].priority, 1);
    assert_eq!(
        catalogue.outlier.as_ref().unwrap().max_ejection_percent(),
        50
    );
    let check = catalogue.health_check.as_ref().unwrap();
    assert_eq!(check.schedule.unhealthy_threshold, 2);
    assert_eq!(catalogue.pool.max_requests_per_connection, Some(1000));
}
