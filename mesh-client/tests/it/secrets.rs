//! Secrets of transport sockets.

use std::time::{Duration, SystemTime};

use mesh_client::{DownstreamSocket, Secrets};
use mesh_config::{LoadOptions, language::Source, load};
use mesh_core::stats::Registry;
use mesh_tls::dev_ca::DevCa;

#[tokio::test]
async fn a_watched_certificate_is_there_before_its_keeper_has_run() {
    let folder = std::env::temp_dir().join(format!("mesh-client-secrets-{}", std::process::id()));
    let now = SystemTime::now();
    let ca = DevCa::new("example.org".parse().unwrap(), now).unwrap();
    let id = "spiffe://example.org/a".parse().unwrap();
    ca.write(&folder, &[id], now, Duration::from_secs(60))
        .unwrap();
    let at = folder.display();
    let text = format!(
        "
static_resources:
  listeners:
  - name: l
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}
      transport_socket:
        name: tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - {{certificate_chain: {{filename: {at}/a/svid.pem}}, private_key: {{filename: {at}/a/key.pem}}, watched_directory: {{path: {at}/a}}}}
            validation_context: {{trusted_ca: {{filename: {at}/bundle.pem}}, watched_directory: {{path: {at}}}}}
  clusters:
  - name: c
"
    );
    let config = load(&Source::text("f", &text), &LoadOptions::default()).unwrap();
    let tls = config.listeners[0].chains[0].tls.as_ref().unwrap();
    let registry = Registry::new();
    let scope = registry.scope("listener.l.");
    let runtime = tokio::runtime::Handle::current();
    let socket = DownstreamSocket::new(tls, &scope, &Secrets::default(), &runtime).unwrap();
    // Nothing has been waited for: no task has run yet.
    let secrets = socket.secrets();
    assert!(secrets.identities[0].current().is_some());
    assert!(secrets.validation.as_ref().unwrap().current().is_some());
    std::fs::remove_dir_all(folder).unwrap();
}
