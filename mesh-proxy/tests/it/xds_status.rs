//! What the admin and the stats tell of a control plane.

use e2e::{
    resources::{broken_cluster, cluster, listener, routes, runtime},
    status,
    wait::{Deadline, until},
};
use envoy_types::pb::envoy::{
    admin::v3::ClientResourceStatus,
    service::status::v3::{ClientStatusRequest, client_config::GenericXdsConfig},
    r#type::matcher::v3::NodeMatcher,
};
use mesh_xds::{
    ResourceType::{self, Cluster, Listener, RouteConfiguration, Runtime},
    server::Snapshot,
};
use serde_json::Value;

use crate::{
    support::{direct, get, start},
    xds::{NODE, Plane, ask, open},
};

fn list(proxy: &e2e::process::Proxy, resource: &str) -> Vec<Value> {
    let page = format!("/config_dump?resource={resource}&include_eds");
    let page: Value = serde_json::from_str(&proxy.admin().text(&page).unwrap()).unwrap();
    page["configs"].as_array().cloned().unwrap_or_default()
}

#[test]
fn what_came_is_in_the_config_dump_with_its_status() {
    let plane = Plane::start();
    plane.publish("a");
    let proxy = start(&plane.bootstrap());
    assert_eq!(ask(&mut open(&proxy, "web")), "a");
    let clusters = list(&proxy, "dynamic_active_clusters");
    assert_eq!(clusters.len(), 2);
    assert_eq!(clusters[0]["cluster"]["name"], "a");
    assert_eq!(clusters[0]["client_status"], "ACKED");
    assert!(clusters[0]["version_info"].is_string() && clusters[0]["last_updated"].is_string());
    let listeners = list(&proxy, "dynamic_listeners");
    assert_eq!(listeners[0]["active_state"]["listener"]["name"], "web");
    let routes = list(&proxy, "dynamic_route_configs");
    assert_eq!(routes[0]["route_config"]["name"], "web");
    assert_eq!(list(&proxy, "dynamic_endpoint_configs").len(), 2);

    // One that is rejected stays as it was, and says why.
    let bad = plane
        .clusters()
        .with(Cluster, vec![broken_cluster("a"), cluster("b")]);
    plane.cache.set_snapshot(NODE, bad);
    let nacked = until(Deadline::default(), || {
        let clusters = list(&proxy, "dynamic_active_clusters");
        let row = clusters
            .into_iter()
            .find(|row| row["client_status"] == "NACKED")?;
        Some(row)
    });
    let nacked = nacked.expect("nothing is rejected");
    assert_eq!(nacked["cluster"]["name"], "a");
    let details = nacked["error_state"]["details"].as_str().unwrap();
    assert!(details.contains("eds_cluster_config"), "{details}");
    let rejected = proxy.admin().stat("cluster_manager.cds.update_rejected");
    assert!(rejected.unwrap() >= 1);
}

#[test]
fn a_grpc_client_is_told_where_resources_stand() {
    let plane = Plane::start();
    plane.publish("a");
    let proxy = start(&plane.bootstrap());
    assert_eq!(ask(&mut open(&proxy, "web")), "a");
    let bad = plane
        .clusters()
        .with(Cluster, vec![broken_cluster("a"), cluster("b")]);
    plane.cache.set_snapshot(NODE, bad);
    let address = proxy.admin().address();
    let told = until(Deadline::default(), || {
        let answer = status::fetch(address, ClientStatusRequest::default()).unwrap();
        let nacked = |row: &GenericXdsConfig| row.client_status() == ClientResourceStatus::Nacked;
        let config = answer.config.into_iter().next()?;
        config
            .generic_xds_configs
            .iter()
            .any(nacked)
            .then_some(config)
    });
    let told = told.expect("nothing is rejected");
    assert_eq!(told.node.unwrap().id, NODE);
    let row = |ty: ResourceType, name: &str| {
        let mut rows = told.generic_xds_configs.iter();
        rows.find(|row| row.type_url == ty.type_url() && row.name == name)
            .unwrap()
    };
    let a = row(Cluster, "a");
    let error = a.error_state.as_ref().unwrap();
    assert!(error.details.contains("eds_cluster_config"), "{error:?}");
    assert!(error.last_update_attempt.is_some() && a.last_updated.is_some());
    // What is in force is the one before.
    assert!(!a.version_info.is_empty() && a.version_info != error.version_info);
    let b = row(Cluster, "b");
    assert_eq!(b.client_status(), ClientResourceStatus::Acked);
    assert!(!b.xds_config.as_ref().unwrap().value.is_empty());
    let without = ClientStatusRequest {
        exclude_resource_contents: true,
        ..ClientStatusRequest::default()
    };
    let answer = status::fetch(address, without).unwrap();
    let rows = &answer.config[0].generic_xds_configs;
    assert!(rows.len() >= 2 && rows.iter().all(|row| row.xds_config.is_none()));
    let other = ClientStatusRequest {
        node_matchers: vec![NodeMatcher::default()],
        ..ClientStatusRequest::default()
    };
    let refused = format!("{:#}", status::fetch(address, other).unwrap_err());
    assert!(refused.contains("tells of itself"), "{refused}");
}

