//! Config from files that are replaced.

use std::path::Path;

use e2e::{
    client::Connection,
    upstream::{Reply, Upstream},
    wait::{Deadline, until},
};

use crate::{
    support::start,
    xds::{ask, becomes},
};

const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Writes a file beside `path` and moves it there.
fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(&next, path).unwrap();
}

fn routes(cluster: &str) -> String {
    format!(
        "resources:
- '@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: web
  virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]
"
    )
}

fn clusters(upstreams: &[&Upstream]) -> String {
    let one = |upstream: &&Upstream| {
        format!(
            "- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: {name}
  load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}
",
            name = upstream.name(),
            port = upstream.address().port()
        )
    };
    let all: String = upstreams.iter().map(one).collect();
    format!("version_info: '1'\nresources:\n{all}")
}

#[test]
fn files_are_read_again_when_they_are_replaced() {
    let folder = std::env::temp_dir().join(format!("mesh-xds-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let upstream = |name| {
        let upstream = Upstream::start(name).unwrap();
        upstream.on("/", [Reply::ok(name)]);
        upstream
    };
    let (a, b) = (upstream("a"), upstream("b"));
    let file = |name: &str| folder.join(name);
    replace(&file("cds.yaml"), &clusters(&[&a]));
    replace(&file("rds.yaml"), &routes("a"));
    let listener = format!(
        "resources:
- '@type': type.googleapis.com/envoy.config.listener.v3.Listener
  name: web
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        '@type': {MANAGER}
        stat_prefix: web
        rds: {{route_config_name: web, config_source: {{path_config_source: {{path: '{}'}}}}}}
        http_filters: [{{name: r, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
",
        file("rds.yaml").display()
    );
    replace(&file("lds.yaml"), &listener);
    let source = |name: &str| {
        let path = file(name).display().to_string();
        format!("{{path_config_source: {{path: '{path}'}}, resource_api_version: V3}}")
    };
    let proxy = start(&format!(
        "node: {{id: me, cluster: tests}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources: {{cds_config: {}, lds_config: {}}}
",
        source("cds.yaml"),
        source("lds.yaml")
    ));
    let mut connection = Connection::open(proxy.listener("web").unwrap()).unwrap();
    assert_eq!(ask(&mut connection), "a");
    replace(&file("cds.yaml"), &clusters(&[&a, &b]));
    replace(&file("rds.yaml"), &routes("b"));
    becomes(|| ask(&mut connection), "b");
    // What cannot be read changes nothing, and is said.
    replace(&file("rds.yaml"), "resources: [{'@type': nonsense}]");
    let said = proxy
        .stderr()
        .take_through(|line| line.contains("rds.yaml"));
    said.expect("it says nothing");
    assert_eq!(ask(&mut connection), "b");
    replace(&file("cds.yaml"), "resources: [{'@type': nonsense}]");
    let counted = until(Deadline::default(), || {
        let rejected = proxy.admin().stat("cluster_manager.cds.update_rejected");
        rejected.ok().filter(|count| *count >= 1)
    });
    counted.expect("it is not counted");
    assert_eq!(ask(&mut connection), "b");
    let removed = until(Deadline::default(), || {
        std::fs::remove_dir_all(&folder).ok()
    });
    removed.expect("the folder is gone");
}
