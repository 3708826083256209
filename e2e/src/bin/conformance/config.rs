//! The bootstraps of both proxies.

const ADMIN: &str =
    "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\nstatic_resources:\n";

/// The proxy before the servers.
pub(crate) fn bootstrap(grpc: u16, websocket: u16) -> String {
    // `NoRoute` has none.
    let grpc_routes = "
            - {match: {path: /conformance.Test/Dead}, route: {cluster: nobody}}
            - {match: {safe_regex: {regex: '/conformance.Test/([^N].*|NoSuchMethod)'}}, route: {cluster: grpc, timeout: 0s}}";
    let direct = "
            - {match: {prefix: /}, direct_response: {status: 200, body: {inline_string: direct}}}";
    let to_websocket =
        "\n            - {match: {prefix: /}, route: {cluster: websocket, timeout: 0s}}";
    let connect = "http2_protocol_options: {allow_connect: true}\n        ";
    let listeners = [
        listener("http2", "HTTP2", "", grpc_routes),
        // Answers once it has the whole request: an answer that comes first leaves nothing to judge.
        listener("h2spec", "HTTP2", "", direct).replace(ROUTER, &format!("{BUFFER}{ROUTER}")),
        listener("websocket", "AUTO", WEBSOCKET, to_websocket),
        listener(
            "websocket_http2",
            "HTTP2",
            &format!("{connect}{WEBSOCKET}"),
            to_websocket,
        ),
    ];
    let clusters = [
        cluster("grpc", Some(grpc), "http2_protocol_options: {}"),
        cluster("nobody", None, "http2_protocol_options: {}"),
        cluster("websocket", Some(websocket), "http_protocol_options: {}"),
    ];
    let (listeners, clusters) = (listeners.concat(), clusters.concat());
    format!("{ADMIN}  listeners:{listeners}\n  clusters:{clusters}\n")
}

/// The proxy before that proxy: it asks for tunnels by extended CONNECT.
pub(crate) fn outer(port: u16) -> String {
    let routes = "\n            - {match: {prefix: /}, route: {cluster: inner, timeout: 0s}}";
    let listener = listener("websocket", "AUTO", WEBSOCKET, routes);
    let cluster = cluster(
        "inner",
        Some(port),
        "http2_protocol_options: {allow_connect: true}",
    );
    format!("{ADMIN}  listeners:{listener}\n  clusters:{cluster}\n")
}

const ROUTER: &str = "          - name: envoy.filters.http.router\n";
const BUFFER: &str = "          - name: envoy.filters.http.buffer
            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 65536}\n";

const WEBSOCKET: &str = "upgrade_configs: [{upgrade_type: websocket}]";

fn listener(name: &str, codec: &str, fields: &str, routes: &str) -> String {
    format!(
        r#"
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          codec_type: {codec}
          {fields}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:{routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#,
        routes = routes.replace("            - ", "              - "),
        fields = fields.replace("\n        ", "\n          "),
    )
}

fn cluster(name: &str, port: Option<u16>, protocol: &str) -> String {
    let endpoint = port.map_or_else(String::new, |port| {
        format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}")
    });
    format!(
        r#"
  - name: {name}
    connect_timeout: 5s
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}}}
"#
    )
}
