//! Certificates and anchors that a control plane sends.

use std::{
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixListener,
    path::PathBuf,
    time::SystemTime,
};

use e2e::{
    client::Connection,
    process::Proxy,
    resources::{anchors, certificate},
    tls::Client,
    wait::{Deadline, until},
};
use mesh_tls::dev_ca::{DevCa, DevLeaf, Issued};
use mesh_xds::{ResourceType::Secret, server::Snapshot};
use serde_json::Value;

use crate::{
    support::{get, start},
    xds::{NODE, Plane},
};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// A listener whose certificate and anchors are secrets; clients have to be shop.
fn bootstrap(plane: &Plane) -> String {
    bootstrap_from(plane, "ads: {}")
}

/// The same with secrets from elsewhere, as a field of `sds_config`.
fn bootstrap_from(plane: &Plane, source: &str) -> String {
    let sds = |name: &str| {
        format!("{{name: {name}, sds_config: {{{source}, resource_api_version: V3}}}}")
    };
    let listener = format!(
        "static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          '@type': {TLS}.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificate_sds_secret_configs: [{}]
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: 'spiffe://example.org/shop'}}}}]
              validation_context_sds_secret_config: {}
      filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}]}}
          http_filters: [{{name: r, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]",
        sds("server"),
        sds("trust"),
    );
    let text = plane.bootstrap();
    text.replace("  cds_config: {resource_api_version: V3, ads: {}}\n", "")
        .replace("  lds_config: {resource_api_version: V3, ads: {}}\n", "")
        .replace("static_resources:", &listener)
}

fn issue(ca: &DevCa, name: &str) -> Issued {
    let id = format!("spiffe://example.org/{name}").parse().unwrap();
    ca.issue(DevLeaf::svid(&id, SystemTime::now())).unwrap()
}

fn publish(plane: &Plane, ca: &DevCa, server: &Issued) {
    let secrets = vec![
        certificate("server", server.chain_pem(), server.key_pem()),
        anchors("trust", &ca.bundle_pem()),
    ];
    plane
        .cache
        .set_snapshot(NODE, Snapshot::new().with(Secret, secrets));
}

fn connect(proxy: &Proxy, identity: &Issued) -> Connection {
    let client = Client::default().identity(identity.chain_pem(), identity.key_pem());
    client.connect(proxy.listener("web").unwrap()).unwrap()
}

/// The certificate that the server shows, and whether it answers.
fn shown(connection: &mut Connection) -> Option<Vec<u8>> {
    connection.send(&get("/"));
    let answered = connection.response(false).status == 200;
    let leaf = connection.agreed()?.chain.first().cloned();
    leaf.filter(|_| answered)
}

#[test]
fn a_listener_waits_for_its_secrets_and_follows_them() {
    let plane = Plane::start();
    let ca = DevCa::new("example.org".parse().unwrap(), SystemTime::now()).unwrap();
    publish(&plane, &ca, &issue(&ca, "cart"));
    let proxy = start(&bootstrap(&plane));
    let shop = issue(&ca, "shop");
    let mut old = connect(&proxy, &shop);
    let before = shown(&mut old).expect("it answers");
    // Somebody else has no business here, though the anchors vouch for him.
    let other = issue(&ca, "other");
    let client = Client::default().tls12();
    let client = client.identity(other.chain_pem(), other.key_pem());
    assert!(client.connect(proxy.listener("web").unwrap()).is_err());

    publish(&plane, &ca, &issue(&ca, "cart"));
    let rotated = until(Deadline::default(), || {
        let certificate = shown(&mut connect(&proxy, &shop))?;
        (certificate != before).then_some(())
    });
    rotated.expect("it still shows the old certificate");
    // Who came before goes on.
    assert!(shown(&mut old).is_some());

    // A secret that is none never replaces a good one.
    let broken = vec![
        certificate("server", "no certificate", "no key"),
        anchors("trust", &ca.bundle_pem()),
    ];
    plane
        .cache
        .set_snapshot(NODE, Snapshot::new().with(Secret, broken));
    let rejected = until(Deadline::default(), || {
        (proxy.admin().stat("sds.server.update_rejected").ok()? > 0).then_some(())
    });
    rejected.expect("it is not rejected");
    assert!(shown(&mut connect(&proxy, &shop)).is_some());
    // And no key is ever shown.
    let page = proxy
        .admin()
        .text("/config_dump?resource=dynamic_active_secrets")
        .unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    let secrets = page["configs"].as_array().unwrap();
    assert_eq!(secrets.len(), 2);
    assert!(!page.to_string().contains("PRIVATE KEY"), "{page}");
}

/// A Unix socket behind which a server of TCP is; the file goes with it.
struct Doorway(PathBuf);

impl Doorway {
    fn to(address: SocketAddr) -> Self {
        let name = format!("mesh-sds-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(address).unwrap();
                let (mut near_in, mut far_out) =
                    (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut near_in, &mut far_out));
                std::thread::spawn(move || std::io::copy(&mut &far, &mut &near));
            }
        });
        Self(path)
    }
}

impl Drop for Doorway {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A SPIRE agent is just that: a server of SDS on a Unix socket.
#[test]
fn secrets_come_from_a_server_on_a_unix_socket() {
    let plane = Plane::start();
    let ca = DevCa::new("example.org".parse().unwrap(), SystemTime::now()).unwrap();
    publish(&plane, &ca, &issue(&ca, "cart"));
    let doorway = Doorway::to(plane.control.address);
    let source = "api_config_source: {api_type: GRPC, transport_api_version: V3, \
        grpc_services: [{envoy_grpc: {cluster_name: agent}}]}";
    let yaml = bootstrap_from(&plane, source);
    // Nothing but the secrets is dynamic.
    let (node, rest) = yaml.split_once("dynamic_resources:").unwrap();
    let (_, statics) = rest.split_once("static_resources:").unwrap();
    let agent = format!(
        "static_resources:{statics}  - name: agent
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: agent
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {:?}}}}}}}}}]}}]
",
        doorway.0
    );
    let proxy = start(&(node.to_owned() + &agent));
    let shop = issue(&ca, "shop");
    let before = shown(&mut connect(&proxy, &shop)).expect("it answers");
    publish(&plane, &ca, &issue(&ca, "cart"));
    let rotated = until(Deadline::default(), || {
        let certificate = shown(&mut connect(&proxy, &shop))?;
        (certificate != before).then_some(())
    });
    rotated.expect("it still shows the old certificate");
}
