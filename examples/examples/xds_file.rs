//! How does config change without a control plane? It stands in files, which are replaced.
//!
//! ```sh
//! cargo run -p examples --example xds_file
//! ```
//!
//! `lds.yaml` and `cds.yaml` are what a control plane would send, in the words of Envoy. A file that is moved over
//! another is seen at once, as a whole; one that is written in place is not looked at, since it might be half
//! written. What is broken is refused, and changes nothing.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Result, ensure};
use e2e::upstream::{Reply, Upstream};
use http::Request;
use http_body_util::BodyExt as _;
use mesh_client::MeshClient;
use mesh_core::{Body, stats::Value};

fn bootstrap(folder: &Path) -> String {
    let file = |name: &str| {
        format!(
            "{{path_config_source: {{path: {}}}, resource_api_version: V3}}",
            folder.join(name).display()
        )
    };
    format!(
        "node: {{id: shop-1, cluster: shop}}\ndynamic_resources:\n  lds_config: {}\n  cds_config: {}\n",
        file("lds.yaml"),
        file("cds.yaml")
    )
}

const LISTENERS: &str = "
resources:
- '@type': type.googleapis.com/envoy.config.listener.v3.Listener
  name: users
  api_listener:
    api_listener:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: users
      route_config:
        name: users
        validate_clusters: false
        virtual_hosts:
        - {name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: users}}]}
      http_filters:
      - {name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
";

fn clusters(instance: SocketAddr) -> String {
    format!(
        "
resources:
- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: users
  load_assignment:
    cluster_name: users
    endpoints:
    - lb_endpoints:
      - endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}
",
        instance.ip(),
        instance.port()
    )
}

/// Writes beside the file, and moves it there: nobody ever sees half of it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, text)?;
    fs::rename(next, path)
}

async fn ask(client: &MeshClient) -> Result<String> {
    let request = Request::get("http://users/users/42").body(Body::empty())?;
    let response = client.send(request).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

fn refused(client: &MeshClient) -> bool {
    let stats = client.mesh().registry().snapshot();
    let name = "cluster_manager.cds.update_rejected";
    stats
        .iter()
        .any(|stat| stat.name == name && stat.value != Value::Counter(0))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let upstream = |name: &str| -> Result<Upstream> {
        let upstream = Upstream::start(name)?;
        upstream.on("/users/42", [Reply::ok(name)]);
        Ok(upstream)
    };
    let (first, second) = (upstream("first")?, upstream("second")?);
    let cds = folder.path().join("cds.yaml");
    replace(&folder.path().join("lds.yaml"), LISTENERS)?;
    replace(&cds, &clusters(first.address()))?;
    let client = MeshClient::from_xds(&bootstrap(folder.path()), "users").await?;
    println!("users answers: {}", ask(&client).await?);

    replace(
        &cds,
        "resources: [{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, nmae: users}]",
    )?;
    while !refused(&client) {
        tokio::task::yield_now().await;
    }
    println!(
        "a broken file is refused; users answers: {}",
        ask(&client).await?
    );

    replace(&cds, &clusters(second.address()))?;
    while ask(&client).await? == "first" {}
    println!("after the file was replaced: {}", ask(&client).await?);
    Ok(())
}
