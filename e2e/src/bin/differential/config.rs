//! Builds bootstraps out of YAML fragments, so that a scenario shows only what it is about.

use std::collections::BTreeSet;

/// The log line of every listener: what is compared, in this order. `LOG_FIELDS` names it.
const LOG_FORMAT: &str = "LOG\\t%REQ(:METHOD)%\\t%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%\\t%PROTOCOL%\\t%RESPONSE_CODE%\\t%RESPONSE_FLAGS%\\t%RESPONSE_CODE_DETAILS%\\t%UPSTREAM_REQUEST_ATTEMPT_COUNT%\\t%UPSTREAM_CLUSTER%\\t%UPSTREAM_HOST%\\t%ROUTE_NAME%\\t%BYTES_RECEIVED%\\t%BYTES_SENT%\\t%CONNECTION_TERMINATION_DETAILS%\\t%UPSTREAM_TRANSPORT_FAILURE_REASON%\\n";

/// The names of the parts of a log line.
pub(crate) const LOG_FIELDS: [&str; 14] = [
    "method",
    "path",
    "protocol",
    "code",
    "flags",
    "details",
    "attempts",
    "cluster",
    "host",
    "route",
    "bytes_received",
    "bytes_sent",
    "termination",
    "transport_failure",
];

/// The listener that the suite adds to every bootstrap: a request to it marks a place in the log.
pub(crate) const MARK: &str = "mark";

/// A bootstrap in the making.
#[derive(Default)]
pub(crate) struct Bootstrap {
    listeners: String,
    clusters: String,
    extra: String,
}

/// One listener with an HTTP connection manager.
pub(crate) struct Hcm<'a> {
    /// The listener's name and the `stat_prefix`.
    pub(crate) name: &'a str,
    /// More fields of the listener.
    pub(crate) listener: &'a str,
    /// More fields of the connection manager.
    pub(crate) fields: &'a str,
    /// Fields of `route_config`.
    pub(crate) routes: &'a str,
    /// HTTP filters before the router.
    pub(crate) filters: &'a str,
    /// Fields of the router.
    pub(crate) router: &'a str,
    /// More fields of the filter chain.
    pub(crate) chain: &'a str,
    /// More items of `access_log`: their lines start with `+`, and are compared as they are.
    pub(crate) logs: &'a str,
}

impl Default for Hcm<'_> {
    fn default() -> Self {
        Self {
            name: "main",
            listener: "",
            fields: "",
            routes: ALL_TO_A,
            filters: "",
            router: "",
            chain: "",
            logs: "",
        }
    }
}

/// Everything goes to the cluster `a`.
pub(crate) const ALL_TO_A: &str = "
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {name: all, match: {prefix: /}, route: {cluster: a}}
";

impl Bootstrap {
    /// Adds a listener.
    pub(crate) fn listener(self, hcm: &Hcm<'_>) -> Self {
        let address = "address: {socket_address: {address: 127.0.0.1, port_value: 0}}";
        self.listener_at(address, hcm)
    }

    /// The same at another address, as its field.
    pub(crate) fn listener_at(mut self, address: &str, hcm: &Hcm<'_>) -> Self {
        let name = hcm.name;
        let text = format!(
            r#"
- name: {name}
  {address}
{listener}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: {name}
        delayed_close_timeout: 0.1s
{fields}
        access_log:
        - name: envoy.access_loggers.stdout
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
            log_format: {{text_format_source: {{inline_string: "{LOG_FORMAT}"}}}}
{logs}
        route_config:
          name: {name}
{routes}
        http_filters:
{filters}
        - name: envoy.filters.http.router
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{router}
{chain}
"#,
            listener = indent(hcm.listener, 2),
            fields = indent(hcm.fields, 8),
            routes = indent(hcm.routes, 10),
            filters = indent(hcm.filters, 8),
            router = indent(hcm.router, 12),
            logs = indent(hcm.logs, 8),
            chain = indent(hcm.chain, 4),
        );
        self.listeners.push_str(&text);
        self
    }

    /// Adds a listener with further fields and filter chains of its own, a list.
    pub(crate) fn chains(self, name: &str, fields: &str, chains: &str) -> Self {
        self.chains_at(name, ("127.0.0.1", 0), fields, chains)
    }

    /// The same at another address.
    pub(crate) fn chains_at(
        mut self,
        name: &str,
        (address, port): (&str, u16),
        fields: &str,
        chains: &str,
    ) -> Self {
        let text = format!(
            r#"
- name: {name}
  address: {{socket_address: {{address: {address}, port_value: {port}}}}}
{fields}
  filter_chains:
{chains}
"#,
            fields = indent(fields, 2),
            chains = indent(chains, 2),
        );
        self.listeners.push_str(&text);
        self
    }

