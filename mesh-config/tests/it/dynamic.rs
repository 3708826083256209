//! Resources that arrive one by one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{
                    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, PreconnectPolicy,
                },
            },
            core::v3::{
                Address, AggregatedConfigSource, ConfigSource, DataSource, SocketAddress,
                TransportSocket, address::Address as AddressKind,
                config_source::ConfigSourceSpecifier, data_source::Specifier,
                socket_address::PortSpecifier, transport_socket::ConfigType::TypedConfig,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
                cluster_load_assignment::Policy, lb_endpoint::HostIdentifier,
            },
            listener::v3::{ApiListener, Filter, FilterChain, Listener, filter::ConfigType},
            route::v3::{
                DirectResponseAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
                route::Action, route_match::PathSpecifier,
            },
        },
        extensions::{
            filters::{
                http::router::v3::Router,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, Rds,
                    http_connection_manager::RouteSpecifier, http_filter,
                },
            },
            transport_sockets::tls::v3::{CommonTlsContext, DownstreamTlsContext, TlsCertificate},
        },
    },
    google::protobuf::{Any, UInt32Value},
};
use mesh_config::{
    LoadOptions, convert,
    dynamic::{Assembly, Change, Key, Kind},
    language::{Source, load_bootstrap},
    model::{self, Config},
};
use mesh_tls::dev_ca::DevCa;
use prost::{Message, Name};

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
    assembly_of(BOOTSTRAP, strict)
}

fn assembly_of(text: &str, strict: bool) -> Assembly {
    let loaded = load_bootstrap(&Source::text("f", text)).unwrap();
    let options = LoadOptions::default();
    let config = convert(&loaded, &options).unwrap();
    Assembly::new(&loaded, &config, &options, strict)
}

fn put(assembly: &mut Assembly, kind: Kind, name: &str, message: &impl Message) -> Vec<Key> {
    let body = message.encode_to_vec().into();
    let checked = assembly.check(kind, name, &body).unwrap();
    let needs = checked.needs().keys().cloned().collect();
    assembly.put(checked);
    needs
}

fn whole(assembly: &mut Assembly) -> Config {
    let (config, misfits) = assembly.config();
    assert!(misfits.is_empty(), "{misfits:?}");
    config
}

fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}

fn address(port: u32) -> Option<Address> {
    let socket = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    Some(Address {
        address: Some(AddressKind::SocketAddress(socket)),
    })
}

fn endpoints(name: &str, count: u32) -> ClusterLoadAssignment {
    let endpoint = |port| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: address(port),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: (1..=count).map(endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// The listener `l` with the routes `r`, which shows this certificate.
fn secure(chain: DataSource, key: DataSource) -> Listener {
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: Some(chain),
                private_key: Some(key),
                ..TlsCertificate::default()
            }],
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    let mut listener = listener("l", "r");
    listener.filter_chains[0].transport_socket = Some(TransportSocket {
        name: "tls".to_owned(),
        config_type: Some(TypedConfig(any(&context))),
    });
    listener
}

fn listener(name: &str, routes: &str) -> Listener {
    let router = HttpFilter {
        name: "router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(
            any(&Router::default()),
        )),
        ..HttpFilter::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: "l".to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes.to_owned(),
        })),
        http_filters: vec![router],
        ..HttpConnectionManager::default()
    };
    let filter = Filter {
        name: "hcm".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(&manager))),
    };
    Listener {
        name: name.to_owned(),
        address: address(0),
        filter_chains: vec![FilterChain {
            filters: vec![filter],
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

/// One route, which answers itself.
fn route_config(name: &str) -> RouteConfiguration {
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::DirectResponse(DirectResponseAction {
            status: 204,
            ..DirectResponseAction::default()
        })),
        ..Route::default()
    };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: format!("{name}-service"),
        }),
        ..Cluster::default()
    }
}

