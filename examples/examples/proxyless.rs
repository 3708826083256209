//! How does a service get discovery, balancing and retries from a control plane, without a sidecar?
//!
//! ```sh
//! cargo run -p examples --example proxyless
//! ```
//!
//! A control plane in this very process says what `user-service` is. The application asks for
//! `http://user-service/…` through a `MeshClient`, which is a tower service. Then an instance is replaced and
//! the routes change, while the client goes on as it is.

use std::{collections::BTreeSet, convert::Infallible, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use e2e::resources::{api_listener, cluster, endpoints, routes};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_client::MeshClient;
use mesh_core::Body;
use mesh_xds::{
    ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration},
    server::{NodeId, Snapshot, SnapshotCache},
    transport::XdsService,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// An instance of the user service, which says its name.
async fn instance(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(move |_| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(name))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(address)
}

/// What the control plane says: one listener, whose routes lead to one cluster with one instance.
fn mesh(version: &str, instance: SocketAddr) -> Snapshot {
    Snapshot::new()
        .with(Listener, vec![api_listener("user-service", "users")])
        .with(RouteConfiguration, vec![routes("users", version)])
        .with(Cluster, vec![cluster(version)])
        .with(Endpoints, vec![endpoints(version, instance)])
}

fn bootstrap(control: SocketAddr) -> String {
    format!(
        "node: {{id: shop-1, cluster: shop}}
dynamic_resources:
  ads_config: {{api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]
",
        control.ip(),
        control.port()
    )
}

async fn ask(client: &MeshClient) -> Result<String> {
    let request = Request::get("http://user-service/users/42").body(Body::empty())?;
    let response = client.send(request).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

/// Asks until the answer is `wanted`; nothing may fail on the way. What was answered before it.
async fn ask_until(client: &MeshClient, wanted: &str) -> Result<BTreeSet<String>> {
    let mut before = BTreeSet::new();
    loop {
        let answer = ask(client).await?;
        if answer == wanted {
            return Ok(before);
        }
        before.insert(answer);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cache = SnapshotCache::new(NodeId, "proxyless");
    cache.set_snapshot("shop-1", mesh("v1", instance("first").await?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let control = listener.local_addr()?;
    let service = XdsService::builder(cache.clone()).build();
    tokio::spawn(service.serve(TcpListenerStream::new(listener), std::future::pending()));

    let client = MeshClient::from_xds(&bootstrap(control), "user-service")
        .await
        .context("no client")?;
    println!("user-service answers: {}", ask(&client).await?);

    // Another instance takes its place.
    cache.set_snapshot("shop-1", mesh("v1", instance("second").await?));
    let before = ask_until(&client, "second").await?;
    println!("after a change of endpoints: second; before it: {before:?}");

    // And another version: a new cluster, and routes that lead to it.
    cache.set_snapshot("shop-1", mesh("v2", instance("third").await?));
    let before = ask_until(&client, "third").await?;
    println!("after a change of routes: third; before it: {before:?}");
    Ok(())
}
