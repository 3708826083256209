use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::Cluster,
        core::v3::{TransportSocket, transport_socket::ConfigType},
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::Listener,
        route::v3::{RouteConfiguration, route::Action, route_action::ClusterSpecifier},
    },
    extensions::transport_sockets::tls::v3::{
        CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext,
        common_tls_context::ValidationContextType,
    },
};
use mesh_control::{
    mesh::Endpoint,
    registry::{Directory, Knowledge, Registry as _},
};
use mesh_xds::{ResourceType, server::SnapshotCache};
use prost::Message;

use crate::support::{MESH, knowledge, publisher};

fn names(cache: &SnapshotCache, group: &str, ty: ResourceType) -> Vec<String> {
    let snapshot = cache.snapshot(group).expect("a snapshot");
    let names = snapshot
        .set(ty)
        .entries()
        .map(|entry| entry.name.to_string());
    names.collect()
}

fn resource<M: Message + Default>(
    cache: &SnapshotCache,
    group: &str,
    ty: ResourceType,
    name: &str,
) -> M {
    let snapshot = cache.snapshot(group).expect("a snapshot");
    let entry = snapshot.set(ty).get(name).expect("a resource");
    M::decode(entry.body.clone()).expect("a message")
}

#[test]
fn each_service_with_a_sidecar_gets_what_it_needs() {
    let (mut publisher, cache) = publisher(true);
    publisher.update(0, knowledge(MESH)).expect("good");
    assert_eq!(names(&cache, "shop", ResourceType::Listener), ["outbound"]);
    assert_eq!(
        names(&cache, "shop", ResourceType::Cluster),
        ["shop", "users", "users-v2"]
    );
    assert_eq!(
        names(&cache, "shop", ResourceType::Endpoints),
        ["shop", "users", "users-v2"]
    );
    assert_eq!(names(&cache, "users", ResourceType::Listener), ["inbound"]);
    assert_eq!(names(&cache, "users", ResourceType::Cluster), ["app"]);
    // It has no sidecar.
    assert!(cache.snapshot("users-v2").is_none());

    let users: Cluster = resource(&cache, "shop", ResourceType::Cluster, "users");
    let outlier = users.outlier_detection.expect("outlier detection");
    assert_eq!(outlier.consecutive_5xx.map(|n| n.value), Some(3));
    let routes: RouteConfiguration =
        resource(&cache, "shop", ResourceType::RouteConfiguration, "outbound");
    let host = routes
        .virtual_hosts
        .iter()
        .find(|host| host.name == "users");
    let host = host.expect("a virtual host");
    assert_eq!(host.domains, ["people", "users"]);
    let [v2, split, _] = host.routes.as_slice() else {
        panic!("{} routes", host.routes.len());
    };
    let Some(Action::Route(v2)) = &v2.action else {
        panic!("no route");
    };
    // Its own timeout, and the retries of the defaults.
    assert_eq!(v2.timeout.map(|timeout| timeout.seconds), Some(2));
    assert!(v2.retry_policy.is_some());
    let Some(Action::Route(split)) = &split.action else {
        panic!("no route");
    };
    assert!(matches!(
        split.cluster_specifier,
        Some(ClusterSpecifier::WeightedClusters(_))
    ));
}

#[test]
fn what_a_proxy_would_refuse_is_refused_with_its_line_and_the_last_good_stays() {
    let (mut publisher, cache) = publisher(false);
    publisher.update(0, knowledge(MESH)).expect("good");
    let version = publisher.published().version;
    let before = cache.snapshot("shop");
    // Only the conversion finds this: a back-off that grows downwards.
    let bad = MESH.replace(
        "num_retries: 2}",
        "num_retries: 2, retry_back_off: {base_interval: 2s, max_interval: 1s}}",
    );
    let errors = publisher.update(0, knowledge(&bad)).expect_err("bad");
    let text = errors[0].to_string();
    assert!(
        text.starts_with("mesh.yaml:4:114: defaults.retry_policy.retry_back_off.max_interval: "),
        "{text}"
    );
    assert_eq!(errors[0].problems().len(), 1, "{text}");
    assert_eq!(publisher.published().version, version);
    let after = cache.snapshot("shop");
    assert!(Arc::ptr_eq(&before.expect("one"), &after.expect("one")));

    // Other registries go on with the last good mesh.
    let more: BTreeMap<_, _> = [(
        "users-v2".to_owned(),
        vec![Endpoint::from(SocketAddr::from(([127, 0, 0, 1], 9000)))],
    )]
    .into();
    let discovered = Knowledge::Endpoints(Arc::new(more));
    publisher.update(1, discovered).expect("good");
    let v2: ClusterLoadAssignment = resource(&cache, "shop", ResourceType::Endpoints, "users-v2");
    assert_eq!(v2.endpoints[0].lb_endpoints.len(), 2);
}

