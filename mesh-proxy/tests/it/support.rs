use std::process::{Command, Output};

use e2e::process::{Binary, Proxy};

pub(crate) fn binary() -> Binary {
    Binary::new(env!("CARGO_BIN_EXE_mesh-proxy")).unwrap()
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .args(arguments)
        .output()
        .unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A bootstrap of one listener and one route to one upstream; `manager` and `cluster` are further fields
/// in block style at their place.
pub(crate) fn bootstrap(upstream: std::net::SocketAddr, manager: &str, cluster: &str) -> String {
    format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: ingress
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          {manager}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: upstream}}
  clusters:
  - name: upstream
    type: STATIC
    {cluster}
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}
"#,
        ip = upstream.ip(),
        port = upstream.port(),
    )
}

/// A bootstrap whose only route answers itself; `top` are further fields of the bootstrap.
pub(crate) fn direct(top: &str, fraction: &str) -> String {
    let routes = format!(
        "routes:
              - match: {{prefix: /, runtime_fraction: {{default_value: {{numerator: {fraction}}}, runtime_key: share}}}}
                direct_response: {{status: 200}}
              - match: {{prefix: /}}
                direct_response: {{status: 204}}"
    );
    let base = bootstrap(([127, 0, 0, 1], 1).into(), "", "");
    let known = "routes:
              - match: {prefix: /}
                route: {cluster: upstream}";
    assert!(base.contains(known));
    format!("{top}\n{}", base.replace(known, &routes))
}

pub(crate) fn start(yaml: &str) -> Proxy {
    Proxy::start(&binary(), yaml).unwrap()
}

pub(crate) fn signal(proxy: &Proxy, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(proxy.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// A bootstrap of one listener whose filter chains are written out.
#[derive(Clone, Copy)]
pub(crate) struct Plain<'a> {
    /// Where it listens.
    pub(crate) address: &'a str,
    /// Further fields of the listener, in block style at their place.
    pub(crate) listener: &'a str,
    /// The network filters of its one filter chain.
    pub(crate) filters: &'a str,
    /// Its filter chains, in place of the one.
    pub(crate) chains: &'a str,
    /// See [`plain_cluster`].
    pub(crate) clusters: &'a str,
}

impl Default for Plain<'_> {
    fn default() -> Self {
        Self {
            address: "{socket_address: {address: 127.0.0.1, port_value: 0}}",
            listener: "",
            filters: "",
            chains: "",
            clusters: " []",
        }
    }
}

impl Plain<'_> {
    /// A TCP proxy to the cluster `upstream`, with further fields; it logs to stdout.
    pub(crate) fn tcp_proxy(fields: &str) -> String {
        Self::tcp_proxy_to("cluster: upstream", fields)
    }

    pub(crate) fn tcp_proxy_to(cluster: &str, fields: &str) -> String {
        let comma = if fields.is_empty() { "" } else { ", " };
        format!(
            "{{name: tcp, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
             stat_prefix: t, {cluster}{comma}{fields}, access_log: [{{name: log, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, \
             log_format: {{text_format_source: {{inline_string: \"LOG %RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %ACCESS_LOG_TYPE%\\n\"}}}}}}}}]}}}}"
        )
    }

    pub(crate) fn bootstrap(&self) -> String {
        let one = format!("{{filters: [{}]}}", self.filters);
        let chains = if self.chains.is_empty() {
            &one
        } else {
            self.chains
        };
        format!(
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: ingress
    address: {address}
    filter_chains: [{chains}]
    {listener}
  clusters:{clusters}
",
            address = self.address,
            listener = self.listener,
            clusters = self.clusters,
        )
    }
}

/// A static cluster with further fields in block style, for [`Plain`].
pub(crate) fn plain_cluster(name: &str, hosts: &[std::net::SocketAddr], fields: &str) -> String {
    let endpoints = hosts.iter().map(|host| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: '{}', port_value: {}}}}}}}}}",
            host.ip(),
            host.port()
        )
    });
    let endpoints = endpoints.collect::<Vec<_>>().join(", ");
    format!(
        "
  - name: {name}
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}
    {fields}"
    )
}
