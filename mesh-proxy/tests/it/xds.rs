//! Config that comes from a control plane while requests run.

use std::net::{SocketAddr, TcpListener};

use e2e::{
    client::Connection,
    control::Control,
    process::Proxy,
    resources::{cluster, endpoints, listener, listener_on, routes},
    upstream::{Reply, Upstream},
    wait::{Deadline, until},
};
use mesh_xds::{
    ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration},
    server::{ConfigStatus, NodeId, Row, Snapshot, SnapshotCache},
};

use crate::support::{get, start};

pub(crate) const NODE: &str = "me";
pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A control plane, and upstreams to send requests to.
pub(crate) struct Plane {
    pub(crate) cache: SnapshotCache,
    pub(crate) control: Control,
    upstreams: [Upstream; 2],
}

impl Plane {
    pub(crate) fn start() -> Self {
        let upstream = |name| {
            let upstream = Upstream::start(name).unwrap();
            upstream.on("/", [Reply::ok(name)]);
            upstream
        };
        let cache = SnapshotCache::new(NodeId, "test");
        let control = Control::start(cache.clone(), LOOPBACK).unwrap();
        Self {
            cache,
            control,
            upstreams: [upstream("a"), upstream("b")],
        }
    }

    /// A cluster for each upstream.
    pub(crate) fn clusters(&self) -> Snapshot {
        let clusters = self.upstreams.iter().map(|u| cluster(u.name()));
        let endpoints = self
            .upstreams
            .iter()
            .map(|u| endpoints(u.name(), u.address()));
        Snapshot::new()
            .with(Cluster, clusters.collect())
            .with(Endpoints, endpoints.collect())
    }

    /// One listener, whose routes lead to the cluster of that name.
    pub(crate) fn publish(&self, to: &str) {
        let snapshot = self
            .clusters()
            .with(Listener, vec![listener("web", "web")])
            .with(RouteConfiguration, vec![routes("web", to)]);
        self.cache.set_snapshot(NODE, snapshot);
    }

    fn rows(&self) -> Vec<Row> {
        let clients = self.cache.clients().into_iter();
        clients.flat_map(|client| client.rows).collect()
    }

    pub(crate) fn bootstrap(&self) -> String {
        bootstrap(self.control.address)
    }
}

fn bootstrap(control: SocketAddr) -> String {
    format!(
        "node: {{id: {NODE}, cluster: tests}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: xds, retry_policy: {{retry_back_off: {{base_interval: 0.01s, max_interval: 0.05s}}}}}}}}]
  cds_config: {{resource_api_version: V3, ads: {{}}}}
  lds_config: {{resource_api_version: V3, ads: {{}}}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]
",
        control.port()
    )
}

pub(crate) fn ask(connection: &mut Connection) -> String {
    connection.send(&get("/"));
    let response = connection.response(false);
    assert!(!response.head.lists("connection", "close"));
    String::from_utf8(response.body.data).unwrap()
}

pub(crate) fn becomes(mut ask: impl FnMut() -> String, wanted: &str) {
    let got = until(Deadline::default(), || (ask() == wanted).then_some(()));
    assert!(got.is_some(), "it is never {wanted:?}");
}

pub(crate) fn open(proxy: &Proxy, name: &str) -> Connection {
    Connection::open(proxy.listener(name).unwrap()).unwrap()
}

#[test]
fn new_routes_are_taken_up_by_connections_that_are_open() {
    let plane = Plane::start();
    plane.publish("a");
    let proxy = start(&plane.bootstrap());
    let mut connection = open(&proxy, "web");
    assert_eq!(ask(&mut connection), "a");
    plane.publish("b");
    becomes(|| ask(&mut connection), "b");
    let admin = proxy.admin();
    assert_eq!(admin.stat("http.interop.downstream_cx_total").unwrap(), 1);
    assert_eq!(
        admin
            .stat("listener_manager.total_listeners_draining")
            .unwrap(),
        0
    );
    // And it still does when they change once more, and the endpoints with them.
    plane.publish("a");
    becomes(|| ask(&mut connection), "a");
}

#[test]
fn a_listener_that_cannot_be_opened_is_refused_by_name_and_its_neighbour_is_not() {
    let plane = Plane::start();
    plane.publish("a");
    let proxy = start(&plane.bootstrap());
    assert_eq!(ask(&mut open(&proxy, "web")), "a");
    // Somebody else has this port.
    let other = TcpListener::bind(LOOPBACK).unwrap();
    let listeners = vec![
        listener("also", "web"),
        listener_on("shut", "web", other.local_addr().unwrap()),
        listener("web", "web"),
    ];
    let snapshot = plane
        .clusters()
        .with(Listener, listeners)
        .with(RouteConfiguration, vec![routes("web", "b")]);
    plane.cache.set_snapshot(NODE, snapshot);
    let refused = until(Deadline::default(), || {
        let rows = plane.rows();
        let row = rows
            .into_iter()
            .find(|row| row.status == ConfigStatus::Error)?;
        Some((row.name.to_string(), row.error?.1))
    });
    let (name, reason) = refused.expect("nothing was refused");
    assert_eq!(name, "shut");
    assert!(reason.contains("in use"), "{reason}");
    let admin = proxy.admin();
    let also = until(Deadline::default(), || {
        admin.listeners().ok()?.remove("also")
    });
    let mut connection = Connection::open(also.expect("its neighbour is there")).unwrap();
    becomes(|| ask(&mut connection), "b");
    assert!(!admin.listeners().unwrap().contains_key("shut"));
}

#[test]
fn the_control_plane_may_go_and_come_back() {
    let mut plane = Plane::start();
    plane.publish("a");
    let proxy = start(&plane.bootstrap());
    let mut connection = open(&proxy, "web");
    assert_eq!(ask(&mut connection), "a");
    let address = plane.control.address;
    let gone = SnapshotCache::new(NodeId, "test");
    // Dropping the old one closes its connections.
    plane.control = Control::start(gone, LOOPBACK).unwrap();
    let left = until(Deadline::default(), || {
        plane.cache.clients().is_empty().then_some(())
    });
    left.expect("the stream is still there");
    assert_eq!(ask(&mut connection), "a");
    plane.publish("b");
    plane.control = Control::start(plane.cache.clone(), address).unwrap();
    becomes(|| ask(&mut connection), "b");
}