#[test]
fn what_has_not_changed_is_not_published_again() {
    let (mut publisher, cache) = publisher(false);
    publisher.update(0, knowledge(MESH)).expect("good");
    let (shop, users) = (cache.snapshot("shop"), cache.snapshot("users"));
    let version = publisher.published().version;
    publisher
        .update(0, knowledge(&format!("# a comment{MESH}")))
        .expect("good");
    assert_eq!(publisher.published().version, version);
    let drained = MESH.replace(
        "- 127.0.0.1:8081",
        "- {address: 127.0.0.1:8081, health: draining}",
    );
    publisher.update(0, knowledge(&drained)).expect("good");
    assert_eq!(publisher.published().version, version + 1);
    let now = cache.snapshot("shop").expect("one");
    let shop = shop.expect("one");
    assert!(!Arc::ptr_eq(
        shop.set(ResourceType::Endpoints),
        now.set(ResourceType::Endpoints)
    ));
    assert!(Arc::ptr_eq(
        shop.set(ResourceType::Cluster),
        now.set(ResourceType::Cluster)
    ));
    // Nobody's endpoints are of interest to a sidecar that only takes requests.
    let same = cache.snapshot("users").expect("one");
    assert!(Arc::ptr_eq(&users.expect("one"), &same));
}

#[test]
fn a_service_may_say_whom_it_calls() {
    let (mut publisher, cache) = publisher(false);
    let text = MESH.replace("  shop:\n", "  shop:\n    calls: [users-v2]\n");
    publisher.update(0, knowledge(&text)).expect("good");
    assert_eq!(names(&cache, "shop", ResourceType::Cluster), ["users-v2"]);
}

#[test]
fn with_mtls_both_sides_prove_who_they_are() {
    let (mut publisher, cache) = publisher(true);
    let mtls = "
mtls:
  trust_domain: example.org
  certificate_chain: /etc/mesh/{service}/svid.pem
  private_key: /etc/mesh/{service}/key.pem
  trusted_ca: /etc/mesh/bundle.pem
";
    // The files are on the machines of the sidecars, not here.
    publisher
        .update(0, knowledge(&format!("{mtls}{MESH}")))
        .expect("good");
    let users: Cluster = resource(&cache, "shop", ResourceType::Cluster, "users");
    let socket = format!("{:?}", users.transport_socket.expect("TLS").config_type);
    assert!(socket.contains("UpstreamTlsContext"), "{socket}");
    let inbound: Listener = resource(&cache, "users", ResourceType::Listener, "inbound");
    assert!(inbound.filter_chains[0].transport_socket.is_some());
    // It has no sidecar that could prove anything.
    let v2: Cluster = resource(&cache, "shop", ResourceType::Cluster, "users-v2");
    assert!(v2.transport_socket.is_none());
}

