//! What is run: plain and TLS listeners, TCP, faults on the way, and a part that a control plane changes.

use std::net::SocketAddr;

/// The node that the control plane knows.
pub(crate) const NODE: &str = "soak";

const ROUTES: &str = "[
                {match: {prefix: /one/short}, route: {cluster: one, timeout: 0.05s}},
                {match: {prefix: /two/short}, route: {cluster: two, timeout: 0.05s}},
                {match: {prefix: /one/retried}, route: {cluster: one, retry_policy: {retry_on: 5xx, num_retries: 3, retry_back_off: {base_interval: 0.001s}}}},
                {match: {prefix: /two/retried}, route: {cluster: two, retry_policy: {retry_on: 5xx, num_retries: 3, retry_back_off: {base_interval: 0.001s}}}},
                {match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: here}}},
                {match: {prefix: /one}, route: {cluster: one}},
                {match: {prefix: /two}, route: {cluster: two}}]";

/// Where everything is.
pub(crate) struct Places<'a> {
    pub(crate) upstream: SocketAddr,
    pub(crate) echo: SocketAddr,
    pub(crate) control: SocketAddr,
    /// A chain and its key, in PEM.
    pub(crate) chain: &'a str,
    pub(crate) key: &'a str,
}

pub(crate) fn bootstrap(places: &Places<'_>) -> String {
    let text = |pem: &str| format!("{pem:?}");
    let tls = format!(
        "transport_socket:
        name: tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}]",
        text(places.chain),
        text(places.key)
    );
    let listeners = [
        listener("http", &manager(), ""),
        listener("tls", &manager(), &tls),
        listener("tcp", &tcp_proxy(), ""),
    ];
    let clusters = [
        cluster("one", places.upstream, "http_protocol_options: {}"),
        cluster(
            "two",
            places.upstream,
            "http2_protocol_options: {allow_connect: true}",
        ),
        cluster("tcp", places.echo, "http_protocol_options: {}"),
        cluster("xds", places.control, "http2_protocol_options: {}"),
    ];
    format!(
        "
node: {{id: {NODE}, cluster: soak}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]
  cds_config: {{resource_api_version: V3, ads: {{}}}}
  lds_config: {{resource_api_version: V3, ads: {{}}}}
static_resources:
  listeners:{}
  clusters:{}
",
        listeners.concat(),
        clusters.concat()
    )
}

fn listener(name: &str, filter: &str, socket: &str) -> String {
    format!(
        "
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - {filter}
      {socket}"
    )
}

fn manager() -> String {
    format!(
        "name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: soak
          upgrade_configs: [{{upgrade_type: websocket}}]
          http2_protocol_options: {{allow_connect: true}}
          access_log: [{{name: log, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: access.log}}}}]
          http_filters:
          - {{name: envoy.filters.http.router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes: {ROUTES}"
    )
}

fn tcp_proxy() -> String {
    "name: tcp
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: soak
          cluster: tcp"
        .to_owned()
}

fn cluster(name: &str, at: SocketAddr, protocol: &str) -> String {
    format!(
        "
  - name: {name}
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}}}
    load_assignment:
      cluster_name: {name}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]",
        at.port()
    )
}