#[test]
fn subscriptions_are_counted_under_envoys_names() {
    let plane = Plane::start();
    plane.publish("a");
    let proxy = start(&plane.bootstrap());
    let admin = proxy.admin();
    for name in [
        "cluster_manager.cds",
        "listener_manager.lds",
        "cluster.a",
        "http.interop.rds.web",
    ] {
        let stat = |stat: &str| admin.stat(&format!("{name}.{stat}")).unwrap();
        assert!(stat("update_success") >= 1, "{name}");
        assert!(stat("update_attempt") > stat("update_success"), "{name}");
        assert_eq!(
            (stat("update_rejected"), stat("update_failure")),
            (0, 0),
            "{name}"
        );
    }
    for (name, value) in [
        ("control_plane.connected_state", 1),
        ("control_plane.config_source", 2),
        ("cluster_manager.cluster_added", 2),
        ("listener_manager.listener_added", 1),
        ("cluster_manager.warming_clusters", 0),
    ] {
        assert_eq!(admin.stat(name).unwrap(), value, "{name}");
    }
}

#[test]
fn a_layer_of_the_runtime_comes_and_changes_what_keys_say() {
    let plane = Plane::start();
    let publish = |share| {
        let layer = runtime("shares", "share", share);
        let snapshot = Snapshot::new().with(Runtime, vec![layer]);
        plane.cache.set_snapshot(NODE, snapshot);
    };
    publish(100.0);
    let dynamic = plane.bootstrap();
    let (top, _) = dynamic.split_once("static_resources:").unwrap();
    let (_, cluster) = dynamic.split_once("  clusters:\n").unwrap();
    let top = top
        .replace("  cds_config: {resource_api_version: V3, ads: {}}\n", "")
        .replace("  lds_config: {resource_api_version: V3, ads: {}}\n", "")
        .replace(
            "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n",
            "",
        );
    let top = format!(
        "{top}\nlayered_runtime: {{layers: [{{name: rtds, rtds_layer: {{name: shares, rtds_config: {{ads: {{}}, resource_api_version: V3}}}}}}]}}"
    );
    // All requests take the first route, once the key is 100.
    let text = direct(&top, "0").replace("  clusters:\n", &format!("  clusters:\n{cluster}"));
    let proxy = start(&text);
    let status = || {
        let mut connection = open(&proxy, "ingress");
        connection.send(&get("/"));
        connection.response(false).status
    };
    assert_eq!(status(), 200);
    publish(0.0);
    let changed = until(Deadline::default(), || (status() == 204).then_some(()));
    changed.expect("it never changes");
    let page = proxy.admin().text("/runtime").unwrap();
    assert!(page.contains("rtds"), "{page}");
}

#[test]
fn what_waits_is_shown_with_what_it_waits_for() {
    let plane = Plane::start();
    plane.publish("a");
    // Only a server that tells differences says that something is not there.
    let proxy = start(&plane.bootstrap().replace("DELTA_GRPC", "GRPC"));
    let snapshot = plane
        .clusters()
        .with(
            Listener,
            vec![listener("late", "nowhere"), listener("web", "web")],
        )
        .with(RouteConfiguration, vec![routes("web", "a")]);
    plane.cache.set_snapshot(NODE, snapshot);
    let row = until(Deadline::default(), || {
        let page = proxy.admin().text("/config/warming").ok()?;
        let page: Value = serde_json::from_str(&page).ok()?;
        page["warming"].as_array()?.first().cloned()
    });
    let row = row.expect("nothing waits");
    assert_eq!(
        (row["type"].as_str(), row["name"].as_str()),
        (Some("lds"), Some("late"))
    );
    assert_eq!(row["missing"][0]["name"], "nowhere");
    assert_eq!(row["older_version_in_use"], false);
    // The other one does not wait for it.
    assert_eq!(ask(&mut open(&proxy, "web")), "a");
}
