//! Resources that arrive one by one.

use envoy_types::pb::envoy::config::{
    cluster::v3::{
        Cluster,
        cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, PreconnectPolicy},
    },
    core::v3::{AggregatedConfigSource, ConfigSource, config_source::ConfigSourceSpecifier},
    endpoint::v3::ClusterLoadAssignment,
    route::v3::{RouteConfiguration, VirtualHost},
};
use mesh_config::{
    LoadOptions, convert,
    dynamic::{Assembly, Kind},
    language::{Source, load_bootstrap},
};
use prost::Message as _;

const BOOTSTRAP: &str = "
node: {id: me}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  cds_config: {ads: {}, initial_fetch_timeout: 2s}
static_resources:
  clusters:
  - name: xds
    load_assignment:
      cluster_name: xds
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 15010}}}}]}]
";

fn assembly(strict: bool) -> Assembly {
    let loaded = load_bootstrap(&Source::text("f", BOOTSTRAP)).unwrap();
    Assembly::new(&loaded, &LoadOptions::default(), strict)
}

fn cluster(name: &str) -> Cluster {
    let ads = ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads),
            service_name: format!("{name}-service"),
        }),
        ..Cluster::default()
    }
}

#[test]
fn a_bootstrap_says_where_more_comes_from() {
    let loaded = load_bootstrap(&Source::text("f", BOOTSTRAP)).unwrap();
    let config = convert(&loaded, &LoadOptions::default()).unwrap();
    let control = config.control_plane.unwrap();
    assert_eq!(control.servers, ["http://127.0.0.1:15010"]);
    assert!(control.delta && control.clusters && !control.listeners);
    assert_eq!(control.initial_fetch_timeout.unwrap().as_secs(), 2);
    assert!(config.report.is_empty(), "{:?}", config.report);

    let unknown = BOOTSTRAP.replace("cluster_name: xds}}]", "cluster_name: other}}]");
    let loaded = load_bootstrap(&Source::text("f", unknown)).unwrap();
    let refusal = convert(&loaded, &LoadOptions::default()).unwrap_err();
    assert!(
        refusal.to_string().contains(
            "dynamic_resources.ads_config.grpc_services: there is no static cluster \"other\""
        ),
        "{refusal}"
    );
}

#[test]
fn what_comes_joins_what_is_static() {
    let mut assembly = assembly(false);
    let body = cluster("a").encode_to_vec();
    let needs = assembly.check(Kind::Cluster, "a", &body).unwrap();
    assert_eq!(
        needs.into_iter().collect::<Vec<_>>(),
        [(Kind::Endpoints, "a-service".to_owned())]
    );
    assembly.put(Kind::Cluster, "a", &body);
    let endpoints = ClusterLoadAssignment {
        cluster_name: "a-service".to_owned(),
        ..ClusterLoadAssignment::default()
    };
    let body = endpoints.encode_to_vec();
    assert!(
        assembly
            .check(Kind::Endpoints, "a-service", &body)
            .unwrap()
            .is_empty()
    );
    assembly.put(Kind::Endpoints, "a-service", &body);
    let names = |assembly: &Assembly| -> Vec<String> {
        let config = assembly.config().unwrap();
        config
            .clusters
            .iter()
            .map(|cluster| cluster.name.to_string())
            .collect()
    };
    assert_eq!(names(&assembly), ["xds", "a"]);
    // A static name stays what it was.
    assembly.put(Kind::Cluster, "xds", &cluster("xds").encode_to_vec());
    assert_eq!(names(&assembly), ["xds", "a"]);
    assembly.remove(Kind::Cluster, "a");
    assert_eq!(names(&assembly), ["xds"]);
}

#[test]
fn what_is_wrong_is_told_with_its_path_in_the_resource() {
    let refused = |kind, body: Vec<u8>| {
        let refusal = assembly(false).check(kind, "a", &body).unwrap_err();
        (refusal.field, refusal.reason)
    };
    let mut contradicts = cluster("a");
    contradicts.cluster_discovery_type = None;
    let (field, reason) = refused(Kind::Cluster, contradicts.encode_to_vec());
    assert_eq!(
        (field.as_str(), reason.as_str()),
        ("eds_cluster_config", "is only for clusters of type EDS")
    );

    let mut elsewhere = cluster("a");
    elsewhere.eds_cluster_config = None;
    let (field, _) = refused(Kind::Cluster, elsewhere.encode_to_vec());
    assert_eq!(field, "eds_cluster_config.eds_config");

    // A rule of the protos: a virtual host has a domain.
    let routes = RouteConfiguration {
        name: "a".to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "v".to_owned(),
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    };
    let (field, _) = refused(Kind::Routes, routes.encode_to_vec());
    assert_eq!(field, "virtual_hosts[0].domains");
    let (field, reason) = refused(Kind::Listener, vec![0xff]);
    assert!(
        field.is_empty() && reason.starts_with("it cannot be decoded"),
        "{reason}"
    );
}

#[test]
fn strict_refuses_what_is_not_enforced() {
    let mut vain = cluster("a");
    vain.preconnect_policy = Some(PreconnectPolicy::default());
    let body = vain.encode_to_vec();
    assert!(assembly(false).check(Kind::Cluster, "a", &body).is_ok());
    let refusal = assembly(true).check(Kind::Cluster, "a", &body).unwrap_err();
    assert_eq!(refusal.field, "preconnect_policy");
}