#[test]
fn a_bootstrap_says_where_more_comes_from() {
    let loaded = load_bootstrap(&Source::text("f", BOOTSTRAP)).unwrap();
    let config = convert(&loaded, &LoadOptions::default()).unwrap();
    assert!(config.is_dynamic());
    let dynamic = config.dynamic;
    let ads = dynamic.ads.unwrap();
    assert!(ads.delta && ads.servers.len() == 1 && &*ads.servers[0].cluster == "xds");
    let clusters = dynamic.clusters.unwrap();
    assert_eq!(clusters.source, model::Source::Ads);
    assert_eq!(clusters.initial_fetch_timeout.unwrap().as_secs(), 2);
    assert!(dynamic.listeners.is_none());
    assert!(config.report.is_empty(), "{:?}", config.report);

    let refused = |from: &str, to: &str| {
        let text = BOOTSTRAP.replace(from, to);
        let loaded = load_bootstrap(&Source::text("f", text)).unwrap();
        let refusal = convert(&loaded, &LoadOptions::default()).unwrap_err();
        refusal.to_string()
    };
    let error = refused("cluster_name: xds}}]", "cluster_name: other}}]");
    let expected = "dynamic_resources.ads_config.grpc_services[0]: there is no static cluster";
    assert!(error.contains(expected), "{error}");
    let error = refused("api_type: DELTA_GRPC", "api_type: REST");
    let expected = "dynamic_resources.ads_config.api_type: only gRPC is supported";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_comes_joins_what_is_static() {
    let mut assembly = assembly(false);
    let needs = put(&mut assembly, Kind::Cluster, "a", &cluster("a"));
    assert_eq!(needs, [(Kind::Endpoints, "a-service".to_owned())]);
    let needs = put(
        &mut assembly,
        Kind::Endpoints,
        "a-service",
        &endpoints("a-service", 1),
    );
    assert!(needs.is_empty());
    let names = |assembly: &mut Assembly| -> Vec<(String, usize)> {
        let clusters = whole(assembly).clusters;
        let row = |c: &Arc<model::Cluster>| (c.name.to_string(), c.endpoints.len());
        clusters.iter().map(row).collect()
    };
    let both = [("xds".to_owned(), 1), ("a".to_owned(), 1)];
    assert_eq!(names(&mut assembly), both);
    // A static name stays what it was.
    put(&mut assembly, Kind::Cluster, "xds", &cluster("xds"));
    assert_eq!(names(&mut assembly), both);
    assembly.remove(Kind::Cluster, "a");
    assert_eq!(names(&mut assembly), both[..1]);
}

#[test]
fn only_what_changed_is_made_again() {
    let mut assembly = assembly(false);
    for name in ["a", "b"] {
        let service = format!("{name}-service");
        put(&mut assembly, Kind::Cluster, name, &cluster(name));
        put(
            &mut assembly,
            Kind::Endpoints,
            &service,
            &endpoints(&service, 1),
        );
    }
    let before = whole(&mut assembly);
    put(
        &mut assembly,
        Kind::Endpoints,
        "b-service",
        &endpoints("b-service", 2),
    );
    let after = whole(&mut assembly);
    let kept = |index: usize| Arc::ptr_eq(&before.clusters[index], &after.clusters[index]);
    assert!(kept(0) && kept(1) && !kept(2));
    assert_ne!(before.version, after.version);
    put(
        &mut assembly,
        Kind::Endpoints,
        "b-service",
        &endpoints("b-service", 1),
    );
    let again = whole(&mut assembly);
    assert_eq!(
        (&again.version, &again.clusters),
        (&before.version, &before.clusters)
    );
}

#[test]
fn other_endpoints_are_told_without_the_rest() {
    let mut assembly = assembly(false);
    for name in ["a", "b"] {
        put(&mut assembly, Kind::Cluster, name, &cluster(name));
        let service = format!("{name}-service");
        put(
            &mut assembly,
            Kind::Endpoints,
            &service,
            &endpoints(&service, 1),
        );
    }
    assert!(matches!(assembly.change(), Change::Whole(config, _) if config.clusters.len() == 3));
    put(
        &mut assembly,
        Kind::Endpoints,
        "b-service",
        &endpoints("b-service", 2),
    );
    match assembly.change() {
        Change::Endpoints(clusters) => {
            let told: Vec<_> = clusters
                .iter()
                .map(|c| (&*c.name, c.endpoints.len()))
                .collect();
            assert_eq!(told, [("b", 2)]);
        }
        Change::Whole(..) => panic!("nothing else has changed"),
    }
    assert!(matches!(assembly.change(), Change::Endpoints(clusters) if clusters.is_empty()));
    // How they are shared out is no matter of endpoints.
    let mut other = endpoints("b-service", 2);
    other.policy = Some(Policy {
        overprovisioning_factor: Some(UInt32Value { value: 200 }),
        ..Policy::default()
    });
    put(&mut assembly, Kind::Endpoints, "b-service", &other);
    let Change::Whole(config, _) = assembly.change() else {
        panic!("the balancing has changed");
    };
    assert_eq!(config.clusters[2].balance.overprovisioning_factor, 200);
    assembly.remove(Kind::Endpoints, "b-service");
    assert!(matches!(assembly.change(), Change::Whole(..)));
}

#[test]
fn new_routes_leave_a_listener_what_it_is() {
    let mut assembly = assembly(false);
    let needs = put(&mut assembly, Kind::Listener, "l", &listener("l", "r"));
    assert_eq!(needs, [(Kind::Routes, "r".to_owned())]);
    let routes = |assembly: &mut Assembly| {
        let listener = Arc::clone(&whole(assembly).listeners[0]);
        let manager = listener.manager().unwrap();
        assert!(manager.rds && &*manager.route_config_name == "r");
        let count = manager.routes.routes().count();
        (count, listener.fingerprint, listener.chains[0].fingerprint)
    };
    let (none, listener_print, chain_print) = routes(&mut assembly);
    assert_eq!(none, 0);
    put(&mut assembly, Kind::Routes, "r", &route_config("r"));
    assert_eq!(routes(&mut assembly), (1, listener_print, chain_print));
    let mut other = listener("l", "r");
    other.tcp_backlog_size = Some(UInt32Value { value: 7 });
    put(&mut assembly, Kind::Listener, "l", &other);
    let (one, another_print, same_print) = routes(&mut assembly);
    assert_eq!((one, same_print), (1, chain_print));
    assert_ne!(another_print, listener_print);
}

#[test]
fn new_routes_are_taken_while_files_cannot_be_read() {
    let folder = std::env::temp_dir().join(format!("mesh-config-dynamic-{}", std::process::id()));
    let now = SystemTime::now();
    let ca = DevCa::new("example.org".parse().unwrap(), now).unwrap();
    let id = "spiffe://example.org/a".parse().unwrap();
    ca.write(&folder, &[id], now, Duration::from_secs(60))
        .unwrap();
    let body = folder.join("body.txt");
    std::fs::write(&body, "from a file").unwrap();
    let file = |name: &str| DataSource {
        specifier: Some(Specifier::Filename(format!("{}/{name}", folder.display()))),
        ..DataSource::default()
    };
    let secure = secure(file("a/svid.pem"), file("a/key.pem"));
    let mut routes = route_config("r");
    let route = &mut routes.virtual_hosts[0].routes[0];
    if let Some(Action::DirectResponse(response)) = &mut route.action {
        response.body = Some(file("body.txt"));
    }
    let mut assembly = assembly(false);
    put(&mut assembly, Kind::Listener, "l", &secure);
    let first = Arc::clone(&whole(&mut assembly).listeners[0]);
    let arrived = routes.encode_to_vec().into();
    let checked = assembly.check(Kind::Routes, "r", &arrived).unwrap();
    // The next certificate is half there, and the body is not.
    std::fs::write(folder.join("a/key.pem"), "nonsense").unwrap();
    std::fs::remove_file(body).unwrap();
    assembly.put(checked);
    let listener = Arc::clone(&whole(&mut assembly).listeners[0]);
    assert_eq!(listener.manager().unwrap().routes.routes().count(), 1);
    let tls = |listener: &model::Listener| listener.chains[0].tls.clone().unwrap();
    assert!(Arc::ptr_eq(&tls(&listener), &tls(&first)));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn secrets_are_left_out_of_what_is_told() {
    let inline = |text: &str| DataSource {
        specifier: Some(Specifier::InlineString(text.to_owned())),
        ..DataSource::default()
    };
    let mut secure = secure(inline("the chain"), inline("the key"));
    let language = assembly(false).language().clone();
    let told = language
        .without_secrets(Kind::Listener.full_name(), &secure.encode_to_vec())
        .unwrap();
    let has = |text: &str| told.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("the chain") && !has("the key"));
    assert_eq!(Listener::decode(told.as_slice()).unwrap().name, "l");
    // What nobody knows may be one.
    let socket = secure.filter_chains[0].transport_socket.as_mut().unwrap();
    socket.config_type = Some(TypedConfig(Any {
        type_url: "type.googleapis.com/not.Known".to_owned(),
        value: b"the key".to_vec(),
    }));
    let told = language
        .without_secrets(Kind::Listener.full_name(), &secure.encode_to_vec())
        .unwrap();
    assert!(!told.windows(7).any(|part| part == b"the key"));
}

#[test]
fn what_the_bootstrap_has_may_need_what_comes() {
    let text = BOOTSTRAP.replace(
        "static_resources:",
        "static_resources:
  listeners:
  - name: own
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: own
          rds: {config_source: {ads: {}}, route_config_name: r}
          http_filters: [{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]",
    );
    let text = text.replace(
        "  clusters:",
        "  clusters:\n  - {name: own, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}",
    );
    let mut assembly = assembly_of(&text, true);
    let config = whole(&mut assembly);
    assert_eq!((config.clusters.len(), config.listeners.len()), (2, 0));
    let own = assembly.own();
    let needs: Vec<_> = own
        .iter()
        .flat_map(|own| own.needs().keys().cloned())
        .collect();
    let key = |kind, name: &str| (kind, name.to_owned());
    assert_eq!(needs, [key(Kind::Endpoints, "own"), key(Kind::Routes, "r")]);
    own.into_iter().for_each(|own| assembly.put(own));
    put(&mut assembly, Kind::Endpoints, "own", &endpoints("own", 3));
    put(&mut assembly, Kind::Routes, "r", &route_config("r"));
    let next = whole(&mut assembly);
    assert_eq!(next.clusters[0].endpoints.len(), 3);
    assert_eq!(
        next.listeners[0].manager().unwrap().routes.routes().count(),
        1
    );
    // It cannot be taken away.
    assembly.remove(Kind::Listener, "own");
    assert_eq!(whole(&mut assembly).listeners.len(), 1);
}

#[test]
fn an_api_listener_is_for_a_client_only() {
    let mut listener = listener("l", "r");
    let manager = listener.filter_chains.remove(0).filters.remove(0);
    let Some(ConfigType::TypedConfig(manager)) = manager.config_type else {
        panic!("no config");
    };
    listener.address = None;
    listener.api_listener = Some(ApiListener {
        api_listener: Some(manager),
    });
    let body = listener.encode_to_vec().into();
    let refusal = assembly(false)
        .check(Kind::Listener, "l", &body)
        .unwrap_err();
    assert_eq!(refusal.field, "api_listener");
    let loaded = load_bootstrap(&Source::text("f", BOOTSTRAP)).unwrap();
    let mut options = LoadOptions::default();
    options.api_listeners = true;
    let config = convert(&loaded, &options).unwrap();
    let assembly = Assembly::new(&loaded, &config, &options, true);
    let checked = assembly.check(Kind::Listener, "l", &body).unwrap();
    assert!(checked.listener().unwrap().manager().unwrap().rds);
}

#[test]
fn what_is_wrong_is_told_with_its_path_in_the_resource() {
    let refused = |kind, body: Vec<u8>| {
        let refusal = assembly(false).check(kind, "a", &body.into()).unwrap_err();
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
    let body = body.into();
    assert!(assembly(false).check(Kind::Cluster, "a", &body).is_ok());
    let refusal = assembly(true).check(Kind::Cluster, "a", &body).unwrap_err();
    assert_eq!(refusal.field, "preconnect_policy");
}