    /// Adds a STATIC cluster whose endpoints are these upstreams: any name starts a scripted
    /// upstream, except that `dead…` refuses connections and `silent…` never answers them.
    pub(crate) fn cluster(mut self, name: &str, hosts: &[&str], fields: &str) -> Self {
        let endpoints: String = hosts.iter().map(|host| endpoint(host, "")).collect();
        let assignment = format!(
            "load_assignment:\n  cluster_name: {name}\n  endpoints:\n  - lb_endpoints:\n{endpoints}"
        );
        self.push_cluster(name, &assignment, fields);
        self
    }

    /// Adds a STATIC cluster with endpoints written out; see [`endpoint`].
    pub(crate) fn cluster_with(mut self, name: &str, fields: &str) -> Self {
        self.push_cluster(name, "", fields);
        self
    }

    /// Adds top-level fields.
    pub(crate) fn top(mut self, fields: &str) -> Self {
        self.extra.push_str(&indent(fields, 0));
        self
    }

    fn push_cluster(&mut self, name: &str, assignment: &str, fields: &str) {
        let text = format!(
            "\n- name: {name}\n{}\n{}\n",
            indent(assignment, 2),
            indent(fields, 2),
        );
        self.clusters.push_str(&text);
    }

    /// The YAML, with `{{name}}` where an upstream's port belongs.
    pub(crate) fn yaml(self) -> String {
        let mark = Hcm {
            name: MARK,
            routes: "
                virtual_hosts:
                - name: mark
                  domains: ['*']
                  routes:
                  - {match: {prefix: /}, direct_response: {status: 200}}
            ",
            ..Hcm::default()
        };
        let with_mark = self.listener(&mark);
        let Self {
            listeners,
            clusters,
            extra,
        } = with_mark;
        let clusters = if clusters.is_empty() {
            String::new()
        } else {
            format!("  clusters:\n{}", indent(&clusters, 2))
        };
        let listeners = indent(&listeners, 2);
        let yaml = format!(
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}\n{extra}\nstatic_resources:\n  listeners:\n{listeners}\n{clusters}\n"
        );
        yaml.lines()
            .filter(|line| !line.trim().is_empty())
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

/// A network filter: a TCP proxy with these fields, and the log that is compared.
pub(crate) fn tcp_proxy(stat_prefix: &str, fields: &str) -> String {
    format!(
        r#"
  - name: envoy.filters.network.tcp_proxy
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: {stat_prefix}
{fields}
      access_log:
      - name: envoy.access_loggers.stdout
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
          log_format: {{text_format_source: {{inline_string: "{LOG_FORMAT}"}}}}
"#,
        fields = indent(fields, 6),
    )
}

/// A network filter: an HTTP connection manager with these fields and a router.
pub(crate) fn manager(fields: &str) -> String {
    format!(
        r#"
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      http_filters:
      - name: envoy.filters.http.router
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{fields}
"#,
        fields = indent(fields, 6),
    )
}

/// One that answers everything itself: with `name`, and with response headers of these names and values. `fields` are
/// more lines of its own.
pub(crate) fn answering(name: &str, fields: &str, headers: &[(&str, &str)]) -> String {
    let headers: Vec<_> = headers
        .iter()
        .map(|(key, value)| format!("{{header: {{key: {key}, value: '{value}'}}}}"))
        .collect();
    manager(&format!(
        "stat_prefix: {name}
{fields}route_config:
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
    - match: {{prefix: /}}
      direct_response: {{status: 200, body: {{inline_string: '{name}'}}}}
      response_headers_to_add: [{}]
",
        headers.join(", ")
    ))
}

/// One item of `lb_endpoints`, with more fields of the endpoint.
pub(crate) fn endpoint(host: &str, fields: &str) -> String {
    format!(
        "    - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {{{{{host}}}}}}}}}}}\n{}\n",
        indent(fields, 6)
    )
}

/// The names between double braces.
pub(crate) fn placeholders(yaml: &str) -> BTreeSet<String> {
    yaml.split("{{")
        .skip(1)
        .filter_map(|rest| rest.split_once("}}"))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric()))
        .collect()
}

/// Moves a fragment to this depth, whatever depth it was written at.
fn indent(fragment: &str, depth: usize) -> String {
    let lines = || fragment.lines().filter(|line| !line.trim().is_empty());
    let margin = lines()
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap_or(0);
    lines().fold(String::new(), |text, line| {
        text + &" ".repeat(depth) + &line[margin..] + "\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_keep_their_shape_when_they_move() {
        assert_eq!(indent("\n      a:\n        b: 1\n", 2), "  a:\n    b: 1\n");
    }

    #[test]
    fn upstreams_are_found_by_their_placeholders() {
        let yaml = Bootstrap::default()
            .cluster("c", &["a", "dead"], "")
            .listener(&Hcm::default())
            .yaml();
        let names: Vec<_> = placeholders(&yaml).into_iter().collect();
        assert_eq!(names, ["a", "dead"]);
    }
}