#[test]
fn sidecars_follow_their_certificates_when_these_are_renewed() {
    let (mut publisher, cache) = publisher(true);
    let mtls = "
mtls:
  trust_domain: example.org
  certificate_chain: /etc/mesh/{service}/svid.pem
  private_key: /etc/mesh/{service}/key.pem
  trusted_ca: /bundle.pem
";
    publisher
        .update(0, knowledge(&format!("{mtls}{MESH}")))
        .expect("good");
    let watched = |common: Option<CommonTlsContext>| {
        let common = common.expect("a context");
        let Some(ValidationContextType::ValidationContext(validation)) =
            common.validation_context_type
        else {
            panic!("no validation");
        };
        let own = common.tls_certificates[0].watched_directory.clone();
        [own, validation.watched_directory].map(|folder| folder.expect("a folder").path)
    };
    let any = |socket: Option<TransportSocket>| match socket.expect("TLS").config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        None => panic!("no config"),
    };
    let users: Cluster = resource(&cache, "shop", ResourceType::Cluster, "users");
    let upstream =
        UpstreamTlsContext::decode(&*any(users.transport_socket).value).expect("upstream");
    assert_eq!(
        watched(upstream.common_tls_context),
        ["/etc/mesh/shop", "/"]
    );
    let inbound: Listener = resource(&cache, "users", ResourceType::Listener, "inbound");
    let socket = inbound.filter_chains[0].transport_socket.clone();
    let downstream = DownstreamTlsContext::decode(&*any(socket).value).expect("downstream");
    assert_eq!(
        watched(downstream.common_tls_context),
        ["/etc/mesh/users", "/"]
    );
}

/// A mesh of one service.
fn only(name: &str) -> Knowledge {
    knowledge(&format!(
        "services: {{{name}: {{sidecar: {{outbound: 127.0.0.1:0}}}}}}"
    ))
}

#[test]
fn a_service_that_moves_to_another_file_is_never_nowhere() {
    let (mut publisher, cache) = publisher(false);
    let here = || names(&cache, "users", ResourceType::Listener);
    publisher.update(0, only("users")).expect("good");
    publisher.update(1, only("users")).expect_err("twice");
    assert_eq!(here(), ["outbound"]);
    let taken = publisher.update(0, only("shop")).expect("good");
    assert_eq!(taken, [0, 1].into(), "the one that waited is tried again");
    assert_eq!(here(), ["outbound"]);
    assert_eq!(publisher.meshes().0.len(), 2);

    // What is said instead of something that waits takes its place.
    publisher.update(1, only("shop")).expect_err("twice");
    publisher.update(1, only("orders")).expect("good");
    let taken = publisher.update(0, only("users")).expect("good");
    assert_eq!(taken, [0].into(), "nothing waits any more");
    publisher.update(1, only("users")).expect_err("twice");
    publisher.forget(1);
    let taken = publisher.update(0, only("shop")).expect("good");
    assert_eq!(taken, [0].into(), "it is not said any more");
}

/// What a directory with one such file says.
async fn part(text: &str) -> Knowledge {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("part.yaml"), text).expect("written");
    let mut registry = Directory::new(folder.path()).expect("a watch");
    registry.next().await.expect("readable")
}

fn cluster(name: &str) -> String {
    format!(
        "
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: {name}
type: EDS
eds_cluster_config: {{eds_config: {{ads: {{}}}}}}
"
    )
}

const ENDPOINTS: &str = "
'@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
cluster_name: users
";

#[tokio::test]
async fn registries_that_need_each_other_may_speak_in_any_order() {
    let (mut publisher, _) = publisher(false);
    let (waits, never) = (
        part(&cluster("users")).await,
        part(&cluster("nobody")).await,
    );
    publisher.update(0, waits).expect_err("incomplete");
    publisher.update(1, never).expect_err("incomplete");
    // What is wrong for good keeps nobody else waiting.
    let taken = publisher.update(2, part(ENDPOINTS).await).expect("good");
    assert_eq!(taken, [0, 2].into());
    assert_eq!(publisher.published().version, 1);
}

#[tokio::test]
async fn nodes_whose_arrival_was_not_heard_get_what_everybody_gets_at_the_next_check() {
    let (mut publisher, cache) = publisher(false);
    publisher.update(0, part(ENDPOINTS).await).expect("good");
    assert!(cache.snapshot("stranger").is_none());
    publisher.on_connected(&["stranger".to_owned()].into());
    assert_eq!(
        names(&cache, "stranger", ResourceType::Endpoints),
        ["users"]
    );
    publisher.on_connected(&BTreeSet::new());
    assert!(cache.snapshot("stranger").is_none());
}
